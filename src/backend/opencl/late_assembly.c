/* Late assembly (cl/late.h): instructions that stand as comments in a built program's text become instructions. */
#define _GNU_SOURCE /* memmem */
#include "backend/opencl/opencl.h"
#include <stdlib.h>
#include <string.h>

#define MARK   "//@ "
#define TARGET ".target sm_"

bool opencl_is_late(const char *text, size_t size) { return memmem(text, size, MARK, sizeof MARK - 1) != NULL; }

char *opencl_late_text(const char *text, size_t size) {
  const size_t mark = sizeof MARK - 1, target = sizeof TARGET - 1;
  char *out = malloc(size + 2), *to = out;
  if (!out) return NULL;
  bool retargeted = false;
  for (size_t i = 0; i < size && text[i] != '\0';) {
    const size_t left = size - i;
    if (left >= mark && memcmp(text + i, MARK, mark) == 0) {
      i += mark;
    } else if (!retargeted && left > target && memcmp(text + i, TARGET, target) == 0) {
      /* sm_90 becomes sm_90a: instructions of one architecture alone belong to that target */
      size_t n = target;
      while (n < left && text[i + n] >= '0' && text[i + n] <= '9') n++;
      memcpy(to, text + i, n);
      to += n;
      i += n;
      if (text[i] != 'a') *to++ = 'a';
      retargeted = true;
    } else {
      *to++ = text[i++];
    }
  }
  *to = '\0';
  return out;
}

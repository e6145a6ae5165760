#include "common/output.h"
#include "common/tool.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void forget(output *o) {
  free(o->path);
  free(o->beside);
  *o = (output){0};
}

bool output_open(output *o, const char *path) {
  *o = (output){.file = stdout};
  if (!path) return true;
  size_t size = strlen(path) + sizeof ".partial";
  o->path = strdup(path);
  o->beside = malloc(size);
  if (o->path && o->beside) {
    snprintf(o->beside, size, "%s.partial", path);
    o->file = fopen(o->beside, "w");
    if (o->file) return true;
  }
  tool_fail("cannot write %s: %s", path, strerror(errno));
  forget(o);
  return false;
}

bool output_close(output *o, bool keep) {
  bool written = fflush(o->file) == 0 && !ferror(o->file);
  if (!o->path) {
    if (!written) tool_fail("cannot write to the standard output: %s", strerror(errno));
    return written;
  }
  if (fclose(o->file) != 0) written = false;
  bool kept = keep && written && rename(o->beside, o->path) == 0;
  if (keep && !kept) tool_fail("cannot write %s: %s", o->path, strerror(errno));
  if (!kept) remove(o->beside);
  forget(o);
  return kept || !keep;
}

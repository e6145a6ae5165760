#include "files/pickle.h"
#include "fuzz.h"
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  pickle p;
  size_t bytes = 0;
  clm_status status = pickle_read(fuzz_context(), "input", data, size, &p);
  fuzz_expect(status);
  if (status) return 0;
  for (size_t i = 0; i < p.count; i++) bytes += strlen(p.tensors[i].name) + strlen(p.tensors[i].storage);
  if (p.count > size || bytes > p.count * size) __builtin_trap();
  pickle_free(&p);
  return 0;
}

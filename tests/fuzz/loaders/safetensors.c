#include "files/safetensors.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  source file;
  clm_status status = safetensors_open(fuzz_context(), fuzz_path(data, size), &file);
  fuzz_expect(status);
  if (status) return 0;
  safetensors_metadata(&file, "format");
  fuzz_read_source(&file, size);
  return 0;
}

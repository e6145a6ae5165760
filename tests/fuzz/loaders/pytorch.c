#include "files/pytorch.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  source file;
  clm_status status = pytorch_open(fuzz_context(), fuzz_path(data, size), &file);
  fuzz_expect(status);
  if (status == CLM_OK) fuzz_read_source(&file, 0); /* tensors may share a storage */
  return 0;
}

#include "model/config.h"
#include "fuzz.h"
#include "model/weights.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  clm_model_config config;
  weights_layout layout;
  clm_status status = config_read(fuzz_context(), fuzz_path(data, size), &config);
  fuzz_expect(status);
  if (status) return 0;
  fuzz_expect(status = weights_layout_make(fuzz_context(), &config, (weights_ends){0}, &layout));
  if (status == CLM_OK) weights_layout_free(&layout);
  return 0;
}

#include "model/config/config.h"
#include "fuzz.h"
#include "model/model.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  clm_model_config config;
  source_scales scales;
  clm_model model = {.context = fuzz_context()};
  clm_status status = config_read(fuzz_context(), fuzz_path(data, size), &config, &scales);
  fuzz_expect(status);
  if (status) return 0;
  fuzz_expect(model_lay_out(&model, &config, (model_ends){0}));
  weights_layout_free(&model.layout);
  blocks_free(&model.blocks);
  config_free(&config);
  return 0;
}

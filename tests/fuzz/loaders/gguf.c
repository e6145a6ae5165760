#include "files/gguf.h"
#include "fuzz.h"
#include "model/config/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  source file;
  clm_model_config config;
  clm_status status = gguf_open(fuzz_context(), fuzz_path(data, size), &file);
  fuzz_expect(status);
  if (status) return 0;
  fuzz_expect(config_read_gguf(fuzz_context(), &file, &config));
  const gguf_value *tokens = gguf_find(&file, "tokenizer.ggml.tokens");
  const void *at = tokens ? tokens->data : NULL;
  size_t bytes = 0;
  for (size_t i = 0; tokens && i < tokens->count; i++)
    if (tokens->type == GGUF_STRING) bytes += gguf_next_text(&at).bytes;
    else gguf_element(tokens, i);
  if (bytes > size) __builtin_trap();
  fuzz_read_source(&file, size);
  return 0;
}

/* The tokenizer inside a GGUF file: tokenizer.ggml.*, of the model "gpt2". */
#ifndef CLM_TEXT_TOKENIZER_GGUF_H
#define CLM_TEXT_TOKENIZER_GGUF_H

#include <clmamba/tokenizer.h>

clm_status tokenizer_load_gguf(clm_context *context, const char *path, clm_tokenizer **tokenizer);

#endif

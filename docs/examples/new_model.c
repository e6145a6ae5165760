#include <clmamba/clmamba.h>
#include <stdio.h>
#include <string.h>

int main(int argc,
         char **argv) { /* new_model DIR: a small untrained model with the letters of a text as its tokens */
  const char *text = "the quick brown fox jumps over the lazy dog\n", *directory = argc > 1 ? argv[1] : ".";
  clm_context *context = NULL;
  clm_tokenizer *tokenizer = NULL;
  clm_model *model = NULL;
  if (clm_context_create(NULL, &context) != CLM_OK) return 1;
  clm_status status = clm_tokenizer_create(context, CLM_VOCABULARY_CHAR, text, strlen(text), &tokenizer);
  if (!status) {
    clm_model_config config = {.vocab_size = clm_tokenizer_vocab_size(tokenizer), .d_model = 32, .n_layer = 2};
    status = clm_model_create(context, &config, 1, &model);
  }
  if (!status) status = clm_model_save(model, directory);
  if (!status) status = clm_tokenizer_save(tokenizer, directory);
  if (status) fprintf(stderr, "%s\n", clm_context_error(context));
  clm_model_destroy(&model);
  clm_tokenizer_destroy(&tokenizer);
  clm_context_destroy(&context);
  return status != CLM_OK;
}

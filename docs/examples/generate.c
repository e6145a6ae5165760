#include <clmamba/clmamba.h>
#include <stdio.h>
#include <string.h>

static bool print(void *user, const clm_generate_piece *piece) {
  (void)user;
  return fwrite(piece->text, 1, piece->bytes, stdout) == piece->bytes;
}

int main(int argc, char **argv) { /* generate DIR PROMPT: the prompt and 100 tokens more, as they come */
  if (argc != 3) return fprintf(stderr, "usage: generate DIR PROMPT\n"), 2;
  clm_context *context = NULL;
  clm_model *model = NULL;
  clm_tokenizer *tokenizer = NULL;
  if (clm_context_create(NULL, &context) != CLM_OK) return 1;
  clm_prompt prompt = {.text = argv[2], .bytes = strlen(argv[2])};
  clm_generate_args args = {
      .prompts = &prompt, .count = 100, .sampler = {.temperature = 0.8f, .top_p = 0.95f, .seed = 1}, .emit = print};
  fputs(prompt.text, stdout);
  clm_status status = clm_model_load(context, argv[1], &model);
  if (!status) status = clm_tokenizer_load(context, argv[1], &tokenizer);
  if (!status) status = clm_generate(model, tokenizer, &args, NULL);
  puts("");
  if (status) fprintf(stderr, "%s\n", clm_context_error(context));
  clm_tokenizer_destroy(&tokenizer);
  clm_model_destroy(&model);
  clm_context_destroy(&context);
  return status != CLM_OK;
}

#include <clmamba/clmamba.h>
#include <stdio.h>
#include <string.h>

enum { CONTINUATIONS = 3 };

static bool print(void *user, const clm_generate_piece *piece) {
  static int64_t last = -1; /* the sequences come in turn: one line for each token of all three */
  (void)user;
  if (piece->sequence <= last) puts("");
  last = piece->sequence;
  printf("[%.*s]", (int)piece->bytes, piece->text);
  return true;
}

int main(int argc, char **argv) { /* fork DIR PROMPT FILE: pays for the prompt once, keeps its state in FILE, and
                                     continues it three times */
  if (argc != 4) return fprintf(stderr, "usage: fork DIR PROMPT FILE\n"), 2;
  clm_context *context = NULL;
  clm_model *model = NULL;
  clm_tokenizer *tokenizer = NULL;
  clm_model_state *state = NULL, *restored = NULL;
  if (clm_context_create(NULL, &context) != CLM_OK) return 1;
  clm_prompt prompt = {.text = argv[2], .bytes = strlen(argv[2])}, nothing[CONTINUATIONS] = {{0}};
  clm_status status = clm_model_load(context, argv[1], &model);
  if (!status) status = clm_tokenizer_load(context, argv[1], &tokenizer);
  if (!status) status = clm_model_state_create(model, 1, &state);
  if (!status) status = clm_generate(model, tokenizer, &(clm_generate_args){.prompts = &prompt, .into = state}, NULL);
  if (!status) status = clm_model_state_save(state, argv[3]);
  if (!status) status = clm_model_state_load(model, argv[3], &restored); /* today, or tomorrow in another program */
  clm_generate_args args = {.prompts = nothing,
                            .batch = CONTINUATIONS,
                            .count = 20,
                            .sampler = {.temperature = 1, .seed = 1},
                            .from = restored,
                            .emit = print};
  if (!status) status = clm_generate(model, tokenizer, &args, NULL);
  puts("");
  if (status) fprintf(stderr, "%s\n", clm_context_error(context));
  clm_model_state_destroy(&restored);
  clm_model_state_destroy(&state);
  clm_tokenizer_destroy(&tokenizer);
  clm_model_destroy(&model);
  clm_context_destroy(&context);
  return status != CLM_OK;
}

#include <clmamba/clmamba.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_TOKENS = 1000, TOP = 3 };

/* Runs the text: what may come next with its probability, and the text's embedding. */
static clm_status run(clm_model *model, const clm_tokenizer *tokenizer, const char *text, float *logits,
                      float *embedding) {
  int64_t vocab = clm_model_configuration(model)->vocab_size, d_model = clm_model_configuration(model)->d_model;
  size_t logits_bytes = (size_t)vocab * sizeof(float), embedding_bytes = (size_t)d_model * sizeof(float), count;
  int32_t ids[MAX_TOKENS];
  clm_buffer *buffer = NULL;
  clm_status status = clm_tokenizer_encode(tokenizer, text, strlen(text), ids, MAX_TOKENS, &count);
  if (count > MAX_TOKENS) count = MAX_TOKENS;
  if (!status)
    status = clm_buffer_create(clm_model_context(model), sizeof ids + logits_bytes + embedding_bytes, &buffer);
  clm_model_run_args args = {
      .ids = clm_tensor_of(buffer, 0, CLM_I32, 2, (int64_t[]){1, (int64_t)count}),
      .last_logits = clm_tensor_of(buffer, sizeof ids, CLM_F32, 2, (int64_t[]){1, vocab}),
      .mean_hidden = clm_tensor_of(buffer, sizeof ids + logits_bytes, CLM_F32, 2, (int64_t[]){1, d_model})};
  if (!status) status = clm_tensor_write(args.ids, ids, count * sizeof *ids);
  if (!status) status = clm_model_run(model, &args);
  if (!status) status = clm_tensor_read(args.last_logits, logits, logits_bytes);
  if (!status) status = clm_tensor_read(args.mean_hidden, embedding, embedding_bytes);
  clm_buffer_destroy(&buffer);
  return status;
}

int main(int argc, char **argv) { /* logits DIR TEXT: the three most likely next tokens, and the text's embedding */
  if (argc != 3) return fprintf(stderr, "usage: logits DIR TEXT\n"), 2;
  clm_context *context = NULL;
  clm_model *model = NULL;
  clm_tokenizer *tokenizer = NULL;
  if (clm_context_create(NULL, &context) != CLM_OK) return 1;
  clm_status status = clm_model_load(context, argv[1], &model);
  if (!status) status = clm_tokenizer_load(context, argv[1], &tokenizer);
  if (!status) {
    const clm_model_config *config = clm_model_configuration(model);
    float *logits = calloc((size_t)config->vocab_size, sizeof *logits);
    float *embedding = calloc((size_t)config->d_model, sizeof *embedding);
    clm_token_logprob top[TOP];
    status = logits && embedding ? run(model, tokenizer, argv[2], logits, embedding) : CLM_OUT_OF_MEMORY;
    if (!status) clm_token_logprobs(logits, config->vocab_size, NULL, top, TOP);
    for (int i = 0; !status && i < TOP; i++) printf("token %d, ln p %.4f\n", (int)top[i].id, (double)top[i].logprob);
    for (int64_t i = 0; !status && i < config->d_model; i++) printf("%.4f ", (double)embedding[i]);
    puts("");
    free(logits);
    free(embedding);
  }
  if (status) fprintf(stderr, "%s\n", clm_context_error(context));
  clm_tokenizer_destroy(&tokenizer);
  clm_model_destroy(&model);
  clm_context_destroy(&context);
  return status != CLM_OK;
}

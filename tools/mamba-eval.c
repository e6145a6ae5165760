/* mamba-eval: what a model makes of a text. */
#include "common/text.h"
#include "common/tool.h"
#include <clmamba/clmamba.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static struct {
  const char *model, *score;
  long long window;
} given = {.window = CLM_SCORE_WINDOW};

static const struct poptOption options[] = {
    {"model", '\0', POPT_ARG_STRING, &given.model, 0, "model directory", "DIR"},
    {"score", '\0', POPT_ARG_STRING, &given.score, 0, "text to predict: nats per token, perplexity", "FILE"},
    {"window", '\0', POPT_ARG_LONGLONG | POPT_ARGFLAG_SHOW_DEFAULT, &given.window, 0,
     "predictions in a window; each window starts from zero state", "N"},
    {NULL, '\0', POPT_ARG_INCLUDE_TABLE, tool_device_options, 0, "Device:", NULL},
    POPT_TABLEEND,
};

static int score(clm_context *context, clm_model *model, const clm_tokenizer *tokenizer, const text_file *text) {
  token_list tokens;
  double loss;
  if (!text_encode(tokenizer, context, text, given.score, &tokens)) return TOOL_FAILED;
  clm_status status =
      clm_model_score(model, tokens.ids, tokens.count, &(clm_score_options){.window = given.window}, &loss);
  if (status == CLM_OK)
    printf("%zu tokens, %.6f nats per token, perplexity %.4f\n", tokens.count - 1, loss, exp(loss));
  free(tokens.ids);
  return status ? tool_fail("%s: %s", given.score, clm_context_error(context)) : TOOL_OK;
}

static int work(const text_file *text) {
  clm_context *context = tool_context(NULL);
  if (!context) return TOOL_FAILED;
  clm_model *model = NULL;
  clm_tokenizer *tokenizer = NULL;
  int status;
  if (clm_model_load(context, given.model, &model) || clm_tokenizer_load(context, given.model, &tokenizer))
    status = tool_fail("%s", clm_context_error(context));
  else status = score(context, model, tokenizer, text);
  clm_tokenizer_destroy(&tokenizer);
  clm_model_destroy(&model);
  clm_context_destroy(&context);
  return status;
}

int main(int argc, char **argv) {
  int status;
  if (!tool_parse(argc, argv, "mamba-eval", options, NULL, &status)) return status;
  if (!given.model) return tool_fail("--model DIR is missing"), TOOL_USAGE;
  if (!given.score) return tool_fail("nothing to do: give --score FILE"), TOOL_USAGE;
  if (given.window < 1) return tool_fail("--window must be at least 1"), TOOL_USAGE;
  text_file text;
  if (!text_read(given.score, &text)) return TOOL_FAILED;
  status = work(&text);
  text_free(&text);
  return status;
}

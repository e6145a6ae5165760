/* mamba-generate: continues a prompt, the text as it comes. */
#include "common/tool.h"
#include <clmamba/clmamba.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

static struct {
  const char *model, *prompt;
  long long count, seed;
  double temperature, top_p, min_p, repetition_penalty;
  long long top_k;
  int stats;
} given = {.count = 500, .seed = 1, .temperature = 0.7, .top_p = 0.95};

static const struct poptOption options[] = {
    {"model", '\0', POPT_ARG_STRING, &given.model, 0, "model directory", "DIR"},
    {"prompt", '\0', POPT_ARG_STRING, &given.prompt, 0, "text to continue (default: the start of a line)", "TEXT"},
    {NULL, 'n', POPT_ARG_LONGLONG | POPT_ARGFLAG_SHOW_DEFAULT, &given.count, 0, "tokens to generate", "N"},
    {"temperature", '\0', POPT_ARG_DOUBLE | POPT_ARGFLAG_SHOW_DEFAULT, &given.temperature, 0,
     "0: always the most likely token", "X"},
    {"top-k", '\0', POPT_ARG_LONGLONG, &given.top_k, 0, "choose among the k most likely tokens (0: all)", "K"},
    {"top-p", '\0', POPT_ARG_DOUBLE | POPT_ARGFLAG_SHOW_DEFAULT, &given.top_p, 0,
     "choose among the most likely tokens that together have probability p", "P"},
    {"min-p", '\0', POPT_ARG_DOUBLE, &given.min_p, 0, "leave out tokens below p times the most likely one", "P"},
    {"repetition-penalty", '\0', POPT_ARG_DOUBLE, &given.repetition_penalty, 0,
     "make tokens that have occurred less likely (1: no)", "X"},
    {"seed", '\0', POPT_ARG_LONGLONG | POPT_ARGFLAG_SHOW_DEFAULT, &given.seed, 0, "the same seed, the same text",
     "N"},
    {"stats", '\0', POPT_ARG_NONE, &given.stats, 0, "print tokens per second to stderr at the end", NULL},
    {NULL, '\0', POPT_ARG_INCLUDE_TABLE, tool_device_options, 0, "Device:", NULL},
    POPT_TABLEEND,
};

static volatile sig_atomic_t interrupted;
static void on_signal(int number) {
  (void)number;
  interrupted = 1;
}

static bool emit(void *user, const char *text, size_t bytes) {
  (void)user;
  return fwrite(text, 1, bytes, stdout) == bytes && fflush(stdout) == 0 && !interrupted;
}

static double rate(int64_t tokens, double seconds) { return seconds > 0 ? (double)tokens / seconds : 0; }

static int generate(clm_context *context, clm_model *model, const clm_tokenizer *tokenizer) {
  clm_generate_stats stats;
  clm_generate_args args = {.prompt = given.prompt,
                            .prompt_bytes = given.prompt ? strlen(given.prompt) : 0,
                            .count = given.count,
                            .sampler = {.repetition_penalty = (float)given.repetition_penalty,
                                        .temperature = (float)given.temperature,
                                        .top_k = given.top_k,
                                        .top_p = (float)given.top_p,
                                        .min_p = (float)given.min_p,
                                        .seed = (uint64_t)given.seed},
                            .emit = emit};
  if (given.prompt) emit(NULL, given.prompt, strlen(given.prompt));
  clm_status status = clm_generate(model, tokenizer, &args, &stats);
  if (status) return tool_fail("%s", clm_context_error(context));
  putchar('\n');
  if (fflush(stdout) != 0) return tool_fail("cannot write the text: %s", strerror(errno));
  if (given.stats)
    fprintf(stderr, "prompt: %lld tokens, %.0f tokens/s; generated: %lld tokens, %.0f tokens/s\n",
            (long long)stats.prompt_tokens, rate(stats.prompt_tokens, stats.prefill_seconds),
            (long long)stats.new_tokens, rate(stats.new_tokens, stats.decode_seconds));
  return TOOL_OK;
}

int main(int argc, char **argv) {
  int status;
  if (!tool_parse(argc, argv, "mamba-generate", options, NULL, &status)) return status;
  if (!given.model) return tool_fail("--model DIR is missing"), TOOL_USAGE;
  struct sigaction action = {.sa_handler = on_signal};
  sigaction(SIGINT, &action, NULL);
  clm_context *context = tool_context(NULL);
  if (!context) return TOOL_FAILED;
  clm_model *model = NULL;
  clm_tokenizer *tokenizer = NULL;
  if (clm_model_load(context, given.model, &model) || clm_tokenizer_load(context, given.model, &tokenizer))
    status = tool_fail("%s", clm_context_error(context));
  else status = generate(context, model, tokenizer);
  clm_tokenizer_destroy(&tokenizer);
  clm_model_destroy(&model);
  clm_context_destroy(&context);
  return status;
}

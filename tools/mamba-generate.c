/* mamba-generate: continues prompts, the text as it comes. */
#include "common/arrays.h"
#include "common/model.h"
#include "common/text.h"
#include "common/tool.h"
#include <clmamba/clmamba.h>
#include <errno.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct {
  const char *prompts_file, *tokens, *tokens_out, *load_state, *save_state;
  char **prompts, **stops;
  long long count, seed, top_k, logprobs;
  double temperature, top_p, min_p, repetition_penalty;
  int stats, ignore_eos;
} given = {.count = 500, .seed = 1, .temperature = 0.7, .top_p = 0.95, .logprobs = -1};

static const struct poptOption options[] = {
    {"prompt", '\0', POPT_ARG_ARGV, &given.prompts, 0,
     "text to continue (default: the beginning of a text); several make a batch", "TEXT"},
    {"prompts", '\0', POPT_ARG_STRING, &given.prompts_file, 0, "a batch of prompts, one a line", "FILE"},
    {"tokens", '\0', POPT_ARG_STRING, &given.tokens, 0,
     "tokens to continue: (1, length) or (batch, length) of int32 or int64", "IDS.npy"},
    {"tokens-out", '\0', POPT_ARG_STRING, &given.tokens_out, 0,
     "write these and their continuation, (batch, length + N) of int32, and no text", "OUT.npy"},
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
    {"stop", '\0', POPT_ARG_ARGV, &given.stops, 0, "end before this text; may be given several times", "TEXT"},
    {"ignore-eos", '\0', POPT_ARG_NONE, &given.ignore_eos, 0, "go on after the end-of-text token", NULL},
    {"logprobs", '\0', POPT_ARG_LONGLONG, &given.logprobs, 0,
     "print a line of JSON for each token, with its log-probability and the N most likely, instead of the text", "N"},
    {"load-state", '\0', POPT_ARG_STRING, &given.load_state, 0, "go on from a saved state", "FILE"},
    {"save-state", '\0', POPT_ARG_STRING, &given.save_state, 0,
     "save the state after prompt and continuation (with -n 0: after the prompt)", "FILE"},
    {"stats", '\0', POPT_ARG_NONE, &given.stats, 0, "print tokens per second to stderr at the end", NULL},
    {NULL, '\0', POPT_ARG_INCLUDE_TABLE, tool_model_options, 0, "Model:", NULL},
    {NULL, '\0', POPT_ARG_INCLUDE_TABLE, tool_device_options, 0, "Device:", NULL},
    POPT_TABLEEND,
};

static const tool_entry examples[] = {
    {"mamba-generate --model model --prompt 'It was' -n 500", "continue a text"},
    {NULL, NULL},
};

static const tool_about about = {
    .name = "mamba-generate",
    .summary = "continue texts with a Mamba language model",
    .description =
        "Continues a prompt, or a batch of prompts, and prints the text as it comes. The state after a long "
        "prompt can be saved, so that later runs go on from it.",
    .options = options,
    .examples = examples,
};

static volatile sig_atomic_t interrupted;
static void on_signal(int number) {
  (void)number;
  interrupted = 1;
}

typedef struct session {
  clm_context *context;
  clm_model *model;
  clm_tokenizer *tokenizer; /* NULL where only tokens go in and out */
  clm_prompt *prompts;
  int64_t batch;
  text_lines lines;
  token_rows tokens, continued;
  int64_t *made;    /* tokens of each sequence */
  text_file *texts; /* of a batch: each is printed when all are complete, in the order of the prompts */
  clm_model_state *from, *into;
  bool shows_prompt;
  bool failed; /* a piece could not be kept or written */
} session;

static int fail(const session *s) { return tool_fail("%s", clm_context_error(s->context)); }
static int fail_memory(void) { return tool_fail("out of memory"); }

/* ---- What to continue ---- */

static size_t length_of(char **list) {
  size_t count = 0;
  while (list && list[count]) count++;
  return count;
}

static bool make_prompts(session *s, size_t count) {
  s->batch = (int64_t)count;
  s->prompts = calloc(count, sizeof *s->prompts);
  s->made = calloc(count, sizeof *s->made);
  s->texts = calloc(count, sizeof *s->texts);
  return (s->prompts && s->made && s->texts) || (fail_memory(), false);
}

static bool take_tokens(session *s) {
  token_rows *t = &s->tokens;
  if (!tokens_read(given.tokens, clm_model_configuration(s->model)->vocab_size, t)) return false;
  if (!make_prompts(s, (size_t)t->batch)) return false;
  for (int64_t i = 0; i < t->batch; i++)
    s->prompts[i] = (clm_prompt){.ids = t->ids + i * t->length, .count = (size_t)t->length};
  if (!given.tokens_out) return true;
  token_rows *c = &s->continued;
  *c = (token_rows){.batch = t->batch, .length = t->length + given.count};
  c->ids = calloc((size_t)(c->batch * c->length), sizeof *c->ids);
  if (!c->ids) return fail_memory(), false;
  for (int64_t i = 0; i < t->batch; i++)
    memcpy(c->ids + i * c->length, s->prompts[i].ids, (size_t)t->length * sizeof *c->ids);
  return true;
}

/* Nothing given: one prompt of no length, or with a state one for each of its sequences. */
static bool take_prompts(session *s) {
  if (given.tokens) return take_tokens(s);
  if (given.prompts_file) {
    if (!text_read_lines(given.prompts_file, &s->lines) || !make_prompts(s, s->lines.count)) return false;
    for (size_t i = 0; i < s->lines.count; i++)
      s->prompts[i] = (clm_prompt){.text = s->lines.at[i].data, .bytes = s->lines.at[i].bytes};
    return true;
  }
  size_t count = length_of(given.prompts);
  if (!make_prompts(s, count ? count : s->from ? (size_t)clm_model_state_batch(s->from) : 1)) return false;
  for (size_t i = 0; i < count; i++)
    s->prompts[i] = (clm_prompt){.text = given.prompts[i], .bytes = strlen(given.prompts[i])};
  return true;
}

/* ---- What comes ---- */

static bool print_json(const session *s, const clm_generate_piece *p) {
  json_t *top = json_array();
  for (long long i = 0; i < given.logprobs; i++) {
    size_t bytes;
    char text[256];
    clm_status status = clm_tokenizer_decode(s->tokenizer, NULL, &p->top[i].id, 1, text, sizeof text, &bytes);
    json_array_append_new(top,
                          json_pack("{s:i, s:f, s:s#}", "id", (int)p->top[i].id, "logprob", (double)p->top[i].logprob,
                                    "token", text, status || bytes > sizeof text ? 0 : (int)bytes));
  }
  static const char *const ends[] = {"goes on", "count", "stop id", "stop string"};
  json_t *line = json_pack("{s:I, s:i, s:f, s:s#, s:o}", "sequence", (json_int_t)p->sequence, "id", (int)p->id,
                           "logprob", (double)p->logprob, "text", p->text ? p->text : "", (int)p->bytes, "top", top);
  if (line && p->end) json_object_set_new(line, "end", json_string(ends[p->end]));
  bool ok = line && json_dumpf(line, stdout, JSON_COMPACT) == 0 && putchar('\n') != EOF && fflush(stdout) == 0;
  json_decref(line);
  return ok;
}

static bool append(text_file *to, const char *text, size_t bytes) {
  char *larger = realloc(to->data, to->bytes + bytes + 1);
  if (!larger) return false;
  if (bytes) memcpy(larger + to->bytes, text, bytes);
  *to = (text_file){larger, to->bytes + bytes};
  return true;
}

static bool emit(void *user, const clm_generate_piece *p) {
  session *s = user;
  int64_t made = s->made[p->sequence]++;
  bool ok = true;
  if (s->continued.ids) s->continued.ids[p->sequence * s->continued.length + s->tokens.length + made] = p->id;
  else if (given.logprobs >= 0) ok = print_json(s, p);
  else if (s->batch > 1) ok = append(&s->texts[p->sequence], p->text, p->bytes);
  else ok = fwrite(p->text, 1, p->bytes, stdout) == p->bytes && fflush(stdout) == 0;
  s->failed = s->failed || !ok;
  return ok && !interrupted;
}

/* Texts of a batch stand one below the other, an empty line between them. */
static void print_batch(const session *s) {
  for (int64_t i = 0; i < s->batch; i++) {
    if (i) putchar('\n');
    if (s->prompts[i].text) fwrite(s->prompts[i].text, 1, s->prompts[i].bytes, stdout);
    if (s->texts[i].bytes) fwrite(s->texts[i].data, 1, s->texts[i].bytes, stdout);
    putchar('\n');
  }
}

static double rate(int64_t tokens, double seconds) { return seconds > 0 ? (double)tokens / seconds : 0; }

static void print_stats(const clm_generate_stats *stats) {
  fprintf(stderr, "prompt: %lld tokens, %.0f tokens/s; generated: %lld tokens, %.0f tokens/s\n",
          (long long)stats->prompt_tokens, rate(stats->prompt_tokens, stats->prefill_seconds),
          (long long)stats->new_tokens, rate(stats->new_tokens, stats->decode_seconds));
}

/* A prompt is shown when it is known that it can be continued. */
static void show_prompt(void *user) {
  const session *s = user;
  if (s->shows_prompt) fwrite(s->prompts[0].text, 1, s->prompts[0].bytes, stdout);
}

/* Files appear only when everything that belongs into them is there. */
static int keep_files(session *s) {
  if (interrupted && (given.tokens_out || given.save_state)) return tool_fail("interrupted: nothing is written");
  if (given.tokens_out && !tokens_write(given.tokens_out, &s->continued)) return TOOL_FAILED;
  return given.save_state && clm_model_state_save(s->into, given.save_state) ? fail(s) : TOOL_OK;
}

static int generate(session *s) {
  static const int32_t none[1];
  bool text = !given.tokens_out && given.logprobs < 0;
  clm_generate_stats stats;
  clm_generate_args args = {.prompts = s->prompts,
                            .batch = s->batch,
                            .count = given.count,
                            .sampler = {.repetition_penalty = (float)given.repetition_penalty,
                                        .temperature = (float)given.temperature,
                                        .top_k = given.top_k,
                                        .top_p = (float)given.top_p,
                                        .min_p = (float)given.min_p,
                                        .seed = (uint64_t)given.seed},
                            .stop_strings = (const char *const *)given.stops,
                            .stop_string_count = length_of(given.stops),
                            .stop_ids = given.ignore_eos || given.tokens_out ? none : NULL,
                            .logprobs = given.logprobs >= 0,
                            .top_logprobs = given.logprobs > 0 ? given.logprobs : 0,
                            .from = s->from,
                            .into = s->into,
                            .emit = emit,
                            .user = s,
                            .ready = show_prompt};
  s->shows_prompt = text && s->batch == 1 && s->prompts[0].text;
  if (clm_generate(s->model, s->tokenizer, &args, &stats)) return fail(s);
  if (s->failed) return tool_fail("cannot write what is generated: %s", strerror(errno));
  if (text && s->batch > 1) print_batch(s);
  else if (text) putchar('\n');
  if (fflush(stdout) != 0) return tool_fail("cannot write the text: %s", strerror(errno));
  if (given.stats) print_stats(&stats);
  return keep_files(s);
}

static int work(session *s) {
  if (!tool_model_load(s->context, &s->model)) return TOOL_FAILED;
  if (!given.tokens_out && clm_tokenizer_load(s->context, tool_model_path(), &s->tokenizer)) return fail(s);
  if (given.load_state && clm_model_state_load(s->model, given.load_state, &s->from)) return fail(s);
  if (!take_prompts(s)) return TOOL_FAILED;
  if (given.save_state && clm_model_state_create(s->model, s->batch, &s->into)) return fail(s);
  return generate(s);
}

static void session_free(session *s) {
  for (int64_t i = 0; s->texts && i < s->batch; i++) text_free(&s->texts[i]);
  free(s->texts);
  free(s->made);
  free(s->prompts);
  text_free_lines(&s->lines);
  free(s->tokens.ids);
  free(s->continued.ids);
  clm_model_state_destroy(&s->from);
  clm_model_state_destroy(&s->into);
  clm_tokenizer_destroy(&s->tokenizer);
  clm_model_destroy(&s->model);
  clm_context_destroy(&s->context);
}

/* True, with a sentence, where the command line asks for what does not go together. */
static bool is_wrong(void) {
  int sources = (given.prompts != NULL) + (given.prompts_file != NULL) + (given.tokens != NULL);
  const struct {
    bool wrong;
    const char *sentence;
  } rules[] = {
      {sources > 1, "--prompt, --prompts and --tokens exclude each other"},
      {given.count < 0 || given.count > 1 << 30, "-n must be 0 to 2^30"},
      {given.tokens_out && !given.tokens, "--tokens-out is for --tokens"},
      {given.tokens_out && given.stops, "--tokens-out has room for all tokens: leave out --stop"},
      {given.tokens_out && given.logprobs >= 0, "--tokens-out and --logprobs exclude each other"},
      {given.logprobs < -1, "--logprobs must be at least 0"},
  };
  for (size_t i = 0; i < sizeof rules / sizeof *rules; i++)
    if (rules[i].wrong) return tool_fail("%s", rules[i].sentence), true;
  return false;
}

int main(int argc, char **argv) {
  int status;
  if (!tool_parse(argc, argv, &about, NULL, &status)) return status;
  if (!tool_model_check() || is_wrong()) return TOOL_USAGE;
  struct sigaction action = {.sa_handler = on_signal};
  sigaction(SIGINT, &action, NULL);
  session s = {.context = tool_context(NULL)};
  if (!s.context) return TOOL_FAILED;
  status = work(&s);
  session_free(&s);
  return status;
}

/* mamba-generate: continues prompts, the text as it comes. */
#include "common/arrays.h"
#include "common/interrupt.h"
#include "common/model.h"
#include "common/progress.h"
#include "common/text.h"
#include "common/tool.h"
#include "core/json_print.h"
#include "text/bytes.h"
#include <clmamba/clmamba.h>
#include <errno.h>
#include <float.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct {
  const char *prompt_file, *prompts_file, *tokens, *tokens_out, *load_state, *save_state, *format;
  char **prompts, **stops, **stop_ids;
  long long count, seed, top_k, logprobs;
  double temperature, top_p, min_p, repetition_penalty;
  int stats, ignore_eos, no_echo;
} given = {.count = 500, .seed = 1, .temperature = 0.7, .top_p = 0.95, .repetition_penalty = 1, .format = "text"};

static const struct poptOption options[] = {
    {"prompt", 'p', POPT_ARG_ARGV, &given.prompts, 0,
     "text to continue (default: begin a new text); may be repeated for a batch", "TEXT"},
    {"prompt-file", 'f', POPT_ARG_STRING, &given.prompt_file, 0,
     "file with the prompt, used to its last byte; - is standard input", "FILE|-"},
    {"prompts", '\0', POPT_ARG_STRING, &given.prompts_file, 0, "a batch of prompts, one per line", "FILE|-"},
    {"tokens", '\0', POPT_ARG_STRING, &given.tokens, 0,
     "tokens to continue: (1, length) or (batch, length) of int32 or int64", "IDS.npy"},
    {"tokens-out", '\0', POPT_ARG_STRING, &given.tokens_out, 0,
     "write the tokens and their continuation, (batch, length + N) of int32; prints no text", "OUT.npy"},
    {NULL, 'n', POPT_ARG_LONGLONG | POPT_ARGFLAG_SHOW_DEFAULT, &given.count, 0, "tokens to generate", "N"},
    {"temperature", '\0', POPT_ARG_DOUBLE | POPT_ARGFLAG_SHOW_DEFAULT, &given.temperature, 0,
     "temperature of sampling (0: always the most likely token)", "X"},
    {"top-k", '\0', POPT_ARG_LONGLONG, &given.top_k, 0, "choose among the k most likely tokens (0: all)", "K"},
    {"top-p", '\0', POPT_ARG_DOUBLE | POPT_ARGFLAG_SHOW_DEFAULT, &given.top_p, 0,
     "choose among the smallest set of the most likely tokens with total probability p (1: all, 0: one)", "P"},
    {"min-p", '\0', POPT_ARG_DOUBLE, &given.min_p, 0,
     "exclude tokens that are less likely than p times the most likely one (0: none)", "P"},
    {"repetition-penalty", '\0', POPT_ARG_DOUBLE | POPT_ARGFLAG_SHOW_DEFAULT, &given.repetition_penalty, 0,
     "make tokens that have occurred less likely (1: off)", "X"},
    {"seed", '\0', POPT_ARG_LONGLONG | POPT_ARGFLAG_SHOW_DEFAULT, &given.seed, 0,
     "seed of sampling: the same seed gives the same text", "N"},
    {"stop", '\0', POPT_ARG_ARGV, &given.stops, 0,
     "stop before this text, which may be a special token's; may be repeated", "TEXT"},
    {"stop-id", '\0', POPT_ARG_ARGV, &given.stop_ids, 0,
     "stop at this token, as at the end-of-text token; may be repeated", "N"},
    {"ignore-eos", '\0', POPT_ARG_NONE, &given.ignore_eos, 0, "continue after the end-of-text token", NULL},
    {"no-echo", '\0', POPT_ARG_NONE, &given.no_echo, 0, "print the continuation without the prompt", NULL},
    {"format", '\0', POPT_ARG_STRING | POPT_ARGFLAG_SHOW_DEFAULT, &given.format, 0,
     "json: a line of JSON for each prompt, with its text and how it ended", "text|json"},
    {"logprobs", '\0', POPT_ARG_LONGLONG, &given.logprobs, 0,
     "print a line of JSON for each token, with its log-probability and the N most likely, instead of the text", "N"},
    {"load-state", '\0', POPT_ARG_STRING, &given.load_state, 0, "continue from a saved state", "FILE"},
    {"save-state", '\0', POPT_ARG_STRING, &given.save_state, 0,
     "save the state after prompt and continuation (with -n 0: after the prompt)", "FILE"},
    {"stats", '\0', POPT_ARG_NONE, &given.stats, 0, "print tokens per second to stderr at the end", NULL},
    {NULL, '\0', POPT_ARG_INCLUDE_TABLE, tool_model_options, 0, "Model:", NULL},
    {NULL, '\0', POPT_ARG_INCLUDE_TABLE, tool_device_options, 0, "Device:", NULL},
    POPT_TABLEEND,
};

static const tool_entry examples[] = {
    {"mamba-generate -m model -p 'It was' -n 500", "continue a text"},
    {"mamba-generate -m model -f long.txt -n 0 --save-state long.state", "read a long text once"},
    {"mamba-generate -m model --load-state long.state -p ' And then'", "continue from it"},
    {"mamba-generate -m model --prompts prompts.txt --format json", "continue every line of a file"},
    {NULL, NULL},
};

static const tool_about about = {
    .name = "mamba-generate",
    .summary = "continue texts with a Mamba language model",
    .description =
        "Continues a prompt, or a batch of prompts, and prints the text as it comes. The state after a long "
        "prompt can be saved, so that later runs continue from it.\n\n"
        "An interrupt ends the text. With --save-state the state after what has been generated is saved.",
    .options = options,
    .examples = examples,
};

typedef struct session {
  clm_context *context;
  clm_model *model;
  clm_tokenizer *tokenizer; /* NULL where only tokens go in and out */
  clm_prompt *prompts;
  int64_t batch;
  text_file text;   /* of --prompt-file */
  text_lines lines; /* of --prompts     */
  token_rows tokens, continued;
  int32_t *stop_ids;
  struct answer {
    int64_t made;   /* tokens                                                              */
    text_file text; /* kept where it is printed when all are complete, in their order      */
    clm_generate_end end;
  } * answers;
  clm_model_state *from, *into;
  progress progress;
  bool streams, echoed; /* the text is printed as it comes; the prompt is on the screen */
  bool failed;          /* a piece could not be kept or written */
} session;

static int fail(const session *s) { return tool_fail("%s", clm_context_error(s->context)); }
static int fail_memory(void) { return tool_fail("out of memory"); }

static bool prints_json(void) { return strcmp(given.format, "json") == 0; }
static bool prints_logprobs(void) { return tool_given(&given.logprobs); }

/* ---- What to continue ---- */

static size_t length_of(char **list) {
  size_t count = 0;
  while (list && list[count]) count++;
  return count;
}

static bool make_prompts(session *s, size_t count) {
  s->batch = (int64_t)count;
  s->prompts = calloc(count, sizeof *s->prompts);
  s->answers = calloc(count, sizeof *s->answers);
  return (s->prompts && s->answers) || (fail_memory(), false);
}

/* What the command line and its files say; --tokens come later, as the model's vocabulary must be known. */
static bool take_texts(session *s) {
  if (given.prompts_file) {
    if (!text_read_lines(given.prompts_file, &s->lines) || !make_prompts(s, s->lines.count)) return false;
    for (size_t i = 0; i < s->lines.count; i++)
      s->prompts[i] = (clm_prompt){.text = s->lines.at[i].data, .bytes = s->lines.at[i].bytes};
    return true;
  }
  if (given.prompt_file) {
    if (!text_read(given.prompt_file, &s->text) || !make_prompts(s, 1)) return false;
    s->prompts[0] = (clm_prompt){.text = s->text.data, .bytes = s->text.bytes};
    return true;
  }
  size_t count = length_of(given.prompts);
  if (count && !make_prompts(s, count)) return false;
  for (size_t i = 0; i < count; i++)
    s->prompts[i] = (clm_prompt){.text = given.prompts[i], .bytes = strlen(given.prompts[i])};
  return true;
}

/* What cannot be encoded, and tokens that the model does not know. */
static bool check_texts(session *s, const clm_model_config *config) {
  const clm_encode_options how = {.add_special_tokens = true};
  bool ok = true;
  for (int64_t i = 0; ok && i < s->batch; i++) {
    const clm_prompt *p = &s->prompts[i];
    int32_t *ids = NULL;
    size_t count = 0;
    ok = clm_tokenizer_encode_with(s->tokenizer, &how, p->text, p->bytes, NULL, 0, &count) == CLM_OK ||
         (fail(s), false);
    if (ok) ok = (ids = malloc((count + 1) * sizeof *ids)) || (fail_memory(), false);
    if (ok)
      ok = clm_tokenizer_encode_with(s->tokenizer, &how, p->text, p->bytes, ids, count, &count) == CLM_OK ||
           (fail(s), false);
    for (size_t k = 0; ok && k < count; k++)
      if (ids[k] >= config->vocab_size)
        ok = (tool_fail("prompt %lld has the token %d, the model knows 0 to %lld", (long long)i, (int)ids[k],
                        (long long)config->vocab_size - 1),
              false);
    free(ids);
  }
  return ok;
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
static bool take_rest(session *s) {
  if (given.tokens) return take_tokens(s);
  return s->prompts || make_prompts(s, s->from ? (size_t)clm_model_state_batch(s->from) : 1);
}

static bool take_stop_ids(session *s) {
  size_t count = length_of(given.stop_ids);
  s->stop_ids = calloc(count + 1, sizeof *s->stop_ids);
  if (!s->stop_ids) return fail_memory(), false;
  for (size_t i = 0; i < count; i++) {
    long long id;
    if (!tool_number("--stop-id", given.stop_ids[i], 0, INT32_MAX, &id)) return false;
    s->stop_ids[i] = (int32_t)id;
  }
  return true;
}

/* ---- What comes ---- */

/* UTF-8, as JSON wants it: what is none becomes U+FFFD. */
static json_t *json_of(const char *text, size_t bytes) {
  byte_buffer valid = {0};
  json_t *json = bytes_append_lossy(&valid, text ? text : "", text ? bytes : 0)
                     ? json_stringn(valid.data ? valid.data : "", valid.bytes)
                     : NULL;
  bytes_free(&valid);
  return json;
}

/* False where a line could not be made, or not written. Frees it. */
static bool print_line(json_t *line) {
  char *text = json_print(line, JSON_COMPACT);
  json_decref(line);
  bool ok = text && puts(text) != EOF && fflush(stdout) == 0;
  free(text);
  return ok;
}

static const char *end_name(clm_generate_end end) {
  switch (end) {
  case CLM_GENERATE_COUNT: return "count";
  case CLM_GENERATE_STOP_ID: return "stop id";
  case CLM_GENERATE_STOP_STRING: return "stop string";
  default: return "interrupted";
  }
}

static json_t *token_json(const session *s, const clm_token_logprob *token) {
  char *text = NULL;
  size_t bytes = 0;
  bool ok = clm_tokenizer_decode(s->tokenizer, NULL, &token->id, 1, NULL, 0, &bytes) == CLM_OK &&
            (text = malloc(bytes + 1)) &&
            clm_tokenizer_decode(s->tokenizer, NULL, &token->id, 1, text, bytes, &bytes) == CLM_OK;
  json_t *json = ok ? json_pack("{s:i, s:f, s:o}", "id", (int)token->id, "logprob", (double)token->logprob, "token",
                                json_of(text, bytes))
                    : NULL;
  free(text);
  return json;
}

static bool print_token(const session *s, const clm_generate_piece *p) {
  json_t *top = json_array();
  bool ok = top != NULL;
  for (long long i = 0; ok && i < given.logprobs; i++)
    ok = json_array_append_new(top, token_json(s, &p->top[i])) == 0;
  json_t *line = json_pack("{s:I, s:i, s:f, s:o, s:o}", "sequence", (json_int_t)p->sequence, "id", (int)p->id,
                           "logprob", (double)p->logprob, "text", json_of(p->text, p->bytes), "top", top);
  if (ok && line && p->end) ok = json_object_set_new(line, "end", json_string(end_name(p->end))) == 0;
  if (ok && line) return print_line(line);
  json_decref(line);
  return false;
}

static bool append(text_file *to, const char *text, size_t bytes) {
  char *larger = realloc(to->data, to->bytes + bytes + 1);
  if (!larger) return false;
  if (bytes) memcpy(larger + to->bytes, text, bytes);
  *to = (text_file){larger, to->bytes + bytes};
  return true;
}

static bool print_text(const char *text, size_t bytes) { return !bytes || fwrite(text, 1, bytes, stdout) == bytes; }

/* The prompt, once there is something to say: never before what may still fail. */
static bool echo(session *s) {
  if (s->echoed) return true;
  progress_end(&s->progress);
  s->echoed = true;
  return given.no_echo || print_text(s->prompts[0].text, s->prompts[0].text ? s->prompts[0].bytes : 0);
}

static bool emit(void *user, const clm_generate_piece *p) {
  session *s = user;
  struct answer *answer = &s->answers[p->sequence];
  int64_t made = answer->made++;
  bool ok = true;
  answer->end = p->end;
  progress_end(&s->progress);
  if (s->continued.ids) s->continued.ids[p->sequence * s->continued.length + s->tokens.length + made] = p->id;
  else if (prints_logprobs()) ok = print_token(s, p);
  else if (s->streams) ok = echo(s) && print_text(p->text, p->bytes) && fflush(stdout) == 0;
  else ok = append(&answer->text, p->text, p->bytes);
  s->failed = s->failed || !ok;
  return ok && !interrupt_came();
}

static bool show_prompt(void *user, int64_t done, int64_t total) {
  session *s = user;
  progress_bar(&s->progress, (double)done / (double)total, "running the prompt");
  return !interrupt_came();
}

static bool print_answer(const session *s, int64_t i) {
  const struct answer *answer = &s->answers[i];
  json_t *line = json_pack("{s:I, s:o, s:I, s:s}", "sequence", (json_int_t)i, "text",
                           json_of(answer->text.data, answer->text.bytes), "tokens", (json_int_t)answer->made, "end",
                           given.count ? end_name(answer->end) : "count");
  const clm_prompt *p = &s->prompts[i];
  if (line && p->text && !given.no_echo && json_object_set_new(line, "prompt", json_of(p->text, p->bytes)) != 0)
    return json_decref(line), false;
  return print_line(line);
}

/* Texts of a batch stand one below the other, an empty line between them. */
static bool print_batch(const session *s) {
  bool ok = true;
  for (int64_t i = 0; ok && i < s->batch; i++) {
    const clm_prompt *p = &s->prompts[i];
    if (prints_json()) ok = print_answer(s, i);
    else
      ok = (i == 0 || putchar('\n') != EOF) && (given.no_echo || print_text(p->text, p->text ? p->bytes : 0)) &&
           print_text(s->answers[i].text.data, s->answers[i].text.bytes) && putchar('\n') != EOF;
  }
  return ok;
}

static double rate(int64_t tokens, double seconds) { return seconds > 0 ? (double)tokens / seconds : 0; }

static void print_stats(const clm_generate_stats *stats) {
  fprintf(stderr, "prompt: %lld tokens, %.0f tokens/s; generated: %lld tokens, %.0f tokens/s\n",
          (long long)stats->prompt_tokens, rate(stats->prompt_tokens, stats->prefill_seconds),
          (long long)stats->new_tokens, rate(stats->new_tokens, stats->decode_seconds));
}

/* A state is what it is wherever the text ended; tokens must all be there. */
static int keep_files(session *s) {
  if (given.save_state && clm_model_state_save(s->into, given.save_state)) return fail(s);
  if (!given.tokens_out) return TOOL_OK;
  if (interrupt_came()) return tool_fail("interrupted: %s is not written", given.tokens_out);
  return tokens_write(given.tokens_out, &s->continued) ? TOOL_OK : TOOL_FAILED;
}

static clm_generate_args arguments(session *s) {
  static const int32_t none[1];
  return (clm_generate_args){.prompts = s->prompts,
                             .batch = s->batch,
                             .count = given.count,
                             .sampler = {.repetition_penalty = (float)given.repetition_penalty,
                                         .temperature = (float)given.temperature,
                                         .top_k = given.top_k,
                                         .top_p = given.top_p > 0 ? (float)given.top_p : FLT_MIN, /* 0: one token */
                                         .min_p = (float)given.min_p,
                                         .seed = (uint64_t)given.seed},
                             .stop_strings = (const char *const *)given.stops,
                             .stop_string_count = length_of(given.stops),
                             .stop_ids = given.ignore_eos || given.tokens_out ? none : NULL,
                             .more_stop_ids = s->stop_ids,
                             .more_stop_id_count = length_of(given.stop_ids),
                             .logprobs = prints_logprobs(),
                             .top_logprobs = given.logprobs,
                             .from = s->from,
                             .into = s->into,
                             .emit = emit,
                             .progress = show_prompt,
                             .user = s};
}

static int generate(session *s) {
  bool prints = !given.tokens_out && !prints_logprobs();
  s->streams = prints && s->batch == 1 && !prints_json();
  clm_generate_stats stats;
  clm_generate_args args = arguments(s);
  progress_wait(&s->progress, "running the prompt");
  clm_status status = clm_generate(s->model, s->tokenizer, &args, &stats);
  progress_end(&s->progress);
  if (status && s->echoed) putchar('\n');
  if (status) return fail(s);
  if (!s->failed && s->streams) s->failed = !echo(s) || putchar('\n') == EOF;
  else if (!s->failed && prints) s->failed = !print_batch(s);
  if (s->failed || fflush(stdout) != 0) return tool_fail("cannot write the text: %s", strerror(errno));
  if (given.stats) print_stats(&stats);
  return keep_files(s);
}

static int work(session *s) {
  if (!take_stop_ids(s)) return TOOL_USAGE;
  if (!take_texts(s)) return TOOL_FAILED;
  interrupt_catch(); /* not before: reading the prompt from a terminal should end at once */
  if (!(s->context = tool_context(NULL))) return TOOL_FAILED;
  /* Before the model is loaded, which may take minutes. */
  clm_model_config config;
  if (clm_model_read_config(s->context, tool_model_path(), &config)) return fail(s);
  if (!given.tokens_out && clm_tokenizer_load(s->context, tool_model_path(), &s->tokenizer)) return fail(s);
  if (s->tokenizer && !check_texts(s, &config)) return TOOL_FAILED;
  if (!tool_model_load(s->context, &s->model)) return TOOL_FAILED;
  if (given.load_state && clm_model_state_load(s->model, given.load_state, &s->from)) return fail(s);
  if (!take_rest(s)) return TOOL_FAILED;
  if (given.save_state && clm_model_state_create(s->model, s->batch, &s->into)) return fail(s);
  return generate(s);
}

static void session_free(session *s) {
  for (int64_t i = 0; s->answers && i < s->batch; i++) text_free(&s->answers[i].text);
  free(s->answers);
  free(s->prompts);
  free(s->stop_ids);
  text_free(&s->text);
  text_free_lines(&s->lines);
  free(s->tokens.ids);
  free(s->continued.ids);
  clm_model_state_destroy(&s->from);
  clm_model_state_destroy(&s->into);
  clm_tokenizer_destroy(&s->tokenizer);
  clm_model_destroy(&s->model);
  clm_context_destroy(&s->context);
}

/* ---- What goes together ---- */

/* Numbers with their ranges, those that transformers accepts; temperature 0 is the most likely token. */
static bool is_out_of_range(void) {
  const struct {
    const char *option;
    double value, low, high;
    bool above; /* `low` itself is not allowed */
  } ranges[] = {
      {"-n", (double)given.count, 0, 1 << 30, false},
      {"--temperature", given.temperature, 0, 1e6, false},
      {"--top-k", (double)given.top_k, 0, 1e9, false},
      {"--top-p", given.top_p, 0, 1, false},
      {"--min-p", given.min_p, 0, 1, false},
      {"--repetition-penalty", given.repetition_penalty, 0, 1e6, true},
      {"--logprobs", (double)given.logprobs, 0, 1 << 30, false},
  };
  for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++) {
    double value = ranges[i].value;
    if (value >= ranges[i].low && value <= ranges[i].high && !(ranges[i].above && value == ranges[i].low)) continue;
    tool_fail("%s is %.10g, expected %s%.10g to %.10g", ranges[i].option, value, ranges[i].above ? "more than " : "",
              ranges[i].low, ranges[i].high);
    return true;
  }
  return false;
}

/* True, with a message, where the command line asks for what does not go together. */
static bool is_wrong(void) {
  int sources =
      (given.prompts != NULL) + (given.prompt_file != NULL) + (given.prompts_file != NULL) + (given.tokens != NULL);
  bool json = prints_json();
  const struct {
    bool wrong;
    const char *message;
  } rules[] = {
      {sources > 1, "--prompt, --prompt-file, --prompts and --tokens exclude each other"},
      {!json && strcmp(given.format, "text") != 0, "--format must be text or json"},
      {given.tokens_out && !given.tokens, "--tokens-out is for --tokens"},
      {given.tokens_out && (given.stops || given.stop_ids),
       "--tokens-out has room for all tokens: leave out --stop and --stop-id"},
      {given.tokens_out && prints_logprobs(), "--tokens-out and --logprobs exclude each other"},
      {given.tokens_out && json, "--tokens-out and --format json exclude each other"},
      {prints_logprobs() && json,
       "--logprobs and --format json exclude each other: --logprobs prints JSON by itself"},
  };
  for (size_t i = 0; i < sizeof rules / sizeof *rules; i++)
    if (rules[i].wrong) return tool_fail("%s", rules[i].message), true;
  for (char **stop = given.stops; stop && *stop; stop++)
    if (!**stop) return tool_fail("--stop is empty, expected a text"), true;
  return is_out_of_range();
}

int main(int argc, char **argv) {
  int status;
  if (!tool_parse(argc, argv, &about, NULL, &status)) return status;
  if (!tool_model_check() || is_wrong()) return TOOL_USAGE;
  session s = {.progress = progress_start()};
  status = work(&s);
  session_free(&s);
  return status;
}

/* What a model makes of a text: scores, likelihoods of choices, logits, hidden states, embeddings, tokens. */
#include "common/arrays.h"
#include "common/interrupt.h"
#include "common/model.h"
#include "common/progress.h"
#include "common/text.h"
#include "common/tool.h"
#include "core/arith.h"
#include "core/json.h"
#include "eval/eval.h"
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CHUNK 512 /* positions whose logits and hidden states are on the way at once */

eval_given given;

static const struct poptOption options[] = {
    {"score", '\0', POPT_ARG_STRING, &given.score, 0, "text to predict: nats per token, perplexity", "FILE|-"},
    {"window", '\0', POPT_ARG_LONGLONG, &given.window, 0,
     "predictions in a window, which starts from zero state (256)", "N"},
    {"stride", '\0', POPT_ARG_LONGLONG, &given.stride, 0,
     "a window begins N predictions after the one before, and counts only what that one did not reach", "N"},
    {"carry", '\0', POPT_ARG_NONE, &given.carry, 0, "no windows: the state is carried over the whole text", NULL},
    {"choices", '\0', POPT_ARG_STRING, &given.choices, 0,
     "lines of {\"context\": ..., \"choices\": [...], \"answer\": I}: log-likelihoods, accuracy", "FILE|-"},
    {"tokens", '\0', POPT_ARG_STRING, &given.tokens, 0, "tokens to run: (1, length) of int32 or int64", "IDS.npy"},
    {"texts", '\0', POPT_ARG_STRING, &given.texts, 0, "texts to embed, one per line", "FILE|-"},
    {"logits", '\0', POPT_ARG_STRING, &given.logits, 0, "write the logits of every position: (length, vocab)",
     "OUT.npy"},
    {"hidden", '\0', POPT_ARG_STRING, &given.hidden, 0,
     "write the output of every block, then of the final norm: (n_layer + 1, length, d_model)", "OUT.npy"},
    {"embed", '\0', POPT_ARG_STRING, &given.embed, 0,
     "write the final norm's output at the last token, or its mean: (sequences, d_model)", "last|mean"},
    {"output", '\0', POPT_ARG_STRING, &given.output, 0,
     "file that --embed and --data write: .npy, .csv, or else raw float32", "OUT"},
    {"encode", '\0', POPT_ARG_STRING, &given.encode, 0, "print the tokens of a text", "TEXT"},
    {"encode-file", '\0', POPT_ARG_STRING, &given.encode_file, 0, "print the tokens of a file's text", "FILE|-"},
    {"tokens-out", '\0', POPT_ARG_STRING, &given.tokens_out, 0,
     "write the tokens instead of printing them: (1, length) of int32", "IDS.npy"},
    {"decode", '\0', POPT_ARG_STRING, &given.decode, 0, "print the text of tokens", "IDS.npy"},
    {"data", '\0', POPT_ARG_STRING, &given.data, 0,
     "sequences for a backbone: X.npy, (n, length, embed_dim), or a CSV table", "FILE"},
    {"targets", '\0', POPT_ARG_STRING, &given.targets, 0, "expected outputs for X.npy: prints the score", "Y.npy"},
    {"target", '\0', POPT_ARG_STRING, &given.target, 0,
     "columns of the table with the expected outputs: prints the score", "NAME[,NAME]"},
    {"features", '\0', POPT_ARG_STRING, &given.features, 0,
     "columns of the table to use as inputs (default: all numeric ones but the targets)", "NAME[,NAME]"},
    {NULL, '\0', POPT_ARG_INCLUDE_TABLE, tool_model_options, 0, "Model:", NULL},
    {NULL, '\0', POPT_ARG_INCLUDE_TABLE, tool_device_options, 0, "Device:", NULL},
    POPT_TABLEEND,
};

static const tool_entry examples[] = {
    {"mamba-eval -m model --score book.txt --carry", "nats per token and perplexity of a text"},
    {"mamba-eval -m model --tokens ids.npy --logits logits.npy", "logits of every position"},
    {"mamba-eval -m backbone --data walks.csv --target sum --output sums.csv",
     "outputs of a backbone, and its score"},
    {NULL, NULL},
};

static const tool_about about = {
    .name = "mamba-eval",
    .summary = "score texts with a Mamba model, or run it over tokens",
    .description =
        "Scores a text or the choices that may continue one; writes logits, hidden states or embeddings; "
        "encodes and decodes with the tokenizer of a model. Of a backbone that mamba-train --task has made, "
        "writes the outputs for sequences of vectors, and scores them against targets.",
    .options = options,
    .examples = examples,
};

typedef struct session {
  clm_context *context;
  clm_model *model;         /* NULL where the job needs none */
  clm_tokenizer *tokenizer; /* NULL where the job needs none */
} session;

static int fail(const session *s) { return tool_fail("%s", clm_context_error(s->context)); }
static int fail_memory(void) { return tool_fail("out of memory"); }
static int fail_output(void) { return tool_fail("cannot write to the standard output: %s", strerror(errno)); }

/* ---- A text ---- */

static bool show_score(void *user, int64_t done, int64_t total) {
  progress_bar(user, (double)done / (double)total, "scoring");
  return !interrupt_came();
}

static int score(const session *s) {
  text_file text;
  token_list tokens;
  double loss;
  if (!text_read(given.score, &text)) return TOOL_FAILED;
  progress bar = progress_start();
  progress_wait(&bar, "encoding the text");
  bool encoded = text_encode(s->tokenizer, s->context, &text, text_name(given.score), &tokens);
  progress_end(&bar);
  text_free(&text);
  if (!encoded) return TOOL_FAILED;
  const clm_score_options how = {
      .window = given.window, .stride = given.stride, .carry = given.carry, .progress = show_score, .user = &bar};
  interrupt_catch(); /* now that the text has been read: reading from a terminal ends at once */
  progress_wait(&bar, "scoring");
  clm_status status = clm_model_score(s->model, tokens.ids, tokens.count, &how, &loss);
  progress_end(&bar);
  if (status == CLM_OK)
    printf("%zu tokens, %.6f nats per token, perplexity %.4f\n", tokens.count - 1, loss, exp(loss));
  free(tokens.ids);
  return status ? tool_fail("%s: %s", text_name(given.score), clm_context_error(s->context)) : TOOL_OK;
}

static int encode_text(const session *s, const text_file *text, const char *name) {
  token_list tokens;
  if (!text_encode(s->tokenizer, s->context, text, name, &tokens)) return TOOL_FAILED;
  bool ok = true;
  if (given.tokens_out) ok = tokens_write(given.tokens_out, &(token_rows){tokens.ids, 1, (int64_t)tokens.count});
  else
    for (size_t i = 0; i < tokens.count && !ferror(stdout); i++)
      printf("%d%c", (int)tokens.ids[i], i + 1 < tokens.count ? ' ' : '\n');
  free(tokens.ids);
  return ok ? TOOL_OK : TOOL_FAILED;
}

static int encode(const session *s) {
  const text_file text = {(char *)(uintptr_t)given.encode, strlen(given.encode)};
  return text.bytes ? encode_text(s, &text, "--encode") : tool_fail("--encode: the text is empty");
}

static int encode_file(const session *s) {
  text_file text;
  if (!text_read(given.encode_file, &text)) return TOOL_FAILED;
  int status = encode_text(s, &text, text_name(given.encode_file));
  text_free(&text);
  return status;
}

static int decode(const session *s) {
  token_rows rows;
  if (!tokens_read(given.decode, clm_tokenizer_vocab_size(s->tokenizer), &rows)) return TOOL_FAILED;
  size_t count = (size_t)(rows.batch * rows.length), bytes = 0;
  clm_status status = clm_tokenizer_decode(s->tokenizer, NULL, rows.ids, count, NULL, 0, &bytes);
  char *text = malloc(bytes + 1);
  if (status == CLM_OK && text)
    status = clm_tokenizer_decode(s->tokenizer, NULL, rows.ids, count, text, bytes, &bytes);
  int result = !text ? fail_memory() : status ? fail(s) : TOOL_OK;
  if (result == TOOL_OK) fwrite(text, 1, bytes, stdout);
  if (result == TOOL_OK) putchar('\n');
  free(text);
  free(rows.ids);
  return result;
}

/* ---- Choices ---- */

enum { RULES = 3 };
static const char *const rule_names[RULES] = {"sum", "per token", "per byte"};

typedef struct tally {
  size_t answered, right[RULES];
} tally;

/* Encodes a JSON string; `special`: with what the model expects around a text. */
static bool encode_string(const session *s, const json_t *json, bool special, token_list *tokens) {
  const char *text = json_string_value(json);
  size_t bytes = json_string_length(json);
  const clm_encode_options how = {.add_special_tokens = special};
  *tokens = (token_list){0};
  if (clm_tokenizer_encode_with(s->tokenizer, &how, text, bytes, NULL, 0, &tokens->count) ||
      !(tokens->ids = malloc((tokens->count + 1) * sizeof *tokens->ids)))
    return false;
  return clm_tokenizer_encode_with(s->tokenizer, &how, text, bytes, tokens->ids, tokens->count, &tokens->count) ==
         CLM_OK;
}

/* Prints the line's choices, which may fail, and counts whether the likeliest by each rule is the answer. */
static bool report(size_t line, const json_t *json, const clm_choice *choices, const double *sums, size_t count,
                   tally *t) {
  const json_t *texts = json_object_get(json, "choices"), *answer = json_object_get(json, "answer");
  size_t best[RULES] = {0};
  double highest[RULES];
  for (size_t i = 0; i < count; i++) {
    size_t bytes = json_string_length(json_array_get(texts, i));
    const double values[RULES] = {sums[i], sums[i] / (double)choices[i].count, sums[i] / (double)bytes};
    if (printf("%zu\t%zu\t%.6f\t%.6f\t%.6f\t%zu\n", line, i, values[0], values[1], values[2], choices[i].count) < 0)
      return false;
    for (int r = 0; r < RULES; r++)
      if (i == 0 || values[r] > highest[r]) highest[r] = values[r], best[r] = i;
  }
  if (!answer) return true;
  t->answered++;
  for (int r = 0; r < RULES; r++) t->right[r] += best[r] == (size_t)json_integer_value(answer);
  return true;
}

static const char *wrong_with(const json_t *json) {
  const json_t *choices = json_object_get(json, "choices"), *answer = json_object_get(json, "answer");
  if (!json_is_object(json)) return "it is not a JSON object";
  if (json_string_length(json_object_get(json, "context")) == 0) return "\"context\" must be a text, not empty";
  if (json_array_size(choices) == 0) return "\"choices\" must be a list of texts, not empty";
  for (size_t i = 0; i < json_array_size(choices); i++)
    if (json_string_length(json_array_get(choices, i)) == 0) return "\"choices\" must be texts, not empty";
  if (answer && (!json_is_integer(answer) || json_integer_value(answer) < 0 ||
                 (size_t)json_integer_value(answer) >= json_array_size(choices)))
    return "\"answer\" must be the number of a choice, the first is 0";
  return NULL;
}

static int choose_line(const session *s, size_t line, const json_t *json, tally *t) {
  const char *wrong = wrong_with(json);
  if (wrong) return tool_fail("%s: line %zu: %s", text_name(given.choices), line, wrong);
  const json_t *texts = json_object_get(json, "choices");
  size_t count = json_array_size(texts);
  token_list context, *lists = calloc(count, sizeof *lists);
  clm_choice *choices = calloc(count, sizeof *choices);
  double *sums = calloc(count, sizeof *sums);
  bool ok = lists && choices && sums;
  if (!encode_string(s, json_object_get(json, "context"), true, &context)) ok = false;
  for (size_t i = 0; ok && i < count; i++) {
    ok = encode_string(s, json_array_get(texts, i), false, &lists[i]);
    choices[i] = (clm_choice){lists[i].ids, lists[i].count};
  }
  ok = ok && clm_model_choices(s->model, context.ids, context.count, choices, count, sums) == CLM_OK;
  if (!ok) tool_fail("%s: line %zu: %s", text_name(given.choices), line, clm_context_error(s->context));
  else if (!report(line, json, choices, sums, count, t)) ok = (fail_output(), false);
  for (size_t i = 0; lists && i < count; i++) free(lists[i].ids);
  free(context.ids);
  free(lists);
  free(choices);
  free(sums);
  return ok ? TOOL_OK : TOOL_FAILED;
}

static int choose(const session *s) {
  text_lines lines;
  tally t = {0};
  if (!text_read_lines(given.choices, &lines)) return TOOL_FAILED;
  int status = TOOL_OK;
  progress bar = progress_start();
  interrupt_catch();
  if (!isatty(STDOUT_FILENO)) progress_wait(&bar, "scoring the choices"); /* else the lines themselves show it */
  for (size_t i = 0; i < lines.count && status == TOOL_OK; i++) {
    if (interrupt_came()) status = tool_fail("interrupted in line %zu", i + 1);
    if (!isatty(STDOUT_FILENO)) progress_bar(&bar, (double)i / (double)lines.count, "scoring the choices");
    if (status || !lines.at[i].bytes) continue;
    json_error_t error;
    json_t *json = json_parse(lines.at[i].data, lines.at[i].bytes, JSON_EXACT, &error);
    status = json ? choose_line(s, i + 1, json, &t)
                  : tool_fail("%s: line %zu is not JSON: %.100s", text_name(given.choices), i + 1, error.text);
    json_decref(json);
  }
  progress_end(&bar);
  text_free_lines(&lines);
  if (status || !t.answered) return status;
  bool printed = printf("accuracy of %zu:", t.answered) > 0;
  for (int r = 0; r < RULES && printed; r++)
    printed =
        printf(" %.4f %s%s", (double)t.right[r] / (double)t.answered, rule_names[r], r + 1 < RULES ? "," : "\n") > 0;
  return printed ? TOOL_OK : fail_output();
}

/* ---- Logits and hidden states: chunk after chunk, the state carried ---- */

typedef struct exporting {
  const session *session;
  const token_rows *rows;
  clm_model_state *state;
  clm_buffer *buffer;
  float *host;
  array_file logits, hidden;
} exporting;

/* Numbers of one position. */
static int64_t vocab_of(const session *s) { return clm_model_configuration(s->model)->vocab_size; }
static int64_t d_model_of(const session *s) { return clm_model_configuration(s->model)->d_model; }
static int64_t planes_of(const session *s) { return clm_model_configuration(s->model)->n_layer + 1; }

static clm_status export_chunk(exporting *e, int64_t begin, int64_t count, bool *written) {
  const session *s = e->session;
  int64_t vocab = vocab_of(s), planes = planes_of(s), d_model = d_model_of(s);
  clm_model_run_args args = {.state = e->state};
  size_t at = 0;
  args.ids = clm_tensor_of(e->buffer, at, CLM_I32, 2, (int64_t[]){1, count});
  at += CHUNK * sizeof(int32_t);
  if (given.logits) args.logits = clm_tensor_of(e->buffer, at, CLM_F32, 3, (int64_t[]){1, count, vocab});
  if (given.logits) at += (size_t)(CHUNK * vocab) * sizeof(float);
  if (given.hidden) args.hidden = clm_tensor_of(e->buffer, at, CLM_F32, 4, (int64_t[]){planes, 1, count, d_model});
  clm_status status = clm_tensor_write(args.ids, e->rows->ids + begin, (size_t)count * sizeof(int32_t));
  if (status == CLM_OK) status = clm_model_run(s->model, &args);
  if (given.logits && status == CLM_OK) {
    status = clm_tensor_read(args.logits, e->host, (size_t)(count * vocab) * sizeof(float));
    *written = array_write(&e->logits, begin * vocab, e->host, count * vocab);
  }
  if (!given.hidden || status) return status;
  status = clm_tensor_read(args.hidden, e->host, (size_t)(planes * count * d_model) * sizeof(float));
  for (int64_t p = 0; p < planes && *written && status == CLM_OK; p++)
    *written = array_write(&e->hidden, (p * e->rows->length + begin) * d_model, e->host + p * count * d_model,
                           count * d_model);
  return status;
}

static int export_all(exporting *e, progress *bar) {
  const session *s = e->session;
  int64_t vocab = vocab_of(s), planes = planes_of(s), d_model = d_model_of(s), length = e->rows->length;
  int64_t numbers = CHUNK * ((given.logits ? vocab : 0) + (given.hidden ? planes * d_model : 0));
  e->host = malloc((size_t)numbers * sizeof(float));
  if (!e->host) return fail_memory();
  if (clm_model_state_create(s->model, 1, &e->state) ||
      clm_buffer_create(s->context, CHUNK * sizeof(int32_t) + (size_t)numbers * sizeof(float), &e->buffer))
    return fail(s);
  if (given.logits && !array_open(&e->logits, given.logits, 2, (int64_t[]){length, vocab})) return TOOL_FAILED;
  if (given.hidden && !array_open(&e->hidden, given.hidden, 3, (int64_t[]){planes, length, d_model}))
    return TOOL_FAILED;
  bool written = true;
  progress_wait(bar, "running the tokens");
  for (int64_t begin = 0; begin < length && written; begin += CHUNK) {
    if (interrupt_came()) return tool_fail("interrupted: nothing is written");
    progress_bar(bar, (double)begin / (double)length, "running the tokens");
    if (export_chunk(e, begin, length - begin < CHUNK ? length - begin : CHUNK, &written)) return fail(s);
  }
  return TOOL_OK; /* what the disk did not take, array_close says */
}

/* Both files or neither. */
static int export_states(const session *s, const token_rows *rows) {
  if (rows->batch != 1)
    return tool_fail("%s has %lld rows, expected (1, length)", given.tokens, (long long)rows->batch);
  exporting e = {.session = s, .rows = rows};
  progress bar = progress_start();
  interrupt_catch();
  int status = export_all(&e, &bar);
  progress_end(&bar);
  array_file *files[] = {&e.logits, &e.hidden};
  for (int i = 0; i < 2 && status == TOOL_OK; i++)
    if (files[i]->output.stream && !array_sync(files[i])) status = TOOL_FAILED;
  for (int i = 0; i < 2; i++)
    if (files[i]->output.stream && !array_close(files[i], status == TOOL_OK)) status = TOOL_FAILED;
  clm_model_state_destroy(&e.state);
  clm_buffer_destroy(&e.buffer);
  free(e.host);
  return status;
}

/* ---- Embeddings ---- */

static clm_status embed_rows(const session *s, const token_rows *rows, const int64_t *lengths, clm_buffer **buffer,
                             float *vectors) {
  size_t ids_bytes = (size_t)(rows->batch * rows->length) * sizeof(int32_t), begin = round_up_line(ids_bytes);
  size_t bytes = (size_t)(rows->batch * d_model_of(s)) * sizeof(float);
  clm_status status = clm_buffer_create(s->context, begin + bytes, buffer);
  if (status) return status;
  clm_model_run_args args = {.ids = clm_tensor_of(*buffer, 0, CLM_I32, 2, (int64_t[]){rows->batch, rows->length}),
                             .lengths = lengths};
  clm_tensor out = clm_tensor_of(*buffer, begin, CLM_F32, 2, (int64_t[]){rows->batch, d_model_of(s)});
  if (strcmp(given.embed, "mean") == 0) args.mean_hidden = out;
  else args.last_hidden = out;
  status = clm_tensor_write(args.ids, rows->ids, ids_bytes);
  if (status == CLM_OK) status = clm_model_run(s->model, &args);
  return status ? status : clm_tensor_read(out, vectors, bytes);
}

static int embed(const session *s, const token_rows *rows, const int64_t *lengths) {
  int64_t d_model = d_model_of(s);
  float *vectors = malloc((size_t)(rows->batch * d_model) * sizeof *vectors);
  if (!vectors) return fail_memory();
  clm_buffer *buffer = NULL;
  array_file file;
  progress bar = progress_start();
  progress_wait(&bar, "running the texts");
  int status = embed_rows(s, rows, lengths, &buffer, vectors) ? fail(s) : TOOL_OK;
  progress_end(&bar);
  clm_buffer_destroy(&buffer);
  if (status == TOOL_OK) {
    if (!array_open(&file, given.output, 2, (int64_t[]){rows->batch, d_model})) status = TOOL_FAILED;
    else {
      array_write(&file, 0, vectors, rows->batch * d_model);
      if (!array_close(&file, true)) status = TOOL_FAILED;
    }
  }
  free(vectors);
  return status;
}

static int run_backbone(const session *s) { return eval_backbone(s->context, tool_model_path()); }

static int run_tokens(const session *s) {
  token_rows rows;
  if (!tokens_read(given.tokens, vocab_of(s), &rows)) return TOOL_FAILED;
  int status = given.logits || given.hidden ? export_states(s, &rows) : TOOL_OK;
  if (status == TOOL_OK && given.embed) status = embed(s, &rows, NULL);
  free(rows.ids);
  return status;
}

static int run_texts(const session *s) {
  text_lines lines;
  if (!text_read_lines(given.texts, &lines)) return TOOL_FAILED;
  token_rows rows = {.batch = (int64_t)lines.count};
  token_list *lists = calloc(lines.count, sizeof *lists);
  int64_t *lengths = calloc(lines.count, sizeof *lengths);
  bool ok = lists && lengths;
  if (!ok) fail_memory();
  for (size_t i = 0; ok && i < lines.count; i++) {
    if (!lines.at[i].bytes) ok = (tool_fail("%s: line %zu is empty", given.texts, i + 1), false);
    else ok = text_encode(s->tokenizer, s->context, &lines.at[i], given.texts, &lists[i]);
    lengths[i] = (int64_t)lists[i].count;
    if (lengths[i] > rows.length) rows.length = lengths[i];
  }
  if (ok && !(rows.ids = calloc((size_t)(rows.batch * rows.length), sizeof *rows.ids))) ok = (fail_memory(), false);
  for (size_t i = 0; ok && i < lines.count; i++)
    memcpy(rows.ids + (int64_t)i * rows.length, lists[i].ids, lists[i].count * sizeof *rows.ids);
  int status = ok ? embed(s, &rows, lengths) : TOOL_FAILED;
  for (size_t i = 0; lists && i < lines.count; i++) free(lists[i].ids);
  free(lists);
  free(lengths);
  free(rows.ids);
  text_free_lines(&lines);
  return status;
}

/* ---- What is asked for ---- */

static const struct job {
  const char *name, *const *file;
  int (*run)(const session *);
  bool model, tokenizer;
} jobs[] = {{"--score", &given.score, score, true, true},
            {"--choices", &given.choices, choose, true, true},
            {"--tokens", &given.tokens, run_tokens, true, false},
            {"--texts", &given.texts, run_texts, true, true},
            {"--encode", &given.encode, encode, false, true},
            {"--encode-file", &given.encode_file, encode_file, false, true},
            {"--data", &given.data, run_backbone, false, false},
            {"--decode", &given.decode, decode, false, true}};
enum { JOBS = sizeof jobs / sizeof *jobs };

/* NULL, with a message, unless the command line asks for one thing and has what it takes. */
static const struct job *find_job(void) {
  const struct job *job = NULL;
  if (!tool_model_check()) return NULL;
  for (int i = 0; i < JOBS; i++)
    if (*jobs[i].file) {
      if (job) return tool_fail("%s and %s exclude each other", job->name, jobs[i].name), NULL;
      job = &jobs[i];
    }
  bool tokens = given.tokens != NULL, texts = given.texts != NULL, encodes = given.encode || given.encode_file;
  bool windows = tool_given(&given.window) || tool_given(&given.stride), scored = given.targets || given.target;
  const struct {
    bool wrong;
    const char *message;
  } rules[] = {
      {!job,
       "nothing to do: give --score, --choices, --tokens, --texts, --encode, --encode-file, --decode or --data"},
      {(windows || given.carry) && !given.score, "--window, --stride and --carry are for --score"},
      {windows && given.carry, "--carry has no windows: leave out --window and --stride"},
      {(given.logits || given.hidden) && !tokens, "--logits and --hidden are for --tokens"},
      {given.embed && !tokens && !texts, "--embed is for --tokens or --texts"},
      {tokens && !given.logits && !given.hidden && !given.embed, "--tokens: give --logits, --hidden or --embed"},
      {texts && !given.embed, "--texts: give --embed"},
      {given.embed && strcmp(given.embed, "last") != 0 && strcmp(given.embed, "mean") != 0,
       "--embed takes last or mean"},
      {given.embed && !given.output, "--embed: give --output OUT"},
      {given.output && !given.embed && !given.data, "--output is for --embed and --data"},
      {given.tokens_out && !encodes, "--tokens-out is for --encode and --encode-file"},
      {(scored || given.features) && !given.data, "--targets, --target and --features are for --data"},
      {given.data && !given.output && !scored, "--data: give --output OUT, or --targets or --target for a score"},
  };
  for (size_t i = 0; i < sizeof rules / sizeof *rules; i++)
    if (rules[i].wrong) return tool_fail("%s", rules[i].message), NULL;
  const struct {
    const char *option;
    const long long *value;
  } counts[] = {{"--window", &given.window}, {"--stride", &given.stride}};
  for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
    if (tool_given(counts[i].value) && *counts[i].value < 1)
      return tool_fail("%s is %lld, expected 1 or more", counts[i].option, *counts[i].value), NULL;
  return job;
}

int main(int argc, char **argv) {
  int status;
  if (!tool_parse(argc, argv, &about, NULL, &status)) return status;
  const struct job *job = find_job();
  if (!job) return TOOL_USAGE;
  session s = {.context = tool_context(NULL)};
  if (!s.context) return TOOL_FAILED;
  if (job->model && !tool_model_load(s.context, &s.model)) status = TOOL_FAILED;
  else if (job->tokenizer && clm_tokenizer_load(s.context, tool_model_path(), &s.tokenizer)) status = fail(&s);
  else status = job->run(&s);
  if (status == TOOL_OK && (fflush(stdout) != 0 || ferror(stdout))) status = fail_output();
  clm_tokenizer_destroy(&s.tokenizer);
  clm_model_destroy(&s.model);
  clm_context_destroy(&s.context);
  return status;
}

/* Generation on every device: a batch against its sequences alone, states against unbroken text, stop strings
 * wherever tokens begin, log-probabilities against double precision; the sampler's and the stop strings' own rules.
 */
#include "cmocka_all.h"
#include "devices.h"
#include "random.h"
#include "text/stops.h"
#include "text/tokenizer.h"
#include "text/utf8.h"
#include <clmamba/generate.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { VOCAB = 27, MAX_BATCH = 6, MAX_TOKENS = 200, TOP = 3 };
#define ALPHABET "abcdefghijklmnopqrstuvwxyz\n"

static void check(clm_context *context, clm_status status, const char *what) {
  if (status) fail_msg("%s: %s: %s", what, clm_status_string(status), clm_context_error(context));
}
#define CHECK(f, call) check((f)->context, call, #call)

typedef struct fixture {
  clm_context *context;
  clm_model *model;
  clm_tokenizer *tokenizer;
} fixture;

static fixture fixture_make(clm_context *context) {
  fixture f = {.context = context};
  const clm_model_config config = {.vocab_size = VOCAB + 3, /* padded, as checkpoints are */
                                   .d_model = 24,
                                   .n_layer = 2,
                                   .d_state = 8,
                                   .dt_min = 0.05f,
                                   .dt_max = 1,
                                   .embedding_range = 0.35f,
                                   .untied_head = true};
  CHECK(&f, clm_model_create(context, &config, 5, &f.model));
  CHECK(&f, clm_tokenizer_create(context, CLM_VOCABULARY_CHAR, ALPHABET, VOCAB, &f.tokenizer));
  return f;
}

static void fixture_free(fixture *f) {
  clm_tokenizer_destroy(&f->tokenizer);
  clm_model_destroy(&f->model);
}

/* What the callback has been given, by sequence. */
typedef struct heard {
  int64_t calls;
  int32_t ids[MAX_TOKENS];
  float logprobs[MAX_TOKENS];
  clm_token_logprob top[MAX_TOKENS][TOP];
  char text[MAX_TOKENS + 1];
  size_t bytes;
  clm_generate_end end;
} heard;

typedef struct listener {
  heard sequences[MAX_BATCH];
  int64_t leave_after; /* 0: stays to the end */
  int64_t last;        /* sequence of the call before */
} listener;

static bool listen(void *user, const clm_generate_piece *p) {
  listener *l = user;
  assert_in_range(p->sequence, 0, MAX_BATCH - 1);
  heard *h = &l->sequences[p->sequence];
  assert_int_equal(h->end, CLM_GENERATE_GOES_ON); /* no call after the last */
  assert_in_range(p->id, 0, VOCAB - 1);
  assert_true(h->calls < MAX_TOKENS);
  h->ids[h->calls] = p->id;
  h->logprobs[h->calls] = p->logprob;
  if (p->top) memcpy(h->top[h->calls], p->top, sizeof h->top[0]);
  if (p->bytes) memcpy(h->text + h->bytes, p->text, p->bytes);
  h->bytes += p->bytes;
  h->end = p->end;
  return ++h->calls != l->leave_after;
}

enum { TEXT_TOKENS = 600 };
typedef struct text_heard {
  int32_t ids[TEXT_TOKENS];
  char text[TEXT_TOKENS * 4];
  size_t count, bytes, pieces;
} text_heard;

static clm_prompt prompt_of(const char *text) { return (clm_prompt){.text = text, .bytes = strlen(text)}; }

static listener *generate(const fixture *f, clm_generate_args args, clm_generate_stats *stats) {
  listener *l = calloc(1, sizeof *l);
  args.emit = listen;
  args.user = l;
  CHECK(f, clm_generate(f->model, f->tokenizer, &args, stats));
  return l;
}

static void assert_same_text(const heard *got, const heard *want) {
  assert_int_equal(got->calls, want->calls);
  assert_memory_equal(got->ids, want->ids, (size_t)want->calls * sizeof *want->ids);
  assert_string_equal(got->text, want->text);
  assert_int_equal(got->end, want->end);
}

static const char *const words[MAX_BATCH] = {"the", "a", "longer\nthantheothersbysome", "b", "", "the"};

typedef struct batch_case {
  const char *why;
  clm_sampler_options sampler;
  const char *stop;
} batch_case;
static const batch_case batches[] = {
    {"greedy", {.temperature = 0}, NULL},
    {"sampled", {.temperature = 1, .seed = 9}, NULL},
    {"sampled, cut, penalised", {.temperature = 0.8f, .top_k = 12, .top_p = 0.9f, .repetition_penalty = 1.2f}, NULL},
    {"each to its own end", {.temperature = 1.5f, .seed = 3}, "e"},
};

/* A batch of prompts of different lengths: every sequence has the text that it has alone. */
static void test_batch(const test_device *device, const void *data) {
  const batch_case *c = data;
  fixture f = fixture_make(device->context);
  clm_prompt all[MAX_BATCH];
  clm_generate_stats stats;
  for (int i = 0; i < MAX_BATCH; i++) all[i] = prompt_of(words[i]);
  clm_generate_args args = {.prompts = all, .batch = MAX_BATCH, .count = 40, .sampler = c->sampler};
  args.stop_strings = &c->stop;
  args.stop_string_count = c->stop != NULL;
  listener *batch = generate(&f, args, &stats);
  int64_t total = 0;
  for (int i = 0; i < MAX_BATCH; i++) {
    args.prompts = &all[i];
    args.batch = 1;
    args.sampler.stream = (uint64_t)i;
    listener *alone = generate(&f, args, NULL);
    assert_same_text(&batch->sequences[i], &alone->sequences[0]);
    total += alone->sequences[0].calls;
    free(alone);
  }
  assert_int_equal(stats.new_tokens, total);
  assert_int_equal(stats.prompt_tokens, 3 + 1 + 26 + 1 + 1 + 3);
  if (c->sampler.temperature > 0) /* two sequences of one prompt do not draw alike */
    assert_memory_not_equal(batch->sequences[0].ids, batch->sequences[5].ids, 5 * sizeof(int32_t));
  const uint64_t seeds[2] = {7, 7};
  args = (clm_generate_args){.prompts = all + 4, .batch = 2, .count = 20, .sampler = c->sampler, .seeds = seeds};
  listener *seeded = generate(&f, args, NULL);
  args.prompts = all + 5;
  args.batch = 1;
  listener *alone = generate(&f, args, NULL);
  assert_same_text(&seeded->sequences[1], &alone->sequences[0]);
  free(seeded);
  free(alone);
  free(batch);
  fixture_free(&f);
}

/* One call, two calls with the state between them, a saved state, a forked one: the same text. */
static void test_states(const test_device *device, const void *data) {
  (void)data;
  fixture f = fixture_make(device->context);
  clm_prompt all[3] = {prompt_of("once"), prompt_of("on"), prompt_of("hill")}, none[3] = {{0}};
  clm_model_state *state, *one;
  char path[] = "/tmp/clmamba-test-XXXXXX";
  int fd = mkstemp(path);
  assert_true(fd >= 0);
  clm_generate_args args = {.prompts = all, .batch = 3, .count = 30};
  listener *whole = generate(&f, args, NULL);
  CHECK(&f, clm_model_state_create(f.model, 3, &state));
  args.count = 12;
  args.into = state;
  listener *first = generate(&f, args, NULL);
  for (int64_t i = 0; i < 3; i++) assert_int_equal(clm_model_state_tokens(state, i), (int64_t)all[i].bytes + 12);
  CHECK(&f, clm_model_state_save(state, path));
  clm_model_state_destroy(&state);
  CHECK(&f, clm_model_state_load(f.model, path, &state));
  remove(path);
  args = (clm_generate_args){.prompts = none, .batch = 3, .count = 18, .from = state};
  listener *rest = generate(&f, args, NULL);
  for (int i = 0; i < 3; i++) {
    assert_memory_equal(first->sequences[i].ids, whole->sequences[i].ids, 12 * sizeof(int32_t));
    assert_memory_equal(rest->sequences[i].ids, whole->sequences[i].ids + 12, 18 * sizeof(int32_t));
  }
  free(rest);
  /* Of one row: the prompt continues the text so far. */
  CHECK(&f, clm_model_state_fork(state, (int64_t[]){1}, 1, &one));
  args = (clm_generate_args){.prompts = all, .batch = 3, .count = 9, .from = one};
  rest = generate(&f, args, NULL);
  char joined[3][MAX_TOKENS + 16];
  for (int i = 0; i < 3; i++) {
    snprintf(joined[i], sizeof joined[i], "on%s%s", first->sequences[1].text, all[i].text);
    all[i] = prompt_of(joined[i]);
  }
  args.from = NULL;
  listener *again = generate(&f, args, NULL);
  for (int i = 0; i < 3; i++) assert_same_text(&rest->sequences[i], &again->sequences[i]);
  /* Nothing generated: the prompt alone is paid. */
  args = (clm_generate_args){.prompts = all, .batch = 3, .count = 0, .into = state};
  free(generate(&f, args, NULL));
  args = (clm_generate_args){.batch = 3, .count = 9, .from = state};
  free(rest);
  rest = generate(&f, args, NULL);
  for (int i = 0; i < 3; i++) assert_same_text(&rest->sequences[i], &again->sequences[i]);
  listener *all_listeners[] = {whole, first, rest, again};
  for (int i = 0; i < 4; i++) free(all_listeners[i]);
  clm_model_state_destroy(&one);
  clm_model_state_destroy(&state);
  fixture_free(&f);
}

/* The greedy text is that of the most likely token, step by step, with its log-probabilities. */
static void test_logprobs(const test_device *device, const void *data) {
  (void)data;
  enum { COUNT = 15 };
  fixture f = fixture_make(device->context);
  const int64_t vocab = VOCAB + 3;
  const clm_prompt prompt = prompt_of("word");
  clm_generate_args args = {
      .prompts = &prompt, .count = COUNT, .top_logprobs = TOP, .sampler = {.repetition_penalty = 1.3f}};
  listener *l = generate(&f, args, NULL);
  const heard *h = &l->sequences[0];
  int32_t text[4 + COUNT];
  size_t count;
  clm_buffer *buffer;
  float logits[VOCAB + 3];
  CHECK(&f, clm_tokenizer_encode(f.tokenizer, "word", 4, text, 4, &count));
  memcpy(text + 4, h->ids, sizeof h->ids[0] * COUNT);
  CHECK(&f, clm_buffer_create(f.context, 64 + sizeof logits, &buffer));
  clm_model_state *state;
  CHECK(&f, clm_model_state_create(f.model, 1, &state));
  bool seen[VOCAB + 3] = {false};
  for (int64_t t = 0; t < 4 + COUNT - 1; t++) {
    clm_tensor id = clm_tensor_of(buffer, 0, CLM_I32, 1, (int64_t[]){1});
    clm_tensor out = clm_tensor_of(buffer, 64, CLM_F32, 2, (int64_t[]){1, vocab});
    seen[text[t]] = true;
    CHECK(&f, clm_tensor_write(id, &text[t], sizeof text[t]));
    CHECK(&f, clm_model_decode(f.model, state, id, out));
    if (t < 3) continue;
    CHECK(&f, clm_tensor_read(out, logits, sizeof logits));
    double sum = 0;
    for (int i = 0; i < vocab; i++) sum += exp((double)logits[i]);
    const int64_t at = t - 3;
    assert_true(fabs((double)h->logprobs[at] - ((double)logits[text[t + 1]] - log(sum))) < 1e-4);
    int32_t best = 0;
    for (int i = 0; i < VOCAB; i++) {
      float x = seen[i] ? logits[i] > 0 ? logits[i] / 1.3f : logits[i] * 1.3f : logits[i];
      float y = seen[best] ? logits[best] > 0 ? logits[best] / 1.3f : logits[best] * 1.3f : logits[best];
      if (x > y) best = i;
    }
    assert_int_equal(best, text[t + 1]);
    for (int k = 0; k < TOP; k++) { /* exactly k are more likely */
      int more = 0;
      for (int i = 0; i < vocab; i++) more += logits[i] > logits[h->top[at][k].id];
      assert_int_equal(more, k);
      assert_true(fabs((double)h->top[at][k].logprob - ((double)logits[h->top[at][k].id] - log(sum))) < 1e-4);
    }
  }
  clm_model_state_destroy(&state);
  clm_buffer_destroy(&buffer);
  free(l);
  fixture_free(&f);
}

/* Stops by token, by string, by the callback, by count; what was held back comes with the end. */
static void test_ends(const test_device *device, const void *data) {
  (void)data;
  fixture f = fixture_make(device->context);
  const clm_prompt prompt = prompt_of("what");
  clm_generate_args args = {.prompts = &prompt, .count = 60, .sampler = {.temperature = 1, .seed = 4}};
  listener *free_run = generate(&f, args, NULL);
  const heard *all = &free_run->sequences[0];
  assert_int_equal(all->end, CLM_GENERATE_COUNT);
  assert_int_equal(all->bytes, 60);
  for (size_t length = 1; length <= 5; length++) {
    char stop[8] = "", longer[12] = "";
    memcpy(stop, all->text + 30, length);
    snprintf(longer, sizeof longer, "%s\n\n?", stop); /* begins alike, and never comes */
    const char *strings[] = {longer, stop, "?!"};
    args.stop_strings = strings;
    args.stop_string_count = 3;
    listener *l = generate(&f, args, NULL);
    size_t at = (size_t)(strstr(all->text, stop) - all->text);
    assert_int_equal(l->sequences[0].end, CLM_GENERATE_STOP_STRING);
    assert_int_equal(l->sequences[0].bytes, at);
    assert_memory_equal(l->sequences[0].text, all->text, at);
    assert_int_equal(l->sequences[0].calls, at + length);
    free(l);
  }
  char never[4];
  snprintf(never, sizeof never, "%c?", all->text[59]); /* held back until the end */
  args.stop_strings = (const char *const[]){never};
  args.stop_string_count = 1;
  listener *l = generate(&f, args, NULL);
  assert_same_text(&l->sequences[0], all);
  free(l);
  args.stop_string_count = 0;
  args.stop_ids = &all->ids[20];
  args.stop_id_count = 1;
  l = generate(&f, args, NULL);
  int64_t first = 0;
  while (all->ids[first] != all->ids[20]) first++;
  assert_int_equal(l->sequences[0].end, CLM_GENERATE_STOP_ID);
  assert_int_equal(l->sequences[0].calls, first + 1);
  assert_int_equal(l->sequences[0].bytes, first); /* the stop token has no text */
  free(l);
  l = calloc(1, sizeof *l);
  l->leave_after = 7;
  args.stop_id_count = 0;
  args.emit = listen;
  args.user = l;
  CHECK(&f, clm_generate(f.model, f.tokenizer, &args, NULL));
  assert_int_equal(l->sequences[0].calls, 7);
  free(l);
  free(free_run);
  fixture_free(&f);
}

/* A vocabulary of bytes: every piece is whole characters, and all together are what decoding gives. */
static bool listen_utf8(void *user, const clm_generate_piece *p) {
  for (size_t at = 0, length; at < p->bytes; at += length) {
    uint32_t code;
    length = utf8_decode(p->text + at, p->bytes - at, &code);
    if (!length) fail_msg("a piece is not UTF-8 at byte %zu of %zu", at, p->bytes);
  }
  text_heard *h = user;
  assert_true(h->bytes + p->bytes <= sizeof h->text);
  if (p->bytes) memcpy(h->text + h->bytes, p->text, p->bytes);
  h->bytes += p->bytes;
  h->ids[h->count++] = p->id;
  h->pieces += p->bytes > 0;
  return true;
}

static void test_bytes(const test_device *device, const void *data) {
  (void)device, (void)data;
  clm_tokenizer *tokenizer;
  clm_model *model;
  const clm_model_config config = {.vocab_size = 256, .d_model = 8, .n_layer = 1, .untied_head = true};
  check(test_reference, clm_model_create(test_reference, &config, 1, &model), "create");
  check(test_reference, clm_tokenizer_create(test_reference, CLM_VOCABULARY_BYTE, "", 0, &tokenizer), "create");
  const clm_prompt prompt = prompt_of("x");
  text_heard h = {0};
  char *decoded = malloc(sizeof h.text);
  size_t bytes;
  check(test_reference,
        clm_generate(model, tokenizer,
                     &(clm_generate_args){.prompts = &prompt,
                                          .count = TEXT_TOKENS,
                                          .sampler = {.temperature = 1},
                                          .emit = listen_utf8,
                                          .user = &h},
                     NULL),
        "generate");
  assert_int_equal(h.count, TEXT_TOKENS);
  assert_true(h.pieces < TEXT_TOKENS); /* now and then a character waits for its end */
  check(test_reference, clm_tokenizer_decode(tokenizer, NULL, h.ids, h.count, decoded, sizeof h.text, &bytes),
        "decode");
  assert_int_equal(bytes, h.bytes);
  assert_memory_equal(decoded, h.text, bytes);
  free(decoded);
  clm_tokenizer_destroy(&tokenizer);
  clm_model_destroy(&model);
}

/* A tokenizer of the letters a to c and two special tokens. */
static clm_tokenizer *special_tokenizer(const fixture *f) {
  static const char json[] =
      "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0, \"b\": 1, \"c\": 2}, \"merges\": []},"
      "\"decoder\": {\"type\": \"Fuse\"}, \"added_tokens\": ["
      "{\"id\": 3, \"content\": \"<end>\", \"special\": true}, {\"id\": 4, \"content\": \"<ab>\", \"special\": "
      "true}]}";
  char folder[] = "/tmp/clmamba-test-XXXXXX", path[64];
  assert_non_null(mkdtemp(folder));
  snprintf(path, sizeof path, "%s/tokenizer.json", folder);
  FILE *file = fopen(path, "w");
  assert_non_null(file);
  fputs(json, file);
  assert_int_equal(fclose(file), 0);
  clm_tokenizer *tokenizer;
  CHECK(f, clm_tokenizer_load(f->context, folder, &tokenizer));
  remove(path);
  remove(folder);
  return tokenizer;
}

/* Stop strings see special tokens, as StopStringCriteria of transformers does; the text shows none of them. */
static void test_special_stops(const test_device *device, const void *data) {
  (void)device, (void)data;
  fixture f = {.context = test_reference};
  const clm_model_config config = {.vocab_size = 5, .d_model = 8, .n_layer = 1, .untied_head = true};
  CHECK(&f, clm_model_create(f.context, &config, 3, &f.model));
  f.tokenizer = special_tokenizer(&f);
  const clm_prompt prompt = prompt_of("ab");
  clm_generate_args args = {.prompts = &prompt, .count = 100, .sampler = {.temperature = 1, .seed = 2}};
  listener *whole = generate(&f, args, NULL);
  char searched[600] = "", shown[600] = "";
  size_t ends[100] = {0}, shown_ends[100] = {0};
  for (int i = 0; i < 100; i++) {
    static const char *const spellings[] = {"a", "b", "c", "<end>", "<ab>"};
    strcat(searched, spellings[whole->sequences[0].ids[i]]);
    if (whole->sequences[0].ids[i] < 3) strcat(shown, spellings[whole->sequences[0].ids[i]]);
    ends[i] = strlen(searched);
    shown_ends[i] = strlen(shown);
  }
  assert_string_equal(whole->sequences[0].text, shown);
  static const char *const wanted[] = {"<end>", "b<end>", "<end>c", "d><a", "><", "<ab>"};
  for (size_t k = 0; k < TEST_COUNT(wanted); k++) {
    const char *at = strstr(searched, wanted[k]);
    if (!at) fail_msg("\"%s\" does not come: another seed is needed", wanted[k]);
    size_t begin = (size_t)(at - searched), calls = 0, bytes = 0;
    while (ends[calls] < begin + strlen(wanted[k])) calls++;
    for (int i = 0; i < 100 && ends[i] <= begin; i++) bytes = shown_ends[i];
    args.stop_strings = &wanted[k];
    args.stop_string_count = 1;
    listener *l = generate(&f, args, NULL);
    assert_int_equal(l->sequences[0].end, CLM_GENERATE_STOP_STRING);
    assert_int_equal(l->sequences[0].calls, calls + 1);
    assert_int_equal(l->sequences[0].bytes, bytes);
    assert_memory_equal(l->sequences[0].text, shown, bytes);
    free(l);
  }
  /* Tokens that end in addition to the usual ones. */
  args.stop_string_count = 0;
  args.more_stop_ids = (const int32_t[]){4, 3};
  args.more_stop_id_count = 2;
  listener *l = generate(&f, args, NULL);
  int first = 0;
  while (whole->sequences[0].ids[first] < 3) first++;
  assert_int_equal(l->sequences[0].end, CLM_GENERATE_STOP_ID);
  assert_int_equal(l->sequences[0].calls, first + 1);
  free(l);
  free(whole);
  fixture_free(&f);
}

/* Logits that give no probabilities are an error with a message, where transformers raises; no token is made of them.
 */
static void test_not_finite(const test_device *device, const void *data) {
  (void)data;
  const struct {
    const char *parameter;
    size_t at;
    float value;
  } rows[] = {{"backbone.norm_f.weight", 3, (float)NAN},
              {"backbone.norm_f.weight", 0, INFINITY},
              {"lm_head.weight", 24 * 5 + 1, (float)NAN}};
  const clm_prompt prompt = prompt_of("word");
  for (size_t i = 0; i < TEST_COUNT(rows); i++) {
    fixture f = fixture_make(device->context);
    clm_tensor parameter;
    CHECK(&f, clm_model_parameter(f.model, rows[i].parameter, &parameter));
    CHECK(&f, clm_tensor_write(
                  clm_tensor_slice(clm_tensor_reshape(parameter, 1, (int64_t[]){clm_tensor_count(parameter)}), 0,
                                   (int64_t)rows[i].at, 1),
                  &rows[i].value, sizeof rows[i].value));
    for (int how = 0; how < 3; how++) {
      const clm_generate_args args = {.prompts = &prompt,
                                      .count = 5,
                                      .sampler = {.temperature = how == 1 ? 0.7f : 0},
                                      .top_logprobs = how == 2 ? 3 : 0,
                                      .emit = listen,
                                      .user = calloc(1, sizeof(listener))};
      assert_int_equal(clm_generate(f.model, f.tokenizer, &args, NULL), CLM_BAD_FORMAT);
      assert_non_null(strstr(clm_context_error(f.context), "after 4 tokens of sequence 0 the logits are not finite"));
      assert_int_equal(((listener *)args.user)->sequences[0].calls, 0);
      free(args.user);
    }
    const int32_t ids[] = {1, 2, 5, 4};
    const clm_choice choice = {ids + 2, 2};
    double loss = 0;
    assert_int_equal(clm_model_score(f.model, ids, 4, NULL, &loss), CLM_BAD_FORMAT);
    assert_non_null(strstr(clm_context_error(f.context), "prediction 0 has no finite number"));
    assert_int_equal(clm_model_choices(f.model, ids, 2, &choice, 1, &loss), CLM_BAD_FORMAT);
    fixture_free(&f);
  }
}

/* A callback hears how far the prompts and a score are, and can stop them. */
typedef struct watcher {
  int64_t calls, done, total, stop_after;
} watcher;

static bool watch(void *user, int64_t done, int64_t total) {
  watcher *w = user;
  assert_true(done > w->done && done <= total);
  w->done = done;
  w->total = total;
  return ++w->calls != w->stop_after;
}

static void test_progress(const test_device *device, const void *data) {
  (void)data;
  enum { LONG = 5000 };
  fixture f = fixture_make(device->context);
  int32_t *ids = calloc(LONG, sizeof *ids);
  for (int i = 0; i < LONG; i++) ids[i] = i * i % VOCAB;
  const clm_prompt prompts[] = {{.ids = ids, .count = LONG}, {.ids = ids, .count = 100}};
  for (int64_t stop_after = 0; stop_after < 2; stop_after++) {
    watcher w = {.stop_after = stop_after};
    const clm_status want = stop_after ? CLM_INTERRUPTED : CLM_OK;
    clm_generate_args args = {.prompts = prompts, .batch = 2, .progress = watch, .user = &w};
    assert_int_equal(clm_generate(f.model, f.tokenizer, &args, NULL), want);
    assert_int_equal(w.total, LONG + 100);
    assert_true(stop_after ? w.done < w.total : w.done == w.total && w.calls > 1);
    for (int carry = 0; carry < 2; carry++) {
      w = (watcher){.stop_after = stop_after};
      double loss;
      const clm_score_options how = {.carry = carry, .progress = watch, .user = &w};
      assert_int_equal(clm_model_score(f.model, ids, LONG, &how, &loss), want);
      assert_int_equal(w.total, LONG - 1);
      assert_true(stop_after ? w.done < w.total : w.done == w.total && w.calls > 1);
    }
  }
  free(ids);
  fixture_free(&f);
}

static void test_bad_arguments(const test_device *device, const void *data) {
  (void)device, (void)data;
  fixture f = fixture_make(test_reference);
  clm_model_state *two;
  CHECK(&f, clm_model_state_create(f.model, 2, &two));
  const clm_prompt text = prompt_of("abc"), foreign = prompt_of("a~"), ids = {.ids = (int32_t[]){1, 30}, .count = 2};
  const struct {
    clm_generate_args args;
    bool without_tokenizer;
    const char *message;
  } rows[] = {
      {{.prompts = &text, .count = -1}, false, "count is -1"},
      {{.prompts = &text, .count = 1, .sampler = {.top_p = 2}}, false, "top_p is 2"},
      {{.prompts = &text, .count = 1, .batch = -1}, false, "batch is -1"},
      {{.prompts = &text, .count = 1, .top_logprobs = 31}, false, "top_logprobs is 31, expected 0 to 30"},
      {{.prompts = &text, .count = 1, .stop_strings = (const char *const[]){""}, .stop_string_count = 1},
       false,
       "stop string 0 is missing or empty"},
      {{.prompts = &text, .count = 1}, true, "a text needs a tokenizer"},
      {{.prompts = &ids, .count = 1, .stop_strings = (const char *const[]){"x"}, .stop_string_count = 1},
       true,
       "stop strings need a tokenizer"},
      {{.prompts = &ids, .count = 1}, true, "token 1 of prompt 0 is 30, expected 0 to 29"},
      {{.prompts = &foreign, .count = 1}, false, "U+007E"},
      {{.prompts = &text, .count = 1, .into = two}, false, "`into` has 2 sequences"},
      {{.prompts = (clm_prompt[]){text, text, text}, .batch = 3, .count = 1, .from = two},
       false,
       "`from` has 2 sequences, expected 1 or as many as prompts, 3"},
  };
  for (size_t i = 0; i < TEST_COUNT(rows); i++) {
    clm_status status = clm_generate(f.model, rows[i].without_tokenizer ? NULL : f.tokenizer, &rows[i].args, NULL);
    if (!status || !strstr(clm_context_error(test_reference), rows[i].message))
      fail_msg("\"%s\", expected \"%s\"", clm_context_error(test_reference), rows[i].message);
  }
  clm_model_state_destroy(&two);
  fixture_free(&f);
}

/* A tokenizer with more tokens than the model (ids 20 to 26 of 27): only a prompt that uses one of these is refused,
 * and before `ready` is called, so that nothing has been shown. transformers generates as long as the ids are below
 * the model's rows. */
static void count_ready(void *user) { ++*(int *)user; }

static void test_larger_tokenizer(const test_device *device, const void *data) {
  (void)device, (void)data;
  const clm_model_config config = {.vocab_size = 20, .d_model = 8, .n_layer = 1};
  clm_tokenizer *tokenizer;
  clm_model *model;
  int ready = 0;
  check(test_reference, clm_model_create(test_reference, &config, 1, &model), "create");
  check(test_reference, clm_tokenizer_create(test_reference, CLM_VOCABULARY_CHAR, ALPHABET, VOCAB, &tokenizer),
        "create");
  const clm_prompt good = prompt_of("abc"), bad = prompt_of("abz"); /* "\n" is 0, "a" 1, "z" 26 */
  clm_generate_args args = {
      .prompts = &good, .count = 40, .sampler = {.temperature = 2}, .ready = count_ready, .user = &ready};
  clm_generate_stats stats;
  check(test_reference, clm_generate(model, tokenizer, &args, &stats), "generate");
  assert_int_equal(stats.new_tokens, 40);
  assert_int_equal(ready, 1);
  args.prompts = &bad;
  assert_int_equal(clm_generate(model, tokenizer, &args, NULL), CLM_INVALID_ARGUMENT);
  assert_non_null(
      strstr(clm_context_error(test_reference), "prompt 0 has the token \"z\", number 26, the model only 0 to 19"));
  assert_int_equal(ready, 1);
  clm_tokenizer_destroy(&tokenizer);
  clm_model_destroy(&model);
}

/* Each of several end tokens ends a text: the second, which comes first here, as transformers' generate stops there.
 */
static void test_several_ends(const test_device *device, const void *data) {
  (void)device, (void)data;
  fixture f = fixture_make(test_reference);
  const clm_prompt prompt = prompt_of("abc");
  text_heard h = {0};
  clm_generate_args args = {.prompts = &prompt, .count = 12, .emit = listen_utf8, .user = &h};
  CHECK(&f, clm_generate(f.model, f.tokenizer, &args, NULL));
  assert_int_equal(h.count, 12);
  size_t first = 0; /* the first time that the sixth token comes */
  while (h.ids[first] != h.ids[5]) first++;
  const int32_t ends[] = {1000, h.ids[5], -1};
  free(f.tokenizer->ends);
  f.tokenizer->end_count = 0;
  assert_true(tokenizer_set_ends(f.tokenizer, ends, 3));
  assert_int_equal(f.tokenizer->end_count, 2);
  h = (text_heard){0};
  CHECK(&f, clm_generate(f.model, f.tokenizer, &args, NULL));
  assert_int_equal(h.count, first + 1); /* the end token is told, without text */
  fixture_free(&f);
}

/* ---- Stop strings alone ---- */

/* All in one piece, the first stop that is complete, tried for every end. */
static size_t expected_end(const char *text, size_t bytes, const char *const *strings, size_t count) {
  for (size_t end = 1; end <= bytes; end++) {
    size_t longest = 0;
    for (size_t i = 0; i < count; i++) {
      size_t length = strlen(strings[i]);
      if (length <= end && length > longest && strncmp(text + end - length, strings[i], length) == 0)
        longest = length;
    }
    if (longest) return end - longest;
  }
  return bytes;
}

/* Random texts over three letters, random stops, cut at random, some pieces not shown: nothing is shown that had to
 * be taken back, and all that is shown of the text before the stop. */
static void test_stops(const test_device *device, const void *data) {
  (void)device, (void)data;
  test_random r = random_seeded(2, "stops");
  for (int round = 0; round < 20000; round++) {
    char text[25] = "", shown[25] = "", visible[25] = "", strings[3][5] = {"", "", ""};
    const char *pointers[3] = {strings[0], strings[1], strings[2]};
    size_t count = (size_t)random_below(&r, 4), bytes = (size_t)random_below(&r, 24), at = 0, want_shown = 0;
    for (size_t i = 0; i < bytes; i++) text[i] = (char)('a' + random_below(&r, 3));
    for (size_t i = 0; i < count; i++)
      for (int64_t k = random_below(&r, 4); k >= 0; k--) strings[i][k] = (char)('a' + random_below(&r, 3));
    size_t want = expected_end(text, bytes, pointers, count);
    stops s = {.strings = pointers, .count = count};
    bool stopped = false;
    for (size_t begin = 0, piece; begin <= bytes && !stopped; begin += piece) {
      piece = (size_t)random_below(&r, 5);
      if (begin == bytes) piece = 1; /* the end */
      else if (piece > bytes - begin) piece = bytes - begin;
      const bool hidden = random_below(&r, 4) == 0;
      const byte_string searched = {text + begin, begin < bytes ? piece : 0};
      if (!hidden && begin < want) {
        size_t part = want - begin < searched.bytes ? want - begin : searched.bytes;
        memcpy(visible + want_shown, searched.text, part);
        want_shown += part;
      }
      assert_true(stops_add(&s, searched, hidden ? (byte_string){NULL, 0} : searched));
      stops_found found = stops_look(&s, begin == bytes);
      if (found.bytes) memcpy(shown + at, found.text, found.bytes);
      at += found.bytes;
      assert_true(at <= want_shown && strncmp(shown, visible, at) == 0);
      stopped = found.stopped;
    }
    assert_int_equal(at, want_shown);
    assert_int_equal(stopped, want < bytes || expected_end(text, bytes, pointers, count) < bytes);
    stops_free(&s);
  }
}

/* ---- Log-probabilities alone ---- */

static void test_token_logprobs(const test_device *device, const void *data) {
  (void)device, (void)data;
  const float logits[6] = {1, 90, 88.5f, 90, -INFINITY, 3};
  clm_token_logprob chosen = {.id = 2}, top[6];
  const int32_t order[6] = {1, 3, 2, 5, 0, 4};
  double sum = log(2 + exp(-1.5) + exp(-87) + exp(-89));
  for (int64_t count = 0; count <= 6; count++) {
    chosen.logprob = (float)NAN;
    clm_token_logprobs(logits, 6, &chosen, count ? top : NULL, count);
    assert_true(fabs((double)chosen.logprob - (-1.5 - sum)) < 1e-6);
    for (int64_t i = 0; i < count; i++) {
      assert_int_equal(top[i].id, order[i]);
      double want = (double)logits[order[i]] - 90 - sum;
      assert_true((double)top[i].logprob == want || fabs((double)top[i].logprob - want) < 1e-5);
    }
  }
}

/* A large vocabulary, of which little is sorted: the draws are those of a whole sort. */
static int by_logit(const void *a, const void *b) {
  const float *x = a, *y = b;
  return x[0] != y[0] ? (x[0] > y[0] ? -1 : 1) : (x[1] > y[1]) - (x[1] < y[1]);
}

static void test_large_vocabulary(const test_device *device, const void *data) {
  (void)device;
  const clm_sampler_options *options = data;
  enum { SIZE = 1000, DRAWS = 300 };
  static float logits[SIZE], copy[SIZE], sorted[SIZE][2];
  static bool drawn[SIZE];
  test_random r = random_seeded(8, "large");
  memset(drawn, 0, sizeof drawn);
  for (int i = 0; i < SIZE; i++) logits[i] = (float)(floor(random_normal(&r) * 20) / 8); /* many alike */
  for (int i = 0; i < SIZE; i++) sorted[i][0] = logits[i], sorted[i][1] = (float)i;
  qsort(sorted, SIZE, sizeof *sorted, by_logit);
  double p[SIZE], total = 0, reached = 0;
  int keep = options->top_k && options->top_k < SIZE ? (int)options->top_k : SIZE, few = 0;
  for (int i = 0; i < keep; i++)
    total += p[i] = exp(((double)sorted[i][0] - (double)sorted[0][0]) / (double)options->temperature);
  double wanted = options->top_p > 0 ? (double)options->top_p * total : total * 2;
  while (few < keep && reached < wanted) reached += p[few++];
  while (few > 1 && p[few - 1] < (double)options->min_p) few--;
  clm_sampler *s;
  assert_int_equal(clm_sampler_create(test_reference, options, SIZE, &s), CLM_OK);
  for (int i = 0; i < DRAWS; i++) {
    memcpy(copy, logits, sizeof copy);
    drawn[clm_sampler_sample(s, copy)] = true;
  }
  clm_sampler_destroy(&s);
  for (int i = few; i < SIZE; i++)
    if (drawn[(int)sorted[i][1]]) fail_msg("number %d of %d that stay was drawn", i, few);
  assert_true(drawn[(int)sorted[0][1]] || few > 50);
}

static void add(void) {
  static const clm_sampler_options large[] = {{.temperature = 0.5f, .top_k = 7},
                                              {.temperature = 1, .top_p = 0.3f},
                                              {.temperature = 1, .min_p = 0.3f},
                                              {.temperature = 2, .top_k = 100, .top_p = 0.5f, .min_p = 0.2f}};
  test_add(NULL, test_stops, NULL, "stop strings in pieces");
  test_add(NULL, test_token_logprobs, NULL, "log-probabilities");
  for (size_t i = 0; i < TEST_COUNT(large); i++)
    test_add(NULL, test_large_vocabulary, &large[i], "a large vocabulary, options %zu", i);
  test_add(NULL, test_bytes, NULL, "bytes");
  test_add(NULL, test_larger_tokenizer, NULL, "a tokenizer larger than the model");
  test_add(NULL, test_several_ends, NULL, "several end tokens");
  test_add(NULL, test_bad_arguments, NULL, "bad arguments");
  test_add(NULL, test_special_stops, NULL, "special tokens in stop strings");
  for (size_t d = 0; d < test_device_count; d++) {
    const test_device *device = &test_devices[d];
    for (size_t i = device->slow ? TEST_COUNT(batches) - 1 : 0; i < TEST_COUNT(batches); i++)
      test_add(device, test_batch, &batches[i], "batch, %s", batches[i].why);
    test_add(device, test_states, NULL, "states");
    test_add(device, test_logprobs, NULL, "log-probabilities of a text");
    test_add(device, test_ends, NULL, "ends");
    test_add(device, test_not_finite, NULL, "logits that are not finite");
    test_add(device, test_progress, NULL, "progress");
  }
}

int main(void) { return test_main("generate", add); }

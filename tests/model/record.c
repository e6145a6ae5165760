/* What models compute, as fingerprints one a line: to compare two versions of the library, whose results must be the
 * same bit for bit where only its inside has changed (record.sh).
 *
 *   record DEVICE FIXTURES FOLDER [OLD]
 *
 * Files are written to FOLDER. With OLD, the FOLDER of another version, states and checkpoints are read from there.
 */
#include "files/safetensors.h"
#include <clmamba/clmamba.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <xxhash.h>

enum { LENGTH = 72, BATCH = 3, STEPS = 4 };

static clm_context *context;
static const char *folder, *old;

static void check(clm_status status, const char *call) {
  if (status == CLM_OK) return;
  fprintf(stderr, "record: %s: %s\n", call, clm_context_error(context));
  exit(EXIT_FAILURE);
}
#define CHECK(call) check(call, #call)

static uint64_t hash_of(const void *data, size_t bytes) { return XXH64(data, bytes, 0); }

static void say(const char *case_name, const char *what, uint64_t hash) {
  printf("%-40s %-24s %016llx\n", case_name, what, (unsigned long long)hash);
  fflush(stdout);
}

static void say_tensor(const char *case_name, const char *what, clm_tensor t) {
  size_t bytes = (size_t)clm_tensor_count(t) * 4;
  void *host = malloc(bytes);
  CHECK(clm_tensor_read(t, host, bytes));
  say(case_name, what, hash_of(host, bytes));
  free(host);
}

static char *path_in(const char *root, const char *format, ...) {
  static char paths[4][600];
  static int next;
  char *path = paths[next++ % 4];
  int at = snprintf(path, sizeof paths[0], "%s/", root);
  va_list list;
  va_start(list, format);
  vsnprintf(path + at, sizeof paths[0] - (size_t)at, format, list);
  va_end(list);
  return path;
}

/* Every tensor of a file by its name; the order in which they stand there does not count. */
static void say_tensors(const char *case_name, const char *path) {
  source file;
  CHECK(safetensors_open(context, path, &file));
  for (size_t i = 0; i < file.count; i++) {
    const source_tensor *t = &file.tensors[i];
    XXH64_state_t *state = XXH64_createState();
    XXH64_reset(state, 0);
    XXH64_update(state, t->shape, (size_t)t->rank * sizeof *t->shape);
    void *data;
    CHECK(source_read_all(context, t, &data));
    XXH64_update(state, data, t->bytes);
    free(data);
    char what[80];
    snprintf(what, sizeof what, "file %.70s", t->name);
    say(case_name, what, XXH64_digest(state));
    XXH64_freeState(state);
  }
  source_close(&file);
}

static void say_file(const char *case_name, const char *path) {
  FILE *in = fopen(path, "rb");
  static char text[1 << 20];
  size_t bytes = in ? fread(text, 1, sizeof text, in) : 0;
  if (in) fclose(in);
  say(case_name, strrchr(path, '/') + 1, hash_of(text, bytes));
}

static uint32_t random_number(uint32_t *state) { return *state = *state * 1664525u + 1013904223u; }

static clm_tensor numbers(clm_buffer **buffer, int rank, const int64_t *shape, int64_t below) {
  int64_t count = 1;
  for (int i = 0; i < rank; i++) count *= shape[i];
  int32_t *host = malloc((size_t)count * sizeof *host);
  uint32_t state = 7;
  for (int64_t i = 0; i < count; i++) host[i] = (int32_t)((random_number(&state) >> 8) % (uint32_t)below);
  CHECK(clm_buffer_create(context, (size_t)count * sizeof *host, buffer));
  CHECK(clm_buffer_write(*buffer, 0, (size_t)count * sizeof *host, host));
  free(host);
  return clm_tensor_of(*buffer, 0, CLM_I32, rank, shape);
}

static clm_tensor floats(clm_buffer **buffer, int rank, const int64_t *shape) {
  int64_t count = 1;
  for (int i = 0; i < rank; i++) count *= shape[i];
  float *host = malloc((size_t)count * sizeof *host);
  uint32_t state = 11;
  for (int64_t i = 0; i < count; i++) host[i] = (float)(random_number(&state) >> 8) / (float)(1 << 23) - 1;
  CHECK(clm_buffer_create(context, (size_t)count * sizeof *host, buffer));
  CHECK(clm_buffer_write(*buffer, 0, (size_t)count * sizeof *host, host));
  free(host);
  return clm_tensor_of(*buffer, 0, CLM_F32, rank, shape);
}

/* ---- Runs ---- */

static void run_all(const char *name, clm_model *m, const int64_t *lengths, const char *kind) {
  const clm_model_config *c = clm_model_configuration(m);
  clm_buffer *buffers[5];
  clm_tensor ids = numbers(&buffers[0], 2, (int64_t[]){BATCH, LENGTH}, c->vocab_size),
             logits = floats(&buffers[1], 3, (int64_t[]){BATCH, LENGTH, c->vocab_size}),
             hidden = floats(&buffers[2], 4, (int64_t[]){c->n_layer + 1, BATCH, LENGTH, c->d_model}),
             losses = floats(&buffers[3], 2, (int64_t[]){BATCH, LENGTH}),
             mean = floats(&buffers[4], 2, (int64_t[]){BATCH, c->d_model});
  char what[80];
  CHECK(clm_model_run(m, &(clm_model_run_args){.ids = ids,
                                               .lengths = lengths,
                                               .logits = logits,
                                               .hidden = hidden,
                                               .mean_hidden = mean,
                                               .targets = ids,
                                               .losses = losses}));
  const struct {
    const char *name;
    clm_tensor tensor;
  } outputs[] = {{"logits", logits}, {"hidden", hidden}, {"losses", losses}, {"mean", mean}};
  for (size_t i = 0; i < 4; i++) {
    snprintf(what, sizeof what, "%s %s", kind, outputs[i].name);
    say_tensor(name, what, outputs[i].tensor);
  }
  for (int i = 0; i < 5; i++) clm_buffer_destroy(&buffers[i]);
}

static void run_state(const char *name, const char *file, clm_model *m) {
  const clm_model_config *c = clm_model_configuration(m);
  clm_buffer *buffers[3];
  clm_model_state *state, *fork;
  clm_tensor ids = numbers(&buffers[0], 2, (int64_t[]){BATCH, LENGTH}, c->vocab_size),
             next = numbers(&buffers[1], 1, (int64_t[]){BATCH}, c->vocab_size),
             logits = floats(&buffers[2], 2, (int64_t[]){BATCH, c->vocab_size});
  CHECK(clm_model_state_create(m, BATCH, &state));
  CHECK(clm_model_prefill(m, state, ids, (int64_t[]){LENGTH, 5, 31}, logits));
  say_tensor(name, "prefill", logits);
  for (int i = 0; i < STEPS; i++) CHECK(clm_model_decode(m, state, next, logits));
  say_tensor(name, "decode", logits);
  CHECK(clm_model_state_save(state, path_in(folder, "%s.state", file)));
  say_tensors(name, path_in(folder, "%s.state", file));
  clm_model_state_destroy(&state);
  CHECK(clm_model_state_load(m, path_in(old ? old : folder, "%s.state", file), &state));
  CHECK(clm_model_state_logits(state, logits));
  say_tensor(name, "state's logits", logits);
  CHECK(clm_model_state_fork(state, (int64_t[]){1, 1, 2}, 3, &fork));
  CHECK(clm_model_state_copy(fork, 0, state, 0, 1));
  CHECK(clm_model_decode(m, fork, next, logits));
  say_tensor(name, "fork's decode", logits);
  clm_model_state_destroy(&fork);
  clm_model_state_destroy(&state);
  for (int i = 0; i < 3; i++) clm_buffer_destroy(&buffers[i]);
}

typedef struct text {
  int32_t ids[512];
  int64_t count;
} text;

static bool keep(void *user, const clm_generate_piece *piece) {
  text *t = user;
  t->ids[t->count++] = piece->id;
  return true;
}

static void run_generation(const char *name, clm_model *m) {
  const int32_t first[] = {1, 2, 3, 4, 5, 6, 7}, second[] = {4};
  const clm_prompt prompts[] = {{.ids = first, .count = 7}, {.ids = second, .count = 1}};
  const int32_t none = -1;
  for (int greedy = 0; greedy < 2; greedy++) {
    text t = {.count = 0};
    CHECK(clm_generate(m, NULL,
                       &(clm_generate_args){.prompts = prompts,
                                            .batch = 2,
                                            .count = 24,
                                            .stop_ids = &none,
                                            .stop_id_count = 1,
                                            .sampler = {.temperature = greedy ? 0 : 1, .seed = 3},
                                            .emit = keep,
                                            .user = &t},
                       NULL));
    say(name, greedy ? "greedy text" : "sampled text", hash_of(t.ids, (size_t)t.count * 4));
  }
}

static void run_scores(const char *name, clm_model *m) {
  int32_t ids[400];
  uint32_t state = 5;
  double losses[3];
  for (int i = 0; i < 400; i++)
    ids[i] = (int32_t)((random_number(&state) >> 8) % (uint32_t)clm_model_configuration(m)->vocab_size);
  CHECK(clm_model_score(m, ids, 400, NULL, &losses[0]));
  CHECK(clm_model_score(m, ids, 400, &(clm_score_options){.window = 64, .stride = 16}, &losses[1]));
  CHECK(clm_model_score(m, ids, 400, &(clm_score_options){.carry = true}, &losses[2]));
  say(name, "scores", hash_of(losses, sizeof losses));
  CHECK(clm_model_choices(m, ids, 20, (clm_choice[]){{ids + 20, 3}, {ids + 40, 1}, {ids + 50, 9}}, 3, losses));
  say(name, "choices", hash_of(losses, sizeof losses));
}

static void run_model(const char *name, const char *file, clm_model *m) {
  run_all(name, m, NULL, "even");
  run_all(name, m, (int64_t[]){LENGTH, 1, 40}, "packed");
  run_state(name, file, m);
  run_generation(name, m);
  run_scores(name, m);
  mkdir(path_in(folder, "%s", file), 0777);
  CHECK(clm_model_save(m, path_in(folder, "%s", file)));
  say_file(name, path_in(folder, "%s/config.json", file));
  say_tensors(name, path_in(folder, "%s/model.safetensors", file));
}

static const char *const weights_names[] = {"f32", "f16", "bf16", "as stored", "int8"};

static void fixture(const char *fixtures, const char *name, clm_weights_type weights) {
  clm_model *m;
  char title[100], file[100];
  snprintf(title, sizeof title, "%s %s", name, weights_names[weights]);
  snprintf(file, sizeof file, "%s-%d", name, (int)weights);
  for (char *p = file; *p; p++)
    if (*p == '/') *p = '-';
  CHECK(
      clm_model_load_with(context, path_in(fixtures, "%s", name), &(clm_model_load_options){.weights = weights}, &m));
  run_model(title, file, m);
  clm_model_destroy(&m);
}

/* ---- Training ---- */

static void say_run(const char *name, clm_trainer *t) {
  clm_train_status s;
  double loss;
  CHECK(clm_trainer_validate(t, &loss));
  CHECK(clm_trainer_status(t, &s));
  say(name, "loss", hash_of(&s.loss, sizeof s.loss));
  say(name, "norm", hash_of(&s.norm, sizeof s.norm));
  say(name, "validation", hash_of(&loss, sizeof loss));
}

/* Steps, a checkpoint, as many steps again; then again from the checkpoint, of OLD where that is given. */
static void train(const char *name, clm_trainer *(*make)(void *user), void *user, int64_t steps) {
  for (int resumed = 0; resumed < 2; resumed++) {
    char title[100];
    snprintf(title, sizeof title, "%s%s", name, resumed ? ", resumed" : "");
    clm_trainer *t = make(user);
    if (resumed) CHECK(clm_trainer_resume(t, path_in(old ? old : folder, "%s", name)));
    for (int64_t i = 0; i < steps && !resumed; i++) CHECK(clm_trainer_step(t));
    if (!resumed) {
      mkdir(path_in(folder, "%s", name), 0777);
      CHECK(clm_trainer_save(t, path_in(folder, "%s", name)));
      say_tensors(title, path_in(folder, "%s/trainer.safetensors", name));
      say_file(title, path_in(folder, "%s/config.json", name));
      say_tensors(title, path_in(folder, "%s/model.safetensors", name));
    }
    for (int64_t i = 0; i < steps; i++) CHECK(clm_trainer_step(t));
    say_run(title, t);
    mkdir(path_in(folder, "end"), 0777);
    CHECK(clm_trainer_save(t, path_in(folder, "end")));
    say_tensors(name, path_in(folder, "end/trainer.safetensors"));
    clm_trainer_destroy(&t);
  }
}

typedef struct text_run {
  clm_model_config config;
  clm_train_options options;
  clm_model *model;
} text_run;

static clm_trainer *make_text(void *user) {
  text_run *r = user;
  clm_trainer *t;
  static int32_t ids[4000];
  uint32_t state = 9;
  for (int i = 0; i < 4000; i++) ids[i] = (int32_t)((random_number(&state) >> 20) % (uint32_t)r->config.vocab_size);
  clm_model_destroy(&r->model);
  CHECK(clm_model_create(context, &r->config, 42, &r->model));
  CHECK(clm_trainer_create(r->model, ids, 4000, &r->options, &t));
  return t;
}

static void train_text(const char *name, clm_model_config config, clm_train_options options) {
  const int64_t steps = 3;
  options.steps = 2 * steps;
  text_run r = {.config = config, .options = options};
  train(name, make_text, &r, steps);
  char title[100];
  snprintf(title, sizeof title, "%s, trained", name);
  run_model(title, title, r.model);
  clm_model_destroy(&r.model);
}

typedef struct frames_run {
  clm_backbone_config config;
  clm_train_options options;
  clm_backbone *backbone;
} frames_run;

static float frames[4000], targets[4000];
static int32_t classes[4000];
static const int64_t sequence_lengths[] = {9, 17, 12, 17, 5, 9, 17, 17, 30, 8};

static clm_sequences sequences(void) {
  uint32_t state = 13;
  for (int i = 0; i < 4000; i++) {
    frames[i] = (float)(random_number(&state) >> 8) / (float)(1 << 23) - 1;
    targets[i] = (float)(random_number(&state) >> 8) / (float)(1 << 23) - 1;
    classes[i] = (int32_t)((random_number(&state) >> 8) % 3);
  }
  return (clm_sequences){
      .count = 10, .lengths = sequence_lengths, .frames = frames, .targets = targets, .classes = classes};
}

static clm_trainer *make_frames(void *user) {
  frames_run *r = user;
  clm_trainer *t;
  static clm_sequences s;
  s = sequences();
  clm_backbone_destroy(&r->backbone);
  CHECK(clm_backbone_create(context, &r->config, 42, &r->backbone));
  CHECK(clm_trainer_create_backbone(r->backbone, &s, &r->options, &t));
  return t;
}

static void run_backbone(const char *name, clm_backbone *b) {
  const clm_backbone_config *c = clm_backbone_configuration(b);
  clm_buffer *buffers[4];
  int64_t size = clm_backbone_output_size(b);
  bool every = c->output == CLM_OUTPUT_EVERY;
  clm_tensor in = floats(&buffers[0], 3, (int64_t[]){2, 13, c->embed_dim}),
             out = floats(&buffers[1], every ? 3 : 2, every ? (int64_t[]){2, 13, size} : (int64_t[]){2, size}),
             one = floats(&buffers[2], 2, (int64_t[]){2, c->embed_dim}),
             step = floats(&buffers[3], 2, (int64_t[]){2, size});
  CHECK(clm_backbone_forward(b, in, out));
  say_tensor(name, "outputs", out);
  clm_backbone_state *state;
  CHECK(clm_backbone_state_create(b, 2, &state));
  for (int i = 0; i < 12; i++) CHECK(clm_backbone_step(b, state, one, step));
  say_tensor(name, "steps", step);
  clm_backbone_state_destroy(&state);
  for (int i = 0; i < 4; i++) clm_buffer_destroy(&buffers[i]);
}

static void train_frames(const char *name, clm_backbone_config config, clm_train_options options) {
  const int64_t steps = 3;
  options.steps = 2 * steps;
  frames_run r = {.config = config, .options = options};
  train(name, make_frames, &r, steps);
  run_backbone(name, r.backbone);
  clm_backbone_destroy(&r.backbone);
}

int main(int argc, char **argv) {
  if (argc < 4) {
    fprintf(stderr, "usage: record DEVICE FIXTURES FOLDER [OLD]\n");
    return EXIT_FAILURE;
  }
  const char *fixtures = argv[2];
  folder = argv[3];
  old = argc > 4 ? argv[4] : NULL;
  mkdir(folder, 0777);
  char error[300] = "";
  clm_context_options options = {.device = argv[1], .threads = 2, .error = error, .error_size = sizeof error};
  if (clm_context_create(&options, &context)) {
    fprintf(stderr, "record: %s\n", error);
    return EXIT_FAILURE;
  }
  static const char *const names[] = {"mamba",
                                      "mamba-state8-conv3-untied",
                                      "mamba-state64-bias",
                                      "mamba-noconvbias-rank5",
                                      "mamba-sharded-f16",
                                      "mamba-bf16",
                                      "falcon",
                                      "falcon-state8-tied-bf16",
                                      "original",
                                      "original-f16-safetensors",
                                      "original-layernorm",
                                      "mamba/model.gguf",
                                      "mamba-state8-conv3-untied/model.gguf"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    fixture(fixtures, names[i], CLM_WEIGHTS_AS_STORED);
    if (i % 3 == 0) fixture(fixtures, names[i], CLM_WEIGHTS_INT8);
    if (i % 4 == 1) fixture(fixtures, names[i], CLM_WEIGHTS_BF16);
  }
  train_text("text tiny", (clm_model_config){.vocab_size = 37, .d_model = 16, .n_layer = 2, .d_state = 4},
             (clm_train_options){.batch = 4, .length = 32, .lr = 1e-2});
  train_text("text char-quick, dropout, accumulated",
             (clm_model_config){.vocab_size = 61, .d_model = 96, .n_layer = 3, .d_state = 8},
             (clm_train_options){.batch = 4, .length = 64, .accumulate = 2, .dropout = 0.1});
  train_text("text falcon, biases, untied",
             (clm_model_config){.vocab_size = 29,
                                .d_model = 24,
                                .n_layer = 4,
                                .expand = 3,
                                .d_conv = 3,
                                .dt_rank = 5,
                                .projection_bias = true,
                                .no_conv_bias = true,
                                .untied_head = true,
                                .mixer_norm = true},
             (clm_train_options){.batch = 3, .length = 40});
  train_text("text no convolution, layer norm",
             (clm_model_config){.vocab_size = 29, .d_model = 20, .n_layer = 3, .d_conv = 1, .layer_norm = true},
             (clm_train_options){.batch = 3, .length = 40});
  train_frames("frames last, numbers",
               (clm_backbone_config){.embed_dim = 7, .d_model = 16, .n_layers = 3, .d_state = 4, .n_outputs = 3},
               (clm_train_options){.batch = 2});
  train_frames("frames every, classes, dropout",
               (clm_backbone_config){.embed_dim = 5,
                                     .d_model = 24,
                                     .n_layers = 2,
                                     .dropout = 0.2f,
                                     .n_outputs = 3,
                                     .output = CLM_OUTPUT_EVERY,
                                     .task = CLM_TASK_CLASSIFICATION},
               (clm_train_options){.batch = 2, .length = 9});
  train_frames(
      "frames every, window, hidden",
      (clm_backbone_config){
          .embed_dim = 4, .d_model = 12, .n_layers = 2, .d_conv = 1, .window = 6, .output = CLM_OUTPUT_EVERY},
      (clm_train_options){.batch = 3});
  clm_context_destroy(&context);
  return EXIT_SUCCESS;
}

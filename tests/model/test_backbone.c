/* The backbone on every device: against the reference, its steps against its forward pass, windows, files; and the
 * reference's own gradients against differences of its loss. */
#include "cmocka_all.h"
#include "core/file.h"
#include "devices.h"
#include "floats.h"
#include "model/backbone.h"
#include "random.h"
#include "slopes.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct backbone_case {
  const char *why;
  clm_backbone_config config;
  int64_t batch, length;
  bool ragged; /* sequences of different lengths */
  bool fast;   /* small enough for slow devices  */
} backbone_case;

#define EVERY      .output = CLM_OUTPUT_EVERY
#define CLASSES(n) .n_outputs = n, .task = CLM_TASK_CLASSIFICATION

static const backbone_case cases[] = {
    {"smallest", {.embed_dim = 1, .d_model = 1, .n_layers = 1, .d_state = 1, .n_outputs = 1}, 1, 1, false, false},
    {"hidden states, last", {.embed_dim = 3, .d_model = 12, .n_layers = 2, .d_state = 4}, 2, 9, false, false},
    {"hidden states, every", {.embed_dim = 5, .d_model = 8, .n_layers = 1, EVERY}, 2, 7, true, false},
    {"numbers, last",
     {.embed_dim = 7, .d_model = 16, .n_layers = 3, .d_state = 8, .n_outputs = 3},
     3,
     21,
     true,
     true},
    {"numbers, every, no convolution",
     {.embed_dim = 2, .d_model = 16, .n_layers = 2, .d_state = 5, .d_conv = 1, .n_outputs = 2, EVERY},
     3,
     17,
     true,
     true},
    {"classes, last, expand 3",
     {.embed_dim = 4, .d_model = 10, .n_layers = 2, .d_state = 3, .expand = 3, CLASSES(5)},
     4,
     13,
     false,
     false},
    {"classes, every",
     {.embed_dim = 6, .d_model = 16, .n_layers = 2, .d_state = 4, CLASSES(3), EVERY},
     2,
     25,
     true,
     true},
    {"a window, last",
     {.embed_dim = 3, .d_model = 8, .n_layers = 2, .window = 6, .n_outputs = 2},
     2,
     15,
     false,
     false},
    {"a window, every",
     {.embed_dim = 3, .d_model = 8, .n_layers = 2, .window = 5, CLASSES(4), EVERY},
     2,
     12,
     false,
     false},
    {"a window of one",
     {.embed_dim = 2, .d_model = 4, .n_layers = 1, .window = 1, .n_outputs = 1, EVERY},
     1,
     4,
     false,
     false},
    {"mixed layers, last",
     {.embed_dim = 7,
      .d_model = 16,
      .d_state = 4,
      .n_outputs = 3,
      .layers = "mamba1 mlp(width=20) mamba1+mlp(width=9)"},
     3,
     21,
     true,
     true},
    {"Mamba-2, every",
     {.embed_dim = 7, .d_model = 16, .n_layers = 2, .d_state = 4, .n_outputs = 3, EVERY, .layers = "mamba2"},
     3,
     21,
     true,
     true},
    {"Mamba-2, heads and groups, last",
     {.embed_dim = 5,
      .d_model = 12,
      .n_layers = 2,
      .d_state = 5,
      .n_outputs = 2,
      .layers = "mamba2 mlp(width=9)",
      .head_dim = 3,
      .n_groups = 4},
     2,
     19,
     true,
     true},
    {"Mamba-2 and attention, every",
     {.embed_dim = 7,
      .d_model = 16,
      .n_layers = 2,
      .d_state = 4,
      .n_outputs = 3,
      EVERY,
      .layers = "mamba2 attention"},
     2,
     21,
     true,
     true},
    {"wide, long", {.embed_dim = 40, .d_model = 64, .n_layers = 2, .n_outputs = 9, EVERY}, 3, 150, false, false},
};

#define CHECK(f, call) floats_check((f)->context, call, #call)

typedef struct fixture {
  clm_context *context;
  clm_backbone *backbone;
  clm_buffer *buffer;
  clm_tensor frames, targets, loss, out;
  float *host;      /* frames */
  int64_t *lengths; /* NULL: whole */
} fixture;

static bool is_every(const backbone_case *c) { return c->config.output == CLM_OUTPUT_EVERY; }

static fixture fixture_make(const backbone_case *c, clm_context *context) {
  fixture f = {.context = context};
  CHECK(&f, clm_backbone_create(context, &c->config, 5, &f.backbone));
  int64_t size = clm_backbone_output_size(f.backbone), rows = is_every(c) ? c->batch * c->length : c->batch;
  int64_t frames[] = {c->batch, c->length, c->config.embed_dim}, outputs[] = {c->batch, c->length, size};
  if (!is_every(c)) outputs[1] = size;
  int rank = is_every(c) ? 3 : 2;
  size_t frame_bytes = (size_t)(frames[0] * frames[1] * frames[2]) * 4, out_bytes = (size_t)(rows * size) * 4;
  CHECK(&f, clm_buffer_create(context, frame_bytes + 2 * out_bytes + 4, &f.buffer));
  bool numbers = c->config.task == CLM_TASK_REGRESSION;
  f.frames = clm_tensor_of(f.buffer, 0, CLM_F32, 3, frames);
  f.out = clm_tensor_of(f.buffer, frame_bytes, CLM_F32, rank, outputs);
  f.targets = clm_tensor_of(f.buffer, frame_bytes + out_bytes, numbers ? CLM_F32 : CLM_I32, numbers ? rank : rank - 1,
                            outputs);
  f.loss = clm_tensor_of(f.buffer, frame_bytes + 2 * out_bytes, CLM_F32, 1, (int64_t[]){1});
  test_random r = random_seeded(3, c->why);
  f.host = malloc(frame_bytes);
  for (size_t i = 0; i < frame_bytes / 4; i++) f.host[i] = (float)random_normal(&r);
  CHECK(&f, clm_tensor_write(f.frames, f.host, frame_bytes));
  float *targets = malloc(out_bytes);
  for (int64_t i = 0; i < rows * size; i++)
    if (numbers) targets[i] = (float)random_normal(&r);
    else ((int32_t *)(void *)targets)[i] = (int32_t)random_below(&r, size + 1) - 1; /* now and then ignored */
  CHECK(&f, clm_tensor_write(f.targets, targets, (size_t)clm_tensor_count(f.targets) * 4));
  free(targets);
  if (c->ragged) {
    f.lengths = malloc((size_t)c->batch * sizeof *f.lengths);
    for (int64_t b = 0; b < c->batch; b++) f.lengths[b] = b ? 1 + random_below(&r, c->length) : c->length / 2 + 1;
  }
  return f;
}

static void fixture_free(fixture *f) {
  clm_buffer_destroy(&f->buffer);
  clm_backbone_destroy(&f->backbone);
  free(f->host);
  free(f->lengths);
}

static float *forward(const fixture *f) {
  floats_poison(f->context, f->out);
  CHECK(f, clm_backbone_forward(f->backbone, f->frames, f->out));
  return floats_read(f->context, f->out);
}

/* What loss and gradients can be taken of: all frames, or with a window in the way, its first ones. */
static clm_backbone_loss_args loss_args(const fixture *f, float dropout) {
  clm_backbone_loss_args args = {.frames = f->frames, .targets = f->targets, .loss = f->loss, .lengths = f->lengths};
  int64_t window = clm_backbone_configuration(f->backbone)->window;
  if (window && clm_backbone_configuration(f->backbone)->output == CLM_OUTPUT_EVERY) {
    args.frames.shape[1] = window; /* keeps the strides: the rows of a batch lie apart */
    args.targets = clm_tensor_reshape(args.targets, 1, (int64_t[]){f->frames.shape[0] * window});
    int64_t shape[] = {f->frames.shape[0], window, clm_backbone_output_size(f->backbone)};
    bool numbers = args.targets.dtype == CLM_F32;
    args.targets = clm_tensor_of(f->buffer, f->targets.offset, f->targets.dtype, numbers ? 3 : 2, shape);
  }
  args.dropout = dropout;
  args.seed = 17;
  return args;
}

/* All gradients in the flat order, poisoned before; *loss is what came with them. */
static float *gradients(const fixture *f, float dropout, float *loss) {
  clm_backbone_loss_args args = loss_args(f, dropout);
  args.gradient = true;
  CHECK(f, clm_backbone_loss(f->backbone, &args));
  const clm_model *m = f->backbone->model;
  for (size_t i = 0; i < m->layout.item_count; i++)
    floats_poison(f->context, clm_tensor_of(m->gradients, m->layout.items[i].offset * 4, CLM_F32, 1,
                                            (int64_t[]){(int64_t)m->layout.items[i].count}));
  floats_poison(f->context, f->loss);
  CHECK(f, clm_backbone_loss(f->backbone, &args));
  CHECK(f, clm_tensor_read(f->loss, loss, sizeof *loss));
  return floats_read(f->context, clm_tensor_of(m->gradients, 0, CLM_F32, 1, (int64_t[]){(int64_t)m->layout.total}));
}

/* The squared error as a loss of the caller's own, on the host, gives the gradients that it has as the backbone's:
 * from the outputs with dropout, and with anything in the gradient after a sequence's end. */
static void test_own_loss(const test_device *device, const void *data) {
  const backbone_case *c = data;
  fixture f = fixture_make(c, device->context);
  float loss;
  float *want = gradients(&f, 0.3f, &loss);
  clm_backbone_loss_args args = loss_args(&f, 0.3f);
  args.targets = args.loss = (clm_tensor){0};
  args.out = f.out;
  CHECK(&f, clm_backbone_loss(f.backbone, &args));
  float *out = floats_read(f.context, f.out), *targets = floats_read(f.context, f.targets);
  const int64_t size = clm_backbone_output_size(f.backbone), steps = is_every(c) ? c->length : 1;
  int64_t counted = 0;
  double squares = 0;
  for (int64_t b = 0; b < c->batch; b++) counted += is_every(c) && f.lengths ? f.lengths[b] : steps;
  for (int64_t i = 0; i < c->batch * steps * size; i++) {
    const int64_t b = i / (steps * size), t = i / size % steps;
    const float error = out[i] - targets[i];
    const bool there = !is_every(c) || !f.lengths || t < f.lengths[b];
    if (there) squares += (double)error * (double)error;
    out[i] = there ? 2 * error / (float)(counted * size) : 1000;
  }
  if (!(fabs(squares / (double)(counted * size) - (double)loss) <= 1e-5 * (double)loss))
    fail_msg("the loss is %g, its outputs give %g", (double)loss, squares / (double)(counted * size));
  CHECK(&f, clm_tensor_write(f.out, out, (size_t)(c->batch * steps * size) * sizeof *out));
  args.dout = f.out;
  args.out = (clm_tensor){0};
  args.gradient = true;
  const size_t total = f.backbone->model->layout.total;
  floats_poison(f.context, f.loss);
  CHECK(&f, clm_backbone_loss(f.backbone, &args));
  float *got =
      floats_read(f.context, clm_tensor_of(f.backbone->model->gradients, 0, CLM_F32, 1, (int64_t[]){(int64_t)total}));
  floats_compare("gradients of a loss of one's own", got, want, total, 1e-5, 1e-7);
  clm_parameter p;
  int64_t numbers = 0;
  for (int64_t i = 0; i < clm_backbone_tensor_count(f.backbone); i++) {
    CHECK(&f, clm_backbone_tensor(f.backbone, i, &p));
    assert_non_null(p.gradient.buffer);
    numbers += clm_tensor_count(p.gradient);
  }
  assert_int_equal(numbers, clm_backbone_param_count(f.backbone));
  free(want);
  free(got);
  free(out);
  free(targets);
  fixture_free(&f);
}

static void test_own_loss_refused(const test_device *device, const void *data) {
  (void)device, (void)data;
  fixture f = fixture_make(&cases[3], test_reference);
  clm_backbone_loss_args args = loss_args(&f, 0);
  args.dout = f.out;
  args.gradient = true;
  assert_int_equal(clm_backbone_loss(f.backbone, &args), CLM_INVALID_ARGUMENT);
  assert_non_null(strstr(clm_context_error(f.context), "dout is given, expected no targets and loss"));
  args.targets = args.loss = (clm_tensor){0};
  args.gradient = false;
  assert_int_equal(clm_backbone_loss(f.backbone, &args), CLM_INVALID_ARGUMENT);
  assert_non_null(strstr(clm_context_error(f.context), "gradient is not set"));
  args.gradient = true;
  args.dout = f.frames;
  assert_int_equal(clm_backbone_loss(f.backbone, &args), CLM_INVALID_ARGUMENT);
  assert_non_null(strstr(clm_context_error(f.context), "dout must be a contiguous f32 tensor (batch, 3)"));
  fixture_free(&f);
}

static void test_against_reference(const test_device *device, const void *data) {
  const backbone_case *c = data;
  fixture f = fixture_make(c, device->context), reference = fixture_make(c, test_reference);
  float *got = forward(&f), *want = forward(&reference), loss[2];
  floats_compare("outputs", got, want, (size_t)clm_tensor_count(f.out), 1e-4, 0);
  free(got);
  free(want);
  for (int i = 0; i < 2; i++) {
    float dropout = i ? 0.3f : 0;
    got = gradients(&f, dropout, &loss[0]);
    want = gradients(&reference, dropout, &loss[1]);
    const weights_layout *l = &f.backbone->model->layout;
    double largest = 0; /* a gradient far below the others is rounding error alone */
    for (size_t k = 0; k < l->total; k++) largest = fmax(largest, fabs((double)want[k]));
    for (size_t k = 0; k < l->item_count; k++) {
      char name[WEIGHT_NAME_MAX];
      weights_name(&l->items[k], name);
      floats_compare(name, got + l->items[k].offset, want + l->items[k].offset, l->items[k].count, 1e-3,
                     1e-6 * largest);
    }
    floats_compare("loss", &loss[0], &loss[1], 1, 1e-4, 0);
    free(got);
    free(want);
  }
  fixture_free(&f);
  fixture_free(&reference);
}

/* ---- Gradients ---- */

static double loss_of(void *user) {
  const fixture *f = user;
  float loss;
  clm_backbone_loss_args args = loss_args(f, 0.2f);
  CHECK(f, clm_backbone_loss(f->backbone, &args));
  CHECK(f, clm_tensor_read(f->loss, &loss, sizeof loss));
  return (double)loss;
}

static void test_slopes(const test_device *device, const void *data) {
  (void)device;
  fixture f = fixture_make(data, test_reference);
  float loss, *gradient = gradients(&f, 0.2f, &loss);
  slopes_check(f.backbone->model, gradient, loss_of, &f, slopes_noise((double)loss));
  free(gradient);
  fixture_free(&f);
}

/* The loss is what outputs and targets say, over the frames that count. */
static void test_loss(const test_device *device, const void *data) {
  (void)device;
  const backbone_case *c = data;
  fixture f = fixture_make(c, test_reference);
  int64_t size = clm_backbone_output_size(f.backbone), per = is_every(c) ? c->length : 1;
  float *out = forward(&f), *targets = floats_read(test_reference, f.targets), got;
  for (int64_t b = 0; f.lengths && !is_every(c) && b < c->batch; b++) { /* each up to its own end */
    clm_tensor frames = clm_tensor_slice(clm_tensor_slice(f.frames, 0, b, 1), 1, 0, f.lengths[b]),
               one = clm_tensor_slice(f.out, 0, 0, 1);
    CHECK(&f, clm_backbone_forward(f.backbone, frames, one));
    CHECK(&f, clm_tensor_read(one, out + b * size, (size_t)size * sizeof *out));
  }
  double sum = 0, count = 0;
  for (int64_t row = 0; row < c->batch * per; row++) {
    int64_t sequence = row / per;
    if (f.lengths && is_every(c) && row % per >= f.lengths[sequence]) continue;
    double of_row = 0, exponentials = 0;
    for (int64_t k = 0; k < size; k++) exponentials += exp((double)out[row * size + k]);
    int32_t class = ((const int32_t *)(const void *)targets)[row];
    if (c->config.task == CLM_TASK_CLASSIFICATION)
      of_row = class < 0 ? 0 : log(exponentials) - (double)out[row * size + class];
    else
      for (int64_t k = 0; k < size; k++)
        of_row += pow((double)out[row * size + k] - (double)targets[row * size + k], 2) / (double)size;
    sum += of_row;
    count++;
  }
  clm_backbone_loss_args args = loss_args(&f, 0);
  CHECK(&f, clm_backbone_loss(f.backbone, &args));
  CHECK(&f, clm_tensor_read(f.loss, &got, sizeof got));
  if (!(fabs((double)got - sum / count) <= 1e-5 * (1 + sum / count)))
    fail_msg("loss %.8g, expected %.8g", (double)got, sum / count);
  free(out);
  free(targets);
  fixture_free(&f);
}

/* ---- Steps ---- */

/* Each step against the forward pass over the frames so far. */
static void test_steps(const test_device *device, const void *data) {
  const backbone_case *c = data;
  fixture f = fixture_make(c, device->context);
  clm_backbone_state *state;
  clm_buffer *buffer;
  int64_t size = clm_backbone_output_size(f.backbone), width = c->config.embed_dim;
  CHECK(&f, clm_backbone_state_create(f.backbone, c->batch, &state));
  CHECK(&f, clm_buffer_create(f.context, (size_t)(c->batch * c->length * size) * 4, &buffer));
  float *every = is_every(c) ? forward(&f) : NULL;
  for (int64_t t = 0; t < 2 * c->length; t++) { /* twice: a state that was reset is as new */
    int64_t at = t % c->length;
    if (at == 0) CHECK(&f, clm_backbone_state_reset(state));
    clm_tensor frame = clm_tensor_slice(f.frames, 1, at, 1); /* its rows lie apart */
    frame.rank = 2;
    frame.shape[1] = width;
    frame.stride[1] = 1;
    clm_tensor out = clm_tensor_of(buffer, 0, CLM_F32, 2, (int64_t[]){c->batch, size});
    floats_poison(f.context, out);
    CHECK(&f, clm_backbone_step(f.backbone, state, frame, out));
    float *got = floats_read(f.context, out), *want = NULL;
    if (!every) {
      floats_poison(f.context, out);
      CHECK(&f, clm_backbone_forward(f.backbone, clm_tensor_slice(f.frames, 1, 0, at + 1), out));
      want = floats_read(f.context, out);
    }
    for (int64_t b = 0; b < c->batch; b++) {
      char what[60];
      snprintf(what, sizeof what, "sequence %d, step %d", (int)b, (int)at);
      floats_compare(what, got + b * size, every ? every + (b * c->length + at) * size : want + b * size,
                     (size_t)size, 1e-5, 1e-2);
    }
    free(got);
    free(want);
  }
  free(every);
  clm_buffer_destroy(&buffer);
  clm_backbone_state_destroy(&state);
  fixture_free(&f);
}

/* Frames before the window change nothing, the first frame in it does. */
static void test_window(const test_device *device, const void *data) {
  const backbone_case *c = data;
  fixture f = fixture_make(c, device->context);
  int64_t window = c->config.window, size = clm_backbone_output_size(f.backbone), width = c->config.embed_dim;
  int64_t per = is_every(c) ? c->length : 1;
  float *before = forward(&f);
  for (int inside = 0; inside < 2; inside++) {
    int64_t moved = c->length - window - 1 + inside;
    for (int64_t k = 0; k < width; k++) f.host[moved * width + k] += 3; /* of the first sequence */
    CHECK(&f, clm_tensor_write(f.frames, f.host, (size_t)clm_tensor_count(f.frames) * 4));
    float *after = forward(&f);
    const float *a = after + (per - 1) * size, *b = before + (per - 1) * size;
    bool same = memcmp(a, b, (size_t)size * sizeof *a) == 0;
    if (same == (inside == 1))
      fail_msg("frame %d %s the last output", (int)moved, same ? "does not change" : "changes");
    free(after);
  }
  free(before);
  fixture_free(&f);
}

/* Frames in 16 bits are taken as the same numbers in f32. */
static void test_16bit(const test_device *device, const void *data) {
  const backbone_case *c = data;
  fixture f = fixture_make(c, device->context);
  clm_buffer *buffer;
  CHECK(&f, clm_buffer_create(f.context, (size_t)clm_tensor_count(f.frames) * 2, &buffer));
  clm_tensor narrow = clm_tensor_of(buffer, 0, CLM_BF16, 3, f.frames.shape);
  CHECK(&f, clm_cast(f.context, &(clm_cast_args){.x = f.frames, .out = narrow}));
  CHECK(&f, clm_cast(f.context, &(clm_cast_args){.x = narrow, .out = f.frames}));
  float *want = forward(&f);
  f.frames = narrow;
  float *got = forward(&f);
  assert_memory_equal(got, want, (size_t)clm_tensor_count(f.out) * 4);
  free(got);
  free(want);
  clm_buffer_destroy(&buffer);
  fixture_free(&f);
}

/* ---- Evaluation ---- */

/* Sequences of different lengths, one after another, evaluated by their outputs. */
static void test_evaluate(const test_device *device, const void *data) {
  const backbone_case *c = data;
  fixture f = fixture_make(c, device->context);
  int64_t lengths[] = {3, 3, c->length, 1, 2}, total = 0, size = clm_backbone_output_size(f.backbone), rows = 0;
  const int64_t count = 5, width = c->config.embed_dim;
  for (int i = 0; i < count; i++) total += lengths[i], rows += is_every(c) ? lengths[i] : 1;
  float *frames = malloc((size_t)(total * width) * 4), *targets = malloc((size_t)(rows * size) * 4);
  int32_t *classes = malloc((size_t)rows * 4);
  test_random r = random_seeded(8, c->why);
  for (int64_t i = 0; i < total * width; i++) frames[i] = (float)random_normal(&r);
  for (int64_t i = 0; i < rows * size; i++) targets[i] = (float)random_normal(&r);
  for (int64_t i = 0; i < rows; i++) classes[i] = i == 1 ? -1 : (int32_t)random_below(&r, size);
  clm_backbone_score score;
  clm_sequences sequences = {
      .count = count, .lengths = lengths, .frames = frames, .targets = targets, .classes = classes};
  CHECK(&f, clm_backbone_evaluate(f.backbone, &sequences, &score));

  double loss = 0, deviation = 0, correct = 0, counted = 0, *means = calloc((size_t)size, sizeof *means);
  for (int64_t i = 0; i < rows * size; i++) means[i % size] += (double)targets[i] / (double)rows;
  for (int64_t i = 0, at = 0, row = 0; i < count; at += lengths[i++]) {
    clm_tensor in = clm_tensor_of(f.buffer, 0, CLM_F32, 3, (int64_t[]){1, lengths[i], width}), out;
    int64_t n = is_every(c) ? lengths[i] : 1;
    if (is_every(c)) out = clm_tensor_of(f.buffer, f.out.offset, CLM_F32, 3, (int64_t[]){1, n, size});
    else out = clm_tensor_of(f.buffer, f.out.offset, CLM_F32, 2, (int64_t[]){1, size});
    CHECK(&f, clm_tensor_write(in, frames + at * width, (size_t)(lengths[i] * width) * 4));
    CHECK(&f, clm_backbone_forward(f.backbone, in, out));
    float *values = floats_read(f.context, out);
    for (int64_t k = 0; k < n; k++, row++) {
      const float *v = values + k * size;
      if (c->config.task == CLM_TASK_REGRESSION) {
        for (int64_t j = 0; j < size; j++, counted++) {
          loss += pow((double)v[j] - (double)targets[row * size + j], 2);
          deviation += pow((double)targets[row * size + j] - means[j], 2);
        }
      } else if (classes[row] >= 0) {
        double exponentials = 0;
        int64_t best = 0;
        for (int64_t j = 0; j < size; j++) exponentials += exp((double)v[j]);
        for (int64_t j = 0; j < size; j++) best = v[j] > v[best] ? j : best;
        loss += log(exponentials) - (double)v[classes[row]];
        correct += best == classes[row];
        counted++;
      }
    }
    free(values);
  }
  double quality = c->config.task == CLM_TASK_REGRESSION ? 1 - loss / deviation : correct / counted;
  assert_int_equal(score.count, (int64_t)counted);
  if (!(fabs(score.loss - loss / counted) < 1e-4 && fabs(score.quality - quality) < 1e-4))
    fail_msg("loss %.6g, quality %.6g, expected %.6g, %.6g", score.loss, score.quality, loss / counted, quality);
  free(means);
  free(frames);
  free(targets);
  free(classes);
  fixture_free(&f);
}

/* ---- Files ---- */

static char folder[] = "/tmp/clmamba-test-XXXXXX";

static const char *file_in(const char *name) {
  static char path[128];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  return path;
}

static void test_round_trip(const test_device *device, const void *data) {
  const backbone_case *c = data;
  fixture f = fixture_make(c, device->context);
  int64_t size = clm_backbone_output_size(f.backbone);
  const char *names[64];
  for (int64_t i = 0; i < size; i++) names[i] = i ? "a \"b\", ü" : "";
  CHECK(&f, clm_backbone_set_names(f.backbone, names));
  CHECK(&f, clm_backbone_save(f.backbone, folder));
  float *want = forward(&f), dropout = c->config.dropout;
  clm_backbone *made = f.backbone;
  CHECK(&f, clm_backbone_load(f.context, folder, &f.backbone));
  float *got = forward(&f);
  assert_memory_equal(got, want, (size_t)clm_tensor_count(f.out) * 4);
  assert_memory_equal(clm_backbone_configuration(made), clm_backbone_configuration(f.backbone),
                      sizeof(clm_backbone_config));
  assert_true(clm_backbone_configuration(made)->dropout == dropout);
  assert_int_equal(clm_backbone_param_count(made), clm_backbone_param_count(f.backbone));
  for (int64_t i = 0; i < size; i++) assert_string_equal(clm_backbone_name(f.backbone, i), names[i]);
  assert_null(clm_backbone_name(f.backbone, size));
  assert_null(clm_backbone_name(f.backbone, -1));
  clm_backbone_destroy(&made);
  free(got);
  free(want);
  fixture_free(&f);
  assert_int_equal(unlink(file_in("config.json")), 0);
  assert_int_equal(unlink(file_in("model.safetensors")), 0); /* nothing else was left: rmdir in main */
}

static void expect_message(clm_status got, clm_status want, const char *message) {
  const char *error = clm_context_error(test_reference);
  if (got != want || !strstr(error, message))
    fail_msg("got %s: \"%s\", expected %s and \"%s\"", clm_status_string(got), error, clm_status_string(want),
             message);
}

#define SHAPE "\"model_type\": \"clmamba_backbone\", \"embed_dim\": 3, \"d_model\": 8, \"n_layers\": 1"
static const struct bad_file {
  const char *json;
  clm_status status;
  const char *message;
} bad_files[] = {
    {"", CLM_BAD_FORMAT, "is not valid JSON"},
    {"[]", CLM_BAD_FORMAT, "not a JSON object"},
    {"{}", CLM_UNSUPPORTED, "model_type is \"absent\", expected \"clmamba_backbone\""},
    {"{\"model_type\": \"mamba\"}", CLM_UNSUPPORTED, "\"mamba\""},
    {"{\"model_type\": \"clmamba_backbone\"}", CLM_BAD_FORMAT, "embed_dim is 0"},
    {"{" SHAPE ", \"d_state\": \"16\"}", CLM_BAD_FORMAT, "\"d_state\" is not a whole number"},
    {"{" SHAPE ", \"window\": -1}", CLM_BAD_FORMAT, "\"window\" is not a whole number"},
    {"{" SHAPE ", \"d_conv\": 33}", CLM_BAD_FORMAT, "d_conv is 33, expected 1 to 32"},
    {"{" SHAPE ", \"n_outputs\": 4611686018427387904}", CLM_BAD_FORMAT, "n_outputs"},
    {"{" SHAPE ", \"dropout\": 1}", CLM_BAD_FORMAT, "dropout is 1"},
    {"{" SHAPE ", \"dropout\": \"a\"}", CLM_BAD_FORMAT, "\"dropout\" is not a number"},
    {"{" SHAPE ", \"output\": \"first\"}", CLM_BAD_FORMAT, "\"output\" is not \"last\" or \"every\""},
    {"{" SHAPE ", \"task\": 1}", CLM_BAD_FORMAT, "\"task\" is not"},
    {"{" SHAPE ", \"task\": \"classification\"}", CLM_BAD_FORMAT, "classification needs n_outputs"},
    {"{" SHAPE ", \"n_outputs\": 2, \"output_names\": [\"a\"]}", CLM_BAD_FORMAT, "a name for each output"},
    {"{" SHAPE ", \"n_outputs\": 2, \"output_names\": [\"a\", 2]}", CLM_BAD_FORMAT, "a list of strings"},
    {"{" SHAPE "}", CLM_IO_ERROR, "model.safetensors"},
};

static void test_bad_files(const test_device *device, const void *data) {
  (void)device, (void)data;
  clm_backbone *backbone;
  for (size_t i = 0; i < TEST_COUNT(bad_files); i++) {
    const file_part text = {bad_files[i].json, strlen(bad_files[i].json)};
    floats_check(test_reference, file_replace(test_reference, file_in("config.json"), &text, 1), "write");
    expect_message(clm_backbone_load(test_reference, folder, &backbone), bad_files[i].status, bad_files[i].message);
    assert_null(backbone);
  }
  /* Weights of another shape */
  clm_backbone_config config = {.embed_dim = 3, .d_model = 8, .n_layers = 1, .n_outputs = 2};
  floats_check(test_reference, clm_backbone_create(test_reference, &config, 1, &backbone), "create");
  floats_check(test_reference, clm_backbone_save(backbone, folder), "save");
  clm_backbone_destroy(&backbone);
  const char *wider = "{\"model_type\": \"clmamba_backbone\", \"embed_dim\": 4, \"d_model\": 8, \"n_layers\": 1}";
  const file_part text = {wider, strlen(wider)};
  floats_check(test_reference, file_replace(test_reference, file_in("config.json"), &text, 1), "write");
  expect_message(clm_backbone_load(test_reference, folder, &backbone), CLM_BAD_FORMAT,
                 "\"input_proj.weight\" has shape (8, 3), config.json expects (8, 4)");
  unlink(file_in("config.json"));
  unlink(file_in("model.safetensors"));
}

/* ---- Arguments ---- */

static void test_bad_configs(const test_device *device, const void *data) {
  (void)device, (void)data;
#define GOOD .embed_dim = 2, .d_model = 4, .n_layers = 1
  static const clm_backbone_config bad[] = {
      {.d_model = 4, .n_layers = 1},
      {.embed_dim = -1, .d_model = 4, .n_layers = 1},
      {.embed_dim = 2, .n_layers = 1},
      {.embed_dim = 2, .d_model = 4},
      {GOOD, .d_state = 2000},
      {GOOD, .window = -3},
      {GOOD, .dropout = 1},
      {GOOD, .dropout = (float)NAN},
      {GOOD, .task = CLM_TASK_CLASSIFICATION},
      {GOOD, .output = (clm_backbone_output)7},
      {GOOD, .n_outputs = -1},
      {GOOD, .head_dim = -1},
      {GOOD, .n_groups = -1},
  };
  for (size_t i = 0; i < TEST_COUNT(bad); i++) {
    clm_backbone *backbone;
    expect_message(clm_backbone_create(test_reference, &bad[i], 1, &backbone), CLM_INVALID_ARGUMENT, "backbone: ");
    assert_null(backbone);
  }
}

static void test_bad_arguments(const test_device *device, const void *data) {
  (void)device, (void)data;
  const backbone_case every = {
      "bad", {.embed_dim = 3, .d_model = 4, .n_layers = 1, .n_outputs = 2, .window = 5, EVERY}, 2, 5, false, true};
  fixture f = fixture_make(&every, test_reference);
  clm_backbone *b = f.backbone;
  clm_tensor absent = {0}, other = f.frames, longer;
  other.shape[2] = 2;
  expect_message(clm_backbone_forward(b, absent, f.out), CLM_INVALID_ARGUMENT, "frames must be");
  expect_message(clm_backbone_forward(b, other, f.out), CLM_INVALID_ARGUMENT, "embed_dim 3");
  expect_message(clm_backbone_forward(b, f.targets, f.out), CLM_INVALID_ARGUMENT, "frames must be");
  expect_message(clm_backbone_forward(b, f.frames, f.loss), CLM_INVALID_ARGUMENT, "(batch, length, 2)");
  longer = f.frames;
  longer.shape[1] = INT32_MAX;
  expect_message(clm_backbone_forward(b, longer, f.out), CLM_INVALID_ARGUMENT, "2^31");

  clm_backbone_state *state;
  expect_message(clm_backbone_state_create(b, 0, &state), CLM_INVALID_ARGUMENT, "batch is 0");
  assert_null(state);
  floats_check(test_reference, clm_backbone_state_create(b, 2, &state), "state");
  expect_message(clm_backbone_step(b, state, f.loss, f.out), CLM_INVALID_ARGUMENT, "frame must be");
  clm_tensor frame = clm_tensor_of(f.buffer, 0, CLM_F32, 2, (int64_t[]){2, 3});
  expect_message(clm_backbone_step(b, state, frame, f.out), CLM_INVALID_ARGUMENT, "out must be");
  clm_backbone_state_destroy(&state);

  int64_t lengths[] = {5, 6};
  clm_backbone_loss_args args = loss_args(&f, 0);
  args.lengths = lengths;
  expect_message(clm_backbone_loss(b, &args), CLM_INVALID_ARGUMENT, "lengths[1] is 6");
  args = loss_args(&f, 1);
  expect_message(clm_backbone_loss(b, &args), CLM_INVALID_ARGUMENT, "dropout is 1");
  args = loss_args(&f, 0);
  args.loss = absent;
  expect_message(clm_backbone_loss(b, &args), CLM_INVALID_ARGUMENT, "loss must be");
  args = loss_args(&f, 0);
  args.targets = f.loss;
  expect_message(clm_backbone_loss(b, &args), CLM_INVALID_ARGUMENT, "targets must be");
  clm_tensor gradient;
  expect_message(clm_backbone_parameter(b, "head", &gradient), CLM_INVALID_ARGUMENT, "no parameter \"head\"");
  const char *names[] = {"a", "\xff"};
  expect_message(clm_backbone_set_names(b, names), CLM_INVALID_ARGUMENT, "not UTF-8");

  float frames[] = {1, 2, 3}, targets[] = {1, (float)INFINITY};
  clm_backbone_score score;
  clm_sequences s = {.count = 1, .length = 1, .frames = frames, .targets = targets};
  expect_message(clm_backbone_evaluate(b, &s, &score), CLM_INVALID_ARGUMENT, "number 1 of target 0 is not finite");
  s.targets = NULL;
  expect_message(clm_backbone_evaluate(b, &s, &score), CLM_INVALID_ARGUMENT, "targets are absent");
  s.length = 0;
  expect_message(clm_backbone_evaluate(b, &s, &score), CLM_INVALID_ARGUMENT, "sequence 0 has 0 frames");
  s.count = 0;
  expect_message(clm_backbone_evaluate(b, &s, &score), CLM_INVALID_ARGUMENT, "no sequences");
  fixture_free(&f);
}

static void test_presets(const test_device *device, const void *data) {
  (void)device, (void)data;
  size_t count;
  const clm_backbone_preset *presets = clm_backbone_presets(&count);
  bool real_time = false;
  for (size_t i = 0; i < count; i++) {
    clm_backbone_config config = presets[i].config;
    clm_model_config blocks;
    config.embed_dim = 9;
    floats_check(test_reference, backbone_config_complete(test_reference, &config, &blocks), presets[i].name);
    real_time = real_time || strcmp(presets[i].name, "real-time") == 0;
  }
  assert_true(real_time);
}

/* The second pass of a shape allocates nothing. */
static void test_steady_memory(const test_device *device, const void *data) {
  fixture f = fixture_make(data, device->context);
  float loss;
  uint64_t before, after;
  free(gradients(&f, 0.1f, &loss));
  free(forward(&f));
  free(gradients(&f, 0.1f, &loss));
  clm_context_memory(f.context, &before, NULL);
  free(forward(&f));
  free(gradients(&f, 0.1f, &loss));
  clm_context_memory(f.context, &after, NULL);
  assert_int_equal(before, after);
  fixture_free(&f);
}

static void add(void) {
  for (size_t i = 0; i < TEST_COUNT(cases); i++) {
    test_add(NULL, test_slopes, &cases[i], "slopes, %s", cases[i].why);
    if (!cases[i].config.window) test_add(NULL, test_loss, &cases[i], "loss, %s", cases[i].why);
  }
  test_add(NULL, test_bad_configs, NULL, "bad configurations");
  test_add(NULL, test_bad_arguments, NULL, "bad arguments");
  test_add(NULL, test_bad_files, NULL, "bad files");
  test_add(NULL, test_own_loss_refused, NULL, "a loss of one's own, refused");
  test_add(NULL, test_presets, NULL, "presets");
  for (size_t d = 0; d < test_device_count; d++) {
    const test_device *device = &test_devices[d];
    for (size_t i = 0; i < TEST_COUNT(cases); i++) {
      if (device->slow && !cases[i].fast) continue;
      test_add(device, test_against_reference, &cases[i], "against the reference, %s", cases[i].why);
      test_add(device, test_steps, &cases[i], "steps, %s", cases[i].why);
      if (cases[i].config.window) test_add(device, test_window, &cases[i], "window, %s", cases[i].why);
    }
    for (size_t i = 1; i < 5; i++)
      if (cases[i].fast || !device->slow)
        test_add(device, test_own_loss, &cases[i], "a loss of one's own, %s", cases[i].why);
    test_add(device, test_16bit, &cases[3], "frames in 16 bits");
    test_add(device, test_evaluate, &cases[3], "evaluation, numbers");
    test_add(device, test_evaluate, &cases[6], "evaluation, classes");
    test_add(device, test_round_trip, &cases[6], "save and load");
    test_add(device, test_steady_memory, &cases[3], "memory of a second step");
  }
}

int main(void) {
  if (!mkdtemp(folder)) return EXIT_FAILURE;
  int status = test_main("backbone", add);
  return rmdir(folder) == 0 ? status : EXIT_FAILURE;
}

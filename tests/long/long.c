/* What takes too long, or too much memory, to run every time: a selective scan over 1,048,576 steps, its gradients
 * over 262,144, few channels over 16,777,216, and tensors whose elements lie more than 2^31 apart. On the CPU and
 * PoCL unless CLM_TEST_DEVICES names others. */
#include "problem.h"
#include <stdio.h>
#include <string.h>

enum { SAMPLES = 100 };

/* ---- Long sequences ---- */

typedef struct long_case {
  int64_t length, channels, groups, states;
  int64_t group; /* the reference computes the channels of this one alone */
  bool backward;
  const char *why;
} long_case;

static const long_case long_cases[] = {
    {1048576, 64, 8, 16, 5, false, "1,048,576 steps"},
    {262144, 64, 8, 16, 2, true, "262,144 steps, gradients"},
    {16777216, 2, 1, 2, 0, false, "16,777,216 steps"},
    {16777216, 2, 1, 2, 0, true, "16,777,216 steps, gradients"},
};

enum { U, DELTA, A, B, C, D, Z, OUT, DOUT, DU, DDELTA, DZ, DA, DB, DC, DD, TENSORS };

/* f32 arrays in host memory, and the tensors over them on one context. */
typedef struct long_data {
  float *values[TENSORS];
  size_t counts[TENSORS];
} long_data;

typedef struct long_run {
  clm_buffer *buffers[TENSORS];
  clm_selective_scan_backward_args args;
} long_run;

static const struct {
  const char *name;
  bool input, backward;
  enum { OF_CHANNEL, OF_MATRIX, OF_STEP, OF_GROUP } shape;
} tensors[TENSORS] = {
    [U] = {"u", true, false, OF_STEP},           [DELTA] = {"delta", true, false, OF_STEP},
    [A] = {"A", true, false, OF_MATRIX},         [B] = {"B", true, false, OF_GROUP},
    [C] = {"C", true, false, OF_GROUP},          [D] = {"D", true, false, OF_CHANNEL},
    [Z] = {"z", true, false, OF_STEP},           [OUT] = {"out", false, false, OF_STEP},
    [DOUT] = {"dout", true, true, OF_STEP},      [DU] = {"du", false, true, OF_STEP},
    [DDELTA] = {"ddelta", false, true, OF_STEP}, [DZ] = {"dz", false, true, OF_STEP},
    [DA] = {"dA", false, true, OF_MATRIX},       [DB] = {"dB", false, true, OF_GROUP},
    [DC] = {"dC", false, true, OF_GROUP},        [DD] = {"dD", false, true, OF_CHANNEL},
};

static clm_tensor *members(clm_selective_scan_backward_args *a, int i) {
  clm_selective_scan_args *f = &a->forward;
  clm_tensor *const all[TENSORS] = {&f->u,    &f->delta, &f->A,      &f->B,  &f->C,  &f->D,  &f->z,  &f->out,
                                    &a->dout, &a->du,    &a->ddelta, &a->dz, &a->dA, &a->dB, &a->dC, &a->dD};
  return all[i];
}

static clm_tensor shape_of(const long_case *c, int i) {
  switch (tensors[i].shape) {
  case OF_CHANNEL: return clm_tensor_of(NULL, 0, CLM_F32, 1, &c->channels);
  case OF_MATRIX: return clm_tensor_of(NULL, 0, CLM_F32, 2, (int64_t[]){c->channels, c->states});
  case OF_STEP: return clm_tensor_of(NULL, 0, CLM_F32, 3, (int64_t[]){1, c->length, c->channels});
  case OF_GROUP: break;
  }
  return clm_tensor_of(NULL, 0, CLM_F32, 4, (int64_t[]){1, c->length, c->groups, c->states});
}

/* The channels of the group that is compared. */
static clm_tensor of_group(const long_case *c, int i, clm_tensor t) {
  const int64_t channels = c->channels / c->groups;
  if (tensors[i].shape == OF_GROUP) return clm_tensor_slice(t, 2, c->group, 1);
  return clm_tensor_slice(t, tensors[i].shape == OF_STEP ? 2 : 0, c->group * channels, channels);
}

/* Uniform in (-2, 2); A from -1e-5, which remembers the whole sequence, to -3. */
static void fill(float *values, size_t count, int i) {
  test_random r = random_seeded(61, tensors[i].name);
  for (size_t k = 0; k < count; k++) {
    const double x = random_uniform(&r);
    values[k] = (float)(i == A ? x * (log(3) - log(1e-5)) + log(1e-5) : 4 * x - 2);
  }
}

static bool used(const long_case *c, int i) { return c->backward ? i != OUT : !tensors[i].backward; }

static long_data *make_data(const long_case *c) {
  long_data *data = calloc(1, sizeof *data);
  if (!data) abort();
  for (int i = 0; i < TENSORS; i++) {
    if (!used(c, i)) continue;
    data->counts[i] = (size_t)clm_tensor_count(shape_of(c, i));
    data->values[i] = malloc(data->counts[i] * sizeof(float));
    if (!data->values[i]) abort();
    if (tensors[i].input) fill(data->values[i], data->counts[i], i);
    else memset(data->values[i], 0xff, data->counts[i] * sizeof(float));
  }
  return data;
}

static void free_data(long_data *data) {
  for (int i = 0; i < TENSORS; i++) free(data->values[i]);
  free(data);
}

static void ok(clm_context *context, clm_status status) {
  if (status) fail_msg("%s", clm_context_error(context));
}

/* The call on a context, for all channels or the group that is compared. The outputs go to `data`. */
static void call(const long_case *c, long_data *data, clm_context *context, bool one_group) {
  long_run run = {.args.forward = {.delta_softplus = true, .A_is_log = true}};
  for (int i = 0; i < TENSORS; i++) {
    if (!used(c, i)) continue;
    const size_t bytes = data->counts[i] * sizeof(float);
    ok(context, clm_buffer_wrap_host(context, data->values[i], bytes, &run.buffers[i]));
    clm_tensor t = shape_of(c, i);
    t.buffer = run.buffers[i];
    *members(&run.args, i) = one_group ? of_group(c, i, t) : t;
  }
  ok(context,
     c->backward ? clm_selective_scan_backward(context, &run.args) : clm_selective_scan(context, &run.args.forward));
  ok(context, clm_context_finish(context));
  for (int i = 0; i < TENSORS; i++) {
    if (!used(c, i)) continue;
    void *memory;
    ok(context, clm_buffer_map(run.buffers[i], &memory)); /* a device's own memory is copied back by this */
    if (memory != data->values[i]) memcpy(data->values[i], memory, data->counts[i] * sizeof(float));
    ok(context, clm_buffer_unmap(run.buffers[i]));
    clm_buffer_destroy(&run.buffers[i]);
  }
}

/* SAMPLES numbers of one output; the last ones of a sequence among them. */
static void compare(const long_case *c, int i, const long_data *got, const long_data *want) {
  clm_tensor t = of_group(c, i, shape_of(c, i));
  const int64_t count = clm_tensor_count(t);
  double square = 0, worst = 0;
  int64_t places[SAMPLES];
  test_random r = random_seeded(62, tensors[i].name);
  for (int k = 0; k < SAMPLES; k++) {
    int64_t element = k == 0 ? count - 1 : random_below(&r, count), at = (int64_t)(t.offset / sizeof(float));
    for (int dim = t.rank - 1; dim >= 0; dim--) {
      at += element % t.shape[dim] * t.stride[dim];
      element /= t.shape[dim];
    }
    places[k] = at;
    square += (double)want->values[i][at] * (double)want->values[i][at];
  }
  const double scale = sqrt(square / SAMPLES);
  for (int k = 0; k < SAMPLES; k++) {
    const double g = (double)got->values[i][places[k]], w = (double)want->values[i][places[k]];
    const double error = fabs(g - w) / fmax(fabs(w), scale);
    if (!(error <= 1e-3))
      fail_msg("%s: element %lld is %.9g, expected %.9g", tensors[i].name, (long long)places[k], g, w);
    worst = fmax(worst, error);
  }
  printf("# %s: %s is off by %.2g of its value or of the root mean square\n", c->why, tensors[i].name, worst);
}

static long_data *wanted[TEST_COUNT(long_cases)];

static void test_long(const test_device *device, const void *data) {
  const long_case *c = data;
  long_data **want = &wanted[c - long_cases];
  if (!*want) {
    *want = make_data(c);
    call(c, *want, test_reference, true);
  }
  long_data *got = make_data(c);
  call(c, got, device->context, false);
  printf("# %s\n", clm_context_explain(device->context));
  for (int i = 0; i < TENSORS; i++)
    if (used(c, i) && !tensors[i].input) compare(c, i, got, *want);
  free_data(got);
}

/* ---- Far apart ---- */

/* All f16 tensors of a call are columns of one matrix, whose rows are one step of one dimension: `dim` of the
 * tensors' shape, the last one where it is negative. Rows lie side by side, or so far apart that the last one begins
 * past element 2^31; the bits must be the same. */
typedef struct far_case {
  int dim;
  bool backward, convolution;
  const char *why;
} far_case;

static const far_case far_cases[] = {
    {0, false, false, "batch rows"}, {1, false, false, "steps"}, {-1, false, false, "channels and states"},
    {0, true, false, "batch rows"},  {1, true, false, "steps"},  {-1, true, false, "channels and states"},
    {0, false, true, "batch rows"},  {1, false, true, "steps"},  {-1, false, true, "channels"},
    {0, true, true, "batch rows"},   {1, true, true, "steps"},   {-1, true, true, "channels"},
};

enum { FAR_BATCH = 2, FAR_LENGTH = 70, FAR_CHANNELS = 16 };

static const int columns[] = {U, DELTA, B, C, Z, OUT, DOUT, DU, DDELTA, DZ, DB, DC};

/* Its columns begin at *column, which moves past them. */
static clm_tensor column_of(const far_case *c, int i, int64_t stride, int64_t *column) {
  const bool step = tensors[i].shape == OF_STEP;
  clm_tensor t = clm_tensor_of(NULL, 0, CLM_F16, step ? 3 : 4,
                               step ? (int64_t[]){FAR_BATCH, FAR_LENGTH, FAR_CHANNELS}
                                    : (int64_t[]){FAR_BATCH, FAR_LENGTH, 1, FAR_CHANNELS});
  const int row = c->dim < 0 ? t.rank - 1 : c->dim;
  t.offset = (size_t)*column * 2;
  int64_t inner = 1;
  for (int dim = t.rank - 1; dim >= 0; dim--) {
    t.stride[dim] = dim == row ? stride : inner;
    if (dim != row) inner *= t.shape[dim];
  }
  *column += inner;
  return t;
}

/* The scan or, of the same tensors, the convolution: x is u, its filter part of A. */
static clm_status call_columns(const far_case *c, clm_context *context, const clm_selective_scan_backward_args *a) {
  const clm_selective_scan_args *f = &a->forward;
  if (!c->convolution) return c->backward ? clm_selective_scan_backward(context, a) : clm_selective_scan(context, f);
  clm_causal_conv1d_backward_args conv = {.dout = a->dout, .dx = a->du};
  conv.forward =
      (clm_causal_conv1d_args){.x = f->u, .weight = clm_tensor_slice(f->A, 1, 0, 4), .out = f->out, .silu = true};
  return c->backward ? clm_causal_conv1d_backward(context, &conv) : clm_causal_conv1d(context, &conv.forward);
}

/* Runs the call with rows `stride` elements apart, on the image of them side by side. */
static void run_rows(const far_case *c, clm_context *context, uint16_t *image, int64_t rows, int64_t width,
                     int64_t stride) {
  clm_selective_scan_backward_args a = {.forward = {.delta_softplus = true, .A_is_log = true}};
  clm_buffer *buffer, *parameters;
  float A_values[FAR_CHANNELS * FAR_CHANNELS];
  fill(A_values, TEST_COUNT(A_values), A);
  ok(context, clm_buffer_create(context, (size_t)((rows - 1) * stride + width) * 2, &buffer));
  ok(context, clm_buffer_create(context, sizeof A_values, &parameters));
  ok(context, clm_buffer_write(parameters, 0, sizeof A_values, A_values));
  for (int64_t i = 0; i < rows; i++)
    ok(context, clm_buffer_write(buffer, (size_t)(i * stride) * 2, (size_t)width * 2, image + i * width));
  int64_t column = 0;
  for (size_t i = 0; i < TEST_COUNT(columns); i++) {
    clm_tensor t = column_of(c, columns[i], stride, &column);
    t.buffer = buffer;
    if (c->backward || !tensors[columns[i]].backward) *members(&a, columns[i]) = t;
  }
  a.forward.A = clm_tensor_of(parameters, 0, CLM_F32, 2, (int64_t[]){FAR_CHANNELS, FAR_CHANNELS});
  ok(context, call_columns(c, context, &a));
  for (int64_t i = 0; i < rows; i++)
    ok(context, clm_buffer_read(buffer, (size_t)(i * stride) * 2, (size_t)width * 2, image + i * width));
  clm_buffer_destroy(&buffer);
  clm_buffer_destroy(&parameters);
}

static void test_far(const test_device *device, const void *data) {
  const far_case *c = data;
  const int64_t rows = c->dim < 0 ? FAR_CHANNELS : c->dim == 0 ? FAR_BATCH : FAR_LENGTH;
  int64_t width = 0;
  for (size_t i = 0; i < TEST_COUNT(columns); i++) column_of(c, columns[i], 1, &width);
  const int64_t stride = (INT64_C(1) << 31) / (rows - 1) + 64;
  const uint64_t bytes = (uint64_t)((rows - 1) * stride + width) * 2;
  clm_device_info info;
  ok(device->context, clm_context_device(device->context, &info));
  if (device->opencl && info.max_allocation_bytes < bytes) {
    printf("# left out: one buffer may have %llu bytes here, %llu are needed\n",
           (unsigned long long)info.max_allocation_bytes, (unsigned long long)bytes);
    skip();
  }
  const size_t count = (size_t)(rows * width);
  uint16_t *near_image = malloc(count * 2), *far_image = malloc(count * 2), *before = malloc(count * 2);
  if (!near_image || !far_image || !before) abort();
  test_random r = random_seeded(63, "rows"); /* 2^-4 to 1, of either sign: every bit pattern a plain number */
  for (size_t k = 0; k < count; k++) before[k] = (uint16_t)(0x2c00 | (random_below(&r, 0x10000) & 0x8fff));
  memcpy(near_image, before, count * 2);
  memcpy(far_image, before, count * 2);
  run_rows(c, device->context, near_image, rows, width, width);
  run_rows(c, device->context, far_image, rows, width, stride);
  size_t off = 0, written = 0;
  for (size_t k = 0; k < count; k++) {
    off += near_image[k] != far_image[k];
    written += near_image[k] != before[k];
  }
  free(near_image);
  free(far_image);
  free(before);
  if (off) fail_msg("%zu of %zu elements differ where rows are %lld elements apart", off, count, (long long)stride);
  assert_true(written > count / 20);
}

static void add(void) {
  for (size_t d = 0; d < test_device_count; d++) {
    for (size_t i = 0; i < TEST_COUNT(long_cases); i++)
      test_add(&test_devices[d], test_long, &long_cases[i], "selective_scan: %s", long_cases[i].why);
    for (size_t i = 0; i < TEST_COUNT(far_cases); i++)
      test_add(&test_devices[d], test_far, &far_cases[i], "%s%s: %s 2^31 elements apart",
               far_cases[i].convolution ? "causal_conv1d" : "selective_scan",
               far_cases[i].backward ? "_backward" : "", far_cases[i].why);
  }
}

int main(void) {
  setenv("CLM_TEST_DEVICES", "cpu,pocl", 0);
  const int status = test_main("long", add);
  for (size_t i = 0; i < TEST_COUNT(wanted); i++)
    if (wanted[i]) free_data(wanted[i]);
  return status;
}

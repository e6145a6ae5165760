/* Step programs: a layer's step that was recorded gives what its operations give one by one, for every dtype of
 * weights and several rows, and says what it is; what it cannot record leaves no plan. */
#include "backend/opencl/opencl.h"
#include "cmocka_all.h"
#include "core/dtype.h"
#include "core/op_plan.h"
#include "core/tensor_list.h"
#include "devices.h"
#include "ops/view.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MODEL = 72, CHANNELS = 100, STATE = 16, RANK = 5, WIDTH = 4, HEADS = 5, HEAD_DIM = 20, GROUPS = 5, TURNS = 3 };
enum { FEATURES = RANK + 2 * STATE, BOTH = 2 * CHANNELS + 2 * GROUPS * STATE + HEADS };

typedef struct step_case {
  const char *name;
  clm_dtype weights;
  int64_t rows;
  bool heads; /* Mamba-2's layer */
} step_case;

static const step_case cases[] = {
    {"f32", CLM_F32, 1, false},
    {"bf16, three rows", CLM_BF16, 3, false},
    {"f16, heads", CLM_F16, 1, true},
    {"i8, two rows, heads", CLM_I8, 2, true},
};

typedef struct layer {
  clm_context *context;
  clm_buffer *block;
  size_t used;
  int64_t rows;
  clm_dtype weights;
  clm_tensor norm, x, normed, in, in_scale, both, conv_state, filter, filter_bias, conv, features_weight,
      features_scale, features, dt_weight, dt_scale, dt, bias, states, A, D, y, gate_norm, gated, out, out_scale;
} layer;

#define TAKE(l, dtype, ...)                                                                                          \
  tensor_place((l)->block, &(l)->used, dtype, (int)(sizeof((int64_t[]){__VA_ARGS__}) / 8),                           \
               (const int64_t[]){__VA_ARGS__})

static void lay_out(layer *l) {
  const int64_t n = l->rows;
  const clm_dtype w = l->weights;
  l->used = 0;
  l->norm = TAKE(l, CLM_F32, MODEL);
  l->x = TAKE(l, CLM_F32, n, MODEL);
  l->normed = TAKE(l, CLM_F32, n, MODEL);
  l->in = TAKE(l, w, BOTH, MODEL);
  l->in_scale = TAKE(l, CLM_F32, BOTH);
  l->both = TAKE(l, CLM_F32, n, BOTH);
  l->conv_state = TAKE(l, CLM_F32, n, CHANNELS, WIDTH - 1);
  l->filter = TAKE(l, CLM_F32, CHANNELS, WIDTH);
  l->filter_bias = TAKE(l, CLM_F32, CHANNELS);
  l->conv = TAKE(l, CLM_F32, n, CHANNELS);
  l->features_weight = TAKE(l, w, FEATURES, CHANNELS);
  l->features_scale = TAKE(l, CLM_F32, FEATURES);
  l->features = TAKE(l, CLM_F32, n, FEATURES);
  l->dt_weight = TAKE(l, w, CHANNELS, RANK);
  l->dt_scale = TAKE(l, CLM_F32, CHANNELS);
  l->dt = TAKE(l, CLM_F32, n, CHANNELS);
  l->bias = TAKE(l, CLM_F32, CHANNELS);
  l->states = TAKE(l, CLM_F32, n, CHANNELS, STATE);
  l->A = TAKE(l, CLM_F32, CHANNELS, STATE);
  l->D = TAKE(l, CLM_F32, CHANNELS);
  l->y = TAKE(l, CLM_F32, n, CHANNELS);
  l->gate_norm = TAKE(l, CLM_F32, CHANNELS);
  l->gated = TAKE(l, CLM_F32, n, CHANNELS);
  l->out = TAKE(l, w, MODEL, CHANNELS);
  l->out_scale = TAKE(l, CLM_F32, MODEL);
}

static void layer_create(layer *l, const test_device *device, const step_case *c) {
  *l = (layer){.context = device->context, .rows = c->rows, .weights = c->weights};
  lay_out(l); /* for the size */
  assert_int_equal(clm_buffer_create(l->context, l->used, &l->block), CLM_OK);
  lay_out(l);
  const clm_tensor tensors[] = {l->norm,
                                l->x,
                                l->in,
                                l->conv_state,
                                l->filter,
                                l->filter_bias,
                                l->features_weight,
                                l->dt_weight,
                                l->bias,
                                l->states,
                                l->A,
                                l->D,
                                l->gate_norm,
                                l->out,
                                l->in_scale,
                                l->features_scale,
                                l->dt_scale,
                                l->out_scale};
  const size_t count = sizeof tensors / sizeof *tensors, scales = count - 4;
  unsigned char *bytes = calloc(1, l->used);
  assert_non_null(bytes);
  uint32_t seed = 1;
  for (size_t i = 0; i < count; i++)
    for (int64_t k = 0; k < clm_tensor_count(tensors[i]); k++) {
      seed = seed * 1664525u + 1013904223u;
      const float number = ((float)(seed >> 8) * 0x1p-23f - 1) / (i < scales ? 4 : 400);
      unsigned char *at = bytes + tensors[i].offset + (size_t)k * clm_dtype_size(tensors[i].dtype);
      const uint16_t narrow = tensors[i].dtype == CLM_BF16 ? dtype_to_bf16(number) : dtype_to_f16(number);
      if (tensors[i].dtype == CLM_F32) memcpy(at, &number, sizeof number);
      else if (tensors[i].dtype == CLM_I8) *at = (unsigned char)(signed char)(number * 400);
      else memcpy(at, &narrow, sizeof narrow);
    }
  assert_int_equal(clm_buffer_write(l->block, 0, l->used, bytes), CLM_OK);
  free(bytes);
}

static clm_status product(layer *l, clm_tensor a, clm_tensor w, clm_tensor scale, clm_tensor residual,
                          clm_tensor out) {
  const clm_tensor none = {0};
  return clm_matmul(l->context, &(clm_matmul_args){.a = a,
                                                   .b = clm_tensor_transpose(w, 0, 1),
                                                   .b_scale = l->weights == CLM_I8 ? scale : none,
                                                   .residual = residual,
                                                   .out = out});
}

/* Columns [begin, begin + a b) of a matrix as (rows, a, b). */
static clm_tensor parts(clm_tensor t, int64_t begin, int64_t a, int64_t b) {
  t = view_columns(t, begin, a * b);
  t.rank = 3;
  t.shape[1] = a;
  t.shape[2] = b;
  t.stride[2] = t.stride[1];
  t.stride[1] = b * t.stride[2];
  return t;
}

/* One number for all dims of a head, or for all of its states too. */
static clm_tensor spread(clm_tensor t, int64_t a, int64_t b) {
  const int64_t more[] = {a, b};
  for (int i = 0; i < 2 && more[i]; i++) {
    t.shape[t.rank] = more[i];
    t.stride[t.rank++] = 0;
  }
  return t;
}

static clm_tensor as_heads(clm_tensor t) {
  return clm_tensor_reshape(t, 3, (int64_t[]){t.shape[0], HEADS, HEAD_DIM});
}

static clm_status step(layer *l, bool heads) {
  const clm_tensor none = {0};
  clm_context *ctx = l->context;
  clm_status status =
      clm_norm(ctx, &(clm_norm_args){.x = l->x, .weight = l->norm, .out = l->normed, .epsilon = 1e-5f});
  if (!status) status = product(l, l->normed, l->in, l->in_scale, none, l->both);
  if (!status)
    status = clm_causal_conv1d_update(
        ctx, &(clm_causal_conv1d_update_args){.state = l->conv_state,
                                              .x = view_columns(l->both, heads ? CHANNELS : 0, CHANNELS),
                                              .weight = l->filter,
                                              .bias = l->filter_bias,
                                              .out = l->conv,
                                              .silu = true});
  clm_selective_state_update_args update = {.state = l->states,
                                            .u = l->conv,
                                            .delta = l->dt,
                                            .A = l->A,
                                            .B = parts(l->features, RANK, 1, STATE),
                                            .C = parts(l->features, RANK + STATE, 1, STATE),
                                            .D = l->D,
                                            .z = view_columns(l->both, CHANNELS, CHANNELS),
                                            .delta_bias = l->bias,
                                            .out = l->y,
                                            .delta_softplus = true,
                                            .A_is_log = true};
  if (!heads) {
    if (!status) status = product(l, l->conv, l->features_weight, l->features_scale, none, l->features);
    if (!status) status = product(l, view_columns(l->features, 0, RANK), l->dt_weight, l->dt_scale, none, l->dt);
    if (!status) status = clm_selective_state_update(ctx, &update);
    return status ? status : product(l, l->y, l->out, l->out_scale, l->x, l->x);
  }
  const int64_t of_groups = GROUPS * STATE;
  update.state = clm_tensor_reshape(l->states, 4, (int64_t[]){l->rows, HEADS, HEAD_DIM, STATE});
  update.u = as_heads(l->conv);
  update.delta = spread(view_columns(l->both, 2 * CHANNELS + 2 * of_groups, HEADS), HEAD_DIM, 0);
  update.A = spread(clm_tensor_slice(l->bias, 0, 0, HEADS), HEAD_DIM, STATE);
  update.B = parts(l->both, 2 * CHANNELS, GROUPS, STATE);
  update.C = parts(l->both, 2 * CHANNELS + of_groups, GROUPS, STATE);
  update.D = spread(clm_tensor_slice(l->D, 0, 0, HEADS), HEAD_DIM, 0);
  update.delta_bias = spread(clm_tensor_slice(l->D, 0, HEADS, HEADS), HEAD_DIM, 0);
  update.z = none;
  update.out = as_heads(l->y);
  if (!status) status = clm_selective_state_update(ctx, &update);
  if (!status)
    status = clm_gated_norm(ctx, &(clm_gated_norm_args){.x = l->y,
                                                        .z = view_columns(l->both, 0, CHANNELS),
                                                        .weight = l->gate_norm,
                                                        .out = l->gated,
                                                        .epsilon = 1e-5f,
                                                        .n_groups = 2});
  return status ? status : product(l, l->gated, l->out, l->out_scale, l->x, l->x);
}

static void compare(const char *name, clm_tensor got, clm_tensor want) {
  const size_t count = (size_t)clm_tensor_count(want);
  float *a = malloc(count * sizeof *a), *b = malloc(count * sizeof *b);
  assert_true(a && b);
  assert_int_equal(clm_tensor_read(got, a, count * sizeof *a), CLM_OK);
  assert_int_equal(clm_tensor_read(want, b, count * sizeof *b), CLM_OK);
  for (size_t i = 0; i < count; i++)
    if (!(fabsf(a[i] - b[i]) <= 1e-5f + 1e-5f * fabsf(b[i])))
      fail_msg("%s[%zu]: %.9g, expected %.9g", name, i, (double)a[i], (double)b[i]);
  free(a);
  free(b);
}

static void test_layer(const test_device *device, const void *data) {
  const step_case *c = data;
  layer single, planned;
  layer_create(&single, device, c);
  layer_create(&planned, device, c);
  op_plan *plan;
  assert_int_equal(op_plan_begin(device->context, &plan), CLM_OK);
  assert_int_equal(op_plan_end(&plan, step(&planned, c->heads)), CLM_OK);
  for (int i = 0; i < TURNS; i++) {
    assert_int_equal(step(&single, c->heads), CLM_OK);
    assert_int_equal(op_plan_run(plan), CLM_OK);
    assert_non_null(strstr(clm_context_explain(device->context),
                           c->heads ? "step: opencl, 3 stages in a kernel" : "step: opencl, 4 stages in a kernel"));
  }
  compare("x", planned.x, single.x);
  compare("the states", planned.states, single.states);
  compare("the convolution's states", planned.conv_state, single.conv_state);
  op_plan_drop(&plan);
  clm_buffer_destroy(&single.block);
  clm_buffer_destroy(&planned.block);
}

/* Other operations, other rows within a step, and f16 activations have no stages. */
static void test_refused(const test_device *device, const void *unused) {
  (void)unused;
  layer l;
  layer_create(&l, device, &cases[1]);
  op_plan *plan;
  assert_int_equal(op_plan_begin(device->context, &plan), CLM_OK);
  assert_int_equal(
      op_plan_end(&plan, clm_axpby(device->context, &(clm_axpby_args){.x = l.x, .out = l.normed, .alpha = 2})),
      CLM_UNSUPPORTED);
  assert_null(plan);
  assert_int_equal(op_plan_begin(device->context, &plan), CLM_OK);
  assert_int_equal(clm_norm(device->context, &(clm_norm_args){.x = l.x, .out = l.normed}), CLM_OK);
  const clm_tensor one = clm_tensor_slice(l.x, 0, 0, 1), other = clm_tensor_slice(l.normed, 0, 0, 1);
  assert_int_equal(op_plan_end(&plan, clm_norm(device->context, &(clm_norm_args){.x = one, .out = other})),
                   CLM_UNSUPPORTED);
  assert_null(plan);
  assert_int_equal(clm_norm(device->context, &(clm_norm_args){.x = one, .out = other}), CLM_OK);
  clm_buffer_destroy(&l.block);
}

static void add(void) {
  for (size_t i = 0; i < test_device_count; i++) {
    if (!test_devices[i].opencl || opencl_state_of(test_devices[i].context)->quirks.no_step_program) continue;
    for (size_t k = 0; k < TEST_COUNT(cases); k++)
      test_add(&test_devices[i], test_layer, &cases[k], "a layer's step, %s", cases[k].name);
    test_add(&test_devices[i], test_refused, NULL, "what has no stages");
  }
}

int main(void) {
  setenv("CLM_STEP_PROGRAM", "1", 1); /* on CPUs too */
  return test_main("step", add);
}

/* Causal depthwise convolution, its backward and its single step. */
#include "problem.h"

TEST_OP(causal_conv1d);
TEST_OP(causal_conv1d_backward);
TEST_OP(causal_conv1d_update);

enum { BIAS = 1, SILU = 2, INITIAL = 4, FINAL = 8, SLOW = 16 };

typedef struct conv_case {
  int64_t batch, length, channels, width;
  unsigned flags;
  test_layout layout;
  const char *why;
} conv_case;

static const conv_case cases[] = {
    /* batch length channels width flags layout why it is here */
    {1, 1, 1, 1, 0, TEST_CONTIGUOUS, "smallest"},
    {2, 5, 3, 1, BIAS | SILU, TEST_CONTIGUOUS, "width 1, which has no state"},
    {1, 1, 5, 4, BIAS | INITIAL | FINAL, TEST_CONTIGUOUS, "one step: the state moves by one"},
    {2, 2, 5, 4, SILU | INITIAL | FINAL, TEST_CONTIGUOUS, "shorter than the state"},
    {1, 3, 5, 4, FINAL, TEST_CONTIGUOUS, "just the state, nothing before"},
    {2, 64, 32, 4, BIAS | SILU, TEST_CONTIGUOUS, "Mamba's"},
    {2, 129, 35, 4, BIAS | SILU | INITIAL | FINAL, TEST_CONTIGUOUS, "one past a tile, ragged"},
    {1, 67, 13, 2, BIAS, TEST_PADDED, "width 2, padded"},
    {2, 67, 13, 3, SILU | INITIAL, TEST_PADDED, "width 3, padded"},
    {2, 40, 17, 7, BIAS | SILU | INITIAL | FINAL, TEST_CONTIGUOUS, "width 7"},
    {1, 70, 6, 32, BIAS | INITIAL | FINAL, TEST_CONTIGUOUS, "the widest"},
    {2, 100, 9, 4, BIAS | SILU | INITIAL | FINAL, TEST_TRANSPOSED, "channel before length"},
    {2, 100, 9, 4, BIAS | SILU, TEST_WIDE, "a slice of a wider tensor, as x beside z"},
    {2, 33, 6, 4, BIAS | INITIAL | FINAL, TEST_SPREAD, "every other element"},
    {3, 33, 6, 4, BIAS | SILU | INITIAL, TEST_REPEATED, "one batch row read for all"},
    {1, 1030, 40, 4, BIAS | SILU | FINAL | SLOW, TEST_CONTIGUOUS, "long"},
};
#define CASES (sizeof cases / sizeof cases[0])

static clm_causal_conv1d_args args_of(const conv_case *c) {
  return (clm_causal_conv1d_args){.silu = c->flags & SILU};
}

static test_problem problem_of(const conv_case *c, const test_op *op, const void *args) {
  test_problem p = {.op = op, .args = args, .seed = 41, .layout = c->layout, .tolerance = 3e-6};
  PROBLEM_ADD(&p, TEST_ROW(clm_causal_conv1d_args, x, TEST_IN, TEST_STORAGE, NULL, c->batch, c->length, c->channels));
  PROBLEM_ADD(&p, TEST_ROW(clm_causal_conv1d_args, weight, TEST_IN, TEST_PARAMETER, NULL, c->channels, c->width));
  if (c->flags & BIAS)
    PROBLEM_ADD(&p, TEST_ROW(clm_causal_conv1d_args, bias, TEST_IN, TEST_PARAMETER, NULL, c->channels));
  if (c->flags & INITIAL)
    PROBLEM_ADD(&p, TEST_ROW(clm_causal_conv1d_args, initial_state, TEST_IN, TEST_STORAGE, NULL, c->batch,
                             c->channels, c->width - 1));
  return p;
}

static test_problem forward_of(const conv_case *c, const clm_causal_conv1d_args *args) {
  test_problem p = problem_of(c, &op_causal_conv1d, args);
  PROBLEM_ADD(&p,
              TEST_ROW(clm_causal_conv1d_args, out, TEST_OUT, TEST_STORAGE, NULL, c->batch, c->length, c->channels));
  if (c->flags & FINAL)
    PROBLEM_ADD(&p, TEST_ROW(clm_causal_conv1d_args, final_state, TEST_OUT, TEST_STORAGE, NULL, c->batch, c->channels,
                             c->width - 1));
  return p;
}

#define GRADIENT(field, role, kind, of, ...)                                                                         \
  PROBLEM_ADD(&p, TEST_GRADIENT(clm_causal_conv1d_backward_args, field, role, kind, of, __VA_ARGS__))

/* `wanted`: bits for dx, dweight, dbias, dinitial_state. */
static test_problem backward_of(const conv_case *c, const clm_causal_conv1d_backward_args *args, unsigned wanted) {
  test_problem p = problem_of(c, &op_causal_conv1d_backward, args);
  p.tolerance = 1e-5;
  GRADIENT(dout, TEST_IN, TEST_STORAGE, out, c->batch, c->length, c->channels);
  if (c->flags & FINAL)
    GRADIENT(dfinal_state, TEST_IN, TEST_STORAGE, final_state, c->batch, c->channels, c->width - 1);
  if (wanted & 1) GRADIENT(dx, TEST_OUT, TEST_STORAGE, x, c->batch, c->length, c->channels);
  if (wanted & 2) GRADIENT(dweight, TEST_OUT, TEST_PARAMETER, weight, c->channels, c->width);
  if (wanted & 4 && c->flags & BIAS) GRADIENT(dbias, TEST_OUT, TEST_PARAMETER, bias, c->channels);
  if (wanted & 8 && c->flags & INITIAL)
    GRADIENT(dinitial_state, TEST_OUT, TEST_STORAGE, initial_state, c->batch, c->channels, c->width - 1);
  return p;
}

static void test_forward(const test_device *device, const void *data) {
  const clm_causal_conv1d_args args = args_of(data);
  const test_problem p = forward_of(data, &args);
  problem_check(&p, device);
}

static void test_backward(const test_device *device, const void *data) {
  const clm_causal_conv1d_backward_args args = {.forward = args_of(data)};
  const test_problem p = backward_of(data, &args, 15);
  problem_check(&p, device);
}

static void test_some_gradients(const test_device *device, const void *data) {
  const clm_causal_conv1d_backward_args args = {.forward = args_of(data)};
  for (unsigned wanted = 1; wanted < 15; wanted += device->slow ? 3 : 1) {
    const test_problem p = backward_of(data, &args, wanted);
    problem_check(&p, device);
  }
}

static void test_gradients(const test_device *device, const void *data) {
  (void)device;
  const clm_causal_conv1d_backward_args args = {.forward = args_of(data)};
  const test_problem forward = forward_of(data, &args.forward), backward = backward_of(data, &args, 15);
  problem_check_gradients(&forward, &backward, 24);
}

static void test_update(const test_device *device, const void *data) {
  const conv_case *c = data;
  const clm_causal_conv1d_update_args args = {.silu = c->flags & SILU};
  test_problem p = {
      .op = &op_causal_conv1d_update, .args = &args, .seed = 42, .layout = c->layout, .tolerance = 3e-6};
  PROBLEM_ADD(&p, TEST_ROW(clm_causal_conv1d_update_args, x, TEST_IN, TEST_STORAGE, NULL, c->batch, c->channels));
  PROBLEM_ADD(&p,
              TEST_ROW(clm_causal_conv1d_update_args, weight, TEST_IN, TEST_PARAMETER, NULL, c->channels, c->width));
  if (c->flags & BIAS)
    PROBLEM_ADD(&p, TEST_ROW(clm_causal_conv1d_update_args, bias, TEST_IN, TEST_PARAMETER, NULL, c->channels));
  if (c->width > 1)
    PROBLEM_ADD(&p, TEST_ROW(clm_causal_conv1d_update_args, state, TEST_INOUT, TEST_STORAGE, NULL, c->batch,
                             c->channels, c->width - 1));
  PROBLEM_ADD(&p, TEST_ROW(clm_causal_conv1d_update_args, out, TEST_OUT, TEST_STORAGE, NULL, c->batch, c->channels));
  problem_check(&p, device);
}

/* The state may be written where it was read, and a sequence cut in two gives what it gives whole. */
static void test_cut(const test_device *device, const void *data) {
  const conv_case *c = data;
  const clm_causal_conv1d_args args = args_of(c);
  const test_problem p = forward_of(c, &args);
  test_run *whole = run_create(&p, device->context, false), *cut = run_create(&p, device->context, false);
  run_call(whole);
  const int64_t first = c->length > 2 ? c->length / 3 : 1;
  clm_causal_conv1d_args *a = cut->args, part = *a;
  part.final_state = part.initial_state;
  part.x = clm_tensor_slice(a->x, 1, 0, first);
  part.out = clm_tensor_slice(a->out, 1, 0, first);
  assert_int_equal(clm_causal_conv1d(device->context, &part), CLM_OK);
  part.x = clm_tensor_slice(a->x, 1, first, c->length - first);
  part.out = clm_tensor_slice(a->out, 1, first, c->length - first);
  assert_int_equal(clm_causal_conv1d(device->context, &part), CLM_OK);
  double *want = run_read(whole, "out"), *got = run_read(cut, "out");
  assert_memory_equal(got, want, run_values(whole, "out") * sizeof *want);
  double *want_state = run_read(whole, "final_state"), *got_state = run_read(cut, "initial_state");
  assert_memory_equal(got_state, want_state, run_values(whole, "final_state") * sizeof *want_state);
  free(want);
  free(got);
  free(want_state);
  free(got_state);
  run_destroy(whole);
  run_destroy(cut);
}

static void add(void) {
  for (size_t i = 0; i < CASES; i++) {
    const conv_case *c = &cases[i];
    for (size_t d = 0; d < test_device_count; d++) {
      const test_device *device = &test_devices[d];
      if (c->flags & SLOW && device->slow) continue;
      test_add(device, test_forward, c, "causal_conv1d: %s", c->why);
      test_add(device, test_backward, c, "causal_conv1d backward: %s", c->why);
      if (c->layout != TEST_REPEATED) test_add(device, test_update, c, "causal_conv1d update: %s", c->why);
    }
    if (c->length <= 100) test_add(NULL, test_gradients, c, "causal_conv1d gradients: %s", c->why);
  }
  for (size_t d = 0; d < test_device_count; d++) {
    test_add(&test_devices[d], test_some_gradients, &cases[6], "causal_conv1d: each subset of gradients");
    test_add(&test_devices[d], test_cut, &cases[6], "causal_conv1d: cut in two, state in place");
    test_add(&test_devices[d], test_cut, &cases[3], "causal_conv1d: cut to less than the width");
  }
}

int main(void) { return test_main("causal_conv1d", add); }

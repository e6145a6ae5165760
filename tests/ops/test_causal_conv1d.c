/* Causal depthwise convolution and its backward. */
#include "problem.h"
#include <string.h>

TEST_OP(causal_conv1d);
TEST_OP(causal_conv1d_backward);

enum {
  BIAS = 1,
  SILU = 2,
  INITIAL = 4,
  FINAL = 8,
  SLOW = 16,     /* not on slow devices                            */
  SEQ = 32,      /* seq_idx                                        */
  PACKED = 64,   /* cu_seqlens                                     */
  REVERSE = 128, /* the other direction                            */
  AS_X = 256,    /* weight, bias and their gradients stored as x   */
  F16 = 512,
  BF16 = 1024,
  F32_STATES = 2048, /* states and their gradients in f32 */
  ALL = BIAS | SILU | INITIAL | FINAL,
};

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
    {2, 129, 35, 4, ALL, TEST_CONTIGUOUS, "one past a tile, ragged"},
    {1, 67, 13, 2, BIAS | SLOW, TEST_PADDED, "width 2, padded"},
    {2, 67, 13, 3, SILU | INITIAL, TEST_PADDED, "width 3, padded"},
    {2, 40, 17, 7, ALL | SLOW, TEST_CONTIGUOUS, "width 7"},
    {1, 70, 6, 32, BIAS | INITIAL | FINAL, TEST_CONTIGUOUS, "the widest"},
    {2, 100, 9, 4, ALL, TEST_TRANSPOSED, "channel before length"},
    {2, 70, 40, 31, ALL | SLOW, TEST_TRANSPOSED, "channel before length, wide"},
    {1, 5, 3, 9, ALL | SLOW, TEST_TRANSPOSED, "channel before length, shorter than the state"},
    {1, 1040, 3, 31, ALL | SLOW, TEST_TRANSPOSED, "channel before length, the final state from two pieces"},
    {2, 100, 9, 4, BIAS | SILU, TEST_WIDE, "a slice of a wider tensor, as x next to z"},
    {2, 33, 6, 4, BIAS | INITIAL | FINAL, TEST_SPREAD, "every other element"},
    {3, 33, 6, 4, BIAS | SILU | INITIAL, TEST_REPEATED, "one batch row read for all"},
    {2, 70, 300, 4, BIAS | SILU | FINAL, TEST_CONTIGUOUS, "wide: steps compiled in"},
    {1, 50, 257, 3, BIAS | SILU | INITIAL, TEST_PADDED, "wide, padded rows"},
    {1, 1030, 40, 4, BIAS | SILU | FINAL | SLOW, TEST_CONTIGUOUS, "long"},
    {1, 129, 16384, 4, BIAS | SILU | INITIAL | SLOW, TEST_CONTIGUOUS, "more than caches should hold"},
    {2, 101, 10400, 2, SLOW, TEST_CONTIGUOUS, "more than caches should hold, no activation"},

    {2, 90, 20, 4, ALL | SEQ, TEST_CONTIGUOUS, "several sequences and padding"},
    {3, 90, 20, 4, ALL | SEQ | REVERSE | SLOW, TEST_CONTIGUOUS, "several sequences and padding, reversed"},
    {2, 90, 20, 4, ALL | SEQ, TEST_TRANSPOSED, "several sequences and padding, channel before length"},
    {2, 90, 7, 9, ALL | SEQ | SLOW, TEST_PADDED, "several sequences and padding, width 9"},
    {2, 90, 7, 32, SILU | SEQ | SLOW, TEST_CONTIGUOUS, "several sequences and padding, no states"},
    {2, 9, 20, 32, ALL | SEQ | SLOW, TEST_CONTIGUOUS, "sequences and padding shorter than the state"},
    {1, 90, 20, 4, ALL | PACKED, TEST_CONTIGUOUS, "packed"},
    {1, 90, 20, 4, ALL | PACKED | REVERSE, TEST_CONTIGUOUS, "packed, reversed"},
    {1, 90, 20, 4, ALL | PACKED | REVERSE, TEST_TRANSPOSED, "packed, channel before length, reversed"},
    {1, 20, 20, 12, ALL | PACKED | SLOW, TEST_TRANSPOSED, "packed, shorter than the state"},
    {1, 90, 7, 4, SILU | PACKED | SLOW, TEST_SPREAD, "packed, no states"},
    {2, 40, 9, 4, ALL | REVERSE, TEST_CONTIGUOUS, "reversed"},
    {2, 40, 9, 4, ALL | REVERSE, TEST_TRANSPOSED, "channel before length, reversed"},

    {2, 70, 36, 4, ALL | F16, TEST_CONTIGUOUS, "f16"},
    {2, 70, 37, 4, ALL | BF16, TEST_CONTIGUOUS, "bf16"},
    {2, 70, 36, 4, ALL | AS_X | F16 | SLOW, TEST_TRANSPOSED, "f16, the filter too"},
    {2, 70, 36, 4, ALL | AS_X | BF16 | SEQ, TEST_CONTIGUOUS, "bf16, the filter too, several sequences"},
    {1, 70, 36, 4, ALL | F16 | PACKED | SLOW, TEST_PADDED, "f16, packed"},
    {2, 70, 36, 4, ALL | BF16 | F32_STATES, TEST_CONTIGUOUS, "bf16, states in f32"},
    {1, 70, 37, 4, ALL | F16 | PACKED | F32_STATES | SLOW, TEST_CONTIGUOUS, "f16, packed, states in f32"},
    {2, 40, 9, 4, ALL | BF16 | F32_STATES | SLOW, TEST_TRANSPOSED, "bf16, channel before length, states in f32"},
};
#define CASES (sizeof cases / sizeof cases[0])

static const conv_case *case_named(const char *why) {
  for (size_t i = 0; i < CASES; i++)
    if (strcmp(cases[i].why, why) == 0) return &cases[i];
  abort();
}

static clm_causal_conv1d_args args_of(const conv_case *c) {
  return (clm_causal_conv1d_args){.silu = c->flags & SILU, .reverse = c->flags & REVERSE};
}

static test_kind filter_kind(const conv_case *c) { return c->flags & AS_X ? TEST_STORAGE : TEST_PARAMETER; }
static test_kind state_kind(const conv_case *c) { return c->flags & F32_STATES ? TEST_PARAMETER : TEST_STORAGE; }
static int64_t rows_of(const conv_case *c) { return c->flags & PACKED ? TEST_SEQUENCES : c->batch; }

/* Half a unit in the last place of what is stored, beside what fp32 arithmetic gives. */
static double tolerance_of(const conv_case *c, double tolerance) {
  return tolerance + (c->flags & F16 ? 0x1p-11 : c->flags & BF16 ? 0x1p-8 : 0);
}

static test_problem problem_of(const conv_case *c, const test_op *op, const void *args) {
  test_problem p = {.op = op, .args = args, .seed = 41, .layout = c->layout, .tolerance = tolerance_of(c, 3e-6)};
  p.storage = c->flags & F16 ? CLM_F16 : c->flags & BF16 ? CLM_BF16 : CLM_F32;
  PROBLEM_ADD(&p, TEST_ROW(clm_causal_conv1d_args, x, TEST_IN, TEST_STORAGE, NULL, c->batch, c->length, c->channels));
  PROBLEM_ADD(&p, TEST_ROW(clm_causal_conv1d_args, weight, TEST_IN, filter_kind(c), NULL, c->channels, c->width));
  if (c->flags & BIAS)
    PROBLEM_ADD(&p, TEST_ROW(clm_causal_conv1d_args, bias, TEST_IN, filter_kind(c), NULL, c->channels));
  if (c->flags & INITIAL)
    PROBLEM_ADD(&p, TEST_ROW(clm_causal_conv1d_args, initial_state, TEST_IN, state_kind(c), NULL, rows_of(c),
                             c->channels, c->width - 1));
  if (c->flags & SEQ) {
    PROBLEM_ADD(&p, TEST_ROW(clm_causal_conv1d_args, seq_idx, TEST_IN, TEST_INDEX, NULL, c->batch, c->length));
    problem_find(&p, "seq_idx")->values = test_sequences(c->batch, c->length, 9);
  }
  if (c->flags & PACKED) {
    PROBLEM_ADD(&p, TEST_ROW(clm_causal_conv1d_args, cu_seqlens, TEST_IN, TEST_INDEX, NULL, TEST_SEQUENCES + 1));
    problem_find(&p, "cu_seqlens")->values = test_ends(c->length);
  }
  return p;
}

static test_problem forward_of(const conv_case *c, const clm_causal_conv1d_args *args) {
  test_problem p = problem_of(c, &op_causal_conv1d, args);
  PROBLEM_ADD(&p,
              TEST_ROW(clm_causal_conv1d_args, out, TEST_OUT, TEST_STORAGE, NULL, c->batch, c->length, c->channels));
  if (c->flags & FINAL)
    PROBLEM_ADD(&p, TEST_ROW(clm_causal_conv1d_args, final_state, TEST_OUT, state_kind(c), NULL, rows_of(c),
                             c->channels, c->width - 1));
  return p;
}

#define GRADIENT(field, role, kind, of, ...)                                                                         \
  PROBLEM_ADD(&p, TEST_GRADIENT(clm_causal_conv1d_backward_args, field, role, kind, of, __VA_ARGS__))

/* `wanted`: bits for dx, dweight, dbias, dinitial_state. */
static test_problem backward_of(const conv_case *c, const clm_causal_conv1d_backward_args *args, unsigned wanted) {
  test_problem p = problem_of(c, &op_causal_conv1d_backward, args);
  p.tolerance = tolerance_of(c, 1e-5);
  GRADIENT(dout, TEST_IN, TEST_STORAGE, out, c->batch, c->length, c->channels);
  if (c->flags & FINAL)
    GRADIENT(dfinal_state, TEST_IN, state_kind(c), final_state, rows_of(c), c->channels, c->width - 1);
  if (wanted & 1) GRADIENT(dx, TEST_OUT, TEST_STORAGE, x, c->batch, c->length, c->channels);
  if (wanted & 2) GRADIENT(dweight, TEST_OUT, filter_kind(c), weight, c->channels, c->width);
  if (wanted & 4 && c->flags & BIAS) GRADIENT(dbias, TEST_OUT, filter_kind(c), bias, c->channels);
  if (wanted & 8 && c->flags & INITIAL)
    GRADIENT(dinitial_state, TEST_OUT, state_kind(c), initial_state, rows_of(c), c->channels, c->width - 1);
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

static void expect_equal(const test_run *got_run, const char *name, const double *want, size_t count) {
  double *got = run_read(got_run, name);
  for (size_t i = 0; i < count; i++)
    if (got[i] != want[i]) fail_msg("%s[%zu] is %.9g, expected %.9g", name, i, got[i], want[i]);
  free(got);
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
  double *want = run_read(whole, "out"), *want_state = run_read(whole, "final_state");
  expect_equal(cut, "out", want, run_values(whole, "out"));
  expect_equal(cut, "initial_state", want_state, run_values(whole, "final_state"));
  free(want);
  free(want_state);
  run_destroy(whole);
  run_destroy(cut);
}

/* Each packed sequence gives what it gives alone, forwards and backwards in time. */
static void test_packed_alone(const test_device *device, const void *data) {
  const conv_case *c = data;
  const clm_causal_conv1d_args args = args_of(c);
  const test_problem p = forward_of(c, &args);
  test_run *packed = run_create(&p, device->context, false), *alone = run_create(&p, device->context, false);
  run_call(packed);
  const int32_t *ends = test_ends(c->length);
  const clm_causal_conv1d_args *a = alone->args;
  for (int i = 0; i < TEST_SEQUENCES; i++) {
    clm_causal_conv1d_args one = *a;
    int64_t begin = ends[i], count = ends[i + 1] - begin;
    one.cu_seqlens = (clm_tensor){0};
    one.initial_state = clm_tensor_slice(a->initial_state, 0, i, 1);
    one.final_state = clm_tensor_slice(a->final_state, 0, i, 1);
    if (count == 0) continue; /* its state stays: compared below by the packed call alone */
    one.x = clm_tensor_slice(a->x, 1, begin, count);
    one.out = clm_tensor_slice(a->out, 1, begin, count);
    assert_int_equal(clm_causal_conv1d(device->context, &one), CLM_OK);
  }
  double *want = run_read(alone, "out"), *states = run_read(alone, "final_state"),
         *initial = run_read(packed, "initial_state"), *final = run_read(packed, "final_state"),
         *out = run_read(packed, "out");
  for (size_t i = 0; i < run_values(packed, "out"); i++) /* perhaps by another kernel, so not bit by bit */
    if (!(fabs(out[i] - want[i]) <= 2e-6 * (1 + fabs(want[i]))))
      fail_msg("out[%zu] is %.9g, alone it is %.9g", i, out[i], want[i]);
  size_t row = run_values(packed, "final_state") / TEST_SEQUENCES;
  for (size_t i = 0; i < TEST_SEQUENCES * row; i++) {
    double expected = ends[i / row] == ends[i / row + 1] ? initial[i] : states[i];
    if (final[i] != expected) fail_msg("final_state[%zu] is %.9g, expected %.9g", i, final[i], expected);
  }
  free(want);
  free(states);
  free(initial);
  free(final);
  free(out);
  run_destroy(packed);
  run_destroy(alone);
}

/* What stands in padding and in other sequences changes nothing, not even a NaN there. */
static void test_not_seen(const test_device *device, const void *data) {
  const conv_case *c = data;
  const clm_causal_conv1d_args args = args_of(c);
  const test_problem p = forward_of(c, &args);
  test_run *clean = run_create(&p, device->context, false), *dirty = run_create(&p, device->context, false);
  const int32_t *numbers = test_sequences(c->batch, c->length, 9);
  double *x = run_read(dirty, "x");
  for (int64_t i = 0; i < c->batch * c->length * c->channels; i++)
    if (numbers[i / c->channels] < 0) x[i] = (double)NAN;
  run_write(dirty, "x", x);
  run_call(clean);
  run_call(dirty);
  double *want = run_read(clean, "out"), *state = run_read(clean, "final_state");
  for (int64_t i = 0; i < c->batch * c->length * c->channels; i++)
    if (numbers[i / c->channels] < 0) assert_true(want[i] == 0);
  expect_equal(dirty, "out", want, run_values(clean, "out"));
  expect_equal(dirty, "final_state", state, run_values(clean, "final_state"));
  free(x);
  free(want);
  free(state);
  run_destroy(clean);
  run_destroy(dirty);
}

static void test_contained(const test_device *device, const void *data) {
  const clm_causal_conv1d_backward_args args = {.forward = args_of(data)};
  const test_problem forward = forward_of(data, &args.forward), backward = backward_of(data, &args, 15);
  problem_check_contained(&forward, device);
  problem_check_contained(&backward, device);
}

/* Wrong numbers in cu_seqlens: no memory outside the tensors is touched. */
static void test_wrong_ends(const test_device *device, const void *data) {
  const conv_case *c = data;
  static const int32_t wrong[][TEST_SEQUENCES + 1] = {{0, 90, 10, 50, 20, 90},
                                                      {-5, 1000000, -7, INT32_MAX, INT32_MIN, 3},
                                                      {80, 60, 40, 30, 20, 10},
                                                      {0, 0, 0, 0, 0, 0}};
  const clm_causal_conv1d_backward_args args = {.forward = args_of(c)};
  for (size_t i = 0; i < TEST_COUNT(wrong); i++) {
    test_problem forward = forward_of(c, &args.forward), backward = backward_of(c, &args, 15),
                 *both[] = {&forward, &backward};
    for (int k = 0; k < 2; k++) {
      problem_find(both[k], "cu_seqlens")->values = wrong[i];
      test_run *run = run_create(both[k], device->context, false);
      run_call(run);
      run_check_untouched(run);
      run_destroy(run);
    }
  }
}

static void add(void) {
  for (size_t i = 0; i < CASES; i++) {
    const conv_case *c = &cases[i];
    for (size_t d = 0; d < test_device_count; d++) {
      const test_device *device = &test_devices[d];
      if (c->flags & SLOW && device->slow) continue;
      test_add(device, test_forward, c, "causal_conv1d: %s", c->why);
      test_add(device, test_backward, c, "causal_conv1d backward: %s", c->why);
    }
    if (c->length <= 100) test_add(NULL, test_gradients, c, "causal_conv1d gradients: %s", c->why);
  }
  for (size_t d = 0; d < test_device_count; d++) {
    const test_device *device = &test_devices[d];
    test_add(device, test_some_gradients, case_named("one past a tile, ragged"), "causal_conv1d: some gradients");
    test_add(device, test_cut, case_named("one past a tile, ragged"), "causal_conv1d: cut in two, state in place");
    test_add(device, test_cut, case_named("shorter than the state"), "causal_conv1d: cut to less than the width");
    test_add(device, test_packed_alone, case_named("packed"), "causal_conv1d: packed as alone");
    test_add(device, test_packed_alone, case_named("packed, reversed"), "causal_conv1d: packed as alone, reversed");
    test_add(device, test_not_seen, case_named("several sequences and padding"), "causal_conv1d: NaN in padding");
    static const char *const rows[] = {"one past a tile, ragged", "channel before length",
                                       "several sequences and padding", "packed", "packed, reversed"};
    for (size_t i = 0; i < TEST_COUNT(rows); i++)
      test_add(device, test_contained, case_named(rows[i]), "causal_conv1d: NaN stays in its row: %s", rows[i]);
    test_add(device, test_wrong_ends, case_named("packed"), "causal_conv1d: wrong cu_seqlens");
  }
}

int main(void) { return test_main("causal_conv1d", add); }

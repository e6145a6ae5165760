/* The update of a causal convolution: one step and several, plain and circular states, states of a pool. */
#include "problem.h"

TEST_OP(causal_conv1d_update);

enum { BIAS = 1, SILU = 2, CIRCULAR = 4, POOL = 8, AS_X = 16, F16 = 32, BF16 = 64, SLOW = 128, F32_STATE = 256 };

typedef struct update_case {
  int64_t batch, steps, channels, width, size; /* steps 0: x of rank 2; size 0: of the state, width - 1 */
  unsigned flags;
  test_layout layout;
  const char *why;
} update_case;

static const update_case cases[] = {
    /* batch steps channels width size flags layout why it is here */
    {1, 0, 1, 1, 0, 0, TEST_CONTIGUOUS, "smallest"},
    {2, 3, 3, 1, 0, BIAS | SILU, TEST_CONTIGUOUS, "width 1, which has no state"},
    {2, 0, 35, 4, 0, BIAS | SILU, TEST_CONTIGUOUS, "Mamba's"},
    {3, 0, 300, 4, 0, BIAS | SILU, TEST_CONTIGUOUS, "several strips of channels"},
    {2, 0, 17, 2, 0, SILU, TEST_PADDED, "width 2, padded"},
    {2, 0, 9, 3, 0, BIAS | SLOW, TEST_TRANSPOSED, "width 3, states before channels"},
    {1, 0, 6, 32, 0, BIAS | SLOW, TEST_SPREAD, "the widest, every other element"},
    {2, 2, 19, 4, 0, BIAS | SILU, TEST_CONTIGUOUS, "two steps, fewer than the state"},
    {2, 5, 19, 4, 0, BIAS | SILU, TEST_WIDE, "five steps of wider tensors"},
    {3, 0, 19, 4, 3, BIAS | SILU | CIRCULAR, TEST_CONTIGUOUS, "circular, as small as can be"},
    {3, 0, 19, 4, 11, BIAS | SILU | CIRCULAR, TEST_CONTIGUOUS, "circular"},
    {3, 7, 19, 4, 5, BIAS | SILU | CIRCULAR, TEST_CONTIGUOUS, "circular, more steps than places"},
    {2, 2, 5, 1, 4, BIAS | CIRCULAR | SLOW, TEST_CONTIGUOUS, "circular, width 1"},
    {3, 0, 19, 4, 0, BIAS | SILU | POOL, TEST_CONTIGUOUS, "states of a pool"},
    {3, 3, 19, 4, 6, BIAS | SILU | POOL | CIRCULAR, TEST_PADDED, "circular states of a pool, three steps"},
    {2, 0, 36, 4, 0, BIAS | SILU | F16, TEST_CONTIGUOUS, "f16"},
    {2, 0, 35, 4, 7, BIAS | SILU, TEST_CONTIGUOUS, "more places than the filter sees"},
    {2, 3, 300, 4, 6, BIAS | SILU, TEST_PADDED, "more places, three steps, padded"},
    {3, 9, 19, 3, 5, BIAS | POOL, TEST_WIDE, "more places, and more steps than these, of a pool"},
    {2, 0, 9, 4, 16, BIAS | SILU | SLOW, TEST_TRANSPOSED, "sixteen places, places before channels"},
    {2, 2, 5, 1, 4, BIAS, TEST_CONTIGUOUS, "more places, width 1, which sees none"},
    {2, 2, 36, 4, 8, BIAS | SILU | BF16 | AS_X, TEST_CONTIGUOUS, "more places, bf16"},
    {2, 3, 37, 4, 5, BIAS | SILU | BF16 | AS_X | CIRCULAR | POOL, TEST_CONTIGUOUS, "bf16, the filter too"},
    {2, 0, 37, 4, 0, BIAS | SILU | BF16 | F32_STATE, TEST_CONTIGUOUS, "bf16, a state in f32"},
    {3, 2, 19, 4, 6, BIAS | F16 | F32_STATE | CIRCULAR, TEST_CONTIGUOUS, "f16, a circular state in f32"},
};

enum { STATES = 5 };
static const int32_t positions[] = {4, 1000001, 0}, indices[] = {3, -1, 0}, outside[] = {7, INT32_MIN, 4};

static test_problem problem_of(const update_case *c, const clm_causal_conv1d_update_args *args) {
  const test_kind filter = c->flags & AS_X ? TEST_STORAGE : TEST_PARAMETER;
  const int64_t states = c->flags & POOL ? STATES : c->batch, size = c->size ? c->size : c->width - 1;
  const double rounding = c->flags & F16 ? 0x1p-11 : c->flags & BF16 ? 0x1p-8 : 0;
  test_problem p = {
      .op = &op_causal_conv1d_update, .args = args, .seed = 42, .layout = c->layout, .tolerance = 3e-6 + rounding};
  p.storage = c->flags & F16 ? CLM_F16 : c->flags & BF16 ? CLM_BF16 : CLM_F32;
#define ROW(field, role, kind, ...)                                                                                  \
  PROBLEM_ADD(&p, TEST_ROW(clm_causal_conv1d_update_args, field, role, kind, NULL, __VA_ARGS__))
  if (c->steps) {
    ROW(x, TEST_IN, TEST_STORAGE, c->batch, c->steps, c->channels);
    ROW(out, TEST_OUT, TEST_STORAGE, c->batch, c->steps, c->channels);
  } else {
    ROW(x, TEST_IN, TEST_STORAGE, c->batch, c->channels);
    ROW(out, TEST_OUT, TEST_STORAGE, c->batch, c->channels);
  }
  ROW(weight, TEST_IN, filter, c->channels, c->width);
  if (c->flags & BIAS) ROW(bias, TEST_IN, filter, c->channels);
  if (size > 0)
    ROW(state, TEST_INOUT, c->flags & F32_STATE ? TEST_PARAMETER : TEST_STORAGE, states, c->channels, size);
  if (c->flags & CIRCULAR) {
    ROW(cache_seqlens, TEST_IN, TEST_INDEX, c->batch);
    problem_find(&p, "cache_seqlens")->values = positions;
  }
  if (c->flags & POOL) {
    ROW(state_indices, TEST_IN, TEST_INDEX, c->batch);
    problem_find(&p, "state_indices")->values = indices;
  }
#undef ROW
  return p;
}

static clm_causal_conv1d_update_args args_of(const update_case *c) {
  return (clm_causal_conv1d_update_args){.silu = c->flags & SILU};
}

static void test_update(const test_device *device, const void *data) {
  const clm_causal_conv1d_update_args args = args_of(data);
  const test_problem p = problem_of(data, &args);
  problem_check(&p, device);
}

/* Rows that name no state: out is 0, and every state is as it was. */
static void test_padding_rows(const test_device *device, const void *data) {
  const update_case *c = data;
  const clm_causal_conv1d_update_args args = args_of(c);
  test_problem p = problem_of(c, &args);
  problem_find(&p, "state_indices")->values = outside;
  test_run *run = run_create(&p, device->context, false);
  double *before = run_read(run, "state");
  run_call(run);
  double *out = run_read(run, "out"), *after = run_read(run, "state");
  const size_t numbers = run_values(run, "out"), state = run_values(run, "state") / STATES;
  for (size_t i = 0; i < numbers / 3 * 2; i++) assert_true(out[i] == 0);
  for (size_t i = 0; i < 4 * state; i++) assert_true(before[i] == after[i]);
  run_check_untouched(run);
  free(before);
  free(out);
  free(after);
  run_destroy(run);
}

static void test_contained(const test_device *device, const void *data) {
  const clm_causal_conv1d_update_args args = args_of(data);
  const test_problem p = problem_of(data, &args);
  problem_check_contained(&p, device);
}

/* Steps taken together and one by one give what the convolution gives for the sequence. */
static void test_against_sequence(const test_device *device, const void *data) {
  enum { STEPS = 9, BATCH = 2, CHANNELS = 13, WIDTH = 4, SIZE = 7 };
  (void)data;
  for (int kind = 0; kind < 3; kind++) {
    const bool circular = kind == 1;
    const int64_t size = kind ? SIZE : 0;
    const update_case c = {BATCH,           STEPS, CHANNELS, WIDTH, size, BIAS | SILU | (circular ? CIRCULAR : 0),
                           TEST_CONTIGUOUS, ""};
    const clm_causal_conv1d_update_args args = args_of(&c);
    const test_problem p = problem_of(&c, &args);
    test_run *update = run_create(&p, device->context, false), *whole = run_create(&p, device->context, false);
    double zeros[BATCH * CHANNELS * SIZE] = {0};
    run_write(update, "state", zeros);
    const clm_causal_conv1d_update_args *u = update->args, *w = whole->args;
    clm_context *ctx = device->context;
    for (int64_t t = 0; t < STEPS;) {
      const int64_t n = t == 2 ? 4 : 1;
      clm_causal_conv1d_update_args a = *u;
      a.x = clm_tensor_slice(u->x, 1, t, n);
      a.out = clm_tensor_slice(u->out, 1, t, n);
      if (circular) run_write(update, "cache_seqlens", (const double[]){(double)t, (double)t});
      assert_int_equal(clm_causal_conv1d_update(ctx, &a), CLM_OK);
      t += n;
    }
    const clm_causal_conv1d_args sequence = {
        .x = w->x, .weight = w->weight, .bias = w->bias, .out = w->out, .silu = true};
    assert_int_equal(clm_causal_conv1d(ctx, &sequence), CLM_OK);
    double *got = run_read(update, "out"), *want = run_read(whole, "out");
    for (size_t i = 0; i < run_values(update, "out"); i++)
      if (!(fabs(got[i] - want[i]) <= 1e-5 * (1 + fabs(want[i]))))
        fail_msg("out[%zu] is %.9g, the sequence gives %.9g", i, got[i], want[i]);
    free(got);
    free(want);
    run_destroy(update);
    run_destroy(whole);
  }
}

static void add(void) {
  for (size_t d = 0; d < test_device_count; d++) {
    const test_device *device = &test_devices[d];
    for (size_t i = 0; i < TEST_COUNT(cases); i++)
      if (!(device->slow && cases[i].flags & SLOW))
        test_add(device, test_update, &cases[i], "causal_conv1d_update: %s", cases[i].why);
    for (size_t i = 0; i < TEST_COUNT(cases); i++)
      if (cases[i].batch > 1 && cases[i].width > 1 && !cases[i].size && !(cases[i].flags & (POOL | CIRCULAR | SLOW)))
        test_add(device, test_contained, &cases[i], "causal_conv1d_update: NaN stays in its row: %s", cases[i].why);
    test_add(device, test_padding_rows, &cases[13], "causal_conv1d_update: rows outside the pool");
    test_add(device, test_padding_rows, &cases[14], "causal_conv1d_update: rows outside the pool, circular");
    test_add(device, test_against_sequence, NULL, "causal_conv1d_update: as the sequence");
  }
}

int main(void) { return test_main("causal_conv1d_update", add); }

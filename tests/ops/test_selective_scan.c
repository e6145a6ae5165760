/* The selective scan, forward. */
#include "scan_problem.h"

TEST_OP(selective_scan);

static void test_forward(const test_device *device, const void *data) {
  const scan_case *c = data;
  const clm_selective_scan_args args = scan_args_of(c);
  const test_problem p = scan_forward_of(c, &op_selective_scan, &args);
  if (c->flags & COMPLEX) problem_check_or_unsupported(&p, device);
  else problem_check(&p, device);
}

/* Every subset of the options on one shape. */
static void test_flags(const test_device *device, const void *data) {
  (void)data;
  for (unsigned flags = 0; flags < 2 * FINAL; flags += device->slow ? 37 : 1) {
    const scan_case c = {2, 41, 9, 16, 1, flags, TEST_CONTIGUOUS, 0, "flags"};
    const clm_selective_scan_args args = scan_args_of(&c);
    const test_problem p = scan_forward_of(&c, &op_selective_scan, &args);
    problem_check(&p, device);
  }
}

/* Half storage with the arithmetic in fp32; a backend may not have it yet. */
static void test_half(const test_device *device, const void *data) {
  (void)data;
  static const scan_case c = {2, 35, 12, 16, 1, MAMBA | INITIAL | FINAL, TEST_PADDED, 0, "half"};
  const clm_selective_scan_args args = scan_args_of(&c);
  test_problem p = scan_forward_of(&c, &op_selective_scan, &args);
  p.storage = CLM_BF16;
  p.tolerance = 4e-3;
  problem_check_or_unsupported(&p, device);
  p.storage = CLM_F16;
  p.tolerance = 6e-4;
  problem_check_or_unsupported(&p, device);
}

static void assert_same(const test_run *a, const char *name_a, const test_run *b, const char *name_b) {
  double *x = run_read(a, name_a), *y = run_read(b, name_b);
  assert_memory_equal(x, y, run_values(a, name_a) * sizeof *x);
  free(x);
  free(y);
}

static clm_selective_scan_args part_of(const clm_selective_scan_args *a, int64_t begin, int64_t count) {
  clm_selective_scan_args part = *a;
  clm_tensor *sequences[] = {&part.u, &part.delta, &part.B, &part.C, &part.z, &part.out};
  for (size_t i = 0; i < sizeof sequences / sizeof sequences[0]; i++)
    if (sequences[i]->buffer && sequences[i]->rank >= 3)
      *sequences[i] = clm_tensor_slice(*sequences[i], 1, begin, count);
  return part;
}

/* With a fixed chunk, a sequence cut at its multiples gives the same bits; the state may stay in place. */
static void test_cut(const test_device *device, const void *data) {
  (void)data;
  static const scan_case c = {2, 100, 21, 16, 1, MAMBA | INITIAL | FINAL, TEST_CONTIGUOUS, 16, "cut"};
  const clm_selective_scan_args args = scan_args_of(&c);
  const test_problem p = scan_forward_of(&c, &op_selective_scan, &args);
  test_run *whole = run_create(&p, device->context, false), *cut = run_create(&p, device->context, false);
  run_call(whole);
  static const int64_t ends[] = {16, 64, 100};
  int64_t begin = 0;
  for (int i = 0; i < 3; i++) {
    clm_selective_scan_args part = part_of(cut->args, begin, ends[i] - begin);
    part.final_state = part.initial_state;
    assert_int_equal(clm_selective_scan(device->context, &part), CLM_OK);
    begin = ends[i];
  }
  assert_same(cut, "out", whole, "out");
  assert_same(cut, "initial_state", whole, "final_state");
  run_destroy(whole);
  run_destroy(cut);
}

/* However the chunks are chosen, the result is the same within rounding. */
static void test_chunks(const test_device *device, const void *data) {
  (void)data;
  static const int64_t chunks[] = {1, 5, 32, 33, 96, 150};
  for (size_t i = device->slow ? 1 : 0; i < sizeof chunks / sizeof chunks[0]; i += device->slow ? 2 : 1) {
    const scan_case c = {1, 150, 40, 16, 1, MAMBA | INITIAL | FINAL, TEST_CONTIGUOUS, chunks[i], "chunks"};
    const clm_selective_scan_args args = scan_args_of(&c);
    const test_problem p = scan_forward_of(&c, &op_selective_scan, &args);
    problem_check(&p, device);
  }
}

/* What is not a number in one batch row stays in it. */
static void test_nan_contained(const test_device *device, const void *data) {
  static const char *const dirty_inputs[] = {"u", "delta", "B", "C", "z", "initial_state"};
  const scan_case *c = data;
  const clm_selective_scan_args args = scan_args_of(c);
  const test_problem p = scan_forward_of(c, &op_selective_scan, &args);
  test_run *clean = run_create(&p, device->context, false);
  run_call(clean);
  double *want = run_read(clean, "out");
  const size_t row = run_values(clean, "out") / (size_t)c->batch;
  for (size_t i = 0; i < sizeof dirty_inputs / sizeof dirty_inputs[0]; i++) {
    test_run *dirty = run_create(&p, device->context, false);
    double *values = run_read(dirty, dirty_inputs[i]);
    values[run_values(dirty, dirty_inputs[i]) / (size_t)c->batch / 2] = (double)NAN;
    run_write(dirty, dirty_inputs[i], values);
    run_call(dirty);
    double *got = run_read(dirty, "out");
    size_t nan_count = 0;
    for (size_t k = 0; k < row; k++) nan_count += isnan(got[k]) != 0;
    if (nan_count == 0) print_error("%s: a NaN disappeared\n", dirty_inputs[i]);
    assert_true(nan_count > 0);
    assert_memory_equal(got + row, want + row, (size_t)(c->batch - 1) * row * sizeof *want);
    free(values);
    free(got);
    run_destroy(dirty);
  }
  free(want);
  run_destroy(clean);
}

/* delta where softplus turns into the identity, where it is all but 0, and where exp(dt A) underflows. */
static double draw_extreme_step(test_random *r) {
  static const double steps[] = {-100, -30, -18, -5, 0, 1, 19.999, 20, 20.001, 60, 1e4};
  return steps[random_below(r, (int64_t)(sizeof steps / sizeof steps[0]))];
}

static void test_extreme_steps(const test_device *device, const void *data) {
  (void)data;
  static const scan_case c = {2, 60, 11, 16, 1, HAS_D | SOFTPLUS | INITIAL | FINAL, TEST_CONTIGUOUS, 0, "extremes"};
  const clm_selective_scan_args args = scan_args_of(&c);
  test_problem p = scan_forward_of(&c, &op_selective_scan, &args);
  for (size_t i = 0; i < p.count; i++)
    if (p.tensors[i].member == offsetof(clm_selective_scan_args, delta)) p.tensors[i].draw = draw_extreme_step;
  problem_check(&p, device);
}

/* Steps so small that log(1 + e^x) is 0 in fp32: the states must still move. */
static double draw_tiny_step(test_random *r) { return -20 - 2 * random_uniform(r); }
static double draw_large(test_random *r) { return 1e6 * random_normal(r); }

static void test_tiny_steps(const test_device *device, const void *data) {
  (void)data;
  static const scan_case c = {1, 50, 11, 16, 1, SOFTPLUS | FINAL, TEST_CONTIGUOUS, 0, "tiny"};
  const clm_selective_scan_args args = scan_args_of(&c);
  test_problem p = scan_forward_of(&c, &op_selective_scan, &args);
  for (size_t i = 0; i < p.count; i++)
    if (p.tensors[i].member == offsetof(clm_selective_scan_args, delta)) p.tensors[i].draw = draw_tiny_step;
    else if (p.tensors[i].member == offsetof(clm_selective_scan_args, u)) p.tensors[i].draw = draw_large;
  p.tolerance = 3e-5;
  problem_check(&p, device);
}

/* A call takes no more than was said beforehand, and a second one with the same shape allocates nothing. */
static void test_workspace(const test_device *device, const void *data) {
  const scan_case *c = data;
  const clm_selective_scan_args args = scan_args_of(c);
  const test_problem p = scan_forward_of(c, &op_selective_scan, &args);
  test_run *run = run_create(&p, device->context, false);
  const size_t bytes = clm_selective_scan_workspace_size(device->context, run->args);
  uint64_t before, after, later;
  clm_context_memory(device->context, &before, NULL);
  run_call(run);
  clm_context_memory(device->context, &after, NULL);
  assert_true(after - before <= bytes);
  run_call(run);
  clm_context_memory(device->context, &later, NULL);
  assert_int_equal(later, after);
  run_destroy(run);
}

static void add(void) {
  for (size_t d = 0; d < test_device_count; d++) {
    const test_device *device = &test_devices[d];
    for (size_t i = 0; i < scan_case_count; i++)
      if (!(device->slow && scan_cases[i].flags & NOT_SLOW))
        test_add(device, test_forward, &scan_cases[i], "selective_scan: %s", scan_cases[i].why);
    test_add(device, test_flags, NULL, "selective_scan: every subset of options");
    test_add(device, test_half, NULL, "selective_scan: half storage");
    test_add(device, test_cut, NULL, "selective_scan: cut at chunks");
    test_add(device, test_chunks, NULL, "selective_scan: chunk lengths");
    test_add(device, test_nan_contained, scan_case_named("one past a tile, ragged"),
             "selective_scan: not a number stays in its batch row");
    test_add(device, test_extreme_steps, NULL, "selective_scan: extreme steps");
    test_add(device, test_tiny_steps, NULL, "selective_scan: tiny steps");
    test_add(device, test_workspace, scan_case_named("several chunks"), "selective_scan: workspace");
  }
}

int main(void) { return test_main("selective_scan", add); }

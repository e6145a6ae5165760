/* The selective scan, forward. */
#include "scan_problem.h"

TEST_OP(selective_scan);

static void test_forward(const test_device *device, const void *data) {
  const scan_case *c = data;
  const clm_selective_scan_args args = scan_args_of(c);
  const test_problem p = scan_forward_of(c, &op_selective_scan, &args);
  problem_check(&p, device);
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

/* Steps [begin, end) in the order of the scan. */
static clm_selective_scan_args part_of(const clm_selective_scan_args *a, int64_t begin, int64_t end) {
  clm_selective_scan_args part = *a;
  clm_tensor *sequences[] = {&part.u, &part.delta, &part.B, &part.C, &part.z, &part.gate, &part.out};
  for (size_t i = 0; i < TEST_COUNT(sequences); i++)
    if (sequences[i]->buffer && sequences[i]->rank >= 3)
      *sequences[i] = clm_tensor_slice(*sequences[i], 1, a->reverse ? a->u.shape[1] - end : begin, end - begin);
  return part;
}

static void check_same(const test_run *a, const char *name_a, const test_run *b, const char *name_b,
                       double tolerance) {
  double *x = run_read(a, name_a), *y = run_read(b, name_b);
  for (size_t i = 0; i < run_values(a, name_a); i++)
    if (!(fabs(x[i] - y[i]) <= tolerance * (1 + fabs(y[i]))))
      fail_msg("%s[%zu] is %.9g in parts, %.9g whole", name_a, i, x[i], y[i]);
  free(x);
  free(y);
}

/* A sequence in parts, the state carried in place: with a fixed chunk the same bits where it is cut at the chunk's
 * multiples, otherwise the same to 1e-5. */
typedef struct cut {
  int64_t chunk, ends[6];
  unsigned flags;
  double tolerance;
  const char *why;
} cut;

static const cut cuts[] = {
    {16, {16, 64, 100}, MAMBA, 0, "at chunks"},
    {16, {32, 48, 64, 96, 100}, MAMBA | REVERSE, 0, "at chunks, reversed"},
    {0, {1, 8, 41, 42, 97, 100}, MAMBA, 1e-5, "anywhere"},
    {0, {33, 100}, MAMBA | REVERSE, 1e-5, "anywhere, reversed"},
    {16, {1, 17, 40, 100}, MAMBA, 1e-5, "not at chunks"},
    {40, {40, 80, 100}, MAMBA | COMPLEX, 0, "complex, at chunks"},
    {0, {7, 60, 100}, MAMBA | COMPLEX, 1e-5, "complex, anywhere"},
    {16, {16, 64, 100}, MAMBA | GATE | NOT_SLOW, 0, "with the gate, at chunks"},
    {7, {7, 70, 84, 100}, MAMBA | F16 | NOT_SLOW, 0, "f16, at chunks"},
    {32, {64, 96, 100}, MAMBA | BF16 | STATIC_C | NOT_SLOW, 0, "bf16, static C, at chunks"},
};

static void test_cut(const test_device *device, const void *data) {
  const cut *k = data;
  scan_case c = {2, 100, 21, 16, 1, k->flags | INITIAL | FINAL, TEST_CONTIGUOUS, k->chunk, "cut"};
  if (k->flags & COMPLEX) c.d_inner = 4, c.d_state = 3, c.n_groups = 2;
  const clm_selective_scan_args args = scan_args_of(&c);
  const test_problem p = scan_forward_of(&c, &op_selective_scan, &args);
  test_run *whole = run_create(&p, device->context, false), *parts = run_create(&p, device->context, false);
  run_call(whole);
  int64_t begin = 0;
  for (int i = 0; begin < c.length; begin = k->ends[i++]) {
    clm_selective_scan_args part = part_of(parts->args, begin, k->ends[i]);
    part.final_state = part.initial_state;
    assert_int_equal(clm_selective_scan(device->context, &part), CLM_OK);
  }
  check_same(parts, "out", whole, "out", k->tolerance);
  check_same(parts, "initial_state", whole, "final_state", k->tolerance);
  run_destroy(whole);
  run_destroy(parts);
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

static void test_contained(const test_device *device, const void *data) {
  const clm_selective_scan_args args = scan_args_of(data);
  const test_problem p = scan_forward_of(data, &op_selective_scan, &args);
  problem_check_contained(&p, device);
}

static void test_extremes(const test_device *device, const void *data) {
  const clm_selective_scan_args args = scan_args_of(data);
  const test_problem p = scan_forward_of(data, &op_selective_scan, &args);
  scan_check_extremes(data, &p, device);
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

/* States of padding are 0 also in tiles that are fetched without a question: whatever registers held, and the run
 * before leaves numbers there that are none. */
static double draw_nan(test_random *r) {
  (void)r;
  return NAN;
}

static void test_padded_states(const test_device *device, const void *data) {
  (void)data;
  for (int64_t d_state = 3; d_state <= 5; d_state += 2) {
    const scan_case before = {1, 96, 64, 8, 1, MAMBA, TEST_CONTIGUOUS, 0, "not numbers"};
    const clm_selective_scan_args before_args = scan_args_of(&before);
    test_problem nans = scan_forward_of(&before, &op_selective_scan, &before_args);
    for (size_t i = 0; i < nans.count; i++) nans.tensors[i].draw = draw_nan;
    test_run *run = run_create(&nans, device->context, false);
    run_call(run);
    run_destroy(run);
    const scan_case c = {1, 96, 64, d_state, 1, MAMBA, TEST_CONTIGUOUS, 0, "padded states"};
    const clm_selective_scan_args args = scan_args_of(&c);
    const test_problem p = scan_forward_of(&c, &op_selective_scan, &args);
    problem_check(&p, device);
  }
}

static size_t workspace_bytes(clm_context *context, const void *args) {
  return clm_selective_scan_workspace_size(context, args);
}

static void test_workspace(const test_device *device, const void *data) {
  const clm_selective_scan_args args = scan_args_of(data);
  const test_problem p = scan_forward_of(data, &op_selective_scan, &args);
  problem_check_workspace(&p, device, workspace_bytes);
}

static void add(void) {
  for (size_t d = 0; d < test_device_count; d++) {
    const test_device *device = &test_devices[d];
    for (size_t i = 0; i < scan_case_count; i++)
      if (!(device->slow && scan_cases[i].flags & NOT_SLOW))
        test_add(device, test_forward, &scan_cases[i], "selective_scan: %s", scan_cases[i].why);
    test_add(device, test_flags, NULL, "selective_scan: every subset of options");
    for (size_t i = 0; i < TEST_COUNT(cuts); i++)
      if (!(device->slow && cuts[i].flags & NOT_SLOW))
        test_add(device, test_cut, &cuts[i], "selective_scan in parts: %s", cuts[i].why);
    test_add(device, test_chunks, NULL, "selective_scan: chunk lengths");
    for (size_t i = 0; i < scan_contained_count; i++)
      test_add(device, test_contained, scan_contained(i), "selective_scan: NaN stays in its row: %s",
               scan_contained(i)->why);
    for (size_t i = 0; i < scan_extreme_count; i++)
      test_add(device, test_extremes, &scan_extremes[i], "selective_scan: extreme numbers: %s", scan_extremes[i].why);
    test_add(device, test_extreme_steps, NULL, "selective_scan: extreme steps");
    test_add(device, test_tiny_steps, NULL, "selective_scan: tiny steps");
    test_add(device, test_padded_states, NULL, "selective_scan: padded states after what is not a number");
    for (size_t i = 0; i < scan_contained_count; i++)
      test_add(device, test_workspace, scan_contained(i), "selective_scan: workspace: %s", scan_contained(i)->why);
  }
}

int main(void) { return test_main("selective_scan", add); }

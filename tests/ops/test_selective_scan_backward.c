/* Gradients of the selective scan. */
#include "scan_problem.h"

TEST_OP(selective_scan);
TEST_OP(selective_scan_backward);

enum {
  DU = 1,
  DDELTA = 2,
  DZ = 4,
  DA = 8,
  DB = 16,
  DC = 32,
  DD = 64,
  DBIAS = 128,
  DINITIAL = 256,
  OUT = 512,
  DGATE = 1024
};
#define ALL 2047u

#define GRADIENT(field, role, kind, of, ...)                                                                         \
  PROBLEM_ADD(&p, TEST_GRADIENT(clm_selective_scan_backward_args, field, role, kind, of, __VA_ARGS__))

static test_problem backward_of(const scan_case *c, const clm_selective_scan_backward_args *args, unsigned wanted) {
  const test_kind parameter = c->flags & COMPLEX ? TEST_COMPLEX : TEST_PARAMETER;
  const test_kind varying = c->flags & COMPLEX ? TEST_COMPLEX : TEST_STORAGE;
  const test_kind weight = c->flags & COMPLEX ? TEST_COMPLEX : scan_weight(c);
  test_problem p = scan_inputs_of(c, &op_selective_scan_backward, args);
  p.tolerance = 3e-5;
  GRADIENT(dout, TEST_IN, TEST_STORAGE, out, c->batch, c->length, c->d_inner);
  if (c->flags & FINAL)
    GRADIENT(dfinal_state, TEST_IN, parameter, final_state, scan_rows_of(c), c->d_inner, c->d_state);
  if (wanted & DU) GRADIENT(du, TEST_OUT, TEST_STORAGE, u, c->batch, c->length, c->d_inner);
  if (wanted & DDELTA) GRADIENT(ddelta, TEST_OUT, TEST_STORAGE, delta, c->batch, c->length, c->d_inner);
  if (wanted & DZ && c->flags & HAS_Z) GRADIENT(dz, TEST_OUT, TEST_STORAGE, z, c->batch, c->length, c->d_inner);
  if (wanted & DA) GRADIENT(dA, TEST_OUT, weight, A, c->d_inner, c->d_state);
  if (wanted & DB && c->flags & STATIC_B) GRADIENT(dB, TEST_OUT, weight, B, c->d_inner, c->d_state);
  if (wanted & DB && !(c->flags & STATIC_B))
    GRADIENT(dB, TEST_OUT, varying, B, c->batch, c->length, c->n_groups, c->d_state);
  if (wanted & DC && c->flags & STATIC_C) GRADIENT(dC, TEST_OUT, weight, C, c->d_inner, c->d_state);
  if (wanted & DC && !(c->flags & STATIC_C))
    GRADIENT(dC, TEST_OUT, varying, C, c->batch, c->length, c->n_groups, c->d_state);
  if (wanted & DD && c->flags & HAS_D) GRADIENT(dD, TEST_OUT, scan_weight(c), D, c->d_inner);
  if (wanted & DBIAS && c->flags & BIAS) GRADIENT(ddelta_bias, TEST_OUT, scan_weight(c), delta_bias, c->d_inner);
  if (wanted & DINITIAL && c->flags & INITIAL)
    GRADIENT(dinitial_state, TEST_OUT, parameter, initial_state, scan_rows_of(c), c->d_inner, c->d_state);
  if (wanted & DGATE && c->flags & GATE)
    GRADIENT(dgate, TEST_OUT, TEST_STORAGE, gate, c->batch, c->length, c->d_inner);
  if (wanted & OUT)
    PROBLEM_ADD(&p, TEST_ROW(clm_selective_scan_backward_args, out, TEST_OUT, TEST_STORAGE, NULL, c->batch, c->length,
                             c->d_inner));
  return p;
}

static void test_backward(const test_device *device, const void *data) {
  const scan_case *c = data;
  const clm_selective_scan_backward_args args = {.forward = scan_args_of(c)};
  const test_problem p = backward_of(c, &args, ALL);
  problem_check(&p, device);
}

/* Every subset of the options on one shape, all gradients. */
static void test_flags(const test_device *device, const void *data) {
  (void)data;
  for (unsigned flags = 0; flags < 2 * FINAL; flags += device->slow ? 43 : 1) {
    const scan_case c = {2, 37, 9, 16, 1, flags, TEST_CONTIGUOUS, 0, "flags"};
    const clm_selective_scan_backward_args args = {.forward = scan_args_of(&c)};
    const test_problem p = backward_of(&c, &args, ALL);
    problem_check(&p, device);
  }
}

/* Each gradient alone, each missing alone, and what a block asks for. */
static void test_some_gradients(const test_device *device, const void *data) {
  const clm_selective_scan_backward_args args = {.forward = scan_args_of(data)};
  for (unsigned bit = 1; bit < ALL; bit *= device->slow ? 4 : 2) {
    const test_problem alone = backward_of(data, &args, bit), others = backward_of(data, &args, ALL & ~bit);
    problem_check(&alone, device);
    problem_check(&others, device);
  }
}

static void test_gradients(const test_device *device, const void *data) {
  (void)device;
  const scan_case *c = data;
  const clm_selective_scan_backward_args args = {.forward = scan_args_of(c)};
  const test_problem forward = scan_forward_of(c, &op_selective_scan, &args.forward);
  const test_problem backward = backward_of(c, &args, ALL & ~(unsigned)OUT);
  problem_check_gradients(&forward, &backward, 16);
}

static void test_contained(const test_device *device, const void *data) {
  const clm_selective_scan_backward_args args = {.forward = scan_args_of(data)};
  const test_problem p = backward_of(data, &args, ALL);
  problem_check_contained(&p, device);
}

static void test_extremes(const test_device *device, const void *data) {
  const clm_selective_scan_backward_args args = {.forward = scan_args_of(data)};
  const test_problem p = backward_of(data, &args, ALL);
  scan_check_extremes(data, &p, device);
}

static size_t workspace_bytes(clm_context *context, const void *args) {
  return clm_selective_scan_backward_workspace_size(context, args);
}

static void test_workspace(const test_device *device, const void *data) {
  const clm_selective_scan_backward_args args = {.forward = scan_args_of(data)};
  const test_problem p = backward_of(data, &args, ALL);
  problem_check_workspace(&p, device, workspace_bytes);
}

/* The output recomputed on the way is the forward's. */
static void test_out(const test_device *device, const void *data) {
  const scan_case *c = data;
  const clm_selective_scan_backward_args args = {.forward = scan_args_of(c)};
  const test_problem forward = scan_forward_of(c, &op_selective_scan, &args.forward);
  const test_problem backward = backward_of(c, &args, ALL);
  test_run *f = run_create(&forward, device->context, false), *b = run_create(&backward, device->context, false);
  run_call(f);
  run_call(b);
  double *want = run_read(f, "out"), *got = run_read(b, "out");
  for (size_t i = 0; i < run_values(f, "out"); i++)
    if (!(fabs(got[i] - want[i]) <= 1e-5 * (1 + fabs(want[i]))))
      fail_msg("out[%zu] is %.9g, the forward gives %.9g", i, got[i], want[i]);
  free(want);
  free(got);
  run_destroy(f);
  run_destroy(b);
}

static void add(void) {
  for (size_t i = 0; i < scan_case_count; i++) {
    const scan_case *c = &scan_cases[i];
    for (size_t d = 0; d < test_device_count; d++)
      if (!(test_devices[d].slow && c->flags & NOT_SLOW))
        test_add(&test_devices[d], test_backward, c, "selective_scan_backward: %s", c->why);
    const int64_t work = c->batch * c->length * c->d_inner * c->d_state;
    if ((c->length <= 70 || work <= 25000) && c->layout == TEST_CONTIGUOUS)
      test_add(NULL, test_gradients, c, "selective_scan gradients: %s", c->why);
  }
  for (size_t d = 0; d < test_device_count; d++) {
    const test_device *device = &test_devices[d];
    test_add(device, test_flags, NULL, "selective_scan_backward: every subset of options");
    test_add(device, test_some_gradients, scan_case_named("two groups"), "selective_scan_backward: some gradients");
    for (size_t i = 0; i < scan_contained_count; i++) {
      const scan_case *c = scan_contained(i);
      test_add(device, test_contained, c, "selective_scan_backward: NaN stays in its row: %s", c->why);
      test_add(device, test_workspace, c, "selective_scan_backward: workspace: %s", c->why);
    }
    for (size_t i = 0; i < scan_extreme_count; i++)
      test_add(device, test_extremes, &scan_extremes[i], "selective_scan_backward: extreme numbers: %s",
               scan_extremes[i].why);
    test_add(device, test_out, scan_case_named("one past a tile, ragged"), "selective_scan_backward: out");
  }
}

int main(void) { return test_main("selective_scan_backward", add); }

/* RMSNorm with a gate, of groups of columns: every device against the reference, and the reference's gradients
 * against differences. */
#include "problem.h"
#include <stdlib.h>
#include <string.h>

TEST_OP(gated_norm);
TEST_OP(gated_norm_backward);

enum { WEIGHT = 1, BEFORE = 2 };
enum { WANT_DX = 1, WANT_DZ = 2, WANT_DWEIGHT = 4, WANT_OUT = 8, WANT_ALL = 15 };

typedef struct gated_case {
  int64_t rows, dim, groups;
  unsigned flags;
  test_layout layout;
  const char *why;
} gated_case;

static const gated_case cases[] = {
    {1, 1, 0, WEIGHT, TEST_CONTIGUOUS, "smallest"},
    {3, 8, 8, WEIGHT, TEST_CONTIGUOUS, "groups of one column"},
    {5, 64, 1, WEIGHT, TEST_CONTIGUOUS, "one group"},
    {5, 64, 1, WEIGHT | BEFORE, TEST_CONTIGUOUS, "one group, norm before the gate"},
    {4, 96, 2, 0, TEST_CONTIGUOUS, "two groups, no weight"},
    {7, 136, 8, WEIGHT | BEFORE, TEST_CONTIGUOUS, "eight groups, not whole vectors"},
    {67, 133, 7, WEIGHT, TEST_PADDED, "rows past a tile, odd groups, padded"},
    {17, 100, 4, WEIGHT, TEST_TRANSPOSED, "column-major"},
    {17, 100, 5, WEIGHT | BEFORE, TEST_SPREAD, "every other element"},
    {9, 40, 2, BEFORE, TEST_WIDE, "a slice of a wider matrix"},
    {3, 2051, 1, WEIGHT, TEST_CONTIGUOUS, "long rows"},
    {300, 24, 2, WEIGHT, TEST_CONTIGUOUS, "many rows for the weight's gradient"},
};

/* In groups of one column all but the part due to epsilon cancels: it has to be large to be seen. */
static clm_gated_norm_args args_of(const gated_case *c) {
  const int64_t groups = c->groups ? c->groups : 1;
  return (clm_gated_norm_args){
      .epsilon = c->dim / groups <= 2 ? 0.1f : 1e-5f, .n_groups = c->groups, .norm_before_gate = c->flags & BEFORE};
}

static test_problem problem_of(const gated_case *c, const test_op *op, const void *args) {
  test_problem p = {.op = op, .args = args, .seed = 37, .layout = c->layout, .tolerance = 3e-6};
  PROBLEM_ADD(&p, TEST_ROW(clm_gated_norm_args, x, TEST_IN, TEST_STORAGE, NULL, c->rows, c->dim));
  PROBLEM_ADD(&p, TEST_ROW(clm_gated_norm_args, z, TEST_IN, TEST_STORAGE, NULL, c->rows, c->dim));
  if (c->flags & WEIGHT)
    PROBLEM_ADD(&p, TEST_ROW(clm_gated_norm_args, weight, TEST_IN, TEST_PARAMETER, NULL, c->dim));
  return p;
}

static test_problem forward_of(const gated_case *c, const clm_gated_norm_args *args) {
  test_problem p = problem_of(c, &op_gated_norm, args);
  PROBLEM_ADD(&p, TEST_ROW(clm_gated_norm_args, out, TEST_OUT, TEST_STORAGE, NULL, c->rows, c->dim));
  return p;
}

static test_problem backward_of(const gated_case *c, const clm_gated_norm_backward_args *args, unsigned wanted) {
  test_problem p = problem_of(c, &op_gated_norm_backward, args);
  p.tolerance = 1e-5;
  PROBLEM_ADD(&p, TEST_GRADIENT(clm_gated_norm_backward_args, dout, TEST_IN, TEST_STORAGE, out, c->rows, c->dim));
  if (wanted & WANT_DX)
    PROBLEM_ADD(&p, TEST_GRADIENT(clm_gated_norm_backward_args, dx, TEST_OUT, TEST_STORAGE, x, c->rows, c->dim));
  if (wanted & WANT_DZ)
    PROBLEM_ADD(&p, TEST_GRADIENT(clm_gated_norm_backward_args, dz, TEST_OUT, TEST_STORAGE, z, c->rows, c->dim));
  if (wanted & WANT_DWEIGHT && c->flags & WEIGHT)
    PROBLEM_ADD(&p, TEST_GRADIENT(clm_gated_norm_backward_args, dweight, TEST_OUT, TEST_PARAMETER, weight, c->dim));
  if (wanted & WANT_OUT)
    PROBLEM_ADD(&p, TEST_ROW(clm_gated_norm_backward_args, out, TEST_OUT, TEST_STORAGE, NULL, c->rows, c->dim));
  return p;
}

static void test_forward(const test_device *device, const void *data) {
  const clm_gated_norm_args args = args_of(data);
  const test_problem p = forward_of(data, &args);
  problem_check(&p, device);
}

static void test_backward(const test_device *device, const void *data) {
  const clm_gated_norm_backward_args args = {.forward = args_of(data)};
  const test_problem p = backward_of(data, &args, WANT_ALL);
  problem_check(&p, device);
}

/* Weights in f32, then as x. */
static void test_16bit(const test_device *device, const void *data) {
  const clm_gated_norm_backward_args args = {.forward = args_of(data)};
  for (int own = 0; own < 2; own++) {
    test_problem problems[] = {forward_of(data, &args.forward), backward_of(data, &args, WANT_ALL)};
    for (int k = 0; k < 2; k++) {
      for (size_t i = 0; own && i < problems[k].count; i++) problems[k].tensors[i].kind = TEST_STORAGE;
      problem_check_16bit(&problems[k], device);
    }
  }
}

/* Each gradient on its own. */
static void test_some_gradients(const test_device *device, const void *data) {
  const clm_gated_norm_backward_args args = {.forward = args_of(data)};
  for (unsigned wanted = 1; wanted < WANT_ALL; wanted *= 2) {
    const test_problem p = backward_of(data, &args, wanted);
    problem_check(&p, device);
  }
}

static void test_contained(const test_device *device, const void *data) {
  const clm_gated_norm_backward_args args = {.forward = args_of(data)};
  const test_problem forward = forward_of(data, &args.forward),
                     backward = backward_of(data, &args, WANT_DX | WANT_DZ | WANT_OUT);
  problem_check_contained(&forward, device);
  problem_check_contained(&backward, device);
}

/* Over x, and over the gate. */
static void test_in_place(const test_device *device, const void *data) {
  const clm_gated_norm_args args = args_of(data);
  const test_problem p = forward_of(data, &args);
  static const char *const places[] = {"x", "z"};
  for (int k = 0; k < 2; k++) {
    test_run *apart = run_create(&p, device->context, false), *in_place = run_create(&p, device->context, false);
    run_call(apart);
    clm_gated_norm_args *a = in_place->args;
    a->out = k ? a->z : a->x;
    run_call(in_place);
    double *want = run_read(apart, "out"), *got = run_read(in_place, places[k]);
    assert_memory_equal(got, want, run_values(apart, "out") * sizeof *want);
    free(want);
    free(got);
    run_destroy(apart);
    run_destroy(in_place);
  }
}

static void test_gradients(const test_device *device, const void *data) {
  (void)device;
  const clm_gated_norm_backward_args args = {.forward = args_of(data)};
  const test_problem forward = forward_of(data, &args.forward),
                     backward = backward_of(data, &args, WANT_DX | WANT_DZ | WANT_DWEIGHT);
  problem_check_gradients(&forward, &backward, 20);
}

/* What cannot be cut into groups is refused. */
static void test_groups(const test_device *device, const void *data) {
  clm_gated_norm_args args = args_of(data);
  const test_problem p = forward_of(data, &args);
  test_run *run = run_create(&p, device->context, false);
  clm_gated_norm_args *a = run->args;
  static const int64_t wrong[] = {3, -1, 1 << 20};
  for (size_t i = 0; i < TEST_COUNT(wrong); i++) {
    a->n_groups = wrong[i];
    assert_int_equal(clm_gated_norm(device->context, a), CLM_INVALID_ARGUMENT);
    assert_non_null(strstr(clm_context_error(device->context), "does not divide dim 64"));
  }
  run_destroy(run);
}

static void add(void) {
  for (size_t i = 0; i < TEST_COUNT(cases); i++) {
    const gated_case *c = &cases[i];
    for (size_t d = 0; d < test_device_count; d++) {
      const test_device *device = &test_devices[d];
      test_add(device, test_forward, c, "gated norm: %s", c->why);
      test_add(device, test_backward, c, "gated norm backward: %s", c->why);
      if (!device->slow || i == 6) test_add(device, test_16bit, c, "gated norm in 16 bits: %s", c->why);
    }
    if (c->rows * c->dim < 2000) test_add(NULL, test_gradients, c, "gated norm gradients: %s", c->why);
  }
  for (size_t d = 0; d < test_device_count; d++) {
    test_add(&test_devices[d], test_contained, &cases[6], "gated norm: not a number stays in its row");
    test_add(&test_devices[d], test_in_place, &cases[5], "gated norm in place");
    test_add(&test_devices[d], test_some_gradients, &cases[6], "gated norm: each gradient alone");
    test_add(&test_devices[d], test_groups, &cases[2], "gated norm: groups that do not divide");
  }
}

int main(void) { return test_main("gated_norm", add); }

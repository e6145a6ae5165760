/* The gate of an MLP: every device against the reference, and the reference's gradients against differences.
 */
#include "problem.h"

TEST_OP(swiglu);
TEST_OP(swiglu_backward);

typedef struct swiglu_case {
  int64_t rows, dim;
  test_layout layout;
  clm_gate_activation activation;
  bool alone; /* without up */
  const char *why;
} swiglu_case;

static const swiglu_case cases[] = {
    {1, 1, TEST_CONTIGUOUS, CLM_GATE_SILU, false, "smallest"},
    {3, 7, TEST_CONTIGUOUS, CLM_GATE_SILU, false, "less than a vector"},
    {5, 64, TEST_CONTIGUOUS, CLM_GATE_SILU, false, "whole vectors"},
    {2, 257, TEST_CONTIGUOUS, CLM_GATE_SILU, false, "one past a block"},
    {130, 133, TEST_CONTIGUOUS, CLM_GATE_SILU, false, "one past a piece"},
    {33, 17, TEST_PADDED, CLM_GATE_SILU, false, "padded"},
    {33, 17, TEST_SPREAD, CLM_GATE_SILU, false, "every other element"},
    {17, 100, TEST_TRANSPOSED, CLM_GATE_SILU, false, "column-major"},
    {9, 40, TEST_WIDE, CLM_GATE_SILU, false, "a slice of a wider matrix"},
    {5, 67, TEST_CONTIGUOUS, CLM_GATE_GELU, false, "gelu"},
    {33, 17, TEST_PADDED, CLM_GATE_GELU, false, "gelu, padded"},
    {3, 300, TEST_SPREAD, CLM_GATE_GELU, true, "gelu alone, every other element"},
    {5, 67, TEST_CONTIGUOUS, CLM_GATE_GELU_TANH, false, "gelu by tanh"},
    {17, 100, TEST_TRANSPOSED, CLM_GATE_GELU_TANH, false, "gelu by tanh, column-major"},
    {5, 67, TEST_CONTIGUOUS, CLM_GATE_RELU_SQUARED, false, "relu squared"},
    {130, 133, TEST_CONTIGUOUS, CLM_GATE_RELU_SQUARED, true, "relu squared alone"},
    {1, 1, TEST_CONTIGUOUS, CLM_GATE_SILU, true, "silu alone, smallest"},
};

static test_problem problem_of(const swiglu_case *c, const test_op *op, const void *args) {
  test_problem p = {.op = op, .args = args, .seed = 91, .layout = c->layout, .tolerance = 3e-6};
  PROBLEM_ADD(&p, TEST_ROW(clm_swiglu_args, gate, TEST_IN, TEST_STORAGE, NULL, c->rows, c->dim));
  if (!c->alone) PROBLEM_ADD(&p, TEST_ROW(clm_swiglu_args, up, TEST_IN, TEST_STORAGE, NULL, c->rows, c->dim));
  return p;
}

static test_problem forward_of(const swiglu_case *c, const clm_swiglu_args *args) {
  test_problem p = problem_of(c, &op_swiglu, args);
  PROBLEM_ADD(&p, TEST_ROW(clm_swiglu_args, out, TEST_OUT, TEST_STORAGE, NULL, c->rows, c->dim));
  return p;
}

/* `wanted`: which gradients, a bit for each. */
static test_problem backward_of(const swiglu_case *c, const clm_swiglu_backward_args *args, unsigned wanted) {
  test_problem p = problem_of(c, &op_swiglu_backward, args);
  p.tolerance = 1e-5;
  PROBLEM_ADD(&p, TEST_GRADIENT(clm_swiglu_backward_args, dout, TEST_IN, TEST_STORAGE, out, c->rows, c->dim));
  if (wanted & 1)
    PROBLEM_ADD(&p, TEST_GRADIENT(clm_swiglu_backward_args, dgate, TEST_OUT, TEST_STORAGE, gate, c->rows, c->dim));
  if (wanted & 2)
    PROBLEM_ADD(&p, TEST_GRADIENT(clm_swiglu_backward_args, dup, TEST_OUT, TEST_STORAGE, up, c->rows, c->dim));
  return p;
}

static void test_forward(const test_device *device, const void *data) {
  const clm_swiglu_args args = {.activation = ((const swiglu_case *)data)->activation};
  const test_problem p = forward_of(data, &args);
  problem_check(&p, device);
  problem_check_16bit(&p, device);
}

static void test_backward(const test_device *device, const void *data) {
  const swiglu_case *c = data;
  const clm_swiglu_backward_args args = {.forward.activation = c->activation};
  for (unsigned wanted = 1; wanted < (c->alone ? 2 : 4); wanted++) {
    const test_problem p = backward_of(data, &args, wanted);
    problem_check(&p, device);
    problem_check_16bit(&p, device);
  }
}

static void test_gradients(const test_device *device, const void *data) {
  (void)device;
  const swiglu_case *c = data;
  const clm_swiglu_args forward = {.activation = c->activation};
  const clm_swiglu_backward_args args = {.forward = forward};
  const test_problem f = forward_of(c, &forward), b = backward_of(c, &args, c->alone ? 1 : 3);
  problem_check_gradients(&f, &b, 40);
}

static void add(void) {
  for (size_t i = 0; i < TEST_COUNT(cases); i++)
    test_add(NULL, test_gradients, &cases[i], "swiglu gradients: %s", cases[i].why);
  for (size_t d = 0; d < test_device_count; d++)
    for (size_t i = 0; i < TEST_COUNT(cases); i++) {
      test_add(&test_devices[d], test_forward, &cases[i], "swiglu: %s", cases[i].why);
      test_add(&test_devices[d], test_backward, &cases[i], "swiglu_backward: %s", cases[i].why);
    }
}

int main(void) { return test_main("swiglu", add); }

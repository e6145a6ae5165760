/* Discretization by zero-order hold, Euler and the bilinear rule, real and complex. */
#include "problem.h"

TEST_OP(discretize);
TEST_OP(discretize_backward);

enum { COMPLEX = 1, STATIC_B = 2, AT_ZERO = 4 };

typedef struct discretize_case {
  int64_t batch, length, d_inner, d_state;
  unsigned flags;
  test_layout layout;
  const char *why;
} discretize_case;

static const discretize_case shapes[] = {
    /* batch length d_inner d_state flags layout why it is here */
    {1, 1, 1, 1, 0, TEST_CONTIGUOUS, "smallest"},
    {2, 7, 5, 3, 0, TEST_CONTIGUOUS, "odd sizes"},
    {2, 7, 5, 3, COMPLEX, TEST_CONTIGUOUS, "complex, odd sizes"},
    {1, 65, 33, 16, STATIC_B, TEST_CONTIGUOUS, "static B, one past a tile"},
    {2, 17, 9, 8, COMPLEX | STATIC_B, TEST_PADDED, "complex, static B, padded"},
    {2, 9, 6, 4, 0, TEST_TRANSPOSED, "channel before length"},
    {2, 9, 6, 4, COMPLEX, TEST_TRANSPOSED, "complex, channel before length"},
    {3, 9, 6, 4, 0, TEST_WIDE, "slices of wider tensors"},
    {3, 9, 6, 4, 0, TEST_SPREAD, "every other element"},
    {3, 9, 6, 4, 0, TEST_REPEATED, "one batch row read for all"},
    {2, 5, 4, 17, AT_ZERO, TEST_CONTIGUOUS, "A = 0, where zoh is a limit"},
    {2, 5, 4, 17, AT_ZERO | COMPLEX, TEST_CONTIGUOUS, "complex A = 0"},
};
#define SHAPES (sizeof shapes / sizeof shapes[0])

typedef struct method_case {
  const discretize_case *shape;
  clm_discretization method;
} method_case;
static method_case cases[3 * SHAPES];

/* What varies with time has the storage of delta, unless A is complex. */
static test_kind parameter_kind(const discretize_case *c) {
  return c->flags & COMPLEX ? TEST_COMPLEX : TEST_PARAMETER;
}
static test_kind varying_kind(const discretize_case *c) { return c->flags & COMPLEX ? TEST_COMPLEX : TEST_STORAGE; }

/* Some exactly 0, some so small that expm1(x)/x must not cancel. */
static double draw_near_zero(test_random *r) {
  double n = random_normal(r);
  return random_below(r, 3) == 0 ? 0 : n * (random_below(r, 2) ? 1e-6 : 1);
}

static test_problem problem_of(const discretize_case *c, const test_op *op, const void *args) {
  const test_kind kind = parameter_kind(c);
  double (*draw)(test_random *) = c->flags & AT_ZERO ? draw_near_zero : c->flags & COMPLEX ? draw_normal : draw_decay;
  test_problem p = {.op = op, .args = args, .seed = 21, .layout = c->layout, .tolerance = 3e-6};
  PROBLEM_ADD(
      &p, TEST_ROW(clm_discretize_args, delta, TEST_IN, TEST_STORAGE, draw_step, c->batch, c->length, c->d_inner));
  PROBLEM_ADD(&p, TEST_ROW(clm_discretize_args, A, TEST_IN, kind, draw, c->d_inner, c->d_state));
  if (c->flags & STATIC_B)
    PROBLEM_ADD(&p, TEST_ROW(clm_discretize_args, B, TEST_IN, kind, NULL, c->d_inner, c->d_state));
  else
    PROBLEM_ADD(&p,
                TEST_ROW(clm_discretize_args, B, TEST_IN, varying_kind(c), NULL, c->batch, c->length, c->d_state));
  return p;
}

static test_problem forward_of(const discretize_case *c, const clm_discretize_args *args) {
  const test_kind kind = varying_kind(c);
  test_problem p = problem_of(c, &op_discretize, args);
  PROBLEM_ADD(
      &p, TEST_ROW(clm_discretize_args, A_bar, TEST_OUT, kind, NULL, c->batch, c->length, c->d_inner, c->d_state));
  PROBLEM_ADD(
      &p, TEST_ROW(clm_discretize_args, B_bar, TEST_OUT, kind, NULL, c->batch, c->length, c->d_inner, c->d_state));
  return p;
}

#define GRADIENT(field, role, kind, of, ...)                                                                         \
  PROBLEM_ADD(&p, TEST_GRADIENT(clm_discretize_backward_args, field, role, kind, of, __VA_ARGS__))

/* `wanted`: bits for ddelta, dA, dB; `given`: bits for dA_bar, dB_bar. */
static test_problem backward_of(const discretize_case *c, const clm_discretize_backward_args *args, unsigned wanted,
                                unsigned given) {
  const test_kind kind = parameter_kind(c), varying = varying_kind(c);
  test_problem p = problem_of(c, &op_discretize_backward, args);
  p.tolerance = 2e-5;
  if (given & 1) GRADIENT(dA_bar, TEST_IN, varying, A_bar, c->batch, c->length, c->d_inner, c->d_state);
  if (given & 2) GRADIENT(dB_bar, TEST_IN, varying, B_bar, c->batch, c->length, c->d_inner, c->d_state);
  if (wanted & 1) GRADIENT(ddelta, TEST_OUT, TEST_STORAGE, delta, c->batch, c->length, c->d_inner);
  if (wanted & 2) GRADIENT(dA, TEST_OUT, kind, A, c->d_inner, c->d_state);
  if (wanted & 4 && c->flags & STATIC_B) GRADIENT(dB, TEST_OUT, kind, B, c->d_inner, c->d_state);
  if (wanted & 4 && !(c->flags & STATIC_B)) GRADIENT(dB, TEST_OUT, varying, B, c->batch, c->length, c->d_state);
  return p;
}

static void test_forward(const test_device *device, const void *data) {
  const method_case *m = data;
  const clm_discretize_args args = {.method = m->method};
  const test_problem p = forward_of(m->shape, &args);
  problem_check(&p, device);
}

static void test_backward(const test_device *device, const void *data) {
  const method_case *m = data;
  const clm_discretize_backward_args args = {.forward.method = m->method};
  const test_problem p = backward_of(m->shape, &args, 7, 3);
  problem_check(&p, device);
}

/* Weights in f32 and the pair in 16 bits, then the other way round: A_bar near 1 needs f32. */
static void test_16bit(const test_device *device, const void *data) {
  const method_case *m = data;
  const clm_discretize_backward_args args = {.forward.method = m->method};
  for (int wide = 0; wide < 2; wide++) {
    test_problem problems[] = {forward_of(m->shape, &args.forward), backward_of(m->shape, &args, 7, 3)};
    static const char *const pair[] = {"A_bar", "B_bar", "dA_bar", "dB_bar"}, *const weights[] = {"A", "B", "dA",
                                                                                                  "dB"};
    for (int i = 0; i < 2; i++) {
      for (size_t k = 0; wide && k < TEST_COUNT(pair); k++) {
        test_tensor *t = problem_find(&problems[i], pair[k]), *w = problem_find(&problems[i], weights[k]);
        if (t && t->kind == TEST_STORAGE) t->kind = TEST_PARAMETER;
        if (w && w->kind == TEST_PARAMETER) w->kind = TEST_STORAGE;
      }
      problem_check_16bit(&problems[i], device);
    }
  }
}

static void test_some_gradients(const test_device *device, const void *data) {
  const method_case *m = data;
  const clm_discretize_backward_args args = {.forward.method = m->method};
  for (unsigned wanted = 1; wanted < 8; wanted++)
    for (unsigned given = 1; given < 4; given++) {
      const test_problem p = backward_of(m->shape, &args, wanted, given);
      problem_check(&p, device);
    }
}

static void test_gradients(const test_device *device, const void *data) {
  (void)device;
  const method_case *m = data;
  const clm_discretize_backward_args args = {.forward.method = m->method};
  const test_problem forward = forward_of(m->shape, &args.forward), backward = backward_of(m->shape, &args, 7, 3);
  problem_check_gradients(&forward, &backward, 24);
}

static void add(void) {
  static const char *const methods[] = {"zoh", "euler", "bilinear"};
  for (size_t i = 0; i < 3 * SHAPES; i++) {
    const discretize_case *shape = &shapes[i / 3];
    cases[i] = (method_case){shape, (clm_discretization)(i % 3)};
    const char *method = methods[i % 3];
    for (size_t d = 0; d < test_device_count; d++) {
      test_add(&test_devices[d], test_forward, &cases[i], "discretize %s: %s", method, shape->why);
      test_add(&test_devices[d], test_backward, &cases[i], "discretize %s backward: %s", method, shape->why);
      if (!test_devices[d].slow || i == 3)
        test_add(&test_devices[d], test_16bit, &cases[i], "discretize %s in 16 bits: %s", method, shape->why);
    }
    if (shape->length < 20)
      test_add(NULL, test_gradients, &cases[i], "discretize %s gradients: %s", method, shape->why);
  }
  for (size_t d = 0; d < test_device_count; d++)
    test_add(&test_devices[d], test_some_gradients, &cases[3], "discretize: each subset of gradients");
}

int main(void) { return test_main("discretize", add); }

/* RMSNorm and LayerNorm. */
#include "problem.h"

TEST_OP(norm);
TEST_OP(norm_backward);

enum { LAYER = 1, WEIGHT = 2, BIAS = 4, RESIDUAL = 8, PRENORM = 16 };

typedef struct norm_case {
  int64_t rows, dim;
  unsigned flags;
  test_layout layout;
  const char *why;
} norm_case;

static const norm_case cases[] = {
    /* rows  dim   flags                             layout            why it is here */
    {1, 1, WEIGHT, TEST_CONTIGUOUS, "smallest"},
    {1, 2, LAYER | WEIGHT | BIAS, TEST_CONTIGUOUS, "two elements"},
    {3, 7, 0, TEST_CONTIGUOUS, "no weight"},
    {5, 64, WEIGHT, TEST_CONTIGUOUS, "a power of two"},
    {5, 64, LAYER | WEIGHT | BIAS, TEST_CONTIGUOUS, "layer, a power of two"},
    {2, 257, WEIGHT | BIAS | RESIDUAL, TEST_CONTIGUOUS, "one past a work-group"},
    {129, 33, WEIGHT | RESIDUAL, TEST_PADDED, "rows past a tile, padded"},
    {67, 131, LAYER | WEIGHT | RESIDUAL, TEST_WIDE, "layer, a slice of a wider matrix"},
    {17, 100, WEIGHT | BIAS, TEST_TRANSPOSED, "column-major"},
    {17, 100, LAYER | BIAS, TEST_SPREAD, "every other element"},
    {9, 1536, WEIGHT, TEST_CONTIGUOUS, "a model's width"},
    {4, 2051, LAYER | WEIGHT | BIAS, TEST_CONTIGUOUS, "long rows"},
    {600, 24, WEIGHT | BIAS, TEST_CONTIGUOUS, "many rows for the weight's gradient"},
    {5, 64, WEIGHT | RESIDUAL | PRENORM, TEST_CONTIGUOUS, "prenorm"},
    {67, 131, LAYER | WEIGHT | BIAS | RESIDUAL | PRENORM, TEST_PADDED, "prenorm, layer, padded"},
    {17, 100, WEIGHT | BIAS | PRENORM, TEST_TRANSPOSED, "prenorm, column-major"},
    {129, 3, LAYER | WEIGHT | PRENORM, TEST_SPREAD, "prenorm, short rows"},
};
static const size_t case_count = sizeof cases / sizeof cases[0];

/* In rows of one or two elements all but the part due to epsilon cancels: it has to be large to be seen. */
static clm_norm_args args_of(const norm_case *c) {
  return (clm_norm_args){.epsilon = c->dim <= 2 ? 0.1f : 1e-5f,
                         .kind = c->flags & LAYER ? CLM_LAYER_NORM : CLM_RMS_NORM};
}

static test_problem problem_of(const norm_case *c, const test_op *op, const void *args) {
  test_problem p = {.op = op, .args = args, .seed = 11, .layout = c->layout, .tolerance = 3e-6};
  PROBLEM_ADD(&p, TEST_ROW(clm_norm_args, x, TEST_IN, TEST_STORAGE, NULL, c->rows, c->dim));
  if (c->flags & WEIGHT) PROBLEM_ADD(&p, TEST_ROW(clm_norm_args, weight, TEST_IN, TEST_PARAMETER, NULL, c->dim));
  if (c->flags & BIAS) PROBLEM_ADD(&p, TEST_ROW(clm_norm_args, bias, TEST_IN, TEST_PARAMETER, NULL, c->dim));
  return p;
}

static test_problem forward_of(const norm_case *c, const clm_norm_args *args) {
  test_problem p = problem_of(c, &op_norm, args);
  if (c->flags & PRENORM) {
    PROBLEM_ADD(&p, TEST_ROW(clm_norm_args, residual, TEST_IN, TEST_STORAGE, NULL, c->rows, c->dim));
    PROBLEM_ADD(&p, TEST_ROW(clm_norm_args, residual_out, TEST_OUT, TEST_STORAGE, NULL, c->rows, c->dim));
  }
  PROBLEM_ADD(&p, TEST_ROW(clm_norm_args, out, TEST_OUT, TEST_STORAGE, NULL, c->rows, c->dim));
  return p;
}

/* `wanted`: which gradients, a bit for each. */
static test_problem backward_of(const norm_case *c, const clm_norm_backward_args *args, unsigned wanted) {
  test_problem p = problem_of(c, &op_norm_backward, args);
  p.tolerance = 1e-5;
  PROBLEM_ADD(&p, TEST_GRADIENT(clm_norm_backward_args, dout, TEST_IN, TEST_STORAGE, out, c->rows, c->dim));
  if (c->flags & PRENORM) {
    test_tensor stream =
        TEST_ROW(clm_norm_backward_args, forward.residual, TEST_IN, TEST_STORAGE, NULL, c->rows, c->dim);
    stream.name = "residual"; /* as in the forward call */
    problem_add(&p, stream);
  }
  if (c->flags & PRENORM && wanted & 8)
    PROBLEM_ADD(&p,
                TEST_GRADIENT(clm_norm_backward_args, dresidual, TEST_OUT, TEST_STORAGE, residual, c->rows, c->dim));
  if (c->flags & RESIDUAL && wanted & 9) {
    test_tensor skip = TEST_ROW(clm_norm_backward_args, residual, TEST_IN, TEST_STORAGE, NULL, c->rows, c->dim);
    if (c->flags & PRENORM) skip.name = "dresidual_out", skip.of = "residual_out";
    if (c->flags & PRENORM || wanted & 1) problem_add(&p, skip);
  }
  if (wanted & 1)
    PROBLEM_ADD(&p, TEST_GRADIENT(clm_norm_backward_args, dx, TEST_OUT, TEST_STORAGE, x, c->rows, c->dim));
  if (wanted & 2 && c->flags & WEIGHT)
    PROBLEM_ADD(&p, TEST_GRADIENT(clm_norm_backward_args, dweight, TEST_OUT, TEST_PARAMETER, weight, c->dim));
  if (wanted & 4 && c->flags & BIAS)
    PROBLEM_ADD(&p, TEST_GRADIENT(clm_norm_backward_args, dbias, TEST_OUT, TEST_PARAMETER, bias, c->dim));
  return p;
}

static void test_forward(const test_device *device, const void *data) {
  const clm_norm_args args = args_of(data);
  const test_problem p = forward_of(data, &args);
  problem_check(&p, device);
}

static void test_backward(const test_device *device, const void *data) {
  const clm_norm_backward_args args = {.forward = args_of(data)};
  const test_problem p = backward_of(data, &args, 15);
  problem_check(&p, device);
}

/* Weights in f32, then as x. */
static void test_16bit(const test_device *device, const void *data) {
  const clm_norm_backward_args args = {.forward = args_of(data)};
  for (int own = 0; own < 2; own++) {
    test_problem problems[] = {forward_of(data, &args.forward), backward_of(data, &args, 15)};
    for (int k = 0; k < 2; k++) {
      for (size_t i = 0; own && i < problems[k].count; i++) problems[k].tensors[i].kind = TEST_STORAGE;
      problem_check_16bit(&problems[k], device);
    }
  }
}

/* Each gradient on its own. */
static void test_some_gradients(const test_device *device, const void *data) {
  const clm_norm_backward_args args = {.forward = args_of(data)};
  const unsigned all = ((const norm_case *)data)->flags & PRENORM ? 15 : 7;
  for (unsigned wanted = 1; wanted < all; wanted++) {
    const test_problem p = backward_of(data, &args, wanted);
    problem_check(&p, device);
  }
}

static void test_contained(const test_device *device, const void *data) {
  const clm_norm_backward_args args = {.forward = args_of(data)};
  const test_problem forward = forward_of(data, &args.forward), backward = backward_of(data, &args, 15);
  problem_check_contained(&forward, device);
  problem_check_contained(&backward, device);
}

/* The residual stream in f32 with a 16-bit branch, as residual_in_fp32 has it, and the other way round. */
static void test_mixed(const test_device *device, const void *data) {
  static const char *const stream[] = {"residual", "residual_out", "dresidual_out", "dresidual"};
  const clm_norm_backward_args args = {.forward = args_of(data)};
  for (int turn = 0; turn < 4; turn++) {
    test_problem problems[] = {forward_of(data, &args.forward), backward_of(data, &args, 15)};
    for (int k = 0; k < 2; k++) {
      test_problem *p = &problems[k];
      p->storage = turn % 2 ? CLM_F32 : turn ? CLM_BF16 : CLM_F16;
      for (size_t i = 0; i < TEST_COUNT(stream); i++) {
        test_tensor *t = problem_find(p, stream[i]);
        if (t) t->kind = turn % 2 == 0 ? TEST_PARAMETER : turn == 1 ? TEST_F16 : TEST_BF16;
      }
      test_tensor *out = problem_find(p, k ? "dout" : "out");
      if (turn == 3) out->kind = TEST_F16;
      problem_check(p, device);
    }
  }
}

/* The residual stream goes on where it is, or where x was. */
static void test_stream_in_place(const test_device *device, const void *data) {
  const clm_norm_args args = args_of(data);
  const test_problem p = forward_of(data, &args);
  static const char *const places[] = {"residual", "x"};
  for (int k = 0; k < 2; k++) {
    test_run *apart = run_create(&p, device->context, false), *in_place = run_create(&p, device->context, false);
    run_call(apart);
    clm_norm_args *a = in_place->args;
    a->residual_out = k ? a->x : a->residual;
    run_call(in_place);
    const char *const names[][2] = {{"out", "out"}, {"residual_out", places[k]}};
    for (int i = 0; i < 2; i++) {
      double *want = run_read(apart, names[i][0]), *got = run_read(in_place, names[i][1]);
      assert_memory_equal(got, want, run_values(apart, names[i][0]) * sizeof *want);
      free(want);
      free(got);
    }
    run_destroy(apart);
    run_destroy(in_place);
  }
}

static void test_in_place(const test_device *device, const void *data) {
  const norm_case *c = data;
  const clm_norm_args args = args_of(c);
  const test_problem p = forward_of(c, &args);
  test_run *apart = run_create(&p, device->context, false), *in_place = run_create(&p, device->context, false);
  run_call(apart);
  clm_norm_args *a = in_place->args;
  a->out = a->x;
  run_call(in_place);
  double *want = run_read(apart, "out"), *got = run_read(in_place, "x");
  assert_memory_equal(got, want, run_values(apart, "out") * sizeof *want);
  free(want);
  free(got);
  run_destroy(apart);
  run_destroy(in_place);
}

static void test_gradients(const test_device *device, const void *data) {
  (void)device;
  const clm_norm_backward_args args = {.forward = args_of(data)};
  norm_case c = *(const norm_case *)data;
  if (!(c.flags & PRENORM)) c.flags &= ~(unsigned)RESIDUAL; /* not the gradient of anything */
  const test_problem forward = forward_of(&c, &args.forward), backward = backward_of(&c, &args, 15);
  problem_check_gradients(&forward, &backward, 20);
}

static void add(void) {
  for (size_t i = 0; i < case_count; i++) {
    for (size_t d = 0; d < test_device_count; d++) {
      const test_device *device = &test_devices[d];
      test_add(device, test_forward, &cases[i], "norm: %s", cases[i].why);
      test_add(device, test_backward, &cases[i], "norm backward: %s", cases[i].why);
      if (cases[i].flags & PRENORM) test_add(device, test_mixed, &cases[i], "norm, mixed dtypes: %s", cases[i].why);
      if (!device->slow || i == 6) test_add(device, test_16bit, &cases[i], "norm in 16 bits: %s", cases[i].why);
    }
    if (cases[i].rows * cases[i].dim < 2000)
      test_add(NULL, test_gradients, &cases[i], "norm gradients: %s", cases[i].why);
  }
  for (size_t d = 0; d < test_device_count; d++) {
    test_add(&test_devices[d], test_contained, &cases[6], "norm: not a number stays in its row");
    test_add(&test_devices[d], test_in_place, &cases[5], "norm in place");
    test_add(&test_devices[d], test_some_gradients, &cases[5], "norm: each gradient alone");
    test_add(&test_devices[d], test_some_gradients, &cases[14], "prenorm: each gradient alone");
    test_add(&test_devices[d], test_contained, &cases[14], "prenorm: not a number stays in its row");
    test_add(&test_devices[d], test_stream_in_place, &cases[13], "prenorm: the residual stream in place");
  }
}

int main(void) { return test_main("norm", add); }

/* AdamW against a transcription of PyTorch's order of operations, with and without clipping. */
#include "problem.h"

TEST_OP(adamw);

typedef struct adamw_case {
  int64_t count, step;
  float weight_decay, gradient_scale, max_norm;
  bool clipped;
  test_layout layout;
  const char *why;
} adamw_case;

static const adamw_case cases[] = {
    {1, 1, 0, 0, 0, false, TEST_CONTIGUOUS, "smallest, first step"},
    {1027, 1, 0.1f, 0, 0, false, TEST_CONTIGUOUS, "first step with decay"},
    {1027, 1000, 0.1f, 0.25f, 0, false, TEST_CONTIGUOUS, "late step, accumulated gradients"},
    {300, 3, 0.1f, 0, 1, true, TEST_CONTIGUOUS, "clipped"},
    {300, 3, 0.1f, 0.5f, 1e6f, true, TEST_CONTIGUOUS, "below the clipping norm"},
    {300, 3, 0, 0.5f, 0, true, TEST_CONTIGUOUS, "a norm but no clipping"},
    {257, 2, 0.1f, 0, 1, true, TEST_PADDED, "offset views"},
    {65, 2, 0.1f, 0, 1, true, TEST_SPREAD, "every other element"},
};
#define CASES (sizeof cases / sizeof cases[0])

static double draw_sum_squares(test_random *r) {
  (void)r;
  return 300;
}

static clm_adamw_args args_of(const adamw_case *c) {
  return (clm_adamw_args){.lr = 1e-2f,
                          .beta1 = 0.9f,
                          .beta2 = 0.95f,
                          .epsilon = 1e-8f,
                          .weight_decay = c->weight_decay,
                          .gradient_scale = c->gradient_scale,
                          .max_norm = c->max_norm,
                          .step = c->step};
}

static test_problem problem_of(const adamw_case *c, const clm_adamw_args *args) {
  test_problem p = {.op = &op_adamw, .args = args, .seed = 111, .layout = c->layout, .tolerance = 2e-6};
  PROBLEM_ADD(&p, TEST_ROW(clm_adamw_args, parameter, TEST_INOUT, TEST_PARAMETER, NULL, c->count));
  PROBLEM_ADD(&p, TEST_ROW(clm_adamw_args, gradient, TEST_IN, TEST_PARAMETER, NULL, c->count));
  PROBLEM_ADD(&p, TEST_ROW(clm_adamw_args, m, TEST_INOUT, TEST_PARAMETER, NULL, c->count));
  PROBLEM_ADD(&p, TEST_ROW(clm_adamw_args, v, TEST_INOUT, TEST_PARAMETER, draw_positive, c->count));
  if (c->clipped)
    PROBLEM_ADD(&p, TEST_ROW(clm_adamw_args, sum_squares, TEST_IN, TEST_PARAMETER, draw_sum_squares, 1));
  return p;
}

static void test_step(const test_device *device, const void *data) {
  const clm_adamw_args args = args_of(data);
  const test_problem p = problem_of(data, &args);
  problem_check(&p, device);
}

/* Gradients in 16 bits, and a copy of the weights in 16 bits written on the way. */
static void test_16bit(const test_device *device, const void *data) {
  const adamw_case *c = data;
  const clm_adamw_args args = args_of(c);
  test_problem p = problem_of(c, &args);
  problem_find(&p, "gradient")->kind = TEST_STORAGE;
  PROBLEM_ADD(&p, TEST_ROW(clm_adamw_args, copy, TEST_OUT, TEST_STORAGE, NULL, c->count));
  problem_check_16bit(&p, device);
  p.storage = CLM_F32;
  problem_check(&p, device);
}

/* The reference itself against the equation. */
static void test_reference_step(const test_device *device, const void *data) {
  (void)device;
  const adamw_case *c = data;
  const clm_adamw_args a = args_of(c);
  const test_problem p = problem_of(c, &a);
  test_run *run = run_create(&p, test_reference, true);
  double *x = run_read(run, "parameter"), *g = run_read(run, "gradient"), *m = run_read(run, "m"),
         *v = run_read(run, "v");
  run_call(run);
  double *got = run_read(run, "parameter");
  const double b1 = (double)a.beta1, b2 = (double)a.beta2;
  double scale = c->gradient_scale != 0 ? (double)c->gradient_scale : 1;
  if (c->clipped && c->max_norm > 0) scale *= fmin(1, (double)c->max_norm / (scale * sqrt(300) + 1e-6));
  for (int64_t i = 0; i < c->count; i++) {
    const double gradient = g[i] * scale;
    const double first = b1 * m[i] + (1 - b1) * gradient, second = b2 * v[i] + (1 - b2) * gradient * gradient;
    const double step =
        first / (1 - pow(b1, (double)a.step)) / (sqrt(second / (1 - pow(b2, (double)a.step))) + (double)a.epsilon);
    const double want = x[i] - (double)a.lr * (step + (double)a.weight_decay * x[i]);
    if (!(fabs(got[i] - want) < 1e-12))
      fail_msg("parameter[%lld] is %.15g, expected %.15g", (long long)i, got[i], want);
  }
  free(x);
  free(g);
  free(m);
  free(v);
  free(got);
  run_destroy(run);
}

/* A norm that is not finite leaves everything as it was. */
static void test_not_finite(const test_device *device, const void *data) {
  static const double norms[] = {(double)NAN, (double)INFINITY};
  const clm_adamw_args args = args_of(data);
  const test_problem p = problem_of(data, &args);
  for (int i = 0; i < 2; i++) {
    test_run *run = run_create(&p, device->context, false), *before = run_create(&p, device->context, false);
    run_write(run, "sum_squares", &norms[i]);
    run_write(before, "sum_squares", &norms[i]);
    run_call(run);
    run_compare_bits(run, before);
    run_destroy(run);
    run_destroy(before);
  }
}

static void add(void) {
  for (size_t i = 0; i < CASES; i++) {
    for (size_t d = 0; d < test_device_count; d++)
      test_add(&test_devices[d], test_step, &cases[i], "adamw: %s", cases[i].why);
    for (size_t d = 0; d < test_device_count; d++)
      if (!test_devices[d].slow || i == 6)
        test_add(&test_devices[d], test_16bit, &cases[i], "adamw with 16 bits: %s", cases[i].why);
    test_add(NULL, test_reference_step, &cases[i], "adamw, the reference: %s", cases[i].why);
  }
  for (size_t d = 0; d < test_device_count; d++)
    test_add(&test_devices[d], test_not_finite, &cases[3], "adamw: a norm that is not finite");
}

int main(void) { return test_main("adamw", add); }

/* Softmax cross-entropy and its gradient. */
#include "problem.h"

TEST_OP(cross_entropy);

enum { LOSSES = 1, DLOGITS = 2, BOTH = 3 };

typedef struct loss_case {
  int64_t rows, vocab;
  unsigned outputs;
  test_layout layout;
  const char *why;
} loss_case;

static const loss_case cases[] = {
    {1, 1, BOTH, TEST_CONTIGUOUS, "smallest"},
    {3, 2, BOTH, TEST_CONTIGUOUS, "two classes"},
    {17, 65, BOTH, TEST_CONTIGUOUS, "characters"},
    {17, 65, LOSSES, TEST_CONTIGUOUS, "losses alone"},
    {17, 65, DLOGITS, TEST_CONTIGUOUS, "gradient alone"},
    {129, 257, BOTH, TEST_CONTIGUOUS, "one past a work-group"},
    {5, 5003, BOTH, TEST_CONTIGUOUS, "many tokens"},
    {33, 40, BOTH, TEST_PADDED, "padded rows"},
    {33, 40, BOTH, TEST_TRANSPOSED, "column-major"},
    {33, 40, BOTH, TEST_WIDE, "slices of wider matrices"},
    {9, 20, BOTH, TEST_SPREAD, "every other element"},
};
#define CASES (sizeof cases / sizeof cases[0])

/* Large enough that exp() without the maximum taken off would overflow. */
static double draw_logit(test_random *r) { return 3 * random_normal(r) + (random_below(r, 20) == 0 ? 100 : 0); }

static test_problem problem_of(const loss_case *c, const clm_cross_entropy_args *args) {
  test_problem p = {.op = &op_cross_entropy, .args = args, .seed = 101, .layout = c->layout, .tolerance = 3e-6};
  PROBLEM_ADD(&p, TEST_ROW(clm_cross_entropy_args, logits, TEST_IN, TEST_STORAGE, draw_logit, c->rows, c->vocab));
  PROBLEM_ADD(&p, TEST_ROW(clm_cross_entropy_args, targets, TEST_IN, TEST_INDEX, NULL, c->rows));
  p.tensors[1].bound = c->vocab;
  if (c->outputs & LOSSES)
    PROBLEM_ADD(&p, TEST_ROW(clm_cross_entropy_args, losses, TEST_OUT, TEST_PARAMETER, NULL, c->rows));
  if (c->outputs & DLOGITS)
    PROBLEM_ADD(&p,
                TEST_GRADIENT(clm_cross_entropy_args, dlogits, TEST_OUT, TEST_STORAGE, logits, c->rows, c->vocab));
  return p;
}

static void test_loss(const test_device *device, const void *data) {
  const clm_cross_entropy_args args = {.scale = 0.125f};
  const test_problem p = problem_of(data, &args);
  problem_check(&p, device);
}

static void test_16bit(const test_device *device, const void *data) {
  const clm_cross_entropy_args args = {.scale = 0.125f};
  const test_problem p = problem_of(data, &args);
  problem_check_16bit(&p, device);
}

static void test_in_place(const test_device *device, const void *data) {
  const clm_cross_entropy_args args = {.scale = 0.5f};
  const test_problem p = problem_of(data, &args);
  test_run *apart = run_create(&p, device->context, false), *in_place = run_create(&p, device->context, false);
  run_call(apart);
  clm_cross_entropy_args *a = in_place->args;
  a->dlogits = a->logits;
  run_call(in_place);
  double *want = run_read(apart, "dlogits"), *got = run_read(in_place, "logits");
  assert_memory_equal(got, want, run_values(apart, "dlogits") * sizeof *want);
  free(want);
  free(got);
  double *want_losses = run_read(apart, "losses"), *got_losses = run_read(in_place, "losses");
  assert_memory_equal(got_losses, want_losses, run_values(apart, "losses") * sizeof *want_losses);
  free(want_losses);
  free(got_losses);
  run_destroy(apart);
  run_destroy(in_place);
}

/* A row whose target is -1 has no loss and no gradient; the weights of the losses are all `scale`. */
static void test_gradients(const test_device *device, const void *data) {
  (void)device;
  const loss_case *c = data;
  const clm_cross_entropy_args args = {.scale = 0.75f};
  const test_problem p = problem_of(c, &args);
  test_run *run = run_create(&p, test_reference, true);
  run_call(run);
  double *logits = run_read(run, "logits"), *gradient = run_read(run, "dlogits"), *targets = run_read(run, "targets");
  for (int64_t k = 0; k < c->rows * c->vocab; k += 1 + c->rows * c->vocab / 40) {
    double sums[2];
    const double value = logits[k], step = 1e-5;
    for (int side = 0; side < 2; side++) {
      logits[k] = value + (side ? -step : step);
      run_write(run, "logits", logits);
      run_call(run);
      double *losses = run_read(run, "losses");
      sums[side] = losses[k / c->vocab];
      free(losses);
    }
    logits[k] = value;
    double want = 0.75 * (sums[0] - sums[1]) / (2 * step);
    if (targets[k / c->vocab] < 0) assert_true(want == 0 && gradient[k] == 0);
    if (!(fabs(gradient[k] - want) < 1e-7))
      fail_msg("dlogits[%lld] is %.12g, finite differences give %.12g", (long long)k, gradient[k], want);
  }
  free(logits);
  free(gradient);
  free(targets);
  run_destroy(run);
}

static void add(void) {
  for (size_t d = 0; d < test_device_count; d++) {
    for (size_t i = 0; i < CASES; i++)
      test_add(&test_devices[d], test_loss, &cases[i], "cross_entropy: %s", cases[i].why);
    for (size_t i = 0; i < CASES; i++)
      if (!test_devices[d].slow || i == 7)
        test_add(&test_devices[d], test_16bit, &cases[i], "cross_entropy in 16 bits: %s", cases[i].why);
    test_add(&test_devices[d], test_in_place, &cases[2], "cross_entropy: gradient in place of the logits");
  }
  test_add(NULL, test_gradients, &cases[1], "cross_entropy gradients: %s", cases[1].why);
  test_add(NULL, test_gradients, &cases[2], "cross_entropy gradients: %s", cases[2].why);
}

int main(void) { return test_main("cross_entropy", add); }

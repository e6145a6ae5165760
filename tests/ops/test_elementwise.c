/* axpby, dropout, column sums and the sum of squares. */
#include "problem.h"

TEST_OP(axpby);
TEST_OP(dropout);
TEST_OP(column_sum);
TEST_OP(sum_squares);

/* ---- axpby ---- */

typedef struct axpby_case {
  int rank;
  int64_t shape[CLM_MAX_RANK];
  float alpha, beta;
  bool no_x;
  test_layout layout;
  const char *why;
} axpby_case;

static const axpby_case axpby_cases[] = {
    {1, {1}, 1, 0, false, TEST_CONTIGUOUS, "smallest"},
    {1, {1027}, 2.5f, 0, false, TEST_CONTIGUOUS, "scaled copy"},
    {1, {1027}, 1, 1, false, TEST_CONTIGUOUS, "sum"},
    {2, {33, 17}, -0.5f, 0.25f, false, TEST_PADDED, "both factors, padded"},
    {2, {33, 17}, 1, 0, false, TEST_SPREAD, "every other element"},
    {3, {2, 19, 7}, 1, 0, false, TEST_TRANSPOSED, "middle dimension innermost"},
    {3, {3, 19, 7}, 1, 0.5f, false, TEST_REPEATED, "one batch row added to all"},
    {4, {2, 3, 5, 7}, 3, 1, false, TEST_WIDE, "rank 4"},
    {5, {2, 3, 2, 5, 3}, 3, 1, false, TEST_PADDED, "rank 5"},
    {2, {5, 9}, 0, 0, true, TEST_PADDED, "clears"},
    {2, {5, 9}, 0, 0.5f, true, TEST_CONTIGUOUS, "scales"},
};
#define AXPBY_CASES (sizeof axpby_cases / sizeof axpby_cases[0])

static test_tensor shaped(test_tensor t, int rank, const int64_t *shape) {
  t.rank = rank;
  for (int i = 0; i < rank; i++) t.shape[i] = shape[i];
  return t;
}

static void test_axpby(const test_device *device, const void *data) {
  const axpby_case *c = data;
  const clm_axpby_args args = {.alpha = c->alpha, .beta = c->beta};
  test_problem p = {.op = &op_axpby, .args = &args, .seed = 81, .layout = c->layout, .tolerance = 1e-6};
  if (!c->no_x)
    problem_add(&p,
                shaped((test_tensor)TEST_ROW(clm_axpby_args, x, TEST_IN, TEST_STORAGE, NULL, 1), c->rank, c->shape));
  problem_add(&p, shaped((test_tensor)TEST_ROW(clm_axpby_args, out, c->beta != 0 ? TEST_INOUT : TEST_OUT,
                                               TEST_STORAGE, NULL, 1),
                         c->rank, c->shape));
  problem_check(&p, device);
}

/* Between two layouts. */
static void test_transposing_copy(const test_device *device, const void *data) {
  (void)data;
  const clm_axpby_args args = {.alpha = 1};
  test_problem p = {.op = &op_axpby, .args = &args, .seed = 82, .layout = TEST_PADDED, .tolerance = 1e-7};
  PROBLEM_ADD(&p, TEST_ROW(clm_axpby_args, x, TEST_IN, TEST_STORAGE, NULL, 70, 45));
  PROBLEM_ADD(&p, TEST_ROW(clm_axpby_args, out, TEST_OUT, TEST_STORAGE, NULL, 70, 45));
  p.tensors[0].transposed = true;
  problem_check(&p, device);
}

/* ---- dropout ---- */

static void test_dropout(const test_device *device, const void *data) {
  const test_layout layout = *(const test_layout *)data;
  static const float rates[] = {0, 0.1f, 0.5f, 0.99f};
  for (int i = 0; i < 8; i++) {
    const clm_dropout_args args = {.rate = rates[i / 2], .seed = 0x123456789abcdefu + (uint64_t)i};
    test_problem p = {.op = &op_dropout, .args = &args, .seed = 83, .layout = layout, .tolerance = 1e-6};
    PROBLEM_ADD(&p, TEST_ROW(clm_dropout_args, x, TEST_IN, TEST_STORAGE, NULL, 37, 53));
    if (i % 2) PROBLEM_ADD(&p, TEST_ROW(clm_dropout_args, residual, TEST_IN, TEST_STORAGE, NULL, 37, 53));
    PROBLEM_ADD(&p, TEST_ROW(clm_dropout_args, out, TEST_OUT, TEST_STORAGE, NULL, 37, 53));
    problem_check(&p, device);
  }
}

static double draw_one(test_random *r) {
  (void)r;
  return 1;
}

/* The share that stays is 1 - rate, what stays is scaled, and two seeds differ. */
static void test_dropout_mask(const test_device *device, const void *data) {
  (void)data;
  enum { COUNT = 20000 };
  const float rate = 0.3f;
  double *masks[2];
  for (uint64_t seed = 0; seed < 2; seed++) {
    const clm_dropout_args args = {.rate = rate, .seed = seed};
    test_problem p = {.op = &op_dropout, .args = &args, .seed = 84, .tolerance = 1e-6};
    PROBLEM_ADD(&p, TEST_ROW(clm_dropout_args, x, TEST_IN, TEST_STORAGE, draw_one, COUNT));
    PROBLEM_ADD(&p, TEST_ROW(clm_dropout_args, out, TEST_OUT, TEST_STORAGE, NULL, COUNT));
    test_run *run = run_create(&p, device->context, false);
    run_call(run);
    masks[seed] = run_read(run, "out");
    run_destroy(run);
  }
  int kept = 0, neighbours = 0, differ = 0;
  for (int i = 0; i < COUNT; i++) {
    if (masks[0][i] != 0) {
      assert_true(fabs(masks[0][i] - 1 / (1 - (double)rate)) < 1e-6);
      kept++;
      neighbours += i + 1 < COUNT && masks[0][i + 1] != 0;
    }
    differ += (masks[0][i] != 0) != (masks[1][i] != 0);
  }
  /* five deviations of a binomial: 0.0032 x 5 */
  assert_true(fabs(kept / (double)COUNT - 0.7) < 0.017);
  assert_true(fabs(neighbours / (double)COUNT - 0.49) < 0.02);
  assert_true(fabs(differ / (double)COUNT - 0.42) < 0.02);
  free(masks[0]);
  free(masks[1]);
}

/* ---- Sums ---- */

typedef struct sum_case {
  int64_t rows, dim;
  test_layout layout;
  const char *why;
} sum_case;

static const sum_case sum_cases[] = {
    {1, 1, TEST_CONTIGUOUS, "smallest"},         {1, 300, TEST_CONTIGUOUS, "one row"},
    {1025, 1, TEST_CONTIGUOUS, "one column"},    {129, 65, TEST_CONTIGUOUS, "one past a tile"},
    {2000, 48, TEST_CONTIGUOUS, "many rows"},    {67, 35, TEST_PADDED, "padded rows"},
    {67, 35, TEST_TRANSPOSED, "column-major"},   {67, 35, TEST_WIDE, "a slice of a wider matrix"},
    {31, 9, TEST_SPREAD, "every other element"},
};
#define SUM_CASES (sizeof sum_cases / sizeof sum_cases[0])

static void test_column_sum(const test_device *device, const void *data) {
  const sum_case *c = data;
  const clm_column_sum_args args = {0};
  test_problem p = {.op = &op_column_sum, .args = &args, .seed = 85, .layout = c->layout, .tolerance = 1e-5};
  PROBLEM_ADD(&p, TEST_ROW(clm_column_sum_args, x, TEST_IN, TEST_STORAGE, NULL, c->rows, c->dim));
  PROBLEM_ADD(&p, TEST_ROW(clm_column_sum_args, out, TEST_OUT, TEST_PARAMETER, NULL, c->dim));
  problem_check(&p, device);
}

static void test_sum_squares(const test_device *device, const void *data) {
  const sum_case *c = data;
  const clm_sum_squares_args args = {0};
  test_problem p = {.op = &op_sum_squares, .args = &args, .seed = 86, .layout = c->layout, .tolerance = 1e-6};
  PROBLEM_ADD(&p, TEST_ROW(clm_sum_squares_args, x, TEST_IN, TEST_PARAMETER, NULL, c->rows * c->dim));
  PROBLEM_ADD(&p, TEST_ROW(clm_sum_squares_args, out, TEST_OUT, TEST_PARAMETER, NULL, 1));
  problem_check(&p, device);
}

static void add(void) {
  static const test_layout layouts[] = {TEST_CONTIGUOUS, TEST_PADDED, TEST_TRANSPOSED, TEST_SPREAD};
  for (size_t d = 0; d < test_device_count; d++) {
    const test_device *device = &test_devices[d];
    for (size_t i = 0; i < AXPBY_CASES; i++)
      test_add(device, test_axpby, &axpby_cases[i], "axpby: %s", axpby_cases[i].why);
    test_add(device, test_transposing_copy, NULL, "axpby: transposing copy");
    for (int i = 0; i < 4; i++) test_add(device, test_dropout, &layouts[i], "dropout: layout %d", layouts[i]);
    test_add(device, test_dropout_mask, NULL, "dropout: shares");
    for (size_t i = 0; i < SUM_CASES; i++) {
      test_add(device, test_column_sum, &sum_cases[i], "column_sum: %s", sum_cases[i].why);
      test_add(device, test_sum_squares, &sum_cases[i], "sum_squares: %s", sum_cases[i].why);
    }
  }
}

int main(void) { return test_main("elementwise", add); }

/* axpby, dropout, column sums and the sum of squares. */
#include "numbers.h"
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

static test_problem axpby_problem(const axpby_case *c, const clm_axpby_args *args) {
  test_problem p = {.op = &op_axpby, .args = args, .seed = 81, .layout = c->layout, .tolerance = 1e-6};
  if (!c->no_x)
    problem_add(&p,
                shaped((test_tensor)TEST_ROW(clm_axpby_args, x, TEST_IN, TEST_STORAGE, NULL, 1), c->rank, c->shape));
  problem_add(&p, shaped((test_tensor)TEST_ROW(clm_axpby_args, out, c->beta != 0 ? TEST_INOUT : TEST_OUT,
                                               TEST_STORAGE, NULL, 1),
                         c->rank, c->shape));
  return p;
}

static void test_axpby(const test_device *device, const void *data) {
  const axpby_case *c = data;
  const clm_axpby_args args = {.alpha = c->alpha, .beta = c->beta};
  const test_problem p = axpby_problem(c, &args);
  problem_check(&p, device);
}

/* 16-bit types, and between them and f32. */
static void test_axpby_16bit(const test_device *device, const void *data) {
  const axpby_case *c = data;
  const clm_axpby_args args = {.alpha = c->alpha, .beta = c->beta};
  for (int mix = 0; mix < (device->slow ? 1 : 3); mix++) {
    test_problem p = axpby_problem(c, &args);
    if (mix == 1) p.tensors[0].kind = TEST_PARAMETER;
    if (mix == 2) p.tensors[p.count - 1].kind = TEST_PARAMETER;
    problem_check_16bit(&p, device);
  }
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

/* ---- cast ---- */

static double rounded(double x, clm_dtype dtype) {
  const int bits = dtype == CLM_F64 ? 53 : dtype == CLM_F32 ? 24 : dtype == CLM_F16 ? 11 : 8;
  int exponent;
  if (x == 0 || !isfinite(x)) return x;
  frexp(x, &exponent);
  return ldexp(rint(ldexp(x, bits - exponent)), exponent - bits);
}

/* Every dtype to every other, from a padded to a transposed view, by the one rounding that is allowed: numbers of 53
 * bits, ties of each target and their neighbours, zeros and infinities. */
static void cast_once(const test_device *device, clm_dtype from, clm_dtype to) {
  enum { ROWS = 37, COLUMNS = 29, WIDE = 31, BITS = 4 };
  static const int targets[BITS] = {8, 11, 24, 40};
  static double want[ROWS * COLUMNS];
  static unsigned char memory[2][ROWS * WIDE * 8];
  test_random r = random_seeded(5, "cast");
  for (int i = 0; i < ROWS; i++)
    for (int k = 0; k < COLUMNS; k++) {
      double x = random_normal(&r), last = ldexp(1, -targets[k % BITS]);
      if (k % 3 == 0) x = (rint(ldexp(fabs(x), 6)) / 64 + 1 + last) * (1 + (k % 5 - 2) * 0x1p-45); /* about a tie */
      if (k == 7) x = i % 4 == 0 ? 0.0 : i % 4 == 1 ? -0.0 : i % 4 == 2 ? (double)INFINITY : -(double)INFINITY;
      x = rounded(x, from);
      number_set(from, memory[0], (size_t)(i * WIDE + k), x);
      want[i * COLUMNS + k] = rounded(x, to);
    }
  clm_buffer *buffers[2];
  for (int i = 0; i < 2; i++) {
    assert_int_equal(clm_buffer_create(device->context, sizeof memory[i], &buffers[i]), CLM_OK);
    assert_int_equal(clm_buffer_write(buffers[i], 0, sizeof memory[i], memory[i]), CLM_OK);
  }
  clm_tensor x = clm_tensor_of(buffers[0], 0, from, 2, (const int64_t[]){ROWS, WIDE});
  clm_tensor out = clm_tensor_of(buffers[1], 0, to, 2, (const int64_t[]){COLUMNS, ROWS});
  const clm_cast_args args = {.x = clm_tensor_slice(x, 1, 0, COLUMNS), .out = clm_tensor_transpose(out, 0, 1)};
  if (clm_cast(device->context, &args)) fail_msg("%s", clm_context_error(device->context));
  assert_int_equal(clm_buffer_read(buffers[1], 0, sizeof memory[1], memory[1]), CLM_OK);
  for (int i = 0; i < ROWS; i++)
    for (int k = 0; k < COLUMNS; k++) {
      double got = number_get(to, memory[1], (size_t)(k * ROWS + i)), expected = want[i * COLUMNS + k];
      if (got != expected || signbit(got) != signbit(expected))
        fail_msg("%s to %s: [%d, %d] is %.17g, expected %.17g", clm_dtype_name(from), clm_dtype_name(to), i, k, got,
                 expected);
    }
  for (int i = 0; i < 2; i++) clm_buffer_destroy(&buffers[i]);
}

static void test_cast(const test_device *device, const void *data) {
  static const clm_dtype dtypes[] = {CLM_F64, CLM_F32, CLM_F16, CLM_BF16};
  (void)data;
  for (int from = 0; from < 4; from++)
    for (int to = 0; to < 4; to++)
      if (!device->slow || (from + 3 * to) % 4 < 2 || from == 0) cast_once(device, dtypes[from], dtypes[to]);
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

static void test_dropout_16bit(const test_device *device, const void *data) {
  const clm_dropout_args args = {.rate = 0.3f, .seed = 17};
  test_problem p = {
      .op = &op_dropout, .args = &args, .seed = 83, .layout = *(const test_layout *)data, .tolerance = 1e-6};
  PROBLEM_ADD(&p, TEST_ROW(clm_dropout_args, x, TEST_IN, TEST_STORAGE, NULL, 37, 53));
  PROBLEM_ADD(&p, TEST_ROW(clm_dropout_args, residual, TEST_IN, TEST_STORAGE, NULL, 37, 53));
  PROBLEM_ADD(&p, TEST_ROW(clm_dropout_args, out, TEST_OUT, TEST_STORAGE, NULL, 37, 53));
  problem_check_16bit(&p, device);
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

static test_problem column_problem(const sum_case *c, const clm_column_sum_args *args) {
  test_problem p = {.op = &op_column_sum, .args = args, .seed = 85, .layout = c->layout, .tolerance = 1e-5};
  PROBLEM_ADD(&p, TEST_ROW(clm_column_sum_args, x, TEST_IN, TEST_STORAGE, NULL, c->rows, c->dim));
  PROBLEM_ADD(&p, TEST_ROW(clm_column_sum_args, out, TEST_OUT, TEST_PARAMETER, NULL, c->dim));
  return p;
}

static test_problem squares_problem(const sum_case *c, const clm_sum_squares_args *args) {
  test_problem p = {.op = &op_sum_squares, .args = args, .seed = 86, .layout = c->layout, .tolerance = 1e-6};
  PROBLEM_ADD(&p, TEST_ROW(clm_sum_squares_args, x, TEST_IN, TEST_STORAGE, NULL, c->rows * c->dim));
  PROBLEM_ADD(&p, TEST_ROW(clm_sum_squares_args, out, TEST_OUT, TEST_PARAMETER, NULL, 1));
  return p;
}

/* Of several vectors, one call after the other: the first overwrites, the others add. */
static void test_accumulated_squares(const test_device *device, const void *data) {
  (void)data;
  enum { PARTS = 3, COUNT = 1000 };
  static const clm_dtype dtypes[PARTS] = {CLM_F32, CLM_BF16, CLM_F16};
  static float x[COUNT];
  static uint16_t narrow[COUNT];
  clm_buffer *buffer;
  double want = 0;
  float got = NAN;
  test_random r = random_seeded(4, "squares");
  assert_int_equal(clm_buffer_create(device->context, sizeof x + sizeof got, &buffer), CLM_OK);
  const clm_tensor out = clm_tensor_of(buffer, sizeof x, CLM_F32, 1, (int64_t[]){1});
  assert_int_equal(clm_tensor_write(out, &got, sizeof got), CLM_OK);
  for (int part = 0; part < PARTS; part++) {
    const clm_tensor t = clm_tensor_of(buffer, 0, dtypes[part], 1, (int64_t[]){COUNT});
    for (int i = 0; i < COUNT; i++) x[i] = (float)random_normal(&r);
    if (part) {
      assert_int_equal(clm_convert(dtypes[part], narrow, CLM_F32, x, COUNT), CLM_OK);
      assert_int_equal(clm_convert(CLM_F32, x, dtypes[part], narrow, COUNT), CLM_OK);
    }
    for (int i = 0; i < COUNT; i++) want += (double)x[i] * (double)x[i];
    assert_int_equal(clm_tensor_write(t, part ? (void *)narrow : x, part ? sizeof narrow : sizeof x), CLM_OK);
    const clm_sum_squares_args args = {.x = t, .out = out, .accumulate = part > 0};
    assert_int_equal(clm_sum_squares(device->context, &args), CLM_OK);
  }
  assert_int_equal(clm_tensor_read(out, &got, sizeof got), CLM_OK);
  if (!(fabs((double)got - want) <= 1e-6 * want)) fail_msg("%.9g, expected %.9g", (double)got, want);
  clm_buffer_destroy(&buffer);
}

static void test_sums(const test_device *device, const void *data) {
  const clm_column_sum_args columns = {0};
  const clm_sum_squares_args squares = {0};
  const test_problem p = column_problem(data, &columns), q = squares_problem(data, &squares);
  problem_check(&p, device);
  problem_check(&q, device);
}

static void test_sums_16bit(const test_device *device, const void *data) {
  const clm_column_sum_args columns = {0};
  const clm_sum_squares_args squares = {0};
  const test_problem p = column_problem(data, &columns), q = squares_problem(data, &squares);
  problem_check_16bit(&p, device);
  problem_check_16bit(&q, device);
}

static void add(void) {
  static const test_layout layouts[] = {TEST_CONTIGUOUS, TEST_PADDED, TEST_TRANSPOSED, TEST_SPREAD};
  for (size_t d = 0; d < test_device_count; d++) {
    const test_device *device = &test_devices[d];
    for (size_t i = 0; i < AXPBY_CASES; i++) {
      test_add(device, test_axpby, &axpby_cases[i], "axpby: %s", axpby_cases[i].why);
      if (!device->slow || i == 3)
        test_add(device, test_axpby_16bit, &axpby_cases[i], "axpby in 16 bits: %s", axpby_cases[i].why);
    }
    test_add(device, test_transposing_copy, NULL, "axpby: transposing copy");
    test_add(device, test_cast, NULL, "cast: every dtype to every other");
    for (int i = 0; i < 4; i++) {
      test_add(device, test_dropout, &layouts[i], "dropout: layout %d", layouts[i]);
      if (!device->slow || i == 2)
        test_add(device, test_dropout_16bit, &layouts[i], "dropout in 16 bits: layout %d", layouts[i]);
    }
    test_add(device, test_dropout_mask, NULL, "dropout: shares");
    test_add(device, test_accumulated_squares, NULL, "sum_squares: accumulated");
    for (size_t i = 0; i < SUM_CASES; i++) {
      test_add(device, test_sums, &sum_cases[i], "sums: %s", sum_cases[i].why);
      if (!device->slow || i == 3)
        test_add(device, test_sums_16bit, &sum_cases[i], "sums of 16 bits: %s", sum_cases[i].why);
    }
  }
}

int main(void) { return test_main("elementwise", add); }

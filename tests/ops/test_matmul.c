/* Matrix product with its epilogues. */
#include "problem.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

TEST_OP(matmul);

enum {
  A_TRANSPOSED = 1,
  B_TRANSPOSED = 2,
  OUT_TRANSPOSED = 4,
  BIAS = 8,
  RESIDUAL = 16,
  SILU = 32,
  SOFTPLUS = 64,
  SCALE = 128,
  ACCUMULATE = 256,
  LARGE = 512,
  GPU = 1024 /* large enough for the library that a GPU's products go to */
};

typedef struct matmul_case {
  int64_t m, n, k;
  unsigned flags;
  test_layout layout;
  const char *why;
} matmul_case;

static const matmul_case cases[] = {
    /* m n k flags layout why it is here */
    {1, 1, 1, 0, TEST_CONTIGUOUS, "smallest"},
    {1, 7, 5, BIAS, TEST_CONTIGUOUS, "one row: a step of generation"},
    {7, 1, 5, RESIDUAL, TEST_CONTIGUOUS, "one column"},
    {5, 3, 1, SCALE, TEST_CONTIGUOUS, "an outer product"},
    {16, 16, 16, 0, TEST_CONTIGUOUS, "whole tiles"},
    {33, 65, 17, BIAS | SILU, TEST_CONTIGUOUS, "one past a tile"},
    {33, 65, 17, A_TRANSPOSED | BIAS | SOFTPLUS, TEST_CONTIGUOUS, "a transposed"},
    {33, 65, 17, B_TRANSPOSED | BIAS | RESIDUAL | SCALE, TEST_CONTIGUOUS, "b transposed: a linear layer"},
    {33, 65, 17, A_TRANSPOSED | B_TRANSPOSED, TEST_CONTIGUOUS, "both transposed"},
    {33, 65, 17, OUT_TRANSPOSED | BIAS | SILU | RESIDUAL, TEST_CONTIGUOUS, "out transposed"},
    {33, 20, 70, OUT_TRANSPOSED | A_TRANSPOSED | B_TRANSPOSED | ACCUMULATE, TEST_CONTIGUOUS, "all transposed"},
    {20, 30, 131, ACCUMULATE, TEST_CONTIGUOUS, "accumulate"},
    {20, 30, 131, ACCUMULATE | SCALE | A_TRANSPOSED, TEST_CONTIGUOUS, "accumulate with a scale: a weight's gradient"},
    {40, 48, 24, BIAS | SOFTPLUS | SCALE | RESIDUAL, TEST_PADDED, "padded rows"},
    {40, 48, 24, B_TRANSPOSED | BIAS, TEST_WIDE, "slices of wider matrices"},
    {13, 11, 9, BIAS | RESIDUAL, TEST_SPREAD, "no dimension of stride 1"},
    {13, 11, 9, B_TRANSPOSED | ACCUMULATE, TEST_SPREAD, "no dimension of stride 1, accumulate"},
    {70, 37, 300, B_TRANSPOSED | BIAS | SILU, TEST_CONTIGUOUS, "a long sum"},
    {130, 129, 257, B_TRANSPOSED, TEST_CONTIGUOUS, "past every tile"},
    {300, 200, 150, A_TRANSPOSED | LARGE, TEST_CONTIGUOUS, "larger"},
    {1100, 1000, 460, B_TRANSPOSED | GPU, TEST_CONTIGUOUS, "a GPU's: a linear layer"},
    {1100, 1000, 460, BIAS | SILU | RESIDUAL | SCALE | GPU, TEST_CONTIGUOUS, "a GPU's: every epilogue"},
    {1100, 1000, 460, A_TRANSPOSED | ACCUMULATE | SCALE | GPU, TEST_PADDED, "a GPU's: a weight's gradient"},
    {127, 1000, 7, BIAS, TEST_CONTIGUOUS, "tiles of an engine: a panel that is not full"},
    {129, 129, 129, B_TRANSPOSED | RESIDUAL | SCALE, TEST_CONTIGUOUS, "tiles of an engine: one past each"},
    {136, 264, 1031, A_TRANSPOSED | BIAS | SOFTPLUS, TEST_CONTIGUOUS, "tiles of an engine: k in parts"},
    {136, 264, 1031, OUT_TRANSPOSED | BIAS | RESIDUAL, TEST_PADDED, "an engine: out by columns"},
    {133, 130, 260, 0, TEST_CONTIGUOUS, "matmul's hard numbers"},
    {1, 1, 37, B_TRANSPOSED, TEST_CONTIGUOUS, "a step: one output"},
    {1, 1031, 331, B_TRANSPOSED | BIAS | SILU, TEST_CONTIGUOUS, "a step: several tasks"},
    {2, 67, 131, B_TRANSPOSED | BIAS | RESIDUAL | SCALE, TEST_CONTIGUOUS, "a step of two"},
    {3, 13, 1, B_TRANSPOSED | SCALE, TEST_CONTIGUOUS, "a step of three: short sums"},
    {4, 61, 97, B_TRANSPOSED | RESIDUAL, TEST_PADDED, "a step of four: padded rows"},
    {5, 17, 259, B_TRANSPOSED | ACCUMULATE, TEST_CONTIGUOUS, "a step of five: accumulate"},
    {6, 29, 515, A_TRANSPOSED | B_TRANSPOSED | OUT_TRANSPOSED, TEST_CONTIGUOUS,
     "a step of six: a and out by columns"},
    {7, 131, 64, B_TRANSPOSED | BIAS | SOFTPLUS | RESIDUAL, TEST_WIDE, "a step of seven: slices of wider matrices"},
    {8, 33, 200, B_TRANSPOSED | BIAS, TEST_CONTIGUOUS, "a step of eight"},
    {9, 33, 200, B_TRANSPOSED | BIAS, TEST_CONTIGUOUS, "a step of nine: no longer few rows"},
    {64, 49, 550, B_TRANSPOSED | BIAS | RESIDUAL, TEST_CONTIGUOUS, "few rows on an engine: turns along k and a rest"},
    {17, 33, 512, B_TRANSPOSED | ACCUMULATE, TEST_WIDE, "few rows on an engine: whole turns, slices"},
    {2, 15, 31, B_TRANSPOSED | SILU | SCALE, TEST_CONTIGUOUS, "few rows on an engine: less than a turn"},
};
#define CASES (sizeof cases / sizeof cases[0])

static test_problem problem_of(const matmul_case *c, const clm_matmul_args *args) {
  test_problem p = {.op = &op_matmul, .args = args, .seed = 71, .layout = c->layout, .tolerance = 3e-6};
  PROBLEM_ADD(&p, TEST_ROW(clm_matmul_args, a, TEST_IN, TEST_STORAGE, NULL, c->m, c->k));
  PROBLEM_ADD(&p, TEST_ROW(clm_matmul_args, b, TEST_IN, TEST_STORAGE, NULL, c->k, c->n));
  if (c->flags & BIAS) PROBLEM_ADD(&p, TEST_ROW(clm_matmul_args, bias, TEST_IN, TEST_PARAMETER, NULL, c->n));
  if (c->flags & RESIDUAL)
    PROBLEM_ADD(&p, TEST_ROW(clm_matmul_args, residual, TEST_IN, TEST_STORAGE, NULL, c->m, c->n));
  PROBLEM_ADD(&p, TEST_ROW(clm_matmul_args, out, c->flags & ACCUMULATE ? TEST_INOUT : TEST_OUT, TEST_STORAGE, NULL,
                           c->m, c->n));
  static const struct {
    unsigned flag;
    const char *name;
  } transposed[] = {{A_TRANSPOSED, "a"}, {B_TRANSPOSED, "b"}, {OUT_TRANSPOSED, "out"}, {OUT_TRANSPOSED, "residual"}};
  for (size_t i = 0; i < sizeof transposed / sizeof transposed[0]; i++)
    if (c->flags & transposed[i].flag && problem_find(&p, transposed[i].name))
      problem_find(&p, transposed[i].name)->transposed = true;
  return p;
}

static clm_matmul_args args_of(const matmul_case *c) {
  return (clm_matmul_args){
      .scale = c->flags & SCALE ? 0.37f : 0,
      .activation = c->flags & SILU       ? CLM_ACTIVATION_SILU
                    : c->flags & SOFTPLUS ? CLM_ACTIVATION_SOFTPLUS
                                          : CLM_ACTIVATION_NONE,
      .accumulate = c->flags & ACCUMULATE,
  };
}

static void test_product(const test_device *device, const void *data) {
  const clm_matmul_args args = args_of(data);
  const test_problem p = problem_of(data, &args);
  problem_check(&p, device);
}

/* f16 and bf16 in a, b and out alike, with f32 weights, with an f32 result, and f32 times 16 bits. */
static void test_16bit(const test_device *device, const void *data) {
  static const struct {
    test_kind a, b, out;
  } mixes[] = {{TEST_STORAGE, TEST_STORAGE, TEST_STORAGE},
               {TEST_STORAGE, TEST_PARAMETER, TEST_STORAGE},
               {TEST_STORAGE, TEST_STORAGE, TEST_PARAMETER},
               {TEST_PARAMETER, TEST_STORAGE, TEST_STORAGE}};
  const clm_matmul_args args = args_of(data);
  for (size_t i = 0; i < (device->slow ? 1 : TEST_COUNT(mixes)); i++) {
    test_problem p = problem_of(data, &args);
    problem_find(&p, "a")->kind = mixes[i].a;
    problem_find(&p, "b")->kind = mixes[i].b;
    problem_find(&p, "out")->kind = mixes[i].out;
    if (problem_find(&p, "residual")) problem_find(&p, "residual")->kind = mixes[i].out;
    p.tolerance = 5e-6; /* the own kernels add up in one long chain */
    problem_check_16bit(&p, device);
  }
}

/* b in i8 with a scale for each column, next to f32 and 16-bit operands. */
static void test_integers(const test_device *device, const void *data) {
  const matmul_case *c = data;
  const clm_matmul_args args = args_of(c);
  test_problem p = problem_of(c, &args);
  problem_find(&p, "b")->kind = TEST_INTEGER;
  problem_find(&p, "b")->draw = draw_integer;
  PROBLEM_ADD(&p, TEST_ROW(clm_matmul_args, b_scale, TEST_IN, TEST_PARAMETER, draw_scale, c->n));
  p.tolerance = strcmp(device->id, "avx512vnni") == 0 && c->m <= 8 ? 3e-4 : 5e-6; /* few rows of a: 15 bits of each */
  problem_check(&p, device);
  if (!device->slow) problem_check_16bit(&p, device);
}

/* Weights that the backend may keep packed give the same bits, follow every write, and are let go. */
static void test_kept(const test_device *device, const void *data) {
  const matmul_case *c = data;
  const clm_matmul_args args = args_of(c);
  const test_problem p = problem_of(c, &args);
  test_run *plain = run_create(&p, device->context, false), *kept = run_create(&p, device->context, false);
  clm_buffer *weights = ((clm_matmul_args *)kept->args)->b.buffer;
  assert_int_equal(clm_buffer_keep_packed(weights, true), CLM_OK);
  double *b = run_read(plain, "b");
  for (int i = 0; i < 4; i++) {
    run_call(plain);
    run_call(kept);
    double *want = run_read(plain, "out"), *got = run_read(kept, "out");
    assert_memory_equal(got, want, run_values(plain, "out") * sizeof *want);
    free(want);
    free(got);
    if (i == 1) { /* as it was twice, then something else */
      for (int64_t e = 0; e < c->k * c->n; e++) b[e] = -2 * b[e];
      run_write(plain, "b", b);
      run_write(kept, "b", b);
    }
    if (i == 2) assert_int_equal(clm_buffer_keep_packed(weights, false), CLM_OK);
  }
  assert_int_equal(clm_buffer_keep_packed(NULL, true), CLM_INVALID_ARGUMENT);
  free(b);
  run_destroy(plain);
  run_destroy(kept);
}

/* f32 multiplied as something shorter: within the rounding of its operands, 2^-11 of each factor, in bf16 2^-8; next
 * to operands that are shorter, too. */
static void test_math(const test_device *device, const void *data) {
  static const struct {
    clm_math math;
    test_kind a;
    double tolerance;
  } maths[] = {{CLM_MATH_TF32, TEST_PARAMETER, 2e-3},
               {CLM_MATH_BF16, TEST_PARAMETER, 1.6e-2},
               {CLM_MATH_BF16, TEST_BF16, 1.6e-2},
               {CLM_MATH_F16, TEST_PARAMETER, 2e-3},
               {CLM_MATH_F16, TEST_F16, 2e-3}};
  for (size_t i = 0; i < TEST_COUNT(maths) - (device->slow ? 2 : 0); i++) {
    clm_matmul_args args = args_of(data);
    args.math = maths[i].math;
    test_problem p = problem_of(data, &args);
    problem_find(&p, "a")->kind = maths[i].a;
    p.tolerance = maths[i].tolerance;
    problem_check(&p, device);
  }
}

static double *product_as(test_run *run, clm_math math) {
  ((clm_matmul_args *)run->args)->math = math;
  run_call(run);
  return run_read(run, "out");
}

/* Packed weights that are multiplied in several ways are kept for each of them. */
static void test_kept_math(const test_device *device, const void *data) {
  static const clm_math maths[] = {CLM_MATH_F32, CLM_MATH_BF16, CLM_MATH_F32, CLM_MATH_F16, CLM_MATH_BF16};
  const clm_matmul_args args = args_of(data);
  const test_problem p = problem_of(data, &args);
  test_run *plain = run_create(&p, device->context, false), *kept = run_create(&p, device->context, false);
  assert_int_equal(clm_buffer_keep_packed(((clm_matmul_args *)kept->args)->b.buffer, true), CLM_OK);
  for (size_t i = 0; i < TEST_COUNT(maths); i++) {
    double *want = product_as(plain, maths[i]), *got = product_as(kept, maths[i]);
    assert_memory_equal(got, want, run_values(plain, "out") * sizeof *want);
    free(want);
    free(got);
  }
  run_destroy(plain);
  run_destroy(kept);
}

/* What makes f32 hard for an engine of 16-bit numbers: columns of b from 1e-30 to 1e30, rows of a to match, and sums
 * that cancel to the last bits. Errors against double of at most twice those of a chain of fused multiply-adds. */
static void test_hard(const test_device *device, const void *data) {
  const matmul_case *c = data;
  const clm_matmul_args args = args_of(c);
  const test_problem p = problem_of(c, &args);
  test_run *run = run_create(&p, device->context, false);
  double *a = run_read(run, "a"), *b = run_read(run, "b");
  for (int64_t k = 0; k < c->k; k++)
    for (int64_t j = 0; j < c->n; j++) b[k * c->n + j] *= pow(10, (double)(j % 61) - 30);
  for (int64_t i = 0; i < c->m; i++)
    for (int64_t k = c->k / 2; k < c->k; k++) { /* the second half takes the first away, in whatever order */
      const int64_t first = k - c->k / 2;
      a[i * c->k + k] = (double)(float)(-a[i * c->k + first] * (1 + 1e-6));
      for (int64_t j = 0; i == 0 && j < c->n; j++) b[k * c->n + j] = b[first * c->n + j];
    }
  run_write(run, "a", a);
  run_write(run, "b", b);
  free(a);
  free(b);
  a = run_read(run, "a"); /* as they are stored */
  b = run_read(run, "b");
  run_call(run);
  double *out = run_read(run, "out"), worst = 0, chain_worst = 0;
  for (int64_t i = 0; i < c->m; i++)
    for (int64_t j = 0; j < c->n; j++) {
      double want = 0, size = 0;
      float chain = 0;
      for (int64_t k = 0; k < c->k; k++) {
        want = fma(a[i * c->k + k], b[k * c->n + j], want);
        size += fabs(a[i * c->k + k] * b[k * c->n + j]);
        chain = fmaf((float)a[i * c->k + k], (float)b[k * c->n + j], chain);
      }
      worst = fmax(worst, fabs(out[i * c->n + j] - want) / size);
      chain_worst = fmax(chain_worst, fabs((double)chain - want) / size);
    }
  if (!(worst <= 2 * chain_worst + 0x1p-26)) fail_msg("error %g, of a chain %g", worst, chain_worst);
  free(a);
  free(b);
  free(out);
  run_destroy(run);
}

/* The residual may be out. */
static void test_residual_in_place(const test_device *device, const void *data) {
  const clm_matmul_args args = args_of(data);
  const test_problem p = problem_of(data, &args);
  test_run *apart = run_create(&p, device->context, false), *in_place = run_create(&p, device->context, false);
  run_call(apart);
  clm_matmul_args *a = in_place->args;
  a->out = a->residual;
  run_call(in_place);
  double *want = run_read(apart, "out"), *got = run_read(in_place, "residual");
  assert_memory_equal(got, want, run_values(apart, "out") * sizeof *want);
  free(want);
  free(got);
  run_destroy(apart);
  run_destroy(in_place);
}

/* 0 times not a number would be one: what out held must not be read unless accumulate is set (the poison), and a NaN
 * in one row of a stays in one row of out. */
static void test_nan_contained(const test_device *device, const void *data) {
  const matmul_case *c = data;
  const clm_matmul_args args = args_of(c);
  const test_problem p = problem_of(c, &args);
  test_run *run = run_create(&p, device->context, false);
  double *a = run_read(run, "a");
  a[2 * c->k + 1] = (double)NAN;
  run_write(run, "a", a);
  run_call(run);
  double *out = run_read(run, "out");
  for (int64_t i = 0; i < c->m * c->n; i++)
    if ((i / c->n == 2) != (isnan(out[i]) != 0))
      fail_msg("out[%lld][%lld] is %g", (long long)(i / c->n), (long long)(i % c->n), out[i]);
  free(a);
  free(out);
  run_destroy(run);
}

/* An engine that a test run asks for is used: without this, its tests would pass on what it falls back to. */
static void test_emulated(const test_device *device, const void *data) {
  const clm_matmul_args args = args_of(data);
  const test_problem p = problem_of(data, &args);
  problem_check(&p, device);
  char wanted[64];
  snprintf(wanted, sizeof wanted, "matmul: opencl, %s (", getenv("CLM_OPENCL_EMULATE"));
  if (!strstr(clm_context_explain(device->context), wanted)) fail_msg("%s", clm_context_explain(device->context));
}

/* The same of few rows in 16 bits, which the engine takes from memory. */
static void test_few_emulated(const test_device *device, const void *data) {
  const clm_matmul_args args = args_of(data);
  test_problem p = problem_of(data, &args);
  p.storage = CLM_BF16;
  test_run *run = run_create(&p, device->context, false);
  run_call(run);
  const char *explained = clm_context_explain(device->context);
  if (!strstr(explained, "matmul: opencl, mma (bf16) without panels")) fail_msg("%s", explained);
  run_destroy(run);
}

static const matmul_case *find_case(const char *why) {
  for (size_t i = 0; i < CASES; i++)
    if (strcmp(cases[i].why, why) == 0) return &cases[i];
  return NULL;
}

static void add(void) {
  for (size_t d = 0; d < test_device_count; d++) {
    const test_device *device = &test_devices[d];
    if (device->opencl && getenv("CLM_OPENCL_EMULATE"))
      test_add(device, test_emulated, find_case("whole tiles"), "matmul: the engine that is asked for");
    if (device->opencl && getenv("CLM_OPENCL_EMULATE") && strcmp(getenv("CLM_OPENCL_EMULATE"), "mma") == 0)
      test_add(device, test_few_emulated, find_case("few rows on an engine: less than a turn"),
               "matmul: few rows from memory");
    for (size_t i = 0; i < CASES; i++) {
      const matmul_case *c = &cases[i];
      if ((c->flags & LARGE && device->slow) || (c->flags & GPU && (!device->opencl || device->slow))) continue;
      test_add(device, test_product, c, "matmul: %s", c->why);
      const bool few = strncmp(c->why, "few rows on an engine", 21) == 0;
      if (!device->slow || i == 7 || i == 15 || c->m == 1 || few)
        test_add(device, test_integers, c, "matmul by i8: %s", c->why);
      if (!device->slow || i == 7 || few) test_add(device, test_16bit, c, "matmul in 16 bits: %s", c->why);
    }
    test_add(device, test_residual_in_place, &cases[7], "matmul: residual in place");
    test_add(device, test_residual_in_place, &cases[9], "matmul: transposed residual in place");
    if (device->opencl && !device->slow)
      test_add(device, test_residual_in_place, &cases[21], "matmul: a GPU's, residual in place");
    for (size_t i = 0; i < CASES; i++)
      if (strncmp(cases[i].why, "tiles of an engine", 18) == 0) {
        test_add(device, test_kept, &cases[i], "matmul: weights kept, %s", cases[i].why);
        test_add(device, test_kept_math, &cases[i], "matmul: weights kept in several forms, %s", cases[i].why);
        test_add(device, test_math, &cases[i], "matmul: f32 as tf32, bf16 and f16, %s", cases[i].why);
      }
    test_add(device, test_hard, find_case("matmul's hard numbers"), "matmul: mixed magnitudes and cancellation");
    test_add(device, test_nan_contained, &cases[5], "matmul: not a number stays in its row");
    test_add(device, test_nan_contained, &cases[17], "matmul: not a number stays in its row, long sum");
  }
}

int main(void) { return test_main("matmul", add); }

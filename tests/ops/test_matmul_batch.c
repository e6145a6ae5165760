/* Batches of matrix products: against the reference, and against sums in double. */
#include "problem.h"
#include <math.h>
#include <stdlib.h>

TEST_OP(matmul);

enum { A_SHARED = 1, B_SHARED = 2, B_TRANSPOSED = 4, BIAS = 8, RESIDUAL = 16, ACCUMULATE = 32, GPU = 64 };

typedef struct batch_case {
  int64_t batch, m, n, k;
  unsigned flags;
  test_layout layout;
  const char *why;
} batch_case;

static const batch_case cases[] = {
    /* batch m n k flags layout why it is here */
    {1, 5, 7, 3, 0, TEST_CONTIGUOUS, "a batch of one"},
    {3, 5, 7, 11, 0, TEST_CONTIGUOUS, "each its own operands"},
    {3, 5, 7, 11, B_SHARED, TEST_CONTIGUOUS, "b shared: one product of all rows"},
    {3, 5, 7, 11, B_SHARED | BIAS | RESIDUAL, TEST_PADDED, "b shared, rows that do not follow each other"},
    {3, 5, 7, 11, A_SHARED | BIAS, TEST_CONTIGUOUS, "a shared"},
    {2, 1, 33, 40, B_TRANSPOSED | BIAS | RESIDUAL, TEST_CONTIGUOUS, "one row each"},
    {4, 17, 35, 65, B_TRANSPOSED | ACCUMULATE, TEST_CONTIGUOUS, "accumulate"},
    {4, 17, 35, 65, RESIDUAL, TEST_TRANSPOSED, "columns next to each other"},
    {4, 17, 35, 65, 0, TEST_REPEATED, "stride 0 over the batch"},
    {5, 13, 9, 20, BIAS, TEST_SPREAD, "no dimension of stride 1"},
    {3, 260, 264, 200, B_TRANSPOSED | BIAS | RESIDUAL | GPU, TEST_CONTIGUOUS, "large enough for an engine"},
    {3, 257, 130, 331, GPU, TEST_PADDED, "large enough for an engine: padded"},
    {2, 300, 200, 600, A_SHARED | ACCUMULATE | GPU, TEST_CONTIGUOUS,
     "large enough for an engine: a shared, k in parts"},
};
#define CASES (sizeof cases / sizeof cases[0])

static test_problem problem_of(const batch_case *c, const clm_matmul_args *args) {
  test_problem p = {.op = &op_matmul, .args = args, .seed = 83, .layout = c->layout, .tolerance = 3e-6};
  if (c->flags & A_SHARED) PROBLEM_ADD(&p, TEST_ROW(clm_matmul_args, a, TEST_IN, TEST_STORAGE, NULL, c->m, c->k));
  else PROBLEM_ADD(&p, TEST_ROW(clm_matmul_args, a, TEST_IN, TEST_STORAGE, NULL, c->batch, c->m, c->k));
  if (c->flags & B_SHARED) PROBLEM_ADD(&p, TEST_ROW(clm_matmul_args, b, TEST_IN, TEST_STORAGE, NULL, c->k, c->n));
  else PROBLEM_ADD(&p, TEST_ROW(clm_matmul_args, b, TEST_IN, TEST_STORAGE, NULL, c->batch, c->k, c->n));
  if (c->flags & BIAS) PROBLEM_ADD(&p, TEST_ROW(clm_matmul_args, bias, TEST_IN, TEST_PARAMETER, NULL, c->n));
  if (c->flags & RESIDUAL)
    PROBLEM_ADD(&p, TEST_ROW(clm_matmul_args, residual, TEST_IN, TEST_STORAGE, NULL, c->batch, c->m, c->n));
  PROBLEM_ADD(&p, TEST_ROW(clm_matmul_args, out, c->flags & ACCUMULATE ? TEST_INOUT : TEST_OUT, TEST_STORAGE, NULL,
                           c->batch, c->m, c->n));
  problem_find(&p, "b")->transposed = c->flags & B_TRANSPOSED;
  return p;
}

static clm_matmul_args args_of(const batch_case *c) { return (clm_matmul_args){.accumulate = c->flags & ACCUMULATE}; }

static void test_batch(const test_device *device, const void *data) {
  const clm_matmul_args args = args_of(data);
  const test_problem p = problem_of(data, &args);
  problem_check(&p, device);
  if (!device->slow) problem_check_16bit(&p, device);
}

/* The reference takes a batch apart by the same code as all others; here the sums are made from the indices. */
static void test_sums(const test_device *device, const void *data) {
  const batch_case *c = data;
  const clm_matmul_args args = args_of(c);
  const test_problem p = problem_of(c, &args);
  test_run *run = run_create(&p, device->context, false);
  double *a = run_read(run, "a"), *b = run_read(run, "b"), *old = run_read(run, "out");
  double *bias = c->flags & BIAS ? run_read(run, "bias") : NULL;
  double *residual = c->flags & RESIDUAL ? run_read(run, "residual") : NULL;
  run_call(run);
  double *out = run_read(run, "out");
  for (int64_t e = 0; e < c->batch * c->m * c->n; e++) {
    const int64_t product = e / (c->m * c->n), i = e / c->n % c->m, j = e % c->n;
    const double *row = a + (c->flags & A_SHARED ? i : product * c->m + i) * c->k;
    const double *column = b + (c->flags & B_SHARED ? 0 : product * c->k * c->n) + j;
    double want = (bias ? bias[j] : 0) + (residual ? residual[e] : 0) + (c->flags & ACCUMULATE ? old[e] : 0),
           size = 1;
    for (int64_t k = 0; k < c->k; k++) {
      want += row[k] * column[k * c->n];
      size += fabs(row[k] * column[k * c->n]);
    }
    if (!(fabs(out[e] - want) <= 3e-6 * size))
      fail_msg("product %lld, (%lld, %lld): got %g, want %g", (long long)product, (long long)i, (long long)j, out[e],
               want);
  }
  free(a);
  free(b);
  free(old);
  free(bias);
  free(residual);
  free(out);
  run_destroy(run);
}

/* Ranks that do not belong together. */
static void test_ranks(const test_device *device, const void *data) {
  (void)data;
  static const batch_case c = {2, 3, 4, 5, 0, TEST_CONTIGUOUS, ""};
  const clm_matmul_args none = {0};
  const test_problem p = problem_of(&c, &none);
  test_run *run = run_create(&p, device->context, false);
  const clm_matmul_args whole = *(clm_matmul_args *)run->args;
  const struct {
    int a, b, out; /* ranks */
    const char *message;
  } wrong[] = {{3, 3, 2, "matmul: out has rank 2, expected 3 as a"},
               {2, 3, 2, "matmul: out has rank 2, expected 3 as b"},
               {2, 2, 3, "matmul: out has rank 3, expected 2 as a"},
               {1, 3, 3, "matmul: a has rank 1, expected (m, k) or (batch, m, k)"}};
  for (size_t i = 0; i < TEST_COUNT(wrong); i++) {
    clm_matmul_args args = whole;
    const int ranks[] = {wrong[i].a, wrong[i].b, wrong[i].out};
    clm_tensor *tensors[] = {&args.a, &args.b, &args.out};
    for (int t = 0; t < 3; t++)
      *tensors[t] = clm_tensor_of(tensors[t]->buffer, tensors[t]->offset, tensors[t]->dtype, ranks[t],
                                  tensors[t]->shape + 3 - ranks[t]);
    assert_int_equal(clm_matmul(device->context, &args), CLM_INVALID_ARGUMENT);
    assert_string_equal(clm_context_error(device->context), wrong[i].message);
  }
  run_check_unwritten(run);
  run_destroy(run);
}

static void add(void) {
  for (size_t d = 0; d < test_device_count; d++) {
    const test_device *device = &test_devices[d];
    test_add(device, test_ranks, NULL, "matmul: ranks that do not fit");
    for (size_t i = 0; i < CASES; i++) {
      if (cases[i].flags & GPU && (!device->opencl || device->slow)) continue;
      test_add(device, test_batch, &cases[i], "matmul, batch: %s", cases[i].why);
      test_add(device, test_sums, &cases[i], "matmul, sums of a batch: %s", cases[i].why);
    }
  }
}

int main(void) { return test_main("matmul_batch", add); }

/* Products by CLBlast, which other tests' sizes never reach: every layout and epilogue, against double. */
#include "backend/opencl/matmul.h"
#include "problem.h"
#include <stdio.h>
#include <string.h>

enum { M = 37, N = 29, K = 53, PADDED = 60 };

typedef struct clblast_case {
  bool a_transposed, b_transposed, out_transposed, bias, accumulate;
  enum { NO_RESIDUAL, RESIDUAL, RESIDUAL_IS_OUT } residual;
  clm_activation activation;
  float scale;
} clblast_case;

static const clblast_case cases[] = {
    {0, 0, 0, 0, 0, NO_RESIDUAL, CLM_ACTIVATION_NONE, 0},
    {1, 0, 0, 0, 0, NO_RESIDUAL, CLM_ACTIVATION_NONE, 2},
    {0, 1, 0, 1, 0, NO_RESIDUAL, CLM_ACTIVATION_NONE, 0},
    {1, 1, 0, 0, 1, NO_RESIDUAL, CLM_ACTIVATION_NONE, 0.5f},
    {0, 0, 1, 0, 0, RESIDUAL, CLM_ACTIVATION_NONE, 0},
    {1, 0, 1, 1, 0, RESIDUAL_IS_OUT, CLM_ACTIVATION_NONE, 3},
    {0, 1, 1, 1, 0, RESIDUAL, CLM_ACTIVATION_SOFTPLUS, 0.25f},
    {1, 1, 1, 0, 0, RESIDUAL_IS_OUT, CLM_ACTIVATION_SILU, 0.25f},
    {0, 1, 0, 1, 0, RESIDUAL_IS_OUT, CLM_ACTIVATION_SOFTPLUS, 1},
};

/* A matrix with padded lines that does not begin at its buffer's start, filled at random. */
static clm_tensor matrix(clm_context *context, int64_t rows, int64_t columns, bool transposed, float *values,
                         test_random *random, clm_buffer **buffer) {
  enum { FLOATS = 3 + PADDED * PADDED };
  assert_int_equal(clm_buffer_create(context, FLOATS * sizeof(float), buffer), CLM_OK);
  for (int i = 0; i < FLOATS; i++) values[i] = (float)random_normal(random);
  assert_int_equal(clm_buffer_write(*buffer, 0, FLOATS * sizeof(float), values), CLM_OK);
  clm_tensor t = clm_tensor_of(*buffer, 3 * sizeof(float), CLM_F32, 2, (const int64_t[]){rows, columns});
  t.stride[0] = transposed ? 1 : PADDED;
  t.stride[1] = transposed ? PADDED : 1;
  return t;
}

static double at(const float *values, const clm_tensor *t, int64_t i, int64_t j) {
  return (double)values[3 + i * t->stride[0] + j * t->stride[1]];
}

static double activate(double x, clm_activation activation) {
  if (activation == CLM_ACTIVATION_SILU) return x / (1 + exp(-x));
  if (activation == CLM_ACTIVATION_SOFTPLUS) return x <= 20 ? log1p(exp(x)) : x;
  return x;
}

static void test_case(const test_device *device, const void *data) {
  const clblast_case *c = data;
  static float values[5][3 + PADDED * PADDED], got[3 + PADDED * PADDED];
  clm_buffer *buffers[5];
  test_random random = random_seeded(5, "clblast");
  clm_context *context = device->context;
  clm_matmul_args args = {.activation = c->activation, .scale = c->scale, .accumulate = c->accumulate};
  args.a = matrix(context, M, K, c->a_transposed, values[0], &random, &buffers[0]);
  args.b = matrix(context, K, N, c->b_transposed, values[1], &random, &buffers[1]);
  args.out = matrix(context, M, N, c->out_transposed, values[2], &random, &buffers[2]);
  clm_tensor residual = matrix(context, M, N, false, values[3], &random, &buffers[3]);
  clm_tensor bias = matrix(context, 1, N, false, values[4], &random, &buffers[4]);
  if (c->bias) args.bias = clm_tensor_of(buffers[4], bias.offset, CLM_F32, 1, (const int64_t[]){N});
  if (c->residual == RESIDUAL) args.residual = residual;
  if (c->residual == RESIDUAL_IS_OUT) args.residual = args.out;
  const matmul_shape shape = {.m = M, .n = N, .k = K, .batch = 1};
  clm_status status = opencl_matmul_clblast(context, &shape, &args);
  if (status) fail_msg("%s", clm_context_error(context));
  assert_int_equal(clm_buffer_read(buffers[2], 0, sizeof got, got), CLM_OK);

  double scale = c->scale == 0 ? 1 : (double)c->scale;
  for (int i = 0; i < M; i++)
    for (int j = 0; j < N; j++) {
      double sum = 0, before = at(values[2], &args.out, i, j);
      for (int k = 0; k < K; k++) sum += at(values[0], &args.a, i, k) * at(values[1], &args.b, k, j);
      double want = activate(scale * sum + (c->bias ? (double)values[4][3 + j] : 0), c->activation);
      if (c->accumulate || c->residual == RESIDUAL_IS_OUT) want += before;
      if (c->residual == RESIDUAL) want += at(values[3], &residual, i, j);
      double difference = fabs(at(got, &args.out, i, j) - want);
      if (!(difference <= 2e-5)) fail_msg("[%d, %d] is off by %g from %g", i, j, difference, want);
    }
  size_t written = 0;
  for (size_t i = 0; i < 3 + PADDED * PADDED; i++) written += memcmp(&got[i], &values[2][i], sizeof got[i]) != 0;
  assert_true(written <= (size_t)M * N);
  for (int i = 0; i < 5; i++) clm_buffer_destroy(&buffers[i]);
}

static void add(void) {
  for (size_t i = 0; i < test_device_count; i++) {
    if (!test_devices[i].opencl) continue;
    for (size_t k = 0; k < sizeof cases / sizeof cases[0]; k++)
      test_add(&test_devices[i], test_case, &cases[k], "case %zu", k);
  }
}

int main(void) { return test_main("clblast", add); }

/* Large matrix products by CLBlast, with the epilogue in a pass of our own after it where one is asked for.
 *
 * CLBlast up to 1.6.2 is wrong on some devices, so it is checked once per context against our own kernel before it is
 * trusted. Its compiled kernels live in a cache of the process, not of a context: the last context that used it
 * clears that cache, so that nothing of ours outlives it. */
#include "backend/opencl/matmul.h"
#include "backend/opencl/opencl.h"
#include "core/rng.h"
#include <clblast_c.h>
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>

#define MIN_PRODUCTS 5e8   /* below, launches and padding cost more than its kernel gains */
enum { LARGE_TILE = 128 }; /* about what a work-group of CLBlast's kernel makes */

static atomic_int users; /* contexts that CLBlast may keep programs for */

/* A matrix as BLAS sees it: one unit stride, the other the leading dimension. */
typedef struct blas_matrix {
  CLBlastTranspose transpose;
  size_t offset, ld;
} blas_matrix;

/* Whether memory runs along `inner`, with lines `outer` apart. */
static bool lines_fit(const clm_tensor *t, int inner, int outer, size_t *ld) {
  if (t->shape[inner] != 1 && t->stride[inner] != 1) return false;
  if (t->shape[outer] != 1 && t->stride[outer] < t->shape[inner]) return false;
  *ld = (size_t)(t->shape[outer] == 1 ? t->shape[inner] : t->stride[outer]);
  return true;
}

static bool as_blas(const clm_tensor *t, bool row_major, blas_matrix *b) {
  int inner = row_major ? 1 : 0;
  b->offset = t->offset / sizeof(float);
  b->transpose = CLBlastTransposeNo;
  if (lines_fit(t, inner, 1 - inner, &b->ld)) return true;
  b->transpose = CLBlastTransposeYes;
  return lines_fit(t, 1 - inner, inner, &b->ld);
}

/* The three matrices in the layout of out; false if one of them has no unit stride. */
static bool as_product(const clm_tensor *a, const clm_tensor *b, const clm_tensor *out, CLBlastLayout *layout,
                       blas_matrix m[3]) {
  size_t ld;
  bool row_major = lines_fit(out, 1, 0, &ld);
  if (!row_major && !lines_fit(out, 0, 1, &ld)) return false;
  *layout = row_major ? CLBlastLayoutRowMajor : CLBlastLayoutColMajor;
  return as_blas(a, row_major, &m[0]) && as_blas(b, row_major, &m[1]) && as_blas(out, row_major, &m[2]);
}

/* A block for CLBlast's padded copies, so that a repeated call allocates nothing. */
static clm_status temporary(clm_context *ctx, size_t bytes, cl_mem *memory) {
  opencl_state *s = opencl_state_of(ctx);
  *memory = NULL;
  if (bytes == 0) return CLM_OK;
  if (!s->sgemm_memory || clm_buffer_size(s->sgemm_memory) < bytes) {
    clm_buffer *larger;
    clm_status status = clm_buffer_create(ctx, bytes, &larger);
    if (status) return status;
    clm_buffer_destroy(&s->sgemm_memory);
    s->sgemm_memory = larger;
  }
  *memory = s->sgemm_memory->device;
  return CLM_OK;
}

/* out = alpha a b + beta out */
static clm_status sgemm(clm_context *ctx, const matmul_shape *s, const clm_tensor *a, const clm_tensor *b,
                        const clm_tensor *out, float alpha, float beta) {
  opencl_state *state = opencl_state_of(ctx);
  CLBlastLayout layout;
  blas_matrix x[3];
  if (!as_product(a, b, out, &layout, x))
    return context_fail(ctx, CLM_UNSUPPORTED, "matmul: strides that CLBlast lacks");
  if (!state->uses_clblast) {
    state->uses_clblast = true;
    atomic_fetch_add(&users, 1);
  }
  size_t m = (size_t)s->m, n = (size_t)s->n, k = (size_t)s->k, bytes = 0;
  CLBlastStatusCode code =
      CLBlastSGemmTempBufferSize(layout, x[0].transpose, x[1].transpose, m, n, k, x[0].offset, x[0].ld, x[1].offset,
                                 x[1].ld, x[2].offset, x[2].ld, &state->queue, &bytes);
  cl_mem memory;
  clm_status status = temporary(ctx, code == CLBlastSuccess ? bytes : 0, &memory);
  if (status || state->dry_run) return status;
  status = opencl_event_mark(ctx);
  if (status) return status;
  cl_event event = NULL;
  code = CLBlastSgemmWithTempBuffer(layout, x[0].transpose, x[1].transpose, m, n, k, alpha, a->buffer->device,
                                    x[0].offset, x[0].ld, b->buffer->device, x[1].offset, x[1].ld, beta,
                                    out->buffer->device, x[2].offset, x[2].ld, &state->queue,
                                    opencl_event_slot(state, &event), memory);
  if (code != CLBlastSuccess)
    return context_fail(ctx, CLM_DEVICE_ERROR, "matmul: CLBlast failed with status %d", (int)code);
  if (event) opencl_event_keep(state, event);
  return CLM_OK;
}

/* A product of odd sizes by CLBlast and by our own kernel, both operands transposed or neither. */
static bool check_product(clm_context *ctx, clm_buffer *buffers[4], float *host, bool transposed) {
  enum { M = 389, N = 407, K = 421 };
  const matmul_shape s = {.m = M, .n = N, .k = K, .batch = 1};
  clm_tensor a = clm_tensor_of(buffers[0], 0, CLM_F32, 2, (const int64_t[]){M, K});
  clm_tensor b = clm_tensor_of(buffers[1], 0, CLM_F32, 2, (const int64_t[]){K, N});
  if (transposed) {
    a = clm_tensor_transpose(clm_tensor_of(buffers[0], 0, CLM_F32, 2, (const int64_t[]){K, M}), 0, 1);
    b = clm_tensor_transpose(clm_tensor_of(buffers[1], 0, CLM_F32, 2, (const int64_t[]){N, K}), 0, 1);
  }
  clm_tensor got = clm_tensor_of(buffers[2], 0, CLM_F32, 2, (const int64_t[]){M, N});
  clm_tensor want = clm_tensor_of(buffers[3], 0, CLM_F32, 2, (const int64_t[]){M, N});
  const clm_matmul_args args = {.a = a, .b = b, .out = want};
  size_t bytes = sizeof(float) * M * N;
  float *first = host, *second = host + M * N;
  if (opencl_matmul_tiled(ctx, &s, &args) || sgemm(ctx, &s, &a, &b, &got, 1.0f, 0.0f) ||
      clm_buffer_read(buffers[2], 0, bytes, first) || clm_buffer_read(buffers[3], 0, bytes, second))
    return false;
  for (size_t i = 0; i < (size_t)M * N; i++) /* sums of 421 products of numbers below 1, rounded in another order */
    if (!(fabsf(first[i] - second[i]) <= 1e-3f)) return false;
  return true;
}

static bool self_check(clm_context *ctx) {
  enum { COUNT = 430 * 430 };
  clm_buffer *buffers[4] = {NULL};
  float *host = malloc(2 * COUNT * sizeof *host);
  bool right = host != NULL;
  rng random = rng_seed(1, 0);
  for (int i = 0; right && i < COUNT; i++) host[i] = (float)(2 * rng_uniform(&random) - 1);
  for (int i = 0; right && i < 4; i++) right = clm_buffer_create(ctx, COUNT * sizeof *host, &buffers[i]) == CLM_OK;
  for (int i = 0; right && i < 2; i++) right = clm_buffer_write(buffers[i], 0, COUNT * sizeof *host, host) == CLM_OK;
  for (int i = 0; right && i < 2; i++) right = check_product(ctx, buffers, host, i == 1);
  for (int i = 0; i < 4; i++) clm_buffer_destroy(&buffers[i]);
  free(host);
  if (!right)
    context_log(ctx, CLM_LOG_WARNING, "CLBlast gives wrong products on %s; clmamba uses its own kernel instead",
                opencl_state_of(ctx)->device.info.name);
  return right;
}

static bool worth_it(const clm_context *ctx, const matmul_shape *s) {
  const schedule_device *d = opencl_schedule_device(ctx);
  if (d->is_cpu || (double)s->m * (double)s->n * (double)s->k < MIN_PRODUCTS) return false;
  /* Too few results to fill the device: our own kernel cuts k instead. */
  return 2 * div_up(s->m, LARGE_TILE) * div_up(s->n, LARGE_TILE) >= d->compute_units;
}

bool opencl_clblast_fits(clm_context *ctx, const matmul_shape *s, const clm_matmul_args *a) {
  opencl_state *state = opencl_state_of(ctx);
  CLBlastLayout layout;
  blas_matrix x[3];
  if (a->a.dtype != CLM_F32 || a->b.dtype != CLM_F32 || a->out.dtype != CLM_F32) return false;
  if (!worth_it(ctx, s) || !as_product(&a->a, &a->b, &a->out, &layout, x)) return false;
  if (state->sgemm == 0) {
    /* The check runs, and is no part of what is being timed. */
    const bool open = state->profile_open, dry_run = state->dry_run;
    state->profile_open = state->dry_run = false;
    state->sgemm = self_check(ctx) ? 1 : -1;
    state->profile_open = open;
    state->dry_run = dry_run;
  }
  return state->sgemm > 0;
}

static bool is_out(const clm_matmul_args *a) {
  return a->residual.buffer == a->out.buffer && a->residual.offset == a->out.offset;
}

clm_status opencl_matmul_clblast(clm_context *ctx, const matmul_shape *s, const clm_matmul_args *a) {
  clm_matmul_args rest = *a;
  clm_tensor target = a->out;
  float beta = a->accumulate ? 1.0f : 0.0f;
  rest.accumulate = false; /* the product itself adds to out where that is asked for */
  if (a->residual.buffer && is_out(a)) {
    if (a->activation == CLM_ACTIVATION_NONE) {
      beta = 1.0f;
      rest.residual.buffer = NULL;
    } else { /* out still holds what must be added after the activation */
      clm_buffer *workspace;
      clm_status status = context_workspace(ctx, (size_t)s->m * (size_t)s->n * sizeof(float), &workspace);
      if (status) return status;
      target = clm_tensor_of(workspace, 0, CLM_F32, 2, (const int64_t[]){s->m, s->n});
    }
  }
  clm_status status = sgemm(ctx, s, &a->a, &a->b, &target, matmul_scale(a), beta);
  bool more = rest.bias.buffer || rest.residual.buffer || rest.activation != CLM_ACTIVATION_NONE;
  context_explain(ctx, "matmul: opencl, CLBlast%s", more ? ", then a pass for bias, activation and residual" : "");
  if (status || !more) return status;
  return opencl_matmul_finish(ctx, s, &rest, &target, 0, 1, 1.0f);
}

void opencl_clblast_forget(clm_context *ctx) {
  opencl_state *s = opencl_state_of(ctx);
  clm_buffer_destroy(&s->sgemm_memory);
  if (s->uses_clblast && atomic_fetch_sub(&users, 1) == 1) CLBlastClearCache();
}

/* The end of every matrix product, out = activation(x + bias) + residual, on a block while it is in the cache. */
#ifndef CLM_CPU_EPILOGUE_H
#define CLM_CPU_EPILOGUE_H

#include "storage.h"

INLINE vec activate(clm_activation activation, vec x) {
  if (activation == CLM_ACTIVATION_SILU) return x * vec_sigmoid(x);
  if (activation == CLM_ACTIVATION_SOFTPLUS) return vec_softplus(x);
  return x;
}

/* Of one row. */
static inline void epilogue_row(clm_activation activation, const float *x, const float *bias, const float *residual,
                                float *out, int64_t n) {
  for (int64_t j = 0; j < n; j += LANES) {
    int64_t left = n - j;
    vec sum = vec_load_part(x + j, left);
    if (bias) sum += vec_load_part(bias + j, left);
    sum = activate(activation, sum);
    if (residual) sum += vec_load_part(residual + j, left);
    vec_store_part(out + j, sum, left);
  }
}

/* Where it reads and writes: what the arguments say, in few lines of memory. */
typedef struct epilogue {
  line bias;
  line_rows added, out; /* added: no data where nothing is */
  clm_activation activation;
} epilogue;

static inline epilogue epilogue_of(const clm_matmul_args *args) {
  return (epilogue){line_vector(&args->bias), line_rows_of(args->accumulate ? &args->out : &args->residual),
                    line_rows_of(&args->out), args->activation};
}

/* Of m rows of n, `x_row` floats apart, that are out's from (i, j) on. `lines` has 3 n floats. */
static inline void epilogue_run(const epilogue *e, int64_t i, int64_t j, int64_t m, int64_t n, const float *x,
                                int64_t x_row, float *lines) {
  const float *bias = line_load(line_from(e->bias, j), n, lines);
  for (int64_t r = 0; r < m; r++) {
    const line out = line_from(line_rows_at(&e->out, i + r), j);
    float *to = line_target(out, lines + n);
    const float *residual = line_load(line_from(line_rows_at(&e->added, i + r), j), n, lines + 2 * n);
    epilogue_row(e->activation, x + r * x_row, bias, residual, to, n);
    line_store(out, n, to);
  }
}

#endif

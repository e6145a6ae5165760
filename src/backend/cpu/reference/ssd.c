/* SSD step by step, forward and backward. For the gradients the states of a channel, all steps of it, are computed
 * and kept, then the steps are walked backwards. */
#include "ops/rows.h"
#include "reference.h"
#include <stdlib.h>

static double rate_of(const clm_ssd_args *a, int64_t head) {
  const double A = GET(a->A, head);
  return a->A_is_log ? -exp(A) : A;
}

/* d of a step, and its slope by dt. */
static double step_size(const ssd_shape *s, const clm_ssd_args *a, int64_t b, int64_t t, int64_t head,
                        double *slope) {
  const double raw = GET(a->dt, b, t, head) + GET(a->dt_bias, head);
  const double d = a->dt_softplus ? ref_softplus(raw) : raw;
  *slope = a->dt_softplus ? ref_softplus_gradient(raw) : 1;
  if (s->limited && d < (double)a->dt_min) return *slope = 0, (double)a->dt_min;
  if (s->limited && d > (double)a->dt_max) return *slope = 0, (double)a->dt_max;
  return d;
}

static double skip_of(const clm_ssd_args *a, int64_t head, int64_t dim) {
  return a->D.rank == 2 ? GET(a->D, head, dim) : GET(a->D, head);
}

/* At a fixed chunk's end the state is what a call that ends there would have stored. */
static void round_state(double *h, int64_t d_state) {
  for (int64_t n = 0; n < d_state; n++) h[n] = (double)(float)h[n];
}

static void one_channel(const ssd_shape *s, const clm_ssd_args *a, seq_row row, int64_t head, int64_t dim,
                        double *h) {
  const int64_t b = row.batch, group = head / (s->n_heads / s->n_groups);
  const double A = rate_of(a, head);
  int32_t last = -1;
  for (int64_t n = 0; n < s->d_state; n++) h[n] = GET(a->initial_state, row.state, head, dim, n);
  for (int64_t t = row.begin; t < row.end; t++) {
    const seq_step kind = seq_step_of(&a->seq_idx, b, t, &last);
    if (a->chunk > 0 && (t - row.begin) % a->chunk == 0 && s->dtype != CLM_F64) round_state(h, s->d_state);
    if (kind == SEQ_BEGINS) memset(h, 0, (size_t)s->d_state * sizeof *h);
    if (kind == SEQ_PADDING) {
      SET(a->out, 0, b, t, head, dim);
      continue;
    }
    double slope, d = step_size(s, a, b, t, head, &slope), x = GET(a->x, b, t, head, dim), decay = exp(d * A);
    double y = skip_of(a, head, dim) * x;
    for (int64_t n = 0; n < s->d_state; n++) {
      h[n] = decay * h[n] + d * GET(a->B, b, t, group, n) * x;
      y += GET(a->C, b, t, group, n) * h[n];
    }
    if (present(a->z)) y *= ref_silu(GET(a->z, b, t, head, dim));
    SET(a->out, y, b, t, head, dim);
  }
  for (int64_t n = 0; n < s->d_state; n++) SET(a->final_state, h[n], row.state, head, dim, n);
}

clm_status ref_ssd(clm_context *ctx, const ssd_shape *s, const clm_ssd_args *a) {
  double *h = ref_alloc(ctx, "ssd", s->d_state, sizeof *h);
  if (!h) return CLM_OUT_OF_MEMORY;
  for (int64_t row = 0; row < s->sequences; row++)
    for (int64_t head = 0; head < s->n_heads; head++)
      for (int64_t dim = 0; dim < s->head_dim; dim++)
        one_channel(s, a, seq_row_of(&a->cu_seqlens, s->reversed, s->length, row), head, dim, h);
  free(h);
  context_explain(ctx, "ssd: cpu reference, sequential in double");
  return CLM_OK;
}

/* ---- Gradients ---- */

typedef struct sums { /* gradients that many (batch, step, channel) add to, and what one channel keeps of its steps */
  double *dA, *dB, *dC, *dD, *ddt, *ddt_bias, *h;
  seq_step *steps;
} sums;

static void free_sums(sums *k) {
  void *const all[] = {k->dA, k->dB, k->dC, k->dD, k->ddt, k->ddt_bias, k->h, k->steps};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
}

static clm_status alloc_sums(clm_context *ctx, const ssd_shape *s, sums *k) {
  static const char op[] = "ssd_backward";
  const int64_t inputs = s->batch * s->length * s->n_groups * s->d_state;
  *k = (sums){
      .dA = ref_alloc(ctx, op, s->n_heads, sizeof *k->dA),
      .dB = ref_alloc(ctx, op, inputs, sizeof *k->dB),
      .dC = ref_alloc(ctx, op, inputs, sizeof *k->dC),
      .dD = ref_alloc(ctx, op, s->n_heads * s->head_dim, sizeof *k->dD),
      .ddt = ref_alloc(ctx, op, s->batch * s->length * s->n_heads, sizeof *k->ddt),
      .ddt_bias = ref_alloc(ctx, op, s->n_heads, sizeof *k->ddt_bias),
      .h = ref_alloc(ctx, op, (s->length + 2) * s->d_state, sizeof *k->h),
      .steps = ref_alloc(ctx, op, s->length, sizeof *k->steps),
  };
  if (k->dA && k->dB && k->dC && k->dD && k->ddt && k->ddt_bias && k->h && k->steps) return CLM_OK;
  free_sums(k);
  return CLM_OUT_OF_MEMORY;
}

/* Fills k->steps and the states, h[-d_state ..] being the initial one. */
static void channel_states(const ssd_shape *s, const clm_ssd_args *f, sums *k, seq_row row, int64_t head, int64_t dim,
                           double *h) {
  const int64_t N = s->d_state, b = row.batch, group = head / (s->n_heads / s->n_groups);
  const double A = rate_of(f, head);
  int32_t last = -1;
  for (int64_t n = 0; n < N; n++) h[(row.begin - 1) * N + n] = GET(f->initial_state, row.state, head, dim, n);
  for (int64_t t = row.begin; t < row.end; t++) {
    double slope, d = step_size(s, f, b, t, head, &slope), x = GET(f->x, b, t, head, dim), decay = exp(d * A);
    k->steps[t] = seq_step_of(&f->seq_idx, b, t, &last);
    for (int64_t n = 0; n < N; n++) {
      const double before = k->steps[t] == SEQ_BEGINS ? 0 : h[(t - 1) * N + n];
      h[t * N + n] = k->steps[t] == SEQ_PADDING ? before : decay * before + d * GET(f->B, b, t, group, n) * x;
    }
  }
}

static void step_backward(const ssd_shape *s, const clm_ssd_backward_args *a, sums *k, seq_row row, int64_t t,
                          int64_t head, int64_t dim) {
  const clm_ssd_args *f = &a->forward;
  const double *now = k->h + (t + 1) * s->d_state;  /* the state after the step */
  double *dh = k->h + (s->length + 1) * s->d_state; /* its gradient */
  const int64_t N = s->d_state, b = row.batch, group = head / (s->n_heads / s->n_groups);
  const double x = GET(f->x, b, t, head, dim), D = skip_of(f, head, dim), z = GET(f->z, b, t, head, dim);
  const double silu = present(f->z) ? ref_silu(z) : 1, dout = GET(a->dout, b, t, head, dim), dy = dout * silu;
  double slope, d = step_size(s, f, b, t, head, &slope), A = rate_of(f, head), decay = exp(d * A);
  double y = D * x, dx = D * dy, dd = 0;
  for (int64_t n = 0; n < N; n++) {
    const int64_t input = ((b * s->length + t) * s->n_groups + group) * N + n;
    const double before = k->steps[t] == SEQ_BEGINS ? 0 : now[n - N];
    const double B = GET(f->B, b, t, group, n), C = GET(f->C, b, t, group, n);
    y += C * now[n];
    k->dC[input] += dy * now[n];
    dh[n] += dy * C;
    k->dB[input] += d * x * dh[n];
    dx += d * B * dh[n];
    dd += (B * x + A * decay * before) * dh[n];
    k->dA[head] += d * decay * before * dh[n];
    dh[n] = k->steps[t] == SEQ_BEGINS ? 0 : dh[n] * decay;
  }
  k->dD[head * s->head_dim + dim] += dy * x;
  k->ddt[(b * s->length + t) * s->n_heads + head] += dd * slope;
  k->ddt_bias[head] += dd * slope;
  SET(a->dx, dx, b, t, head, dim);
  SET(a->dz, dout * y * ref_silu_gradient(z), b, t, head, dim);
  SET(a->out, y * silu, b, t, head, dim);
}

static void channel_backward(const ssd_shape *s, const clm_ssd_backward_args *a, sums *k, seq_row row, int64_t head,
                             int64_t dim) {
  const int64_t N = s->d_state;
  double *h = k->h + N, *dh = k->h + (s->length + 1) * N;
  channel_states(s, &a->forward, k, row, head, dim, h);
  for (int64_t n = 0; n < N; n++) dh[n] = GET(a->dfinal_state, row.state, head, dim, n);
  for (int64_t t = row.end - 1; t >= row.begin; t--) {
    if (k->steps[t] == SEQ_PADDING) {
      SET(a->dx, 0, row.batch, t, head, dim);
      SET(a->dz, 0, row.batch, t, head, dim);
      SET(a->out, 0, row.batch, t, head, dim);
    } else {
      step_backward(s, a, k, row, t, head, dim);
    }
  }
  for (int64_t n = 0; n < N; n++) SET(a->dinitial_state, dh[n], row.state, head, dim, n);
}

static void store(const clm_tensor *t, const double *sum) {
  if (!t->buffer) return;
  for (int64_t i = 0; i < clm_tensor_count(*t); i++) element_store(t, element_number(t, i), sum[i]);
}

clm_status ref_ssd_backward(clm_context *ctx, const ssd_shape *s, const clm_ssd_backward_args *a) {
  sums k;
  clm_status status = alloc_sums(ctx, s, &k);
  if (status) return status;
  for (int64_t row = 0; row < s->sequences; row++)
    for (int64_t head = 0; head < s->n_heads; head++)
      for (int64_t dim = 0; dim < s->head_dim; dim++)
        channel_backward(s, a, &k, seq_row_of(&a->forward.cu_seqlens, s->reversed, s->length, row), head, dim);
  for (int64_t head = 0; head < s->n_heads; head++) {
    if (a->forward.A_is_log) k.dA[head] *= rate_of(&a->forward, head);
    for (int64_t dim = 1; dim < s->head_dim && a->dD.rank == 1; dim++)
      k.dD[head * s->head_dim] += k.dD[head * s->head_dim + dim];
    if (a->dD.rank == 1) k.dD[head] = k.dD[head * s->head_dim];
  }
  store(&a->dA, k.dA);
  store(&a->dB, k.dB);
  store(&a->dC, k.dC);
  store(&a->dD, k.dD);
  store(&a->ddt, k.ddt);
  store(&a->ddt_bias, k.ddt_bias);
  free_sums(&k);
  context_explain(ctx, "ssd_backward: cpu reference, all states of a channel kept, in double");
  return CLM_OK;
}

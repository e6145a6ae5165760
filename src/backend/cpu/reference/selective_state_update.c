/* Steps of the selective scan on a state in place, and their gradients: real or complex A, as in selective_scan.c. */
#include "reference.h"
#include <stdlib.h>

static complex_double decay_rate(const clm_selective_state_update_args *a, int64_t head, int64_t dim, int64_t n) {
  complex_double A = GET_COMPLEX(a->A, head, dim, n);
  return a->A_is_log ? -ref_exp(A) : A;
}

/* Which state row `b` works on, or -1. */
static int64_t state_of(const state_update_shape *s, const clm_selective_state_update_args *a, int64_t b) {
  if (!present(a->state_indices)) return b;
  int64_t row = (int64_t)GET(a->state_indices, b);
  return row >= 0 && row < s->pool ? row : -1;
}

static double step_size(const clm_selective_state_update_args *a, int64_t b, int64_t t, int64_t head, int64_t dim,
                        double *argument) {
  *argument = GET(a->delta, b, t, head, dim) + GET(a->delta_bias, head, dim);
  return a->delta_softplus ? ref_softplus(*argument) : *argument;
}

static void update_channel(const state_update_shape *s, const clm_selective_state_update_args *a, int64_t b,
                           int64_t row, int64_t head, int64_t dim, complex_double *h) {
  int64_t group = head / (s->n_heads / s->n_groups);
  for (int64_t n = 0; n < s->d_state; n++) h[n] = GET_COMPLEX(a->state, row, head, dim, n);
  for (int64_t t = 0; t < s->steps; t++) {
    double argument, dt = step_size(a, b, t, head, dim, &argument), u = GET(a->u, b, t, head, dim);
    double y = GET(a->D, head, dim) * u;
    for (int64_t n = 0; n < s->d_state; n++) {
      h[n] = ref_exp(dt * decay_rate(a, head, dim, n)) * h[n] + dt * GET_COMPLEX(a->B, b, t, group, n) * u;
      y += (s->complex ? 2 : 1) * creal(GET_COMPLEX(a->C, b, t, group, n) * h[n]);
    }
    if (present(a->z)) y *= ref_silu(GET(a->z, b, t, head, dim));
    SET(a->out, y, b, t, head, dim);
  }
  for (int64_t n = 0; n < s->d_state; n++) SET_COMPLEX(a->state, h[n], row, head, dim, n);
}

clm_status ref_selective_state_update(clm_context *ctx, const state_update_shape *s,
                                      const clm_selective_state_update_args *a) {
  complex_double *h = ref_alloc(ctx, "selective_state_update", s->d_state, sizeof *h);
  if (!h) return CLM_OUT_OF_MEMORY;
  for (int64_t b = 0; b < s->batch; b++) {
    int64_t row = state_of(s, a, b);
    for (int64_t head = 0; head < s->n_heads; head++)
      for (int64_t dim = 0; dim < s->head_dim; dim++) {
        if (row >= 0) update_channel(s, a, b, row, head, dim, h);
        for (int64_t t = 0; t < s->steps && row < 0; t++) SET(a->out, 0, b, t, head, dim);
      }
  }
  free(h);
  context_explain(ctx, "selective_state_update: cpu reference, in double");
  return CLM_OK;
}

/* ---- Gradients ---- */

typedef struct sums { /* gradients that many (batch, step, channel) add to, and the states of one channel and state */
  complex_double *dA, *dB, *dC, *h;
  double *dD, *ddelta_bias, *y, *du, *ddt;
} sums;

static void free_sums(sums *k) {
  void *const all[] = {k->dA, k->dB, k->dC, k->h, k->dD, k->ddelta_bias, k->y, k->du, k->ddt};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
}

static clm_status alloc_sums(clm_context *ctx, const state_update_shape *s, sums *k) {
  static const char op[] = "selective_state_update_backward";
  int64_t channels = s->n_heads * s->head_dim, inputs = s->batch * s->steps * s->n_groups * s->d_state;
  *k = (sums){
      .dA = ref_alloc(ctx, op, channels * s->d_state, sizeof *k->dA),
      .dB = ref_alloc(ctx, op, inputs, sizeof *k->dB),
      .dC = ref_alloc(ctx, op, inputs, sizeof *k->dC),
      .h = ref_alloc(ctx, op, s->steps + 1, sizeof *k->h),
      .dD = ref_alloc(ctx, op, channels, sizeof *k->dD),
      .ddelta_bias = ref_alloc(ctx, op, channels, sizeof *k->ddelta_bias),
      .y = ref_alloc(ctx, op, s->steps, sizeof *k->y),
      .du = ref_alloc(ctx, op, s->steps, sizeof *k->du),
      .ddt = ref_alloc(ctx, op, s->steps, sizeof *k->ddt),
  };
  if (k->dA && k->dB && k->dC && k->h && k->dD && k->ddelta_bias && k->y && k->du && k->ddt) return CLM_OK;
  free_sums(k);
  return CLM_OUT_OF_MEMORY;
}

static double silu_at(const clm_selective_state_update_args *f, int64_t b, int64_t t, int64_t head, int64_t dim) {
  return present(f->z) ? ref_silu(GET(f->z, b, t, head, dim)) : 1;
}

/* State n of a channel: its values through the steps, then its gradient back. */
static void state_backward(const state_update_shape *s, const clm_selective_state_update_backward_args *a, sums *k,
                           int64_t b, int64_t row, int64_t head, int64_t dim, int64_t n) {
  const clm_selective_state_update_args *f = &a->forward;
  int64_t group = head / (s->n_heads / s->n_groups), channel = head * s->head_dim + dim;
  double twice = s->complex ? 2 : 1, argument;
  complex_double A = decay_rate(f, head, dim, n), dh = GET_COMPLEX(a->dnew_state, b, head, dim, n);
  k->h[0] = GET_COMPLEX(f->state, row, head, dim, n);
  for (int64_t t = 0; t < s->steps; t++) {
    double dt = step_size(f, b, t, head, dim, &argument);
    k->h[t + 1] = ref_exp(dt * A) * k->h[t] + dt * GET_COMPLEX(f->B, b, t, group, n) * GET(f->u, b, t, head, dim);
  }
  for (int64_t t = s->steps - 1; t >= 0; t--) {
    int64_t input = ((b * s->steps + t) * s->n_groups + group) * s->d_state + n;
    double dt = step_size(f, b, t, head, dim, &argument), u = GET(f->u, b, t, head, dim);
    double dy = GET(a->dout, b, t, head, dim) * silu_at(f, b, t, head, dim);
    complex_double B = GET_COMPLEX(f->B, b, t, group, n), C = GET_COMPLEX(f->C, b, t, group, n);
    complex_double decay = ref_exp(dt * A), before = k->h[t];
    k->y[t] += twice * creal(C * k->h[t + 1]);
    k->dC[input] += twice * dy * conj(k->h[t + 1]);
    dh += twice * dy * conj(C);
    k->dB[input] += dt * u * dh;
    k->du[t] += dt * creal(conj(B) * dh);
    k->ddt[t] += creal(conj(B * u + A * decay * before) * dh);
    k->dA[channel * s->d_state + n] += conj(dt * decay * before * (f->A_is_log ? A : 1)) * dh;
    dh *= conj(decay);
  }
  SET_COMPLEX(a->dstate, dh, b, head, dim, n);
}

static void channel_backward(const state_update_shape *s, const clm_selective_state_update_backward_args *a, sums *k,
                             int64_t b, int64_t row, int64_t head, int64_t dim) {
  const clm_selective_state_update_args *f = &a->forward;
  int64_t channel = head * s->head_dim + dim;
  for (int64_t t = 0; t < s->steps; t++) k->y[t] = k->du[t] = k->ddt[t] = 0;
  for (int64_t n = 0; n < s->d_state; n++) {
    if (row >= 0) state_backward(s, a, k, b, row, head, dim, n);
    else SET_COMPLEX(a->dstate, 0, b, head, dim, n);
  }
  for (int64_t t = 0; t < s->steps; t++) {
    double argument, u = GET(f->u, b, t, head, dim), D = GET(f->D, head, dim), z = GET(f->z, b, t, head, dim);
    double dout = row >= 0 ? GET(a->dout, b, t, head, dim) : 0, dy = dout * silu_at(f, b, t, head, dim);
    step_size(f, b, t, head, dim, &argument);
    double ddelta = k->ddt[t] * (f->delta_softplus ? ref_softplus_gradient(argument) : 1);
    k->dD[channel] += dy * u;
    k->ddelta_bias[channel] += ddelta;
    SET(a->du, k->du[t] + D * dy, b, t, head, dim);
    SET(a->ddelta, ddelta, b, t, head, dim);
    SET(a->dz, dout * (k->y[t] + D * u) * ref_silu_gradient(z), b, t, head, dim);
  }
}

static void store(const clm_tensor *t, const complex_double *sum) {
  if (!t->buffer) return;
  for (int64_t i = 0; i < clm_tensor_count(*t); i++) element_store_complex(t, element_number(t, i), sum[i]);
}

static void store_real(const clm_tensor *t, const double *sum) {
  if (!t->buffer) return;
  for (int64_t i = 0; i < clm_tensor_count(*t); i++) element_store(t, element_number(t, i), sum[i]);
}

clm_status ref_selective_state_update_backward(clm_context *ctx, const state_update_shape *s,
                                               const clm_selective_state_update_backward_args *a) {
  sums k;
  clm_status status = alloc_sums(ctx, s, &k);
  if (status) return status;
  for (int64_t b = 0; b < s->batch; b++)
    for (int64_t head = 0; head < s->n_heads; head++)
      for (int64_t dim = 0; dim < s->head_dim; dim++)
        channel_backward(s, a, &k, b, state_of(s, &a->forward, b), head, dim);
  store(&a->dA, k.dA);
  store(&a->dB, k.dB);
  store(&a->dC, k.dC);
  store_real(&a->dD, k.dD);
  store_real(&a->ddelta_bias, k.ddelta_bias);
  free_sums(&k);
  context_explain(ctx, "selective_state_update_backward: cpu reference, in double");
  return CLM_OK;
}

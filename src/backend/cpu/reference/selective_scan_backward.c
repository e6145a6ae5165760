/* Gradients of the selective scan. For each channel the states of the whole sequence are computed and kept, then the
 * steps are walked backwards. A complex gradient is dL/dRe + i dL/dIm, so that a product's gradient is the conjugate
 * of the other factor times the incoming one. */
#include "ops/rows.h"
#include "reference.h"
#include <stdlib.h>

typedef struct sums { /* gradients that many (batch, step, channel) add to */
  complex_double *dA, *dB, *dC, *h;
  double *dD, *ddelta_bias;
  seq_step *steps;
} sums;

static void free_sums(sums *k) {
  free(k->dA);
  free(k->dB);
  free(k->dC);
  free(k->h);
  free(k->dD);
  free(k->ddelta_bias);
  free(k->steps);
}

static clm_status alloc_sums(clm_context *ctx, const selective_scan_shape *s, sums *k) {
  static const char op[] = "selective_scan_backward";
  int64_t fixed = s->d_inner * s->d_state, varying = s->batch * s->length * s->n_groups * s->d_state;
  *k = (sums){
      .dA = ref_alloc(ctx, op, fixed, sizeof *k->dA),
      .dB = ref_alloc(ctx, op, s->B_varies ? varying : fixed, sizeof *k->dB),
      .dC = ref_alloc(ctx, op, s->C_varies ? varying : fixed, sizeof *k->dC),
      .h = ref_alloc(ctx, op, (s->length + 2) * s->d_state, sizeof *k->h),
      .dD = ref_alloc(ctx, op, s->d_inner, sizeof *k->dD),
      .ddelta_bias = ref_alloc(ctx, op, s->d_inner, sizeof *k->ddelta_bias),
      .steps = ref_alloc(ctx, op, s->length, sizeof *k->steps),
  };
  if (k->dA && k->dB && k->dC && k->h && k->dD && k->ddelta_bias && k->steps) return CLM_OK;
  free_sums(k);
  return CLM_OUT_OF_MEMORY;
}

static double step_size(const clm_selective_scan_args *f, int64_t b, int64_t t, int64_t d, double *argument) {
  *argument = GET(f->delta, b, t, d) + GET(f->delta_bias, d);
  return f->delta_softplus ? ref_softplus(*argument) : *argument;
}

static complex_double decay_rate(const clm_selective_scan_args *f, int64_t d, int64_t n) {
  complex_double A = GET_COMPLEX(f->A, d, n);
  return f->A_is_log ? -ref_exp(A) : A;
}

static void one_channel(const selective_scan_shape *s, const clm_selective_scan_backward_args *a, sums *k,
                        seq_row row, int64_t d) {
  const clm_selective_scan_args *f = &a->forward;
  int64_t N = s->d_state, group = d / (s->d_inner / s->n_groups), b = row.batch;
  double twice = s->complex ? 2 : 1;
  complex_double *h = k->h + N, *dh = k->h + (s->length + 1) * N; /* h[-N ..] is the initial state */
  int32_t last = -1;
  for (int64_t n = 0; n < N; n++) h[(row.begin - 1) * N + n] = GET_COMPLEX(f->initial_state, row.state, d, n);
  for (int64_t t = row.begin; t < row.end; t++) {
    double argument, dt = step_size(f, b, t, d, &argument), u = GET(f->u, b, t, d);
    double g = present(f->gate) ? GET(f->gate, b, t, d) : 1;
    k->steps[t] = seq_step_of(&f->seq_idx, b, t, &last);
    for (int64_t n = 0; n < N; n++) {
      complex_double B = s->B_varies ? GET_COMPLEX(f->B, b, t, group, n) : GET_COMPLEX(f->B, d, n);
      complex_double before = k->steps[t] == SEQ_BEGINS ? 0 : h[(t - 1) * N + n];
      h[t * N + n] =
          k->steps[t] == SEQ_PADDING ? before : ref_exp(dt * g * decay_rate(f, d, n)) * before + dt * B * u;
    }
  }

  for (int64_t n = 0; n < N; n++) dh[n] = GET_COMPLEX(a->dfinal_state, row.state, d, n);
  for (int64_t t = row.end - 1; t >= row.begin; t--) {
    if (k->steps[t] == SEQ_PADDING) {
      const clm_tensor zeros[] = {a->du, a->ddelta, a->dz, a->dgate, a->out};
      for (size_t i = 0; i < sizeof zeros / sizeof *zeros; i++) SET(zeros[i], 0, b, t, d);
      continue;
    }
    double argument, dt = step_size(f, b, t, d, &argument), u = GET(f->u, b, t, d), D = GET(f->D, d);
    double g = present(f->gate) ? GET(f->gate, b, t, d) : 1;
    double z = GET(f->z, b, t, d), silu = present(f->z) ? ref_silu(z) : 1;
    double dout = GET(a->dout, b, t, d), dy = dout * silu, y = D * u, du = D * dy, ddt = 0, ddecay = 0;
    for (int64_t n = 0; n < N; n++) {
      int64_t varying = ((b * s->length + t) * s->n_groups + group) * N + n, fixed = d * N + n;
      complex_double A = decay_rate(f, d, n), decay = ref_exp(dt * g * A), now = h[t * N + n];
      complex_double before = k->steps[t] == SEQ_BEGINS ? 0 : h[(t - 1) * N + n];
      complex_double B = s->B_varies ? GET_COMPLEX(f->B, b, t, group, n) : GET_COMPLEX(f->B, d, n);
      complex_double C = s->C_varies ? GET_COMPLEX(f->C, b, t, group, n) : GET_COMPLEX(f->C, d, n);
      y += twice * creal(C * now);
      k->dC[s->C_varies ? varying : fixed] += twice * dy * conj(now);
      dh[n] += twice * dy * conj(C);
      k->dB[s->B_varies ? varying : fixed] += dt * u * dh[n];
      du += dt * creal(conj(B) * dh[n]);
      ddt += creal(conj(B * u) * dh[n]);
      ddecay += creal(conj(A * decay * before) * dh[n]); /* by dt g */
      k->dA[fixed] += conj(dt * g * decay * before) * dh[n];
      dh[n] = k->steps[t] == SEQ_BEGINS ? 0 : dh[n] * conj(decay);
    }
    ddt += g * ddecay;
    double ddelta = f->delta_softplus ? ddt * ref_softplus_gradient(argument) : ddt;
    k->dD[d] += dy * u;
    k->ddelta_bias[d] += ddelta;
    SET(a->du, du, b, t, d);
    SET(a->ddelta, ddelta, b, t, d);
    SET(a->dz, dout * y * ref_silu_gradient(z), b, t, d);
    SET(a->dgate, dt * ddecay, b, t, d);
    SET(a->out, y * silu, b, t, d);
  }
  for (int64_t n = 0; n < N; n++) SET_COMPLEX(a->dinitial_state, dh[n], row.state, d, n);
}

static void store_varying(const selective_scan_shape *s, clm_tensor t, const complex_double *sum) {
  for (int64_t b = 0; b < s->batch; b++)
    for (int64_t l = 0; l < s->length; l++)
      for (int64_t g = 0; g < s->n_groups; g++)
        for (int64_t n = 0; n < s->d_state; n++) SET_COMPLEX(t, *sum++, b, l, g, n);
}

static void store_fixed(const selective_scan_shape *s, clm_tensor t, const complex_double *sum) {
  for (int64_t d = 0; d < s->d_inner; d++)
    for (int64_t n = 0; n < s->d_state; n++) SET_COMPLEX(t, *sum++, d, n);
}

clm_status ref_selective_scan_backward(clm_context *ctx, const selective_scan_shape *s,
                                       const clm_selective_scan_backward_args *a) {
  sums k;
  clm_status status = alloc_sums(ctx, s, &k);
  if (status) return status;
  for (int64_t row = 0; row < s->sequences; row++)
    for (int64_t d = 0; d < s->d_inner; d++)
      one_channel(s, a, &k, seq_row_of(&a->forward.cu_seqlens, s->reversed, s->length, row), d);

  if (a->forward.A_is_log)
    for (int64_t i = 0; i < s->d_inner * s->d_state; i++)
      k.dA[i] *= conj(decay_rate(&a->forward, i / s->d_state, i % s->d_state));
  store_fixed(s, a->dA, k.dA);
  (s->B_varies ? store_varying : store_fixed)(s, a->dB, k.dB);
  (s->C_varies ? store_varying : store_fixed)(s, a->dC, k.dC);
  for (int64_t d = 0; d < s->d_inner; d++) {
    SET(a->dD, k.dD[d], d);
    SET(a->ddelta_bias, k.ddelta_bias[d], d);
  }
  free_sums(&k);
  context_explain(ctx, "selective_scan_backward: cpu reference, all states kept, in double");
  return CLM_OK;
}

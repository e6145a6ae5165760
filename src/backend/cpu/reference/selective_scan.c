/* Selective scan, real or complex A. A complex A stands for itself and its conjugate, so that
 * y = 2 Re(sum C h). */
#include "ops/rows.h"
#include "reference.h"
#include <stdlib.h>
#include <string.h>

static complex_double negated_exp(complex_double a, bool is_log) { return is_log ? -ref_exp(a) : a; }

/* At a fixed chunk's end the state is what a call that ends there would have stored. */
static void round_state(complex_double *h, int64_t d_state, clm_dtype stored) {
  if (stored != CLM_F32 && stored != CLM_C64) return;
  for (int64_t n = 0; n < d_state; n++) h[n] = (float _Complex)h[n];
}

static void one_channel(const selective_scan_shape *s, const clm_selective_scan_args *a, seq_row row, int64_t d,
                        complex_double *h) {
  int64_t b = row.batch, group = d / (s->d_inner / s->n_groups);
  int32_t last = -1;
  for (int64_t n = 0; n < s->d_state; n++) h[n] = GET_COMPLEX(a->initial_state, row.state, d, n);
  for (int64_t t = row.begin; t < row.end; t++) {
    seq_step kind = seq_step_of(&a->seq_idx, b, t, &last);
    if (a->chunk > 0 && (t - row.begin) % a->chunk == 0) round_state(h, s->d_state, a->A.dtype);
    if (kind == SEQ_BEGINS) memset(h, 0, (size_t)s->d_state * sizeof *h);
    if (kind == SEQ_PADDING) {
      SET(a->out, 0, b, t, d);
      continue;
    }
    double u = GET(a->u, b, t, d), dt = GET(a->delta, b, t, d) + GET(a->delta_bias, d), y = GET(a->D, d) * u;
    double g = present(a->gate) ? GET(a->gate, b, t, d) : 1;
    if (a->delta_softplus) dt = ref_softplus(dt);
    for (int64_t n = 0; n < s->d_state; n++) {
      complex_double A = negated_exp(GET_COMPLEX(a->A, d, n), a->A_is_log);
      complex_double B = s->B_varies ? GET_COMPLEX(a->B, b, t, group, n) : GET_COMPLEX(a->B, d, n);
      complex_double C = s->C_varies ? GET_COMPLEX(a->C, b, t, group, n) : GET_COMPLEX(a->C, d, n);
      h[n] = ref_exp(dt * g * A) * h[n] + dt * B * u;
      y += (s->complex ? 2 : 1) * creal(C * h[n]);
    }
    if (present(a->z)) y *= ref_silu(GET(a->z, b, t, d));
    SET(a->out, y, b, t, d);
  }
  for (int64_t n = 0; n < s->d_state; n++) SET_COMPLEX(a->final_state, h[n], row.state, d, n);
}

clm_status ref_selective_scan(clm_context *ctx, const selective_scan_shape *s, const clm_selective_scan_args *a) {
  complex_double *h = ref_alloc(ctx, "selective_scan", s->d_state, sizeof *h);
  if (!h) return CLM_OUT_OF_MEMORY;
  for (int64_t row = 0; row < s->sequences; row++)
    for (int64_t d = 0; d < s->d_inner; d++)
      one_channel(s, a, seq_row_of(&a->cu_seqlens, s->reversed, s->length, row), d, h);
  free(h);
  context_explain(ctx, "selective_scan: cpu reference, sequential in double");
  return CLM_OK;
}

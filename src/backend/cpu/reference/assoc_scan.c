/* First-order recurrence along the sequence, either direction, and its gradients: with step j counted in the
 * direction of the run and H[j] = a[j] H[j-1] + b[j], an exclusive scan writes H[j-1]. */
#include "reference.h"
#include <stdlib.h>

static int64_t step(const assoc_scan_shape *s, bool reverse, int64_t j) { return reverse ? s->length - 1 - j : j; }

clm_status ref_assoc_scan(clm_context *ctx, const assoc_scan_shape *s, const clm_assoc_scan_args *a) {
  for (int64_t b = 0; b < s->batch; b++)
    for (int64_t c = 0; c < s->channels; c++) {
      complex_double h = GET_COMPLEX(a->initial, b, c);
      for (int64_t j = 0; j < s->length; j++) {
        int64_t t = step(s, a->reverse, j);
        complex_double next = GET_COMPLEX(a->a, b, t, c) * h + GET_COMPLEX(a->b, b, t, c);
        SET_COMPLEX(a->h, a->exclusive ? h : next, b, t, c);
        h = next;
      }
      SET_COMPLEX(a->final, h, b, c);
    }
  context_explain(ctx, "assoc_scan: cpu reference, sequential in double");
  return CLM_OK;
}

clm_status ref_assoc_scan_backward(clm_context *ctx, const assoc_scan_shape *s,
                                   const clm_assoc_scan_backward_args *a) {
  const clm_assoc_scan_args *f = &a->forward;
  complex_double *before = ref_alloc(ctx, "assoc_scan_backward", s->length, sizeof *before); /* H[j-1] */
  if (!before) return CLM_OUT_OF_MEMORY;
  for (int64_t b = 0; b < s->batch; b++)
    for (int64_t c = 0; c < s->channels; c++) {
      complex_double h = GET_COMPLEX(f->initial, b, c);
      for (int64_t j = 0; j < s->length; j++) {
        int64_t t = step(s, f->reverse, j);
        before[j] = h;
        h = GET_COMPLEX(f->a, b, t, c) * h + GET_COMPLEX(f->b, b, t, c);
      }
      complex_double dH = GET_COMPLEX(a->dfinal, b, c);
      for (int64_t j = s->length - 1; j >= 0; j--) {
        int64_t t = step(s, f->reverse, j);
        if (!f->exclusive) dH += GET_COMPLEX(a->dh, b, t, c);
        SET_COMPLEX(a->da, conj(before[j]) * dH, b, t, c);
        SET_COMPLEX(a->db, dH, b, t, c);
        dH *= conj(GET_COMPLEX(f->a, b, t, c));
        if (f->exclusive) dH += GET_COMPLEX(a->dh, b, t, c);
      }
      SET_COMPLEX(a->dinitial, dH, b, c);
    }
  free(before);
  context_explain(ctx, "assoc_scan_backward: cpu reference, sequential in double");
  return CLM_OK;
}

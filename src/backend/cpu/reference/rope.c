/* Rotary position embedding pair by pair. */
#include "ops/rows.h"
#include "reference.h"

static void one_head(const rope_shape *s, const clm_rope_args *a, int64_t batch, int64_t step, int64_t head,
                     int64_t position) {
  for (int64_t i = 0; i < s->rotary / 2; i++) {
    const int64_t first = a->interleaved ? 2 * i : i, second = a->interleaved ? 2 * i + 1 : i + s->rotary / 2;
    const double angle = (double)position * pow(s->theta, -2 * (double)i / (double)s->rotary);
    const double c = cos(angle), d = a->inverse ? -sin(angle) : sin(angle);
    const double x = GET(a->x, batch, step, head, first), y = GET(a->x, batch, step, head, second);
    SET(a->out, x * c - y * d, batch, step, head, first);
    SET(a->out, y * c + x * d, batch, step, head, second);
  }
  for (int64_t p = s->rotary; p < s->head_dim; p++)
    SET(a->out, GET(a->x, batch, step, head, p), batch, step, head, p);
}

clm_status ref_rope(clm_context *ctx, const rope_shape *s, const clm_rope_args *a) {
  for (int64_t i = 0; i < s->sequences; i++) {
    const seq_row r = seq_row_of(&a->cu_seqlens, false, s->length, i);
    const int64_t offset = seq_offset_of(&a->offsets, i);
    for (int64_t step = r.begin; step < r.end; step++)
      for (int64_t head = 0; head < s->n_heads; head++) one_head(s, a, r.batch, step, head, offset + step - r.begin);
  }
  context_explain(ctx, "rope: cpu reference, in double");
  return CLM_OK;
}

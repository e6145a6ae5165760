/* Caches of keys and values, number by number. */
#include "ops/rows.h"
#include "reference.h"

clm_status ref_kv_append(clm_context *ctx, const kv_shape *s, const clm_kv_append_args *a) {
  for (int64_t i = 0; i < s->sequences; i++) {
    const seq_row r = seq_row_of(&a->cu_seqlens, false, s->length, i);
    const int64_t offset = seq_offset_of(&a->offsets, i);
    for (int64_t step = r.begin; step < r.end; step++) {
      const int64_t place = offset + step - r.begin;
      if (place < 0 || place >= s->keys) continue;
      for (int64_t head = 0; head < s->kv_heads; head++)
        for (int64_t p = 0; p < s->head_dim; p++) {
          SET(a->k_cache, GET(a->k, r.batch, step, head, p), i, place, head, p);
          SET(a->v_cache, GET(a->v, r.batch, step, head, p), i, place, head, p);
        }
    }
  }
  context_explain(ctx, "kv_append: cpu reference");
  return CLM_OK;
}

clm_status ref_kv_advance(clm_context *ctx, const kv_advance_shape *s, const clm_kv_advance_args *a) {
  for (int64_t i = 0; i < s->sequences; i++) {
    const int64_t begin = seq_offset_of(&a->cu_seqlens, i),
                  end = a->cu_seqlens.buffer ? seq_offset_of(&a->cu_seqlens, i + 1) : a->steps;
    /* Wraps: what is no valid position must not stop the program. */
    SET(a->offsets,
        (double)(int32_t)(uint32_t)((uint64_t)seq_offset_of(&a->offsets, i) + (uint64_t)end - (uint64_t)begin), i);
  }
  context_explain(ctx, "kv_advance: cpu reference");
  return CLM_OK;
}

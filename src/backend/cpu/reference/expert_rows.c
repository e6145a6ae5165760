#include "reference.h"
#include <stdlib.h>

/* The expert of a pair; `experts` of those that are none. */
static int64_t expert_of(const expert_rows_shape *s, const clm_expert_rows_args *a, int64_t t, int64_t j) {
  const double id = GET(a->ids, t, j);
  return id >= 0 && id < (double)s->experts ? (int64_t)id : s->experts;
}

clm_status ref_expert_rows(clm_context *ctx, const expert_rows_shape *s, const clm_expert_rows_args *a) {
  int64_t *next = ref_alloc(ctx, "expert_rows", s->experts + 1, sizeof *next), row = 0;
  if (!next) return CLM_OUT_OF_MEMORY;
  for (int64_t t = 0; t < s->tokens; t++)
    for (int64_t j = 0; j < s->chosen; j++) next[expert_of(s, a, t, j)]++;
  for (int64_t e = 0; e <= s->experts; e++) {
    const int64_t count = next[e];
    SET(a->group_offsets, (double)row, e);
    if (e < s->experts) SET(a->counts, (double)count, e);
    next[e] = row;
    row += count;
  }
  for (int64_t t = 0; t < s->tokens; t++)
    for (int64_t j = 0; j < s->chosen; j++) {
      row = next[expert_of(s, a, t, j)]++;
      SET(a->order, (double)(t * s->chosen + j), row);
      SET(a->tokens, (double)t, row);
      SET(a->places, (double)row, t, j);
    }
  free(next);
  context_explain(ctx, "expert_rows: cpu, counted");
  return CLM_OK;
}

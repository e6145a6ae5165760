/* Which keys the queries of attention see (clmamba/attention.h), read on the host. */
#ifndef CLM_OPS_ATTENTION_ROWS_H
#define CLM_OPS_ATTENTION_ROWS_H

#include "core/arith.h"
#include "ops/rows.h"

/* A batch row, or a packed sequence. */
typedef struct attention_row {
  int64_t batch, key_batch; /* of the queries, of the keys */
  int64_t query, queries;   /* the first, and how many */
  int64_t key, keys;
  int64_t offset; /* position of the first query among the row's keys */
} attention_row;

static inline attention_row attention_row_of(const attention_shape *s, const clm_attention_args *a, int64_t i) {
  attention_row r = {i, i, 0, s->length, 0, s->keys, s->keys - s->length};
  if (s->packed) {
    const seq_row row = seq_row_of(&a->cu_seqlens, false, s->length, i);
    r.batch = 0;
    r.query = row.begin;
    r.queries = row.end - row.begin;
    r.offset = 0;
    if (!s->cached) {
      r.key_batch = 0;
      r.key = r.query;
      r.keys = r.queries;
    }
  }
  if (a->offsets.buffer) r.offset = seq_offset_of(&a->offsets, i);
  return r;
}

/* The keys from the first to before the end that query i of the row sees; the queries that see key j. Both count from
 * the row's first. */
static inline int64_t attention_end_key(const attention_row *r, int64_t i) {
  return max_of(0, min_of(r->keys, r->offset + i + 1));
}
static inline int64_t attention_first_key(const attention_shape *s, const attention_row *r, int64_t i) {
  const int64_t end = r->offset + i + 1;
  return end > s->window ? min_of(end - s->window, r->keys) : 0;
}
static inline int64_t attention_first_query(const attention_row *r, int64_t j) {
  return max_of(0, min_of(r->queries, j - r->offset));
}
static inline int64_t attention_end_query(const attention_shape *s, const attention_row *r, int64_t j) {
  const int64_t first = j - r->offset;
  return first >= r->queries - s->window ? r->queries : max_of(0, first + s->window);
}

#endif

/* What attention and its gradient share. The heads of a group see the same keys, so that a row of a product is a pair
 * of query and head: pair x of a row and a head of keys is query x / group and head x % group of the group. A tile is
 * TILE pairs with TILE keys. */
#ifndef CLM_CPU_ATTENTION_TILE_H
#define CLM_CPU_ATTENTION_TILE_H

#include "gemm.h"
#include "ops/attention_rows.h"
#include "storage.h"

enum { TILE = 128 };

/* Pairs of one row (of the batch, or a packed sequence) and one head of keys. */
typedef struct attention_pairs {
  const attention_shape *s;
  attention_row row;
  int64_t kv, group;     /* head of keys, and query heads to each */
  int64_t first, number; /* pairs                                 */
} attention_pairs;

INLINE int64_t pair_query(const attention_pairs *p, int64_t x) { return (p->first + x) / p->group; }
INLINE int64_t pair_head(const attention_pairs *p, int64_t x) { return p->kv * p->group + (p->first + x) % p->group; }

/* The numbers of pair x along head_dim; of lse (batch, length, n_heads) its one number. */
INLINE line pair_line(const attention_pairs *p, const clm_tensor *t, int64_t x) {
  return line_at(t,
                 p->row.batch * t->stride[0] + (p->row.query + pair_query(p, x)) * t->stride[1] +
                     pair_head(p, x) * t->stride[2],
                 t->rank == 4 ? t->stride[3] : 1);
}

static inline void pairs_read(const attention_pairs *p, const clm_tensor *t, float *out) {
  for (int64_t x = 0; x < p->number; x++) line_read(pair_line(p, t, x), p->s->head_dim, out + x * p->s->head_dim);
}

INLINE line key_line(const attention_pairs *p, const clm_tensor *t, int64_t j) {
  return line_at(t, p->row.key_batch * t->stride[0] + (p->row.key + j) * t->stride[1] + p->kv * t->stride[2],
                 t->stride[3]);
}

/* `count` keys or values from `first` on, in place where a product can take them so. */
static inline matrix keys_read(const attention_pairs *p, const clm_tensor *t, int64_t first, int64_t count,
                               float *scratch) {
  const line l = key_line(p, t, first);
  if (line_is_plain(l) && t->stride[1] >= p->s->head_dim) return gemm_rows((float *)(void *)l.data, t->stride[1]);
  for (int64_t j = 0; j < count; j++)
    line_read(key_line(p, t, first + j), p->s->head_dim, scratch + j * p->s->head_dim);
  return gemm_rows(scratch, p->s->head_dim);
}

/* Which of `count` keys from `first` on pair x sees: none where from >= to. */
INLINE void pair_sees(const attention_pairs *p, int64_t x, int64_t first, int64_t count, int64_t *from, int64_t *to) {
  const int64_t i = pair_query(p, x);
  *from = max_of(0, attention_first_key(p->s, &p->row, i) - first);
  *to = min_of(count, attention_end_key(&p->row, i) - first);
}

/* Zeros before `from` and from `to` on. */
static inline void keep_seen(float *row, int64_t count, int64_t from, int64_t to) {
  if (from >= to) from = to = count; /* sees none */
  memset(row, 0, (size_t)from * sizeof *row);
  memset(row + to, 0, (size_t)(count - to) * sizeof *row);
}

#endif

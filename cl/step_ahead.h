/* What a work-group will read in the next stage: asked for before it waits for the others, the first pieces of a weight
 * for registers, the rest for the cache that all share. */
#define LINE_BYTES  128        /* of that cache        */
#define AHEAD_BYTES (96 << 10) /* of a tensor, at most */

INLINE void step_ask(__global const uchar *from, long bytes) {
#ifdef CLM_PTX
  bytes = min(bytes, (long)AHEAD_BYTES);
  for (long at = (long)ITEM * LINE_BYTES; at < bytes; at += WORK_GROUP * LINE_BYTES)
    __asm__ volatile("prefetch.global.L2 [%0];" ::"l"(from + at));
#endif
}

/* Neighbours [begin, end) of dimension `dim`, `size` bytes an element. */
INLINE void step_ask_share(__local const step_memory *m, __local const step_view *v, int dim, int2 share, int size) {
  const long each = (long)v->stride[dim] * size;
  if (step_has(v)) step_ask(step_at(m, v) + share.x * each, (share.y - share.x) * each);
}

INLINE void step_prefetch(__local const step_memory *m, __local const step_stage *next, step_stream *f) {
  __local const step_product *p = &next->product;
  __local const step_update *u = &next->update;
  if (next->parts & STEP_PRODUCT) {
    const int2 mine = step_share(p->n);
    if (!(next->parts & STEP_UPDATE)) step_start(f, m, p, mine.x, step_block(p, mine.y - mine.x));
    step_ask_share(m, &p->weight, 0, mine, (int)sizeof(b_t));
  }
  if (next->parts & STEP_NORM) step_ask_share(m, &next->norm.weight, 0, (int2)(0, p->k), (int)sizeof(float));
  if (next->parts & STEP_UPDATE) {
    const int2 mine = step_share(u->heads * u->head_dim);
    const int dim = u->head_dim == 1 ? 1 : 2; /* the states of a head's channels are neighbours */
    step_ask_share(m, &u->state, dim, mine, (int)sizeof(float));
    if (u->head_dim == 1) step_ask_share(m, &u->A, 0, mine, (int)sizeof(float));
  }
}

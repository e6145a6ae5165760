/* Attention, forward, in plain OpenCL C: a work-group owns a block of pairs and walks the blocks of keys that they
 * see, with a running maximum and sum of each pair's weights (Dao et al. 2022). Results sit in registers, scores pass
 * through local memory. Products of matrix engines would take the place of tile_multiply. */
#include "attention.h"

kernel TILE_GROUP void attention(const attention_args a, global const x_t *q, global const x_t *k,
                                 global const x_t *v, global const int *offsets, global const int *ends,
                                 global x_t *out, global float *lse) {
  local float a_tile[DEPTH][TILE + 1], b_tile[DEPTH][TILE + 1], score[TILE][TILE + 1]; /* [key][pair] */
  local float most[TILE], sum[TILE], factor[TILE];
  local long query[TILE];
  local int head[TILE];
  WORK_ITEM;
  const pairs p = {query, head};
  const slices s = {a_tile, b_tile};
  const int kv = (int)get_group_id(1), group = a.heads / a.kv_heads;
  block b = block_of(&a, offsets, ends, (long)get_group_id(0), group);
  b.number = number_of(&b, b.r.queries * group);
  place_pairs(&a, &b, kv, ITEM, p);
  if (ITEM < TILE) {
    most[ITEM] = -INFINITY;
    sum[ITEM] = 0.0f;
  }
  tile result[ATTENTION_TILES];
  for (int c = 0; c < COUNT_TILES(&a); c++) result[c] = tile_zero();
  block keys = b;
  const long end = b.number > 0 ? end_key(&b.r, (b.first + b.number - 1) / group) : 0;
  for (keys.first = first_key(&a, &b.r, b.first / group); keys.first < end; keys.first += TILE) {
    keys.number = number_of(&keys, end);
    tile t = pairs_by_keys(&a, (tensor){q, &a.q}, &b, p, (tensor){k, &a.k}, &keys, kv, s);
    for (int r = 0; r < 4; r++)
      for (int c = 0; c < 4; c++) {
        const int i = y + r * SIDE, j = x + c * SIDE;
        const bool seen = j < keys.number && sees(&a, &b, p, i, keys.first + j);
        score[j][i] = t.v[r][c] = seen ? a.scale * t.v[r][c] : -INFINITY;
      }
    local_barrier();
    if (ITEM < TILE) {
      const float before = most[ITEM];
      float now = before;
      for (int j = 0; j < keys.number; j++) now = fmax(now, score[j][ITEM]);
      most[ITEM] = now;
      factor[ITEM] = before == -INFINITY ? 0.0f : exp(before - now);
    }
    local_barrier();
    for (int r = 0; r < 4; r++)
      for (int c = 0; c < 4; c++) {
        const int i = y + r * SIDE;
        score[x + c * SIDE][i] = t.v[r][c] == -INFINITY ? 0.0f : exp(t.v[r][c] - most[i]);
      }
    for (int n = 0; n < COUNT_TILES(&a); n++)
      for (int r = 0; r < 4; r++)
        for (int c = 0; c < 4; c++) result[n].v[r][c] *= factor[y + r * SIDE];
    local_barrier();
    if (ITEM < TILE) {
      float added = 0.0f;
      for (int j = 0; j < keys.number; j++) added += score[j][ITEM];
      sum[ITEM] = sum[ITEM] * factor[ITEM] + added;
    }
    for (int n = 0; n < COUNT_TILES(&a); n++)
      add_keys(&a, &result[n], score, (tensor){v, &a.v}, &keys, kv, n * TILE, s);
    local_barrier();
  }
  local_barrier();
  for (int r = 0; r < 4; r++) {
    const int i = y + r * SIDE;
    const float total = sum[i], share = total == 0.0f ? 0.0f : 1.0f / total;
    for (int n = 0; n < COUNT_TILES(&a); n++)
      for (int c = 0; c < 4; c++) {
        const int dim = n * TILE + x + c * SIDE;
        if (i < b.number && dim < a.head_dim)
          STORE(X_TYPE, out, pair_at(&a.out, &b, p, i, dim), result[n].v[r][c] * share);
      }
    if (x == 0 && i < b.number && a.flags & ATTENTION_WANT_LSE)
      lse[pair_at(&a.lse, &b, p, i, 0)] = total == 0.0f ? -INFINITY : most[i] + log(total);
  }
}

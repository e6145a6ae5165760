/* Gradients of attention, in plain OpenCL C. The scores are computed again from q and k:
 *
 *   weight = exp(score - lse)              dscore = scale weight (dout v^T - common)     common = dout . out
 *   dv = weight^T dout                     dk = dscore^T q                               dq = dscore k
 *
 * dq is summed by the work-groups of pairs, dk and dv by those of keys, so that no two write the same number. */
#include "attention.h"

kernel void attention_common(const attention_args a, global const x_t *out, global const x_t *dout,
                             global float *common) {
  const long i = (long)get_global_id(0), head = i % a.heads, step = i / a.heads % a.length;
  const long batch = i / a.heads / a.length;
  float sum = 0.0f;
  if (i >= (long)a.heads * a.length * a.rows) return;
  for (int p = 0; p < a.head_dim; p++)
    sum += LOAD(X_TYPE, dout, view_at(&a.dout, batch, step, head, p)) *
           LOAD(X_TYPE, out, view_at(&a.out, batch, step, head, p));
  common[i] = sum;
}

/* lse and common of a block's pairs, for its work-items. Between barriers. */
static inline void place_sums(const attention_args *a, const block *b, pairs p, int item, global const float *lse,
                              global const float *common, local float *lse_of, local float *common_of) {
  if (item < b->number) {
    const long step = b->r.query + p.query[item];
    lse_of[item] = lse[pair_at(&a->lse, b, p, item, 0)];
    common_of[item] = common[(b->r.batch * a->length + step) * a->heads + p.head[item]];
  }
}

/* The weight of a key that a pair sees. */
static inline float weight_of(const attention_args *a, float product, float lse) {
  return exp(a->scale * product - lse);
}

kernel TILE_GROUP void attention_dq(const attention_args a, global const x_t *q, global const x_t *k,
                                    global const x_t *v, global const x_t *dout, global const int *offsets,
                                    global const int *ends, global const float *lse, global const float *common,
                                    global x_t *dq) {
  local float a_tile[DEPTH][TILE + 1], b_tile[DEPTH][TILE + 1], dscore[TILE][TILE + 1]; /* [key][pair] */
  local float lse_of[TILE], common_of[TILE];
  local long query[TILE];
  local int head[TILE];
  WORK_ITEM;
  const pairs p = {query, head};
  const slices s = {a_tile, b_tile};
  const int kv = (int)get_group_id(1), group = a.heads / a.kv_heads;
  block b = block_of(&a, offsets, ends, (long)get_group_id(0), group);
  b.number = number_of(&b, b.r.queries * group);
  place_pairs(&a, &b, kv, ITEM, p);
  place_sums(&a, &b, p, ITEM, lse, common, lse_of, common_of);
  tile result[ATTENTION_TILES];
  for (int c = 0; c < COUNT_TILES(&a); c++) result[c] = tile_zero();
  block keys = b;
  const long end = b.number > 0 ? end_key(&b.r, (b.first + b.number - 1) / group) : 0;
  for (keys.first = first_key(&a, &b.r, b.first / group); keys.first < end; keys.first += TILE) {
    keys.number = number_of(&keys, end);
    tile t = pairs_by_keys(&a, (tensor){q, &a.q}, &b, p, (tensor){k, &a.k}, &keys, kv, s);
    tile dt = pairs_by_keys(&a, (tensor){dout, &a.dout}, &b, p, (tensor){v, &a.v}, &keys, kv, s);
    for (int r = 0; r < 4; r++)
      for (int c = 0; c < 4; c++) {
        const int i = y + r * SIDE, j = x + c * SIDE;
        const bool seen = j < keys.number && sees(&a, &b, p, i, keys.first + j);
        dscore[j][i] = seen ? a.scale * weight_of(&a, t.v[r][c], lse_of[i]) * (dt.v[r][c] - common_of[i]) : 0.0f;
      }
    for (int n = 0; n < COUNT_TILES(&a); n++)
      add_keys(&a, &result[n], dscore, (tensor){k, &a.k}, &keys, kv, n * TILE, s);
    local_barrier();
  }
  local_barrier();
  for (int n = 0; n < COUNT_TILES(&a); n++)
    for (int r = 0; r < 4; r++)
      for (int c = 0; c < 4; c++) {
        const int i = y + r * SIDE, dim = n * TILE + x + c * SIDE;
        if (i < b.number && dim < a.head_dim) STORE(X_TYPE, dq, pair_at(&a.dq, &b, p, i, dim), result[n].v[r][c]);
      }
}

/* Adds to the columns from p0 on of a block's keys: weights, [pair][key], with the pairs' q or dout. */
static inline void add_pairs(const attention_args *a, tile *sum, local const float (*weight)[TILE + 1],
                             tensor q_or_dout, const block *b, pairs p, int p0, slices s) {
  WORK_ITEM;
  for (int k0 = 0; k0 < b->number; k0 += DEPTH) {
    local_barrier();
    FOR_SLICE(e) {
      ALONG_ROWS(e);
      s.b[kk][i] = pair_element(a, q_or_dout, b, p, k0 + kk, p0 + i);
    }
    local_barrier();
    tile_multiply(sum, weight + k0, (local const float(*)[TILE + 1]) s.b, x, y);
  }
  ANCHOR
}

/* dk; with the flag ATTENTION_OF_V dv. */
kernel TILE_GROUP void attention_dkv(const attention_args a, global const x_t *q, global const x_t *k,
                                     global const x_t *v, global const x_t *dout, global const int *offsets,
                                     global const int *ends, global const float *lse, global const float *common,
                                     global x_t *out) {
  local float a_tile[DEPTH][TILE + 1], b_tile[DEPTH][TILE + 1], weight[TILE][TILE + 1]; /* [pair][key] */
  local float lse_of[TILE], common_of[TILE];
  local long query[TILE];
  local int head[TILE];
  WORK_ITEM;
  const pairs p = {query, head};
  const slices s = {a_tile, b_tile};
  const int kv = (int)get_group_id(1), group = a.heads / a.kv_heads;
  const bool of_v = a.flags & ATTENTION_OF_V;
  block keys = block_of(&a, offsets, ends, (long)get_group_id(0), 1);
  keys.number = number_of(&keys, keys.r.keys);
  tile result[ATTENTION_TILES];
  for (int n = 0; n < COUNT_TILES(&a); n++) result[n] = tile_zero();
  block b = keys;
  const long end = keys.number > 0 ? end_query(&a, &keys.r, keys.first + keys.number - 1) * group : 0;
  for (b.first = first_query(&keys.r, keys.first) * group; b.first < end; b.first += TILE) {
    b.number = number_of(&b, end);
    local_barrier();
    place_pairs(&a, &b, kv, ITEM, p);
    place_sums(&a, &b, p, ITEM, lse, common, lse_of, common_of);
    local_barrier();
    tile t = pairs_by_keys(&a, (tensor){q, &a.q}, &b, p, (tensor){k, &a.k}, &keys, kv, s);
    tile dt = tile_zero();
    if (!of_v) dt = pairs_by_keys(&a, (tensor){dout, &a.dout}, &b, p, (tensor){v, &a.v}, &keys, kv, s);
    for (int r = 0; r < 4; r++)
      for (int c = 0; c < 4; c++) {
        const int i = y + r * SIDE, j = x + c * SIDE;
        const bool seen = j < keys.number && sees(&a, &b, p, i, keys.first + j);
        float value = seen ? weight_of(&a, t.v[r][c], lse_of[i]) : 0.0f;
        if (seen && !of_v) value *= a.scale * (dt.v[r][c] - common_of[i]);
        weight[i][j] = value;
      }
    const tensor from = {of_v ? dout : q, of_v ? &a.dout : &a.q};
    for (int n = 0; n < COUNT_TILES(&a); n++)
      add_pairs(&a, &result[n], weight, from, &b, p, n * TILE, s);
    local_barrier();
  }
  local_barrier();
  for (int n = 0; n < COUNT_TILES(&a); n++)
    for (int r = 0; r < 4; r++)
      for (int c = 0; c < 4; c++) {
        const int j = y + r * SIDE, dim = n * TILE + x + c * SIDE;
        if (j < keys.number && dim < a.head_dim)
          STORE(X_TYPE, out, view_at(&a.dkv, keys.r.key_batch, keys.r.key + keys.first + j, kv, dim), result[n].v[r][c]);
      }
}

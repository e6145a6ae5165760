/* Attention, forward: a task owns a tile of pairs (attention_tile.h) and walks the tiles of keys that they see, with
 * a running maximum and sum of each pair (Dao et al. 2022). Scores and results are products of tiles. */
#include "attention_tile.h"

typedef struct forward_scratch {
  float *q, *out;    /* (pairs, head_dim)                 */
  float *k, *v;      /* (keys, head_dim)                  */
  float *score;      /* (pairs, TILE)                     */
  float *most, *sum; /* of each pair's scores, of weights */
  float *product;
} forward_scratch;

typedef struct forward_task {
  const attention_shape *s;
  const clm_attention_args *a;
  int64_t slots; /* tiles of pairs, for each head of keys; some may be empty */
  gemm_choice gemm;
  float *scratch;
  int64_t scratch_floats;
} forward_task;

static int64_t scratch_layout(const attention_shape *s, float *memory, forward_scratch *k) {
  const int64_t tile = TILE * s->head_dim;
  int64_t used = 0;
  *k = (forward_scratch){
      .q = scratch_take(memory, &used, tile),
      .out = scratch_take(memory, &used, tile),
      .k = scratch_take(memory, &used, tile),
      .v = scratch_take(memory, &used, tile),
      .score = scratch_take(memory, &used, TILE * TILE),
      .most = scratch_take(memory, &used, TILE),
      .sum = scratch_take(memory, &used, TILE),
      .product = scratch_take(memory, &used, GEMM_SCRATCH),
  };
  return used;
}

/* ---- Tiles of pairs ---- */

/* The first slot of a packed sequence: no fewer slots than it has tiles, and a sum that does not depend on those
 * before it. */
static int64_t packed_slot(const attention_shape *s, const attention_row *r, int64_t i) {
  return r->query * (s->n_heads / s->kv_heads) / TILE + i;
}

static int64_t count_slots(const attention_shape *s) {
  const int64_t pairs = s->length * (s->n_heads / s->kv_heads);
  return s->packed ? pairs / TILE + s->sequences : s->sequences * div_up(pairs, TILE);
}

/* The pairs of a slot; none where it is empty. */
static attention_pairs pairs_of(const forward_task *task, int64_t slot, int64_t kv) {
  const attention_shape *s = task->s;
  attention_pairs p = {.s = s, .kv = kv, .group = s->n_heads / s->kv_heads};
  if (s->packed) {
    int64_t low = 0, high = s->sequences - 1;
    while (low < high) {
      const int64_t middle = low + (high - low + 1) / 2;
      p.row = attention_row_of(s, task->a, middle);
      if (packed_slot(s, &p.row, middle) <= slot) low = middle;
      else high = middle - 1;
    }
    p.row = attention_row_of(s, task->a, low);
    p.first = (slot - packed_slot(s, &p.row, low)) * TILE;
  } else {
    const int64_t tiles = task->slots / s->sequences;
    p.row = attention_row_of(s, task->a, slot / tiles);
    p.first = slot % tiles * TILE;
  }
  p.number = p.first < 0 ? 0 : max_of(0, min_of(TILE, p.row.queries * p.group - p.first));
  return p;
}

/* ---- Softmax ---- */

/* Scores of pair x become weights relative to the largest score so far. */
static void weigh(const attention_pairs *p, int64_t x, int64_t first, int64_t count, forward_scratch *k) {
  float *score = k->score + x * TILE, *out = k->out + x * p->s->head_dim;
  int64_t from, to;
  pair_sees(p, x, first, count, &from, &to);
  if (from < to) {
    vec most = vec_set(k->most[x]), sum = vec_set(0);
    for (int64_t j = from; j < to; j += LANES) most = vec_max(vec_load_or(score + j, to - j, -(float)INFINITY), most);
    const float now = vec_largest(most), factor = expf(k->most[x] - now);
    for (int64_t j = from; j < to; j += LANES) {
      const vec weight = vec_keep(vec_exp_bounded(vec_load_part(score + j, to - j) - vec_set(now)), to - j);
      vec_store_part(score + j, weight, to - j);
      sum += weight;
    }
    k->most[x] = now;
    k->sum[x] = k->sum[x] * factor + vec_sum(sum);
    for (int64_t j = 0; factor != 1 && j < p->s->head_dim; j += LANES)
      vec_store_part(out + j, vec_load_part(out + j, p->s->head_dim - j) * vec_set(factor), p->s->head_dim - j);
  }
  keep_seen(score, count, from, to);
}

static void write_pair(const forward_task *task, const attention_pairs *p, int64_t x, forward_scratch *k) {
  const int64_t P = p->s->head_dim;
  const float sum = k->sum[x], factor = sum == 0 ? 0 : 1 / sum;
  float *out = k->out + x * P;
  for (int64_t j = 0; j < P; j += LANES)
    vec_store_part(out + j, vec_load_part(out + j, P - j) * vec_set(factor), P - j);
  line_write(pair_line(p, &task->a->out, x), P, out);
  const float lse = sum == 0 ? -(float)INFINITY : k->most[x] + logf(sum);
  if (present(task->a->lse)) line_write(pair_line(p, &task->a->lse, x), 1, &lse);
}

static void run_tile(void *arg, int64_t index, int worker) {
  const forward_task *task = arg;
  const attention_shape *s = task->s;
  const int64_t P = s->head_dim, turn = index % task->slots;
  /* the last tiles see the most keys: one of them after each of the first */
  const attention_pairs p = pairs_of(task, turn % 2 ? task->slots - 1 - turn / 2 : turn / 2, index / task->slots);
  forward_scratch k;
  if (p.number == 0) return;
  scratch_layout(s, task->scratch + worker * task->scratch_floats, &k);
  pairs_read(&p, &task->a->q, k.q);
  memset(k.out, 0, (size_t)(p.number * P) * sizeof *k.out);
  for (int64_t x = 0; x < p.number; x++) {
    k.most[x] = -(float)INFINITY;
    k.sum[x] = 0;
  }
  const int64_t end = attention_end_key(&p.row, pair_query(&p, p.number - 1));
  for (int64_t j = attention_first_key(s, &p.row, pair_query(&p, 0)); j < end; j += TILE) {
    const int64_t count = min_of(TILE, end - j);
    const matrix keys = keys_read(&p, &task->a->k, j, count, k.k), values = keys_read(&p, &task->a->v, j, count, k.v);
    task->gemm.run((gemm_size){p.number, count, P}, (float)s->scale, gemm_rows(k.q, P),
                   (matrix){keys.data, 1, keys.row}, 0, gemm_rows(k.score, TILE), k.product);
    for (int64_t x = 0; x < p.number; x++) weigh(&p, x, j, count, &k);
    task->gemm.run((gemm_size){p.number, P, count}, 1, gemm_rows(k.score, TILE), values, 1, gemm_rows(k.out, P),
                   k.product);
  }
  for (int64_t x = 0; x < p.number; x++) write_pair(task, &p, x, &k);
}

clm_status KERNEL(attention)(clm_context *ctx, const attention_shape *s, const clm_attention_args *a) {
  if (!ALL_STORAGE(a->q)) return ref_attention(ctx, s, a);
  cpu_pool *pool = cpu_context_pool(ctx);
  forward_scratch k;
  forward_task task = {.s = s, .a = a, .slots = count_slots(s), .gemm = gemm_choose(cpu_pool_threads(pool))};
  clm_status status = kernel_scratch(ctx, scratch_layout(s, NULL, &k), &task.scratch_floats, &task.scratch);
  if (status) return status;
  cpu_pool_run(pool, task.slots * s->kv_heads, run_tile, &task);
  context_explain(ctx, "attention: cpu %s, %s, tiles of %d queries and keys", cpu_context_level(ctx), task.gemm.name,
                  TILE);
  return CLM_OK;
}

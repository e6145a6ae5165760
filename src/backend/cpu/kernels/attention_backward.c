/* Gradients of attention. A task owns a row, a head of keys and every parts-th of its tiles of keys; for each of
 * these it walks the pairs (attention_tile.h) that see them:
 *
 *   weight = exp(score - lse)              dscore = scale weight (dout v^T - common)     common = dout . out
 *   dv += weight^T dout                    dk += dscore^T q                              dq += dscore k
 *
 * dk and dv of a tile are complete then. Each part has its own dq, and the parts are added in order. How many there
 * are depends on the shape alone. */
#include "attention_tile.h"

enum { BUSY = 32 /* tasks that are enough for the threads */, MOST_PARTS = 8 };

typedef struct backward_scratch {
  float *q, *dout;       /* (pairs, head_dim) */
  float *k, *v;          /* (keys, head_dim)  */
  float *dk, *dv;        /* (keys, head_dim)  */
  float *score, *dscore; /* (pairs, TILE)     */
  float *product;
} backward_scratch;

typedef struct backward_task {
  const attention_shape *s;
  const clm_attention_backward_args *a;
  int64_t group, parts;
  gemm_choice gemm;
  float *dq;           /* (parts, batch, kv_heads, pairs, head_dim) */
  float *common, *lse; /* (batch, kv_heads, pairs)                  */
  float *scratch;
  int64_t scratch_floats;
} backward_task;

static int64_t scratch_layout(const attention_shape *s, float *memory, backward_scratch *k) {
  float **tiles[] = {&k->q, &k->dout, &k->k, &k->v, &k->dk, &k->dv};
  int64_t used = 0;
  for (size_t i = 0; i < sizeof tiles / sizeof *tiles; i++)
    *tiles[i] = scratch_take(memory, &used, TILE * s->head_dim);
  k->score = scratch_take(memory, &used, TILE * TILE);
  k->dscore = scratch_take(memory, &used, TILE * TILE);
  k->product = scratch_take(memory, &used, GEMM_SCRATCH);
  return used;
}

/* The place of a query's first pair among those of the batch. */
static int64_t pair_at(const backward_task *task, int64_t batch, int64_t kv, int64_t query) {
  return ((batch * task->s->kv_heads + kv) * task->s->length + query) * task->group;
}

static int64_t count_pairs(const attention_shape *s) { return s->batch * s->length * s->n_heads; }

/* ---- What the pairs need, and what becomes of their dq: a task for each step ---- */

static void prepare(void *arg, int64_t index, int worker) {
  const backward_task *task = arg;
  const attention_shape *s = task->s;
  const clm_attention_backward_args *a = task->a;
  const int64_t P = s->head_dim, query = index % s->length;
  backward_scratch k;
  scratch_layout(s, task->scratch + worker * task->scratch_floats, &k);
  for (int64_t kv = 0; kv < s->kv_heads; kv++) {
    const attention_pairs p = {
        .s = s, .row = {.batch = index / s->length, .query = query}, .kv = kv, .group = task->group};
    const int64_t at = pair_at(task, p.row.batch, kv, query);
    for (int64_t x = 0; x < task->group; x++) {
      const float *dout = line_load(pair_line(&p, &a->dout, x), P, k.dout);
      const float *out = line_load(pair_line(&p, &a->forward.out, x), P, k.q);
      vec sum = vec_set(0);
      for (int64_t j = 0; j < P; j += LANES) sum += vec_load_part(dout + j, P - j) * vec_load_part(out + j, P - j);
      task->common[at + x] = vec_sum(sum);
      line_read(pair_line(&p, &a->forward.lse, x), 1, &task->lse[at + x]);
    }
    for (int64_t part = 0; part < task->parts && present(a->dq); part++)
      memset(task->dq + (part * count_pairs(s) + at) * P, 0, (size_t)(task->group * P) * sizeof *task->dq);
  }
}

static void add_parts(void *arg, int64_t index, int worker) {
  const backward_task *task = arg;
  const attention_shape *s = task->s;
  const int64_t P = s->head_dim, query = index % s->length, numbers = task->group * P;
  (void)worker;
  for (int64_t kv = 0; kv < s->kv_heads; kv++) {
    const attention_pairs p = {
        .s = s, .row = {.batch = index / s->length, .query = query}, .kv = kv, .group = task->group};
    float *sum = task->dq + pair_at(task, p.row.batch, kv, query) * P;
    for (int64_t part = 1; part < task->parts; part++)
      for (int64_t j = 0; j < numbers; j += LANES)
        vec_store_part(sum + j,
                       vec_load_part(sum + j, numbers - j) +
                           vec_load_part(sum + part * count_pairs(s) * P + j, numbers - j),
                       numbers - j);
    for (int64_t x = 0; x < task->group; x++) line_write(pair_line(&p, &task->a->dq, x), P, sum + x * P);
  }
}

/* ---- Tiles ---- */

/* k->score, the scores of pair x, becomes its weights; k->dscore, the gradient of these, that of the products. */
static void weigh(const backward_task *task, const attention_pairs *p, int64_t x, int64_t first, int64_t count,
                  backward_scratch *k) {
  const int64_t at = pair_at(task, p->row.batch, p->kv, p->row.query) + p->first + x;
  float *score = k->score + x * TILE, *dscore = k->dscore + x * TILE;
  const vec lse = vec_set(task->lse[at]), common = vec_set(task->common[at]), scale = vec_set((float)p->s->scale);
  int64_t from, to;
  pair_sees(p, x, first, count, &from, &to);
  for (int64_t j = from; j < to; j += LANES) {
    const vec weight = vec_exp(vec_load_part(score + j, to - j) - lse);
    vec_store_part(score + j, weight, to - j);
    vec_store_part(dscore + j, scale * weight * (vec_load_part(dscore + j, to - j) - common), to - j);
  }
  keep_seen(score, count, from, to);
  keep_seen(dscore, count, from, to);
}

static void run_pairs(const backward_task *task, const attention_pairs *p, int64_t first, int64_t count, matrix keys,
                      matrix values, backward_scratch *k) {
  const clm_attention_backward_args *a = task->a;
  const int64_t P = p->s->head_dim;
  const matrix weights = gemm_turned(k->score, TILE), dscores = gemm_turned(k->dscore, TILE);
  gemm_fn *product = task->gemm.run;
  pairs_read(p, &a->forward.q, k->q);
  pairs_read(p, &a->dout, k->dout);
  product((gemm_size){p->number, count, P}, (float)p->s->scale, gemm_rows(k->q, P), (matrix){keys.data, 1, keys.row},
          0, gemm_rows(k->score, TILE), k->product);
  product((gemm_size){p->number, count, P}, 1, gemm_rows(k->dout, P), (matrix){values.data, 1, values.row}, 0,
          gemm_rows(k->dscore, TILE), k->product);
  for (int64_t x = 0; x < p->number; x++) weigh(task, p, x, first, count, k);
  if (present(a->dv))
    product((gemm_size){count, P, p->number}, 1, weights, gemm_rows(k->dout, P), 1, gemm_rows(k->dv, P), k->product);
  if (present(a->dk))
    product((gemm_size){count, P, p->number}, 1, dscores, gemm_rows(k->q, P), 1, gemm_rows(k->dk, P), k->product);
  if (present(a->dq)) {
    const int64_t part = first / TILE % task->parts;
    const int64_t at = part * count_pairs(p->s) + pair_at(task, p->row.batch, p->kv, p->row.query) + p->first;
    product((gemm_size){p->number, P, count}, 1, gemm_rows(k->dscore, TILE), keys, 1, gemm_rows(task->dq + at * P, P),
            k->product);
  }
}

static void run_keys(const backward_task *task, attention_pairs *p, int64_t first, backward_scratch *k) {
  const attention_shape *s = p->s;
  const clm_attention_backward_args *a = task->a;
  const int64_t P = s->head_dim, count = min_of(TILE, p->row.keys - first);
  const matrix keys = keys_read(p, &a->forward.k, first, count, k->k);
  const matrix values = keys_read(p, &a->forward.v, first, count, k->v);
  const int64_t end = attention_end_query(s, &p->row, first + count - 1) * p->group;
  memset(k->dk, 0, (size_t)(count * P) * sizeof *k->dk);
  memset(k->dv, 0, (size_t)(count * P) * sizeof *k->dv);
  for (p->first = attention_first_query(&p->row, first) * p->group; p->first < end; p->first += TILE) {
    p->number = min_of(TILE, end - p->first);
    run_pairs(task, p, first, count, keys, values, k);
  }
  for (int64_t j = 0; j < count; j++) {
    if (present(a->dk)) line_write(key_line(p, &a->dk, first + j), P, k->dk + j * P);
    if (present(a->dv)) line_write(key_line(p, &a->dv, first + j), P, k->dv + j * P);
  }
}

static void run_part(void *arg, int64_t index, int worker) {
  const backward_task *task = arg;
  const attention_shape *s = task->s;
  const int64_t part = index % task->parts, row = index / task->parts / s->kv_heads;
  attention_pairs p = {.s = s,
                       .row = attention_row_of(s, &task->a->forward, row),
                       .kv = index / task->parts % s->kv_heads,
                       .group = task->group};
  backward_scratch k;
  scratch_layout(s, task->scratch + worker * task->scratch_floats, &k);
  for (int64_t first = part * TILE; first < p.row.keys; first += task->parts * TILE) run_keys(task, &p, first, &k);
}

/* Places everything but the workers' scratch; floats in all. */
static int64_t layout(backward_task *task, float *memory) {
  const int64_t pairs = count_pairs(task->s);
  int64_t used = 0;
  backward_scratch k;
  task->common = scratch_take(memory, &used, pairs);
  task->lse = scratch_take(memory, &used, pairs);
  task->dq = scratch_take(memory, &used, present(task->a->dq) ? task->parts * pairs * task->s->head_dim : 0);
  task->scratch_floats = scratch_layout(task->s, NULL, &k);
  task->scratch = scratch_take(memory, &used, 0);
  return used;
}

clm_status KERNEL(attention_backward)(clm_context *ctx, const attention_shape *s,
                                      const clm_attention_backward_args *a) {
  if (!ALL_STORAGE(a->dout)) return ref_attention_backward(ctx, s, a);
  cpu_pool *pool = cpu_context_pool(ctx);
  const int threads = cpu_pool_threads(pool);
  const int64_t tasks = s->sequences * s->kv_heads, most = min_of(div_up(s->keys, TILE), MOST_PARTS);
  backward_task task = {
      .s = s, .a = a, .group = s->n_heads / s->kv_heads, .parts = max_of(1, min_of(most, BUSY / tasks))};
  clm_buffer *workspace;
  const int64_t shared = layout(&task, NULL);
  clm_status status =
      context_workspace(ctx, (size_t)(shared + task.scratch_floats * threads) * sizeof(float), &workspace);
  if (status) return status;
  layout(&task, workspace->host);
  task.gemm = gemm_choose(threads);
  cpu_pool_run(pool, s->batch * s->length, prepare, &task);
  cpu_pool_run(pool, tasks * task.parts, run_part, &task);
  if (present(a->dq)) cpu_pool_run(pool, s->batch * s->length, add_parts, &task);
  context_explain(ctx, "attention_backward: cpu %s, %s, tiles of %d queries and keys, keys in %lld part%s",
                  cpu_context_level(ctx), task.gemm.name, TILE, (long long)task.parts, task.parts == 1 ? "" : "s");
  return CLM_OK;
}

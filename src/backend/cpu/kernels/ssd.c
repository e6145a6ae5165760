/* SSD, forward: products of a piece's steps with each other and with the state (ssd_chunk.h has the cut). C B^T of
 * all pieces comes first, once for all heads. States are turned, (d_state, head_dim), so that no product has to turn
 * them.
 */
#include "ssd_chunk.h"

typedef struct forward_scratch {
  float *B, *C;      /* (steps, d_state)                    */
  float *mixed;      /* (steps, PIECE)                      */
  float *x, *dx, *y; /* (steps, head_dim): x, d x, result   */
  float *line;       /* D, then z                           */
  float *states;     /* (heads, d_state, head_dim)          */
  float *product;
} forward_scratch;

typedef struct forward_task {
  ssd_plan plan;
  float *between; /* (batch, groups, length, PIECE): C B^T of the pieces */
  clm_tensor initial, final;
  float *scratch;
  int64_t scratch_floats;
} forward_task;

static int64_t scratch_layout(const ssd_plan *p, float *memory, forward_scratch *k) {
  const int64_t N = p->s->d_state, P = p->s->head_dim;
  int64_t used = 0;
  *k = (forward_scratch){
      .B = scratch_take(memory, &used, PIECE * N),
      .C = scratch_take(memory, &used, PIECE * N),
      .mixed = scratch_take(memory, &used, PIECE * PIECE),
      .x = scratch_take(memory, &used, PIECE * P),
      .dx = scratch_take(memory, &used, PIECE * P),
      .y = scratch_take(memory, &used, PIECE * P),
      .line = scratch_take(memory, &used, 2 * P),
      .states = scratch_take(memory, &used, p->heads * P * N),
      .product = scratch_take(memory, &used, GEMM_SCRATCH),
  };
  return used;
}

/* y = (y + D x) silu(z) */
static void finish(const ssd_plan *p, const ssd_piece *piece, int64_t head, forward_scratch *k) {
  const clm_ssd_args *a = p->a;
  const int64_t P = p->s->head_dim;
  float *D = k->line, *z = k->line + P;
  if (present(a->D)) line_read(ssd_skip(&a->D, head), P, D);
  else memset(D, 0, (size_t)P * sizeof *D);
  for (int32_t i = 0; i < piece->steps; i++) {
    const int64_t step = piece->begin + i;
    if (present(a->z))
      line_read(line_at(&a->z, piece->batch * a->z.stride[0] + step * a->z.stride[1] + head * a->z.stride[2],
                        a->z.stride[3]),
                P, z);
    for (int64_t j = 0; j < P; j += LANES) {
      const int64_t left = P - j;
      vec y = vec_load_part(k->y + i * P + j, left);
      if (present(a->D)) y += vec_load_part(D + j, left) * vec_load_part(k->x + i * P + j, left);
      if (present(a->z)) {
        const vec gate = vec_load_part(z + j, left);
        y *= gate * vec_sigmoid(gate);
      }
      vec_store_part(k->y + i * P + j, y, left);
    }
  }
  ssd_write(p, &a->out, piece, head, k->y);
}

static float *between_of(const forward_task *task, int64_t batch, int64_t group, int64_t step) {
  const ssd_shape *s = task->plan.s;
  return task->between + ((batch * s->n_groups + group) * s->length + step) * PIECE;
}

static void run_between(void *arg, int64_t index, int worker) {
  const forward_task *task = arg;
  const ssd_plan *p = &task->plan;
  const int64_t N = p->s->d_state, group = index % p->s->n_groups, number = index / p->s->n_groups;
  const ssd_piece *piece = &p->piece[number];
  forward_scratch k;
  scratch_layout(p, task->scratch + worker * task->scratch_floats, &k);
  ssd_read(p, &p->a->B, piece, group, k.B);
  ssd_read(p, &p->a->C, piece, group, k.C);
  ssd_product(p, (gemm_size){piece->steps, piece->steps, N}, gemm_rows(k.C, N), gemm_turned(k.B, N), 0,
              gemm_rows(between_of(task, piece->batch, group, piece->begin), PIECE), k.product);
}

static void run_head(const forward_task *task, const ssd_block *b, const ssd_piece *piece, int64_t head, float *state,
                     forward_scratch *k) {
  const ssd_plan *p = &task->plan;
  const int64_t N = p->s->d_state, P = p->s->head_dim, q = piece->steps;
  ssd_decay decay = {.whole = 0};
  ssd_decays(p, piece, head, &decay);
  ssd_read(p, &p->a->x, piece, head, k->x);
  ssd_scale_rows(k->x, q, P, decay.d, k->dx);
  if (piece->fresh) memset(state, 0, (size_t)(P * N) * sizeof *state);
  ssd_product(p, (gemm_size){q, P, N}, gemm_rows(k->C, N), gemm_rows(state, P), 0, gemm_rows(k->y, P), k->product);
  ssd_scale_rows(k->y, q, P, decay.from_begin, k->y);
  ssd_decay_matrix(&decay, piece->steps, between_of(task, piece->batch, b->group, piece->begin), k->mixed);
  ssd_product(p, (gemm_size){q, P, q}, gemm_rows(k->mixed, PIECE), gemm_rows(k->dx, P), 1, gemm_rows(k->y, P),
              k->product);
  finish(p, piece, head, k);
  ssd_scale_rows(k->dx, q, P, decay.to_end, k->dx);
  ssd_product(p, (gemm_size){N, P, q}, gemm_turned(k->B, N), gemm_rows(k->dx, P), decay.whole, gemm_rows(state, P),
              k->product);
}

static void run_block(void *arg, int64_t index, int worker) {
  const forward_task *task = arg;
  const ssd_plan *p = &task->plan;
  const int64_t state = p->s->head_dim * p->s->d_state;
  const ssd_block b = ssd_block_of(p, index);
  forward_scratch k;
  scratch_layout(p, task->scratch + worker * task->scratch_floats, &k);
  for (int64_t i = 0; i < b.heads; i++) ssd_read_state(p, &task->initial, b.index, b.head + i, k.states + i * state);
  for (const ssd_piece *piece = b.first; piece < b.end; piece++) {
    ssd_read(p, &p->a->B, piece, b.group, k.B);
    ssd_read(p, &p->a->C, piece, b.group, k.C);
    for (int64_t i = 0; i < b.heads; i++) run_head(task, &b, piece, b.head + i, k.states + i * state, &k);
  }
  for (int64_t i = 0; i < b.heads; i++) ssd_write_state(&task->final, b.index, b.head + i, k.states + i * state);
}

static ssd_plan plan_of(const ssd_shape *s, const clm_ssd_args *a) { return ssd_plan_of(s, a, 1, 8); }

static int64_t scratch_floats(const ssd_plan *p) {
  forward_scratch k;
  return scratch_layout(p, NULL, &k);
}

static bool is_taken(const clm_ssd_args *a) { return ALL_STORAGE(a->x, a->dt, a->B, a->C, a->z, a->out); }

static int64_t between_floats(const ssd_shape *s) { return s->batch * s->n_groups * s->length * PIECE; }

size_t KERNEL(ssd_workspace)(clm_context *ctx, const ssd_shape *s, const clm_ssd_args *a) {
  const ssd_plan p = plan_of(s, a);
  const int64_t workers = cpu_pool_threads(cpu_context_pool(ctx));
  if (!is_taken(a)) return 0;
  return (size_t)(ssd_plan_floats(&p) + between_floats(s) + scratch_floats(&p) * workers) * sizeof(float);
}

static clm_tensor turned(const clm_tensor *state) {
  return present(*state) ? clm_tensor_transpose(*state, 2, 3) : (clm_tensor){0};
}

clm_status KERNEL(ssd)(clm_context *ctx, const ssd_shape *s, const clm_ssd_args *a) {
  if (!is_taken(a)) return ref_ssd(ctx, s, a);
  forward_task task = {.plan = plan_of(s, a), .initial = turned(&a->initial_state), .final = turned(&a->final_state)};
  cpu_pool *pool = cpu_context_pool(ctx);
  clm_buffer *workspace;
  clm_status status = context_workspace(ctx, KERNEL(ssd_workspace)(ctx, s, a), &workspace);
  if (status) return status;
  task.plan.gemm = gemm_choose(cpu_pool_threads(pool));
  ssd_plan_cut(&task.plan, workspace->host);
  task.between = (float *)workspace->host + ssd_plan_floats(&task.plan);
  task.scratch = task.between + between_floats(s);
  task.scratch_floats = scratch_floats(&task.plan);
  cpu_pool_run(pool, task.plan.first[s->sequences] * s->n_groups, run_between, &task);
  cpu_pool_run(pool, ssd_tasks(&task.plan), run_block, &task);
  context_explain(ctx, "ssd: cpu %s, %s, pieces of %lld steps, %lld tasks, %lld of a group's heads in each",
                  cpu_context_level(ctx), task.plan.gemm.name, (long long)task.plan.steps,
                  (long long)ssd_tasks(&task.plan), (long long)task.plan.heads);
  return CLM_OK;
}

/* Selective scan, forward: a task owns one batch row and a strip of channels, one channel per lane, and walks the
 * sequence in tiles. Within a tile dt is computed first, then groups of states run over all its steps with the states
 * in registers, adding into y, then the gate is applied. Every step's arithmetic is the same wherever the tile or the
 * call begins, so a sequence split anywhere with the state carried gives the same bits. */
#include "scan_tile.h"

#define TILE 32
#if SIMD_LANES == 16
#define STATES 16 /* states of a group: what the registers hold */
#elif SIMD_LANES == 8
#define STATES 8
#else
#define STATES 4
#endif

typedef struct scan_task {
  const selective_scan_shape *s;
  const clm_selective_scan_args *a;
  scan_blocks blocks;
  int64_t width, strips; /* blocks in a strip, strips of a batch row */
  char *scratch;
  size_t scratch_bytes; /* of one worker */
} scan_task;

/* One worker's scratch. dt, dtu and y of block i start at i * TILE; the packed tensors are rows of the strip. */
typedef struct scan_scratch {
  vec *dt, *dtu, *y, *u, *delta, *z;                           /* STRIP * TILE   */
  vec *A2[STRIP], *h[STRIP], *B_fixed[STRIP], *C_fixed[STRIP]; /* states each    */
  float *B, *C;                                                /* TILE * states  */
} scan_scratch;

static size_t scratch_layout(const scan_task *task, char *memory, scan_scratch *k) {
  size_t states = (size_t)task->blocks.states, used = 0;
  vec **tiles[] = {&k->dt, &k->dtu, &k->y, &k->u, &k->delta, &k->z};
  vec **fixed[] = {k->A2, k->h, k->B_fixed, k->C_fixed};
  for (int i = 0; i < 6; i++, used += STRIP * TILE * sizeof(vec)) *tiles[i] = SCRATCH_AT(memory, used);
  for (int i = 0; i < 4 * STRIP; i++, used += states * sizeof(vec))
    fixed[i / STRIP][i % STRIP] = SCRATCH_AT(memory, used);
  for (int i = 0; i < 2; i++, used += TILE * states * sizeof(float))
    *(i ? &k->C : &k->B) = (float *)SCRATCH_AT(memory, used);
  return (size_t)round_up((int64_t)used, 128);
}

/* What run_states works on: one block's tile. */
typedef struct block_tile {
  const vec *dt, *dtu, *A2, *B_fixed, *C_fixed;
  vec *y, *h;
  tile_rows B, C;
  int steps;
} block_tile;

/* `count` states from `first` on, over the tile. */
INLINE void run_states(int count, bool B_varies, bool C_varies, const block_tile *k, int64_t first,
                       tile_ahead *ahead) {
  vec h[STATES];
  UNROLL for (int n = 0; n < count; n++) h[n] = k->h[first + n];
  for (int t = 0; t < k->steps; t++) {
    tile_prefetch(ahead);
    vec dt = k->dt[t], dtu = k->dtu[t], even = k->y[t], odd = vec_set(0);
    const float *B = k->B.data + t * k->B.stride + first, *C = k->C.data + t * k->C.stride + first;
    UNROLL for (int n = 0; n < count; n++) {
      vec decay = vec_exp2_product(dt, k->A2[first + n]);
      h[n] = decay * h[n] + dtu * (B_varies ? vec_set(B[n]) : k->B_fixed[first + n]);
      vec *y = n % 2 ? &odd : &even;
      *y = h[n] * (C_varies ? vec_set(C[n]) : k->C_fixed[first + n]) + *y;
    }
    k->y[t] = even + odd;
  }
  UNROLL for (int n = 0; n < count; n++) k->h[first + n] = h[n];
}

INLINE void run_all_states(bool B_varies, bool C_varies, int64_t states, const block_tile *k, tile_ahead *ahead) {
  int64_t n = 0;
  for (; n + STATES <= states; n += STATES) run_states(STATES, B_varies, C_varies, k, n, ahead);
  if (STATES > STATE_QUANTUM)
    for (; n < states; n += STATE_QUANTUM) run_states(STATE_QUANTUM, B_varies, C_varies, k, n, ahead);
}

static void run_block(const selective_scan_shape *s, int64_t states, const block_tile *k, tile_ahead *ahead) {
  if (s->B_varies && s->C_varies) run_all_states(true, true, states, k, ahead);
  else if (s->B_varies) run_all_states(true, false, states, k, ahead);
  else if (s->C_varies) run_all_states(false, true, states, k, ahead);
  else run_all_states(false, false, states, k, ahead);
}

/* dt, dt u and D u of the tile, row by row. */
static void prepare(const scan_task *task, const scan_scratch *k, int64_t b, const scan_strip *strip, int64_t t0,
                    int steps, const vec *bias, const vec *D) {
  const clm_selective_scan_args *a = task->a;
  tile_rows u = scan_tile_pack(&a->u, b, t0, steps, strip, k->u);
  tile_rows delta = scan_tile_pack(&a->delta, b, t0, steps, strip, k->delta);
  for (int t = 0; t < steps; t++)
    for (int i = 0; i < strip->count; i++) {
      vec ut = vec_load(u.data + t * u.stride + i * LANES);
      vec dt = scan_dt(vec_load(delta.data + t * delta.stride + i * LANES) + bias[i], a->delta_softplus);
      k->dt[i * TILE + t] = dt;
      k->dtu[i * TILE + t] = dt * ut;
      k->y[i * TILE + t] = D[i] * ut;
    }
}

/* out = y silu(z), row by row. */
static void store_out(const scan_task *task, const scan_scratch *k, int64_t b, const scan_strip *strip, int64_t t0,
                      int steps) {
  const clm_selective_scan_args *a = task->a;
  int64_t stride;
  float *out = scan_tile_target(&a->out, b, t0, strip, k->u, &stride);
  tile_rows z = {0};
  if (present(a->z)) z = scan_tile_pack(&a->z, b, t0, steps, strip, k->z);
  for (int t = 0; t < steps; t++)
    for (int i = 0; i < strip->count; i++) {
      vec y = k->y[i * TILE + t];
      if (z.data) {
        vec gate = vec_load(z.data + t * z.stride + i * LANES);
        y *= gate * vec_sigmoid(gate);
      }
      vec_store(out + t * stride + i * LANES, y);
    }
  scan_tile_unpack(&a->out, b, t0, steps, strip, k->u);
}

static void run_strip(void *arg, int64_t index, int worker) {
  const scan_task *task = arg;
  const clm_selective_scan_args *a = task->a;
  const selective_scan_shape *s = task->s;
  scan_scratch k;
  scratch_layout(task, task->scratch + (size_t)worker * task->scratch_bytes, &k);
  int64_t b = index / task->strips;
  scan_strip strip = scan_strip_at(&task->blocks, task->width, index % task->strips);
  vec bias[STRIP], D[STRIP];

  for (int i = 0; i < strip.count; i++) {
    bias[i] = scan_channel_vector(&a->delta_bias, strip.block[i]);
    D[i] = scan_channel_vector(&a->D, strip.block[i]);
    scan_gather_A(&a->A, a->A_is_log, &task->blocks, s->d_state, strip.block[i], k.A2[i]);
    scan_gather_state(&a->initial_state, &task->blocks, s->d_state, b, strip.block[i], k.h[i]);
    if (!s->B_varies) scan_gather_fixed(&a->B, &task->blocks, s->d_state, strip.block[i], k.B_fixed[i]);
    if (!s->C_varies) scan_gather_fixed(&a->C, &task->blocks, s->d_state, strip.block[i], k.C_fixed[i]);
  }
  for (int64_t t0 = 0; t0 < s->length; t0 += TILE) {
    int steps = (int)min_of(TILE, s->length - t0);
    int64_t next = t0 + TILE, group = strip.block[0].group;
    tile_ahead ahead;
    tile_ahead_start(&ahead, (int)max_of(0, min_of(TILE, s->length - next)), &strip);
    const clm_tensor *streams[] = {&a->u, &a->delta, &a->z, &a->out};
    for (int i = 0; i < 4; i++) tile_ahead_add(&ahead, streams[i], b, next, &strip);

    block_tile tile = {.steps = steps};
    if (s->B_varies) tile.B = scan_tile_states(&a->B, &task->blocks, s->d_state, b, t0, steps, group, k.B);
    if (s->C_varies) tile.C = scan_tile_states(&a->C, &task->blocks, s->d_state, b, t0, steps, group, k.C);
    prepare(task, &k, b, &strip, t0, steps, bias, D);
    for (int i = 0; i < strip.count; i++) {
      tile.dt = k.dt + i * TILE;
      tile.dtu = k.dtu + i * TILE;
      tile.y = k.y + i * TILE;
      tile.A2 = k.A2[i];
      tile.h = k.h[i];
      tile.B_fixed = k.B_fixed[i];
      tile.C_fixed = k.C_fixed[i];
      run_block(s, task->blocks.states, &tile, &ahead);
    }
    store_out(task, &k, b, &strip, t0, steps);
  }
  for (int i = 0; i < strip.count; i++) scan_scatter_state(&a->final_state, s->d_state, b, strip.block[i], k.h[i]);
}

static scan_task task_of(clm_context *ctx, const selective_scan_shape *s, const clm_selective_scan_args *a) {
  scan_task task = {.s = s, .a = a, .blocks = scan_blocks_of(s)};
  int threads = cpu_pool_threads(cpu_context_pool(ctx));
  task.width = max_of(1, min_of(STRIP, s->batch * task.blocks.count / (4 * threads)));
  task.strips = scan_strips(&task.blocks, task.width);
  scan_scratch unused;
  task.scratch_bytes = scratch_layout(&task, NULL, &unused);
  return task;
}

size_t KERNEL(selective_scan_workspace)(clm_context *ctx, const selective_scan_shape *s,
                                        const clm_selective_scan_args *a) {
  return task_of(ctx, s, a).scratch_bytes * (size_t)cpu_pool_threads(cpu_context_pool(ctx));
}

clm_status KERNEL(selective_scan)(clm_context *ctx, const selective_scan_shape *s, const clm_selective_scan_args *a) {
  if (!ALL_F32(a->u, a->delta, a->A, a->B, a->C, a->D, a->z, a->delta_bias, a->initial_state, a->out,
               a->final_state) ||
      a->gate.buffer || a->seq_idx.buffer || s->packed)
    return ref_selective_scan(ctx, s, a);
  scan_task task = task_of(ctx, s, a);
  clm_buffer *workspace;
  clm_status status = context_workspace(ctx, KERNEL(selective_scan_workspace)(ctx, s, a), &workspace);
  if (status) return status;
  task.scratch = workspace->host;
  cpu_pool_run(cpu_context_pool(ctx), s->batch * task.strips, run_strip, &task);
  context_explain(
      ctx,
      "selective_scan: cpu %s, strips of %d x %d channels, tiles of %d steps, %d states in registers, %d threads",
      cpu_context_level(ctx), (int)task.width, LANES, TILE, STATES, cpu_pool_threads(cpu_context_pool(ctx)));
  return CLM_OK;
}

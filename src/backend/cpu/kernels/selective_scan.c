/* Selective scan, forward: a task owns one batch row and one block of LANES channels, one channel per lane, and walks
 * the sequence in tiles. Within a tile dt is computed first, then groups of states run over all its steps with the
 * states in registers, adding into y, then the gate is applied.
 * Every step's arithmetic is the same wherever the tile or the call begins, so a sequence split anywhere with the
 * state carried gives the same bits. */
#include "scan_tile.h"

#define TILE 64
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
  char *scratch;
  size_t scratch_bytes; /* of one worker */
} scan_task;

/* One worker's scratch; B and C are packed rows when they vary, one vector for each state when they do not. */
typedef struct scan_scratch {
  vec *dt, *dtu, *y, *u, *delta, *z; /* TILE  */
  vec *A2, *h, *B_fixed, *C_fixed;   /* states */
  float *B, *C;                      /* TILE * states */
} scan_scratch;

static size_t scratch_layout(const scan_blocks *b, char *memory, scan_scratch *k) {
  size_t tile = TILE * sizeof(vec), states = (size_t)b->states * sizeof(vec), rows = TILE * (size_t)b->states * 4;
  if (memory) {
    vec **tiles[] = {&k->dt, &k->dtu, &k->y, &k->u, &k->delta, &k->z};
    for (int i = 0; i < 6; i++, memory += tile) *tiles[i] = (vec *)(void *)memory;
    vec **fixed[] = {&k->A2, &k->h, &k->B_fixed, &k->C_fixed};
    for (int i = 0; i < 4; i++, memory += states) *fixed[i] = (vec *)(void *)memory;
    k->B = (float *)(void *)memory;
    k->C = (float *)(void *)(memory + rows);
  }
  return (6 * tile + 4 * states + 2 * rows + 127) / 128 * 128;
}

/* `count` states from `first` on, over the tile. B_fixed and C_fixed are NULL where B and C vary. */
INLINE void run_states(int count, bool B_varies, bool C_varies, int steps, const scan_scratch *k, int64_t first,
                       tile_rows B, tile_rows C) {
  vec h[STATES], *A2 = k->A2 + first, *B_fixed = k->B_fixed + first, *C_fixed = k->C_fixed + first;
  UNROLL for (int n = 0; n < count; n++) h[n] = k->h[first + n];
  for (int t = 0; t < steps; t++) {
    vec dt = k->dt[t], dtu = k->dtu[t], even = k->y[t], odd = vec_set(0);
    const float *Bt = B.data + t * B.stride + first, *Ct = C.data + t * C.stride + first;
    UNROLL for (int n = 0; n < count; n++) {
      vec decay = vec_exp2_product(dt, A2[n]);
      vec input = dtu * (B_varies ? vec_set(Bt[n]) : B_fixed[n]);
      h[n] = decay * h[n] + input;
      vec *y = n % 2 ? &odd : &even;
      *y = h[n] * (C_varies ? vec_set(Ct[n]) : C_fixed[n]) + *y;
    }
    k->y[t] = even + odd;
  }
  UNROLL for (int n = 0; n < count; n++) k->h[first + n] = h[n];
}

INLINE void run_all_states(bool B_varies, bool C_varies, int64_t states, int steps, const scan_scratch *k,
                           tile_rows B, tile_rows C) {
  int64_t n = 0;
  for (; n + STATES <= states; n += STATES) run_states(STATES, B_varies, C_varies, steps, k, n, B, C);
  if (STATES > STATE_QUANTUM)
    for (; n < states; n += STATE_QUANTUM) run_states(STATE_QUANTUM, B_varies, C_varies, steps, k, n, B, C);
}

static void run_tile(const scan_task *task, const scan_scratch *k, int64_t b, scan_block block, int64_t t0,
                     int steps) {
  const clm_selective_scan_args *a = task->a;
  const selective_scan_shape *s = task->s;
  vec bias = scan_channel_vector(&a->delta_bias, block), D = scan_channel_vector(&a->D, block);
  tile_rows u = scan_tile_channels(&a->u, b, t0, steps, block, k->u);
  tile_rows delta = scan_tile_channels(&a->delta, b, t0, steps, block, k->delta);
  for (int t = 0; t < steps; t++) {
    vec ut = vec_load(u.data + t * u.stride);
    k->dt[t] = scan_dt(vec_load(delta.data + t * delta.stride) + bias, a->delta_softplus);
    k->dtu[t] = k->dt[t] * ut;
    k->y[t] = D * ut;
  }

  tile_rows B = {0}, C = {0};
  if (s->B_varies) B = scan_tile_states(&a->B, &task->blocks, s->d_state, b, t0, steps, block.group, k->B);
  if (s->C_varies) C = scan_tile_states(&a->C, &task->blocks, s->d_state, b, t0, steps, block.group, k->C);
  int64_t states = task->blocks.states;
  if (s->B_varies && s->C_varies) run_all_states(true, true, states, steps, k, B, C);
  else if (s->B_varies) run_all_states(true, false, states, steps, k, B, C);
  else if (s->C_varies) run_all_states(false, true, states, steps, k, B, C);
  else run_all_states(false, false, states, steps, k, B, C);

  int64_t stride;
  float *out = scan_tile_target(&a->out, b, t0, block, k->y, &stride);
  if (present(a->z)) {
    tile_rows z = scan_tile_channels(&a->z, b, t0, steps, block, k->z);
    for (int t = 0; t < steps; t++) {
      vec zt = vec_load(z.data + t * z.stride);
      vec_store(out + t * stride, k->y[t] * (zt * vec_sigmoid(zt)));
    }
  } else if (out != (float *)k->y) {
    for (int t = 0; t < steps; t++) vec_store(out + t * stride, k->y[t]);
  }
  scan_tile_unpack(&a->out, b, t0, steps, block, k->y);
}

static void run_block(void *arg, int64_t index, int worker) {
  const scan_task *task = arg;
  const clm_selective_scan_args *a = task->a;
  const selective_scan_shape *s = task->s;
  scan_scratch k;
  scratch_layout(&task->blocks, task->scratch + (size_t)worker * task->scratch_bytes, &k);
  int64_t b = index / task->blocks.count;
  scan_block block = scan_block_at(&task->blocks, index % task->blocks.count);

  scan_gather_A(&a->A, a->A_is_log, &task->blocks, s->d_state, block, k.A2);
  scan_gather_state(&a->initial_state, &task->blocks, s->d_state, b, block, k.h);
  if (!s->B_varies) scan_gather_fixed(&a->B, &task->blocks, s->d_state, block, k.B_fixed);
  if (!s->C_varies) scan_gather_fixed(&a->C, &task->blocks, s->d_state, block, k.C_fixed);
  for (int64_t t0 = 0; t0 < s->length; t0 += TILE)
    run_tile(task, &k, b, block, t0, (int)min_of(TILE, s->length - t0));
  scan_scatter_state(&a->final_state, s->d_state, b, block, k.h);
}

clm_status KERNEL(selective_scan)(clm_context *ctx, const selective_scan_shape *s, const clm_selective_scan_args *a) {
  if (!ALL_F32(a->u, a->delta, a->A, a->B, a->C, a->D, a->z, a->delta_bias, a->initial_state, a->out, a->final_state))
    return ref_selective_scan(ctx, s, a);
  scan_task task = {.s = s, .a = a, .blocks = scan_blocks_of(s)};
  scan_scratch unused;
  task.scratch_bytes = scratch_layout(&task.blocks, NULL, &unused);
  int threads = cpu_pool_threads(cpu_context_pool(ctx));
  clm_buffer *workspace;
  clm_status status = context_workspace(ctx, task.scratch_bytes * (size_t)threads, &workspace);
  if (status) return status;
  task.scratch = workspace->host;
  cpu_pool_run(cpu_context_pool(ctx), s->batch * task.blocks.count, run_block, &task);
  context_explain(
      ctx, "selective_scan: cpu %s, %d channels in lanes, tiles of %d steps, %d states in registers, %d threads",
      cpu_context_level(ctx), LANES, TILE, STATES, threads);
  return CLM_OK;
}

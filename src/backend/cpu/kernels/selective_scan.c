/* Selective scan, forward: a task owns a strip of channels, one channel per lane, and walks its sequences in tiles.
 * Within a tile dt is computed first, then groups of states run over all its steps with the states in registers,
 * adding into y, then the gate is applied. Every step's arithmetic is the same wherever the tile or the call begins,
 * so a sequence split anywhere with the state carried gives the same bits. */
#include "scan_rows.h"
#include "scan_states.h"

#define TILE 32
#if SIMD_LANES == 16
#define STATES 16 /* states of a group: what the registers hold; of complex ones half as many */
#elif SIMD_LANES == 8
#define STATES 8
#else
#define STATES 4
#endif

typedef struct scan_task {
  const selective_scan_shape *s;
  const clm_selective_scan_args *a;
  scan_blocks blocks;
  scan_pieces pieces;
  int64_t width, strips; /* blocks in a strip, strips of a piece */
  char *scratch;
  size_t scratch_bytes; /* of one worker */
} scan_task;

/* One worker's scratch. dt, dtu and y of block i start at i * TILE; the packed tensors are rows of the strip. `rate`
 * is what A is multiplied with: dt, times the gate on A if there is one. */
typedef struct scan_scratch {
  vec *rate, *dtu, *y, *u, *delta, *z;                         /* STRIP * TILE     */
  vec *A2[STRIP], *h[STRIP], *B_fixed[STRIP], *C_fixed[STRIP]; /* numbers each     */
  float *B, *C;                                                /* TILE * numbers   */
  uint8_t *kinds;                                              /* with seq_idx: length */
} scan_scratch;

static size_t scratch_layout(const scan_task *task, char *memory, scan_scratch *k) {
  size_t numbers = (size_t)task->blocks.numbers, used = 0;
  vec **tiles[] = {&k->rate, &k->dtu, &k->y, &k->u, &k->delta, &k->z};
  vec **fixed[] = {k->A2, k->h, k->B_fixed, k->C_fixed};
  for (int i = 0; i < 6; i++, used += STRIP * TILE * sizeof(vec)) *tiles[i] = SCRATCH_AT(memory, used);
  for (int i = 0; i < 4 * STRIP; i++, used += numbers * sizeof(vec))
    fixed[i / STRIP][i % STRIP] = SCRATCH_AT(memory, used);
  for (int i = 0; i < 2; i++, used += TILE * numbers * sizeof(float))
    *(i ? &k->C : &k->B) = (float *)SCRATCH_AT(memory, used);
  k->kinds = (uint8_t *)SCRATCH_AT(memory, used);
  used += task->a->seq_idx.buffer ? (size_t)task->s->length : 0;
  return (size_t)round_up((int64_t)used, 128);
}

/* What run_states works on: one block's tile, or a segment of it. */
typedef struct block_tile {
  const vec *rate, *dtu, *A2, *B_fixed, *C_fixed;
  vec *y, *h;
  tile_rows B, C;
  int64_t states; /* to the imaginary parts */
  int begin, end;
} block_tile;

/* `count` states from `first` on, over the tile. */
INLINE void run_states(int count, bool B_varies, bool C_varies, bool complex, bool near, const block_tile *k,
                       int64_t first, tile_ahead *ahead) {
  const vec *A2 = k->A2 + first, *A2_im = A2 + k->states;
  const vec *B_fixed = k->B_fixed + first, *B_fixed_im = B_fixed + k->states;
  const vec *C_fixed = k->C_fixed + first, *C_fixed_im = C_fixed + k->states;
  vec h[STATES], h_im[STATES], *state = k->h + first;
  UNROLL for (int n = 0; n < count; n++) {
    h[n] = state[n];
    if (complex) h_im[n] = state[k->states + n];
  }
  for (int t = k->begin; t < k->end; t++) {
    tile_prefetch(ahead);
    vec rate = k->rate[t], dtu = k->dtu[t], even = complex ? vec_set(0) : k->y[t], odd = vec_set(0);
    const float *B = k->B.data + t * k->B.stride + first, *C = k->C.data + t * k->C.stride + first;
    const float *B_im = B + k->states, *C_im = C + k->states;
    UNROLL for (int n = 0; n < count; n++) {
      vec decay_im, decay = scan_decay(complex, near, rate, A2[n], complex ? A2_im[n] : rate, &decay_im);
      vec *y = n % 2 ? &odd : &even;
      if (!complex) {
        h[n] = decay * h[n] + dtu * (B_varies ? vec_set(B[n]) : B_fixed[n]);
        *y = h[n] * (C_varies ? vec_set(C[n]) : C_fixed[n]) + *y;
        continue;
      }
      vec re = decay * h[n] - decay_im * h_im[n] + dtu * (B_varies ? vec_set(B[n]) : B_fixed[n]);
      h_im[n] = decay * h_im[n] + decay_im * h[n] + dtu * (B_varies ? vec_set(B_im[n]) : B_fixed_im[n]);
      h[n] = re;
      *y = h[n] * (C_varies ? vec_set(C[n]) : C_fixed[n]) + *y;
      *y = *y - h_im[n] * (C_varies ? vec_set(C_im[n]) : C_fixed_im[n]);
    }
    k->y[t] = complex ? k->y[t] + vec_set(2) * (even + odd) : even + odd;
  }
  UNROLL for (int n = 0; n < count; n++) {
    state[n] = h[n];
    if (complex) state[k->states + n] = h_im[n];
  }
}

INLINE void run_all_states(bool B_varies, bool C_varies, bool complex, bool near, const block_tile *k,
                           tile_ahead *ahead) {
  const int group = complex && STATES > STATE_QUANTUM ? STATES / 2 : STATES;
  int64_t n = 0;
  for (; n + group <= k->states; n += group) run_states(group, B_varies, C_varies, complex, near, k, n, ahead);
  if (group > STATE_QUANTUM)
    for (; n < k->states; n += STATE_QUANTUM)
      run_states(STATE_QUANTUM, B_varies, C_varies, complex, near, k, n, ahead);
}

INLINE void run_kind(bool complex, bool near, const selective_scan_shape *s, const block_tile *k, tile_ahead *ahead) {
  if (s->B_varies && s->C_varies) run_all_states(true, true, complex, near, k, ahead);
  else if (s->B_varies) run_all_states(true, false, complex, near, k, ahead);
  else if (s->C_varies) run_all_states(false, true, complex, near, k, ahead);
  else run_all_states(false, false, complex, near, k, ahead);
}

typedef void (*run_fn)(const selective_scan_shape *, const block_tile *, tile_ahead *);
static void run_near(const selective_scan_shape *s, const block_tile *k, tile_ahead *ahead) {
  run_kind(false, true, s, k, ahead);
}
static void run_far(const selective_scan_shape *s, const block_tile *k, tile_ahead *ahead) {
  run_kind(false, false, s, k, ahead);
}
static void run_complex(const selective_scan_shape *s, const block_tile *k, tile_ahead *ahead) {
  run_kind(true, false, s, k, ahead);
}

static void run_block(const selective_scan_shape *s, const scan_cut *cut, bool near, block_tile *k,
                      tile_ahead *ahead) {
  run_fn run = s->complex ? run_complex : near ? run_near : run_far;
  for (int i = 0; i < cut->count; i++) {
    if (cut->at[i].resets) memset(k->h, 0, (size_t)(k->states * (s->complex ? 2 : 1)) * sizeof(vec));
    k->begin = cut->at[i].begin;
    k->end = cut->at[i].end;
    run(s, k, ahead);
  }
}

/* What stays the same along a task's tiles. */
typedef struct strip_run {
  const scan_task *task;
  scan_scratch w;
  scan_strip strip;
  int64_t b;                                                 /* current batch row */
  vec bias[STRIP], D[STRIP], most_A2[STRIP], most_dt[STRIP]; /* most_dt: of the tile */
} strip_run;

/* dt, dt u and D u of the tile, row by row. */
static void prepare(strip_run *r, int64_t t0, int steps) {
  const clm_selective_scan_args *a = r->task->a;
  const scan_scratch *w = &r->w;
  tile_rows u = scan_tile_pack(&a->u, r->b, t0, steps, &r->strip, w->u);
  tile_rows delta = scan_tile_pack(&a->delta, r->b, t0, steps, &r->strip, w->delta), gate = {0};
  if (present(a->gate)) gate = scan_tile_pack(&a->gate, r->b, t0, steps, &r->strip, w->z);
  for (int i = 0; i < r->strip.count; i++) r->most_dt[i] = vec_set(0);
  for (int t = 0; t < steps; t++)
    for (int i = 0; i < r->strip.count; i++) {
      vec ut = vec_load(u.data + t * u.stride + i * LANES);
      vec dt = scan_dt(vec_load(delta.data + t * delta.stride + i * LANES) + r->bias[i], a->delta_softplus);
      vec rate = vec_plain(gate.data ? dt * vec_load(gate.data + t * gate.stride + i * LANES) : dt);
      r->most_dt[i] = vec_max(vec_abs(rate), r->most_dt[i]);
      w->rate[i * TILE + t] = rate;
      w->dtu[i * TILE + t] = dt * ut;
      w->y[i * TILE + t] = r->D[i] * ut;
    }
}

/* out = y silu(z), row by row; 0 where a step is padding. */
static void store_out(strip_run *r, int64_t t0, int steps, const scan_cut *cut) {
  const clm_selective_scan_args *a = r->task->a;
  const scan_scratch *w = &r->w;
  int64_t stride;
  float *out = scan_tile_target(&a->out, r->b, t0, &r->strip, w->u, &stride);
  tile_rows z = {0};
  if (present(a->z)) z = scan_tile_pack(&a->z, r->b, t0, steps, &r->strip, w->z);
  for (int t = 0; t < steps; t++)
    for (int i = 0; i < r->strip.count; i++) {
      vec y = w->y[i * TILE + t];
      if (z.data) {
        vec gate = vec_load(z.data + t * z.stride + i * LANES);
        y *= gate * vec_sigmoid(gate);
      }
      vec_store(out + t * stride + i * LANES, scan_is_padding(cut, t) ? vec_set(0) : y);
    }
  scan_tile_unpack(&a->out, r->b, t0, steps, &r->strip, w->u);
}

static void run_tile(strip_run *r, seq_row row, int64_t t0) {
  const scan_task *task = r->task;
  const clm_selective_scan_args *a = task->a;
  const selective_scan_shape *s = task->s;
  int steps = (int)min_of(TILE, row.end - t0);
  int64_t next = t0 + TILE, group = r->strip.block[0].group;
  tile_ahead ahead;
  tile_ahead_start(&ahead, (int)max_of(0, min_of(TILE, row.end - next)), &r->strip, s->dtype);
  const clm_tensor *streams[] = {&a->u, &a->delta, &a->z, &a->gate, &a->out};
  for (int i = 0; i < 5; i++) tile_ahead_add(&ahead, streams[i], r->b, next, &r->strip);
  tile_ahead_row(&ahead);

  scan_cut cut;
  scan_cut_tile(&cut, a->seq_idx.buffer ? r->w.kinds + (t0 - row.begin) : NULL, steps);
  block_tile tile = {.states = task->blocks.states};
  if (s->B_varies) tile.B = scan_tile_states(&a->B, &task->blocks, r->b, t0, steps, group, r->w.B);
  if (s->C_varies) tile.C = scan_tile_states(&a->C, &task->blocks, r->b, t0, steps, group, r->w.C);
  prepare(r, t0, steps);
  for (int i = 0; i < r->strip.count; i++) {
    tile.rate = r->w.rate + i * TILE;
    tile.dtu = r->w.dtu + i * TILE;
    tile.y = r->w.y + i * TILE;
    tile.A2 = r->w.A2[i];
    tile.h = r->w.h[i];
    tile.B_fixed = r->w.B_fixed[i];
    tile.C_fixed = r->w.C_fixed[i];
    run_block(s, &cut, scan_is_near(r->most_dt[i], r->most_A2[i]), &tile, &ahead);
  }
  store_out(r, t0, steps, &cut);
}

static void run_strip(void *arg, int64_t index, int worker) {
  const scan_task *task = arg;
  const clm_selective_scan_args *a = task->a;
  const scan_blocks *blocks = &task->blocks;
  strip_run r = {.task = task, .strip = scan_strip_at(blocks, task->width, index % task->strips)};
  scratch_layout(task, task->scratch + (size_t)worker * task->scratch_bytes, &r.w);
  for (int i = 0; i < r.strip.count; i++) {
    scan_block block = r.strip.block[i];
    r.bias[i] = scan_channel_vector(&a->delta_bias, block);
    r.D[i] = scan_channel_vector(&a->D, block);
    r.most_A2[i] = scan_gather_rates(&a->A, a->A_is_log, blocks, block, r.w.A2[i]);
    if (!task->s->B_varies) scan_gather_fixed(&a->B, blocks, block, r.w.B_fixed[i]);
    if (!task->s->C_varies) scan_gather_fixed(&a->C, blocks, block, r.w.C_fixed[i]);
  }
  int64_t next = 0;
  for (seq_row row; scan_next_row(&task->pieces, index / task->strips, &next, &row);) {
    r.b = row.batch;
    scan_read_steps(&a->seq_idx, row, r.w.kinds);
    for (int i = 0; i < r.strip.count; i++)
      scan_gather_state(&a->initial_state, blocks, row.state, r.strip.block[i], r.w.h[i]);
    for (int64_t t0 = row.begin; t0 < row.end; t0 += TILE) run_tile(&r, row, t0);
    for (int i = 0; i < r.strip.count; i++)
      scan_scatter_state(&a->final_state, blocks, row.state, r.strip.block[i], r.w.h[i]);
  }
}

static scan_task task_of(clm_context *ctx, const selective_scan_shape *s, const clm_selective_scan_args *a) {
  scan_task task = {.s = s, .a = a, .blocks = scan_blocks_of(s)};
  int64_t wanted = 4 * cpu_pool_threads(cpu_context_pool(ctx));
  task.width = max_of(1, min_of(STRIP, s->batch * task.blocks.count / wanted));
  task.strips = scan_strips(&task.blocks, task.width);
  task.pieces = scan_pieces_of(s, &a->cu_seqlens, task.strips, wanted);
  scan_scratch unused;
  task.scratch_bytes = scratch_layout(&task, NULL, &unused);
  return task;
}

size_t KERNEL(selective_scan_workspace)(clm_context *ctx, const selective_scan_shape *s,
                                        const clm_selective_scan_args *a) {
  return task_of(ctx, s, a).scratch_bytes * (size_t)cpu_pool_threads(cpu_context_pool(ctx));
}

clm_status KERNEL(selective_scan)(clm_context *ctx, const selective_scan_shape *s, const clm_selective_scan_args *a) {
  if (s->dtype == CLM_F64) return ref_selective_scan(ctx, s, a);
  scan_task task = task_of(ctx, s, a);
  clm_buffer *workspace;
  clm_status status = context_workspace(ctx, KERNEL(selective_scan_workspace)(ctx, s, a), &workspace);
  if (status) return status;
  task.scratch = workspace->host;
  cpu_pool_run(cpu_context_pool(ctx), task.pieces.count * task.strips, run_strip, &task);
  context_explain(
      ctx,
      "selective_scan: cpu %s, strips of %d x %d channels, tiles of %d steps, %d states in registers, %d threads",
      cpu_context_level(ctx), (int)task.width, LANES, TILE, STATES, cpu_pool_threads(cpu_context_pool(ctx)));
  return CLM_OK;
}

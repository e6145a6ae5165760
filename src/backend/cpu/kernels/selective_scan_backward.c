/* Gradients of the selective scan. A task owns one batch row and a strip of blocks of channels. It runs forward once
 * and keeps the states at the beginning of each tile; then it takes the tiles from the last to the first, computes
 * the states and decays of the tile again, and walks its steps backwards.
 *
 * Many channels add to one dB and dC: a task sums vectors over its blocks, then over lanes, and leaves its part in
 * the workspace; parts are added in the order of the strips. Likewise dA, dD and ddelta_bias over the batch. The
 * strips depend on the shape alone, so the gradients do not depend on the number of threads. */
#include "scan_tile.h"

#define TILE 16
#if SIMD_LANES == 4 && !defined(__aarch64__)
#define STATES 4
#else
#define STATES 8
#endif

typedef struct backward_task {
  const selective_scan_shape *s;
  const clm_selective_scan_backward_args *a;
  scan_blocks blocks;
  int64_t width, strips, tiles;
  char *scratch;
  size_t scratch_bytes; /* of one worker */
  /* parts: (batch, strip, length, states), absent where B or C does not vary */
  float *dB, *dC;
  /* parts: (batch, block, states) and (batch, block) */
  vec *dA, *dB_fixed, *dC_fixed, *dD, *dbias;
} backward_task;

typedef struct backward_scratch {
  vec *dt, *u, *dtu, *dy, *y, *argument;  /* block after block, TILE each                    */
  vec *sum_B, *sum_A;                     /* TILE: sum over states of B dh and of A2 q       */
  vec *h, *decay;                         /* (TILE + 1) and TILE of STATES: one block's      */
  vec *pack[5];                           /* u, delta, z, dout and an output, rows           */
  vec *A2[STRIP], *dh[STRIP], *dA[STRIP]; /* states each                                     */
  vec *B_fixed[STRIP], *C_fixed[STRIP], *dB_fixed[STRIP], *dC_fixed[STRIP];
  vec *sum_dB, *sum_dC; /* TILE * states                                   */
  vec *starts;          /* (tiles, STRIP, states)                          */
  float *B, *C;         /* TILE * states                                   */
} backward_scratch;

static size_t scratch_layout(const backward_task *task, char *memory, backward_scratch *k) {
  size_t states = (size_t)task->blocks.states, used = 0;
#define TAKE(pointer, count)                                                                                         \
  (pointer) = SCRATCH_AT(memory, used);                                                                              \
  used += (size_t)(count) * sizeof(vec)
  vec **tiles[] = {&k->dt, &k->u, &k->dtu, &k->dy, &k->y, &k->argument};
  for (int i = 0; i < 6; i++) {
    TAKE(*tiles[i], STRIP * TILE);
  }
  for (int i = 0; i < 5; i++) {
    TAKE(k->pack[i], STRIP * TILE);
  }
  vec **fixed[] = {k->A2, k->dh, k->dA, k->B_fixed, k->C_fixed, k->dB_fixed, k->dC_fixed};
  for (int i = 0; i < 7 * STRIP; i++) {
    TAKE(fixed[i / STRIP][i % STRIP], states);
  }
  TAKE(k->sum_B, TILE);
  TAKE(k->sum_A, TILE);
  TAKE(k->h, (TILE + 1) * STATES);
  TAKE(k->decay, TILE * STATES);
  TAKE(k->sum_dB, TILE * states);
  TAKE(k->sum_dC, TILE * states);
  TAKE(k->starts, (size_t)task->tiles * STRIP * states);
  vec *rows;
  TAKE(rows, 2 * div_up((int64_t)(TILE * states), LANES));
#undef TAKE
  k->B = (float *)rows;
  k->C = k->B + TILE * states;
  return (size_t)round_up((int64_t)used, 128);
}

/* One block's part of a tile. */
typedef struct block_tile {
  const vec *dt, *u, *dtu, *dy, *A2, *B_fixed, *C_fixed;
  vec *y, *dh, *dA, *dB_fixed, *dC_fixed;
  tile_rows B, C;
  int steps;
  bool first; /* of the strip: sums over blocks begin here */
  tile_ahead *ahead;
} block_tile;

/* The states at the end of the tile from those at its beginning, in place. */
INLINE void advance(int count, bool B_varies, const block_tile *k, vec *state) {
  vec h[STATES];
  UNROLL for (int n = 0; n < count; n++) h[n] = state[n];
  for (int t = 0; t < k->steps; t++) {
    const float *B = k->B.data + t * k->B.stride;
    tile_prefetch(k->ahead);
    UNROLL for (int n = 0; n < count; n++) h[n] =
        vec_exp2_product(k->dt[t], k->A2[n]) * h[n] + k->dtu[t] * (B_varies ? vec_set(B[n]) : k->B_fixed[n]);
  }
  UNROLL for (int n = 0; n < count; n++) state[n] = h[n];
}

/* States of every step of the tile (h[0] the one before it), decays, and y. */
INLINE void recompute(int count, bool B_varies, bool C_varies, const block_tile *k, const vec *start,
                      const backward_scratch *w) {
  vec h[STATES];
  UNROLL for (int n = 0; n < count; n++) w->h[n] = h[n] = start[n];
  for (int t = 0; t < k->steps; t++) {
    const float *B = k->B.data + t * k->B.stride, *C = k->C.data + t * k->C.stride;
    vec y = k->y[t];
    tile_prefetch(k->ahead);
    UNROLL for (int n = 0; n < count; n++) {
      vec decay = vec_exp2_product(k->dt[t], k->A2[n]);
      h[n] = decay * h[n] + k->dtu[t] * (B_varies ? vec_set(B[n]) : k->B_fixed[n]);
      y = h[n] * (C_varies ? vec_set(C[n]) : k->C_fixed[n]) + y;
      w->decay[t * STATES + n] = decay;
      w->h[(t + 1) * STATES + n] = h[n];
    }
    k->y[t] = y;
  }
}

/* The steps of the tile backwards. With q = decay h[t-1] dh:  sum_A = sum of A2 q,  dA = sum of dt q. */
INLINE void walk_back(int count, bool B_varies, bool C_varies, const block_tile *k, const backward_scratch *w,
                      int64_t states, int64_t first) {
  vec dh[STATES], dA[STATES];
  UNROLL for (int n = 0; n < count; n++) {
    dh[n] = k->dh[n];
    dA[n] = k->dA[n];
  }
  for (int t = k->steps - 1; t >= 0; t--) {
    const float *B = k->B.data + t * k->B.stride, *C = k->C.data + t * k->C.stride;
    vec dt = k->dt[t], dtu = k->dtu[t], dy = k->dy[t], sum_B = w->sum_B[t], sum_A = w->sum_A[t];
    vec *sum_dB = B_varies ? w->sum_dB + t * states + first : k->dB_fixed;
    vec *sum_dC = C_varies ? w->sum_dC + t * states + first : k->dC_fixed;
    UNROLL for (int n = 0; n < count; n++) {
      vec before = w->h[t * STATES + n], now = w->h[(t + 1) * STATES + n];
      sum_dC[n] = dy * now + (C_varies && k->first ? vec_set(0) : sum_dC[n]);
      dh[n] = dy * (C_varies ? vec_set(C[n]) : k->C_fixed[n]) + dh[n];
      sum_dB[n] = dtu * dh[n] + (B_varies && k->first ? vec_set(0) : sum_dB[n]);
      sum_B = dh[n] * (B_varies ? vec_set(B[n]) : k->B_fixed[n]) + sum_B;
      dh[n] *= w->decay[t * STATES + n];
      vec q = dh[n] * before;
      sum_A = q * k->A2[n] + sum_A;
      dA[n] = q * dt + dA[n];
    }
    w->sum_B[t] = sum_B;
    w->sum_A[t] = sum_A;
  }
  UNROLL for (int n = 0; n < count; n++) {
    k->dh[n] = dh[n];
    k->dA[n] = dA[n];
  }
}

/* The tile with its per-state members moved on to state n. */
INLINE block_tile from_state(const block_tile *k, int64_t n) {
  block_tile s = *k;
  s.A2 += n;
  s.B_fixed += n;
  s.C_fixed += n;
  s.dh += n;
  s.dA += n;
  s.dB_fixed += n;
  s.dC_fixed += n;
  if (s.B.data) s.B.data += n;
  if (s.C.data) s.C.data += n;
  return s;
}

INLINE void some_states(int count, bool B_varies, bool C_varies, bool forward, const block_tile *k, int64_t n,
                        int64_t states, vec *start, const backward_scratch *w) {
  block_tile s = from_state(k, n);
  if (forward) {
    advance(count, B_varies, &s, start + n);
    return;
  }
  recompute(count, B_varies, C_varies, &s, start + n, w);
  walk_back(count, B_varies, C_varies, &s, w, states, n);
}

INLINE void all_states(bool B_varies, bool C_varies, bool forward, const block_tile *k, int64_t states, vec *start,
                       const backward_scratch *w) {
  int64_t n = 0;
  for (; n + STATES <= states; n += STATES) some_states(STATES, B_varies, C_varies, forward, k, n, states, start, w);
  if (STATES > STATE_QUANTUM)
    for (; n < states; n += STATE_QUANTUM)
      some_states(STATE_QUANTUM, B_varies, C_varies, forward, k, n, states, start, w);
}

static void run_forward(const selective_scan_shape *s, const block_tile *k, int64_t states, vec *state) {
  if (s->B_varies) all_states(true, false, true, k, states, state, NULL);
  else all_states(false, false, true, k, states, state, NULL);
}

static void run_backward(const selective_scan_shape *s, const block_tile *k, int64_t states, vec *start,
                         const backward_scratch *w) {
  if (s->B_varies && s->C_varies) all_states(true, true, false, k, states, start, w);
  else if (s->B_varies) all_states(true, false, false, k, states, start, w);
  else if (s->C_varies) all_states(false, true, false, k, states, start, w);
  else all_states(false, false, false, k, states, start, w);
}

typedef struct strip_run { /* what the steps of a task share */
  const backward_task *task;
  backward_scratch w;
  scan_strip strip;
  int64_t b, index; /* strip's number in its batch row */
  vec bias[STRIP], D[STRIP], dbias[STRIP], dD[STRIP];
} strip_run;

/* u, dt and dt u; row by row, for the forward pass and for the backward pass. */
static void prepare(strip_run *r, int64_t t0, int steps) {
  const clm_selective_scan_args *f = &r->task->a->forward;
  tile_rows u = scan_tile_pack(&f->u, r->b, t0, steps, &r->strip, r->w.pack[0]);
  tile_rows delta = scan_tile_pack(&f->delta, r->b, t0, steps, &r->strip, r->w.pack[1]);
  for (int t = 0; t < steps; t++)
    for (int i = 0; i < r->strip.count; i++) {
      vec ut = vec_load(u.data + t * u.stride + i * LANES);
      vec argument = vec_load(delta.data + t * delta.stride + i * LANES) + r->bias[i];
      vec dt = scan_dt(argument, f->delta_softplus);
      r->w.u[i * TILE + t] = ut;
      r->w.argument[i * TILE + t] = argument;
      r->w.dt[i * TILE + t] = dt;
      r->w.dtu[i * TILE + t] = dt * ut;
    }
}

/* dy = dout silu(z), and y = D u to begin with. */
static void prepare_gradient(strip_run *r, int64_t t0, int steps) {
  const clm_selective_scan_backward_args *a = r->task->a;
  tile_rows dout = scan_tile_pack(&a->dout, r->b, t0, steps, &r->strip, r->w.pack[3]), z = {0};
  if (present(a->forward.z)) z = scan_tile_pack(&a->forward.z, r->b, t0, steps, &r->strip, r->w.pack[2]);
  for (int t = 0; t < steps; t++)
    for (int i = 0; i < r->strip.count; i++) {
      vec dy = vec_load(dout.data + t * dout.stride + i * LANES);
      if (z.data) {
        vec gate = vec_load(z.data + t * z.stride + i * LANES);
        dy *= gate * vec_sigmoid(gate);
      }
      r->w.dy[i * TILE + t] = dy;
      r->w.y[i * TILE + t] = r->D[i] * r->w.u[i * TILE + t];
    }
}

/* dz and out from y, while dout and z are at hand. */
static void store_gated(strip_run *r, int64_t t0, int steps) {
  const clm_selective_scan_backward_args *a = r->task->a;
  bool has_z = present(a->forward.z);
  int64_t stride;
  if (present(a->out)) {
    float *out = scan_tile_target(&a->out, r->b, t0, &r->strip, r->w.pack[4], &stride);
    tile_rows z = {0};
    if (has_z) z = scan_tile_pack(&a->forward.z, r->b, t0, steps, &r->strip, r->w.pack[2]);
    for (int t = 0; t < steps; t++)
      for (int i = 0; i < r->strip.count; i++) {
        vec y = r->w.y[i * TILE + t];
        if (has_z) {
          vec gate = vec_load(z.data + t * z.stride + i * LANES);
          y *= gate * vec_sigmoid(gate);
        }
        vec_store(out + t * stride + i * LANES, y);
      }
    scan_tile_unpack(&a->out, r->b, t0, steps, &r->strip, r->w.pack[4]);
  }
  if (present(a->dz) && has_z) {
    float *dz = scan_tile_target(&a->dz, r->b, t0, &r->strip, r->w.pack[4], &stride);
    tile_rows z = scan_tile_pack(&a->forward.z, r->b, t0, steps, &r->strip, r->w.pack[2]);
    tile_rows dout = scan_tile_pack(&a->dout, r->b, t0, steps, &r->strip, r->w.pack[3]);
    for (int t = 0; t < steps; t++)
      for (int i = 0; i < r->strip.count; i++) {
        vec gate = vec_load(z.data + t * z.stride + i * LANES), sigmoid = vec_sigmoid(gate);
        vec slope = sigmoid * (vec_set(1.0f) + gate * (vec_set(1.0f) - sigmoid));
        vec_store(dz + t * stride + i * LANES,
                  vec_load(dout.data + t * dout.stride + i * LANES) * r->w.y[i * TILE + t] * slope);
      }
    scan_tile_unpack(&a->dz, r->b, t0, steps, &r->strip, r->w.pack[4]);
  }
}

/* du and ddelta of block i stay in w.dy and w.argument until the tile is stored. */
static void finish_block(strip_run *r, int i, int steps) {
  bool softplus = r->task->a->forward.delta_softplus;
  vec *dy = r->w.dy + i * TILE, *argument = r->w.argument + i * TILE;
  const vec *u = r->w.u + i * TILE, *dt = r->w.dt + i * TILE;
  for (int t = steps - 1; t >= 0; t--) {
    r->dD[i] += dy[t] * u[t];
    vec du = dt[t] * r->w.sum_B[t] + r->D[i] * dy[t];
    vec ddelta = u[t] * r->w.sum_B[t] + vec_set(0.693147180559945309f) * r->w.sum_A[t];
    if (softplus) ddelta *= vec_sigmoid(argument[t]);
    r->dbias[i] += ddelta;
    dy[t] = du;
    argument[t] = ddelta;
  }
}

static void store_rows(strip_run *r, const clm_tensor *x, const vec *values, int64_t t0, int steps) {
  if (!x->buffer) return;
  int64_t stride;
  float *out = scan_tile_target(x, r->b, t0, &r->strip, r->w.pack[4], &stride);
  for (int t = 0; t < steps; t++)
    for (int i = 0; i < r->strip.count; i++) vec_store(out + t * stride + i * LANES, values[i * TILE + t]);
  scan_tile_unpack(x, r->b, t0, steps, &r->strip, r->w.pack[4]);
}

/* This strip's part of dB or dC for the tile: sums over the lanes. */
static void store_part(const strip_run *r, float *parts, const vec *sums, int64_t t0, int steps) {
  const backward_task *task = r->task;
  int64_t states = task->blocks.states;
  float *out = parts + ((r->b * task->strips + r->index) * task->s->length + t0) * states;
  int64_t i = 0;
  for (; i + LANES <= steps * states; i += LANES) sum_lanes(sums + i, out + i);
  for (; i < steps * states; i++) out[i] = vec_sum(sums[i]);
}

static block_tile block_tile_at(const strip_run *r, int i, int steps) {
  const backward_scratch *w = &r->w;
  return (block_tile){.dt = w->dt + i * TILE,
                      .u = w->u + i * TILE,
                      .dtu = w->dtu + i * TILE,
                      .dy = w->dy + i * TILE,
                      .y = w->y + i * TILE,
                      .A2 = w->A2[i],
                      .dh = w->dh[i],
                      .dA = w->dA[i],
                      .B_fixed = w->B_fixed[i],
                      .C_fixed = w->C_fixed[i],
                      .dB_fixed = w->dB_fixed[i],
                      .dC_fixed = w->dC_fixed[i],
                      .steps = steps,
                      .first = i == 0};
}

static void load_strip(strip_run *r) {
  const backward_task *task = r->task;
  const selective_scan_shape *s = task->s;
  const clm_selective_scan_args *f = &task->a->forward;
  size_t bytes = (size_t)task->blocks.states * sizeof(vec);
  for (int i = 0; i < r->strip.count; i++) {
    scan_block block = r->strip.block[i];
    r->bias[i] = scan_channel_vector(&f->delta_bias, block);
    r->D[i] = scan_channel_vector(&f->D, block);
    r->dbias[i] = r->dD[i] = vec_set(0);
    scan_gather_A(&f->A, f->A_is_log, &task->blocks, s->d_state, block, r->w.A2[i]);
    scan_gather_state(&f->initial_state, &task->blocks, s->d_state, r->b, block,
                      r->w.starts + i * task->blocks.states);
    scan_gather_state(&task->a->dfinal_state, &task->blocks, s->d_state, r->b, block, r->w.dh[i]);
    if (!s->B_varies) scan_gather_fixed(&f->B, &task->blocks, s->d_state, block, r->w.B_fixed[i]);
    if (!s->C_varies) scan_gather_fixed(&f->C, &task->blocks, s->d_state, block, r->w.C_fixed[i]);
    memset(r->w.dA[i], 0, bytes);
    memset(r->w.dB_fixed[i], 0, bytes);
    memset(r->w.dC_fixed[i], 0, bytes);
  }
}

static void store_strip(strip_run *r) {
  const backward_task *task = r->task;
  const selective_scan_shape *s = task->s;
  int64_t states = task->blocks.states;
  size_t bytes = (size_t)states * sizeof(vec);
  int64_t strips_per_group = task->strips / s->n_groups;
  int64_t first =
      r->index / strips_per_group * task->blocks.blocks_per_group + r->index % strips_per_group * task->width;
  for (int i = 0; i < r->strip.count; i++) {
    int64_t block = r->b * task->blocks.count + first + i;
    memcpy(task->dA + block * states, r->w.dA[i], bytes);
    if (!s->B_varies) memcpy(task->dB_fixed + block * states, r->w.dB_fixed[i], bytes);
    if (!s->C_varies) memcpy(task->dC_fixed + block * states, r->w.dC_fixed[i], bytes);
    task->dD[block] = r->dD[i];
    task->dbias[block] = r->dbias[i];
    scan_scatter_state(&task->a->dinitial_state, s->d_state, r->b, r->strip.block[i], r->w.dh[i]);
  }
}

/* Asks for the first `count` of the tensors that a tile is made of. */
static void look_ahead(const strip_run *r, tile_ahead *ahead, int64_t tile, int count) {
  const clm_selective_scan_backward_args *a = r->task->a;
  const clm_tensor *streams[] = {&a->forward.u, &a->forward.delta, &a->forward.z, &a->dout,
                                 &a->du,        &a->ddelta,        &a->dz,        &a->out};
  int64_t t0 = tile * TILE;
  tile_ahead_start(ahead, t0 < 0 ? 0 : (int)min_of(TILE, r->task->s->length - t0), &r->strip);
  for (int i = 0; i < count && t0 >= 0; i++) tile_ahead_add(ahead, streams[i], r->b, t0, &r->strip);
}

static void run_strip(void *arg, int64_t index, int worker) {
  const backward_task *task = arg;
  const clm_selective_scan_backward_args *a = task->a;
  const selective_scan_shape *s = task->s;
  int64_t states = task->blocks.states;
  strip_run r = {.task = task, .b = index / task->strips, .index = index % task->strips};
  r.strip = scan_strip_at(&task->blocks, task->width, r.index);
  scratch_layout(task, task->scratch + (size_t)worker * task->scratch_bytes, &r.w);
  load_strip(&r);
  int64_t group = r.strip.block[0].group;

  for (int64_t tile = 0; tile + 1 < task->tiles; tile++) {
    tile_ahead ahead;
    look_ahead(&r, &ahead, tile + 1, 2);
    tile_rows B = {0};
    if (s->B_varies)
      B = scan_tile_states(&a->forward.B, &task->blocks, s->d_state, r.b, tile * TILE, TILE, group, r.w.B);
    prepare(&r, tile * TILE, TILE);
    for (int i = 0; i < r.strip.count; i++) {
      block_tile k = block_tile_at(&r, i, TILE);
      k.B = B;
      k.ahead = &ahead;
      vec *start = r.w.starts + (tile * STRIP + i) * states, *next = start + STRIP * states;
      memcpy(next, start, (size_t)states * sizeof(vec));
      run_forward(s, &k, states, next);
    }
  }

  for (int64_t tile = task->tiles - 1; tile >= 0; tile--) {
    tile_ahead ahead;
    look_ahead(&r, &ahead, tile - 1, 8);
    int64_t t0 = tile * TILE;
    int steps = (int)min_of(TILE, s->length - t0);
    tile_rows B = {0}, C = {0};
    if (s->B_varies) B = scan_tile_states(&a->forward.B, &task->blocks, s->d_state, r.b, t0, steps, group, r.w.B);
    if (s->C_varies) C = scan_tile_states(&a->forward.C, &task->blocks, s->d_state, r.b, t0, steps, group, r.w.C);
    prepare(&r, t0, steps);
    prepare_gradient(&r, t0, steps);
    for (int i = 0; i < r.strip.count; i++) {
      block_tile k = block_tile_at(&r, i, steps);
      k.B = B;
      k.ahead = &ahead;
      k.C = C;
      memset(r.w.sum_B, 0, TILE * sizeof(vec));
      memset(r.w.sum_A, 0, TILE * sizeof(vec));
      run_backward(s, &k, states, r.w.starts + (tile * STRIP + i) * states, &r.w);
      finish_block(&r, i, steps);
    }
    store_gated(&r, t0, steps);
    store_rows(&r, &a->du, r.w.dy, t0, steps);
    store_rows(&r, &a->ddelta, r.w.argument, t0, steps);
    if (s->B_varies && present(a->dB)) store_part(&r, task->dB, r.w.sum_dB, t0, steps);
    if (s->C_varies && present(a->dC)) store_part(&r, task->dC, r.w.sum_dC, t0, steps);
  }
  store_strip(&r);
}

/* Adds the strips' parts of a varying gradient for one (batch row, 64 steps). */
#define SUM_STEPS 64
static void sum_varying(const backward_task *task, const clm_tensor *out, const float *parts, int64_t b, int64_t t0) {
  const selective_scan_shape *s = task->s;
  if (!out->buffer || !parts) return;
  int64_t states = task->blocks.states, strips_per_group = task->strips / s->n_groups;
  for (int64_t t = t0; t < min_of(t0 + SUM_STEPS, s->length); t++)
    for (int64_t g = 0; g < s->n_groups; g++) {
      const float *p = parts + ((b * task->strips + g * strips_per_group) * s->length + t) * states;
      float *o = kernel_data(*out) + b * out->stride[0] + t * out->stride[1] + g * out->stride[2];
      for (int64_t n = 0; n < s->d_state; n++) {
        float sum = p[n];
        for (int64_t i = 1; i < strips_per_group; i++) sum += p[i * s->length * states + n];
        o[n * out->stride[3]] = sum;
      }
    }
}

/* Adds the batch rows' parts of a block's fixed gradients, in the order of the batch. */
static vec sum_batch(const backward_task *task, const vec *parts, int64_t per_block, int64_t block, int64_t n) {
  vec sum = parts[block * per_block + n];
  for (int64_t b = 1; b < task->s->batch; b++) sum += parts[(b * task->blocks.count + block) * per_block + n];
  return sum;
}

static void sum_fixed(const backward_task *task, const clm_tensor *out, vec *parts, int64_t block,
                      const vec *factor) {
  if (!out->buffer || !parts) return;
  int64_t states = task->blocks.states;
  scan_block k = scan_block_at(&task->blocks, block);
  vec *sums = parts + block * states; /* row 0 of the parts: its own place, read first */
  for (int64_t n = 0; n < states; n++) {
    sums[n] = sum_batch(task, parts, states, block, n);
    if (factor) sums[n] *= factor[n];
  }
  scan_scatter(kernel_data(*out) + k.channel * out->stride[0], out->stride[0], out->stride[1], task->s->d_state, k,
               sums);
}

static void sum_channels(const backward_task *task, const clm_tensor *out, const vec *parts, int64_t block) {
  if (!out->buffer) return;
  scan_block k = scan_block_at(&task->blocks, block);
  float lane[LANES];
  vec_store(lane, sum_batch(task, parts, 1, block, 0));
  for (int i = 0; i < k.lanes; i++) kernel_data(*out)[(k.channel + i) * out->stride[0]] = lane[i];
}

static void run_sums(void *arg, int64_t index, int worker) {
  const backward_task *task = arg;
  const clm_selective_scan_backward_args *a = task->a;
  int64_t pieces = div_up(task->s->length, SUM_STEPS);
  if (index >= task->blocks.count) {
    index -= task->blocks.count;
    sum_varying(task, &a->dB, task->dB, index / pieces, index % pieces * SUM_STEPS);
    sum_varying(task, &a->dC, task->dC, index / pieces, index % pieces * SUM_STEPS);
    return;
  }
  backward_scratch w;
  scratch_layout(task, task->scratch + (size_t)worker * task->scratch_bytes, &w);
  if (a->forward.A_is_log) { /* dA_log = dA A */
    scan_gather_A(&a->forward.A, true, &task->blocks, task->s->d_state, scan_block_at(&task->blocks, index), w.A2[0]);
    for (int64_t n = 0; n < task->blocks.states; n++) w.A2[0][n] *= vec_set(0.693147180559945309f);
  }
  sum_fixed(task, &a->dA, task->dA, index, a->forward.A_is_log ? w.A2[0] : NULL);
  sum_fixed(task, &a->dB, task->dB_fixed, index, NULL);
  sum_fixed(task, &a->dC, task->dC_fixed, index, NULL);
  sum_channels(task, &a->dD, task->dD, index);
  sum_channels(task, &a->ddelta_bias, task->dbias, index);
}

/* Lays the workspace out; returns its size. */
static size_t task_layout(backward_task *task, char *memory, int threads) {
  const selective_scan_shape *s = task->s;
  size_t states = (size_t)task->blocks.states, blocks = (size_t)(s->batch * task->blocks.count), used = 0;
  size_t parts = (size_t)(s->batch * task->strips * s->length) * states;
  backward_scratch unused;
  task->scratch_bytes = scratch_layout(task, NULL, &unused);
  task->scratch = memory;
  used += task->scratch_bytes * (size_t)threads;
  vec **vectors[] = {&task->dA, &task->dD, &task->dbias, &task->dB_fixed, &task->dC_fixed};
  size_t sizes[] = {blocks * states, blocks, blocks, s->B_varies ? 0 : blocks * states,
                    s->C_varies ? 0 : blocks * states};
  for (int i = 0; i < 5; i++) {
    *vectors[i] = sizes[i] ? SCRATCH_AT(memory, used) : NULL;
    used += sizes[i] * sizeof(vec);
  }
  task->dB = s->B_varies ? (float *)SCRATCH_AT(memory, used) : NULL;
  used += s->B_varies ? parts * sizeof(float) : 0;
  task->dC = s->C_varies ? (float *)SCRATCH_AT(memory, used) : NULL;
  used += s->C_varies ? parts * sizeof(float) : 0;
  return used;
}

/* About 16 tasks where the shape has them: enough to share out, few enough to keep the parts of dB and dC small. */
static backward_task task_of(const selective_scan_shape *s, const clm_selective_scan_backward_args *a) {
  backward_task task = {.s = s, .a = a, .blocks = scan_blocks_of(s), .tiles = div_up(s->length, TILE)};
  task.width = max_of(1, min_of(STRIP, s->batch * task.blocks.count / 16));
  task.strips = scan_strips(&task.blocks, task.width);
  return task;
}

size_t KERNEL(selective_scan_backward_workspace)(clm_context *ctx, const selective_scan_shape *s,
                                                 const clm_selective_scan_backward_args *a) {
  backward_task task = task_of(s, a);
  return task_layout(&task, NULL, cpu_pool_threads(cpu_context_pool(ctx)));
}

clm_status KERNEL(selective_scan_backward)(clm_context *ctx, const selective_scan_shape *s,
                                           const clm_selective_scan_backward_args *a) {
  const clm_selective_scan_args *f = &a->forward;
  if (!ALL_F32(f->u, f->delta, f->A, f->B, f->C, f->D, f->z, f->delta_bias, f->initial_state) ||
      !ALL_F32(a->dout, a->dfinal_state, a->du, a->ddelta, a->dz, a->dA, a->dB, a->dC, a->dD, a->ddelta_bias,
               a->dinitial_state, a->out) ||
      f->gate.buffer || f->seq_idx.buffer || s->packed)
    return ref_selective_scan_backward(ctx, s, a);
  int threads = cpu_pool_threads(cpu_context_pool(ctx));
  backward_task task = task_of(s, a);
  clm_buffer *workspace;
  clm_status status = context_workspace(ctx, task_layout(&task, NULL, threads), &workspace);
  if (status) return status;
  task_layout(&task, workspace->host, threads);
  cpu_pool_run(cpu_context_pool(ctx), s->batch * task.strips, run_strip, &task);
  int64_t varying = s->B_varies || s->C_varies ? s->batch * div_up(s->length, SUM_STEPS) : 0;
  cpu_pool_run(cpu_context_pool(ctx), task.blocks.count + varying, run_sums, &task);
  context_explain(
      ctx,
      "selective_scan_backward: cpu %s, strips of %d x %d channels, tiles of %d steps recomputed, %lld parts "
      "of dB and dC, %d threads",
      cpu_context_level(ctx), (int)task.width, LANES, TILE, (long long)task.strips, threads);
  return CLM_OK;
}

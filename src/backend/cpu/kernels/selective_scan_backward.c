/* Gradients of the selective scan. A task owns a strip of blocks of channels and walks its sequences. It runs forward
 * once and keeps the states at the beginning of each tile; then it takes the tiles from the last to the first,
 * computes the states and decays of the tile again, and walks its steps backwards (scan_gradient.h).
 *
 * Many channels add to one dB and dC: a task sums vectors over its blocks, then over lanes, and leaves its part in
 * the workspace; parts are added in the order of the strips. Likewise dA, dD and ddelta_bias over the pieces. The
 * strips depend on the shape alone, so the gradients do not depend on the number of threads. */
#include "scan_gradient.h"

typedef struct backward_task {
  const selective_scan_shape *s;
  const clm_selective_scan_backward_args *a;
  scan_blocks blocks;
  scan_pieces pieces;
  int64_t width, strips, tiles; /* blocks in a strip, strips of a piece, tiles of a row */
  char *scratch;
  size_t scratch_bytes; /* of one worker */
  /* parts: (batch, strip, length, numbers), absent where B or C does not vary */
  float *dB, *dC;
  /* parts: (piece, block, numbers) and (piece, block) */
  vec *dA, *dB_fixed, *dC_fixed, *dD, *dbias;
} backward_task;

enum { PACK_U, PACK_DELTA, PACK_Z, PACK_DOUT, PACK_GATE, PACK_OUTPUT, PACKS };

/* One worker's scratch. `rate` is what A is multiplied with: dt, times the gate on A if there is one. */
typedef struct backward_scratch {
  vec *u, *dtu, *dy, *y, *ddelta, *sigmoid, *rate, *gate; /* block after block, TILE each; sigmoid(z) */
  vec *dt, *all_dt;                                       /* of the current tile; (tiles, width, TILE) */
  vec *sum_B, *sum_A;                                     /* TILE                                     */
  vec *h, *decay;                                         /* 2 TILE and TILE slots: one block's       */
  vec *pack[PACKS];                                       /* rows                                     */
  vec *A2[STRIP], *dh[STRIP], *dA[STRIP];                 /* numbers each                             */
  vec *B_fixed[STRIP], *C_fixed[STRIP], *dB_fixed[STRIP], *dC_fixed[STRIP];
  vec *sum_dB, *sum_dC; /* TILE * numbers                           */
  vec *starts;          /* (tiles, width, numbers)                  */
  float *B, *C;         /* TILE * numbers                           */
  uint8_t *kinds;       /* with seq_idx: length                     */
} backward_scratch;

static vec *take(char *memory, size_t *used, size_t vectors) {
  vec *at = (vec *)SCRATCH_AT(memory, *used);
  *used += vectors * sizeof(vec);
  return at;
}

static size_t scratch_layout(const backward_task *task, char *memory, backward_scratch *k) {
  size_t numbers = (size_t)task->blocks.numbers, used = 0;
  vec **tiles[] = {&k->u, &k->dtu, &k->dy, &k->y, &k->ddelta, &k->sigmoid, &k->rate, &k->gate};
  for (int i = 0; i < (present(task->a->forward.gate) ? 8 : 6); i++) *tiles[i] = take(memory, &used, STRIP * TILE);
  k->all_dt = take(memory, &used, (size_t)(task->tiles * task->width * TILE));
  for (int i = 0; i < PACKS; i++) k->pack[i] = take(memory, &used, STRIP * TILE);
  vec **fixed[] = {k->A2, k->dh, k->dA, k->B_fixed, k->C_fixed, k->dB_fixed, k->dC_fixed};
  for (int i = 0; i < 7 * STRIP; i++) fixed[i / STRIP][i % STRIP] = take(memory, &used, numbers);
  k->sum_B = take(memory, &used, TILE);
  k->sum_A = take(memory, &used, TILE);
  k->h = take(memory, &used, 2 * TILE * SLOT(task->s->complex));
  k->decay = take(memory, &used, TILE * SLOT(task->s->complex));
  k->sum_dB = take(memory, &used, TILE * numbers);
  k->sum_dC = take(memory, &used, TILE * numbers);
  k->starts = take(memory, &used, (size_t)(task->tiles * task->width) * numbers);
  vec *rows = take(memory, &used, (size_t)(2 * div_up((int64_t)(TILE * numbers), LANES)));
  const int64_t marked = task->a->forward.seq_idx.buffer ? task->s->length : 0;
  vec *kinds = take(memory, &used, (size_t)div_up(marked, (int64_t)sizeof(vec)));
  k->B = (float *)rows;
  k->C = k->B + TILE * numbers;
  k->kinds = (uint8_t *)kinds;
  return (size_t)round_up((int64_t)used, 128);
}

typedef struct strip_run { /* what the steps of a task share */
  const backward_task *task;
  backward_scratch w;
  scan_strip strip;
  seq_row row;
  int64_t b, piece, index; /* batch row; strip's number in its piece */
  tile_rows z, dout;       /* of the current tile                    */
  vec bias[STRIP], D[STRIP], most_A2[STRIP], most_dt[STRIP], dbias[STRIP], dD[STRIP];
} strip_run;

/* A tile of the current row. */
typedef struct tile_span {
  int64_t t0;
  int steps;
  scan_cut cut;
} tile_span;

static void begin_tile(strip_run *r, int64_t tile, tile_span *span) {
  const clm_selective_scan_args *f = &r->task->a->forward;
  span->t0 = r->row.begin + tile * TILE;
  span->steps = (int)min_of(TILE, r->row.end - span->t0);
  scan_cut_tile(&span->cut, f->seq_idx.buffer ? r->w.kinds + tile * TILE : NULL, span->steps);
  r->w.dt = r->w.all_dt + tile * r->task->width * TILE;
  if (!present(f->gate)) r->w.rate = r->w.dt;
}

static tile_rows pack(strip_run *r, const clm_tensor *x, const tile_span *span, int number) {
  if (!x->buffer) return (tile_rows){0};
  return scan_tile_pack(x, r->b, span->t0, span->steps, &r->strip, r->w.pack[number]);
}

INLINE vec at(tile_rows rows, int t, int i) { return vec_load(rows.data + t * rows.stride + i * LANES); }

/* dt, kept for the backward pass. */
static void prepare_dt(strip_run *r, const tile_span *span) {
  const clm_selective_scan_args *f = &r->task->a->forward;
  tile_rows delta = pack(r, &f->delta, span, PACK_DELTA);
  for (int t = 0; t < span->steps; t++)
    for (int i = 0; i < r->strip.count; i++)
      r->w.dt[i * TILE + t] = vec_plain(scan_dt(at(delta, t, i) + r->bias[i], f->delta_softplus));
}

/* u, dt u, and dt times the gate; row by row, for the forward pass and for the backward pass. */
static void prepare(strip_run *r, const tile_span *span) {
  const clm_selective_scan_args *f = &r->task->a->forward;
  const backward_scratch *w = &r->w;
  tile_rows u = pack(r, &f->u, span, PACK_U), gate = pack(r, &f->gate, span, PACK_GATE);
  for (int i = 0; i < r->strip.count; i++) r->most_dt[i] = vec_set(0);
  for (int t = 0; t < span->steps; t++)
    for (int i = 0; i < r->strip.count; i++) {
      int64_t k = i * TILE + t;
      vec ut = at(u, t, i), dt = w->dt[k];
      w->u[k] = ut;
      w->dtu[k] = dt * ut;
      if (gate.data) {
        w->gate[k] = at(gate, t, i);
        w->rate[k] = dt = vec_plain(dt * w->gate[k]);
      }
      r->most_dt[i] = vec_max(vec_abs(dt), r->most_dt[i]);
    }
}

/* dy = dout silu(z), and y = D u to begin with. */
static void prepare_gradient(strip_run *r, const tile_span *span) {
  const clm_selective_scan_backward_args *a = r->task->a;
  const backward_scratch *w = &r->w;
  r->dout = pack(r, &a->dout, span, PACK_DOUT);
  r->z = pack(r, &a->forward.z, span, PACK_Z);
  for (int t = 0; t < span->steps; t++)
    for (int i = 0; i < r->strip.count; i++) {
      int64_t k = i * TILE + t;
      vec dy = at(r->dout, t, i);
      if (r->z.data) {
        w->sigmoid[k] = vec_sigmoid(at(r->z, t, i));
        dy *= at(r->z, t, i) * w->sigmoid[k];
      }
      w->dy[k] = dy;
      w->y[k] = r->D[i] * w->u[k];
    }
}

/* out = y silu(z), if it is wanted. */
static void store_out(strip_run *r, const tile_span *span) {
  const clm_tensor *out = &r->task->a->out;
  if (!out->buffer) return;
  int64_t stride;
  float *p = scan_tile_target(out, r->b, span->t0, &r->strip, r->w.pack[PACK_OUTPUT], &stride);
  for (int t = 0; t < span->steps; t++)
    for (int i = 0; i < r->strip.count; i++) {
      int64_t k = i * TILE + t;
      vec y = r->w.y[k];
      if (r->z.data) y *= at(r->z, t, i) * r->w.sigmoid[k];
      vec_store(p + t * stride + i * LANES, scan_is_padding(&span->cut, t) ? vec_set(0) : y);
    }
  scan_tile_unpack(out, r->b, span->t0, span->steps, &r->strip, r->w.pack[PACK_OUTPUT]);
}

/* dz = dout y silu'(z) */
static void store_dz(strip_run *r, const tile_span *span) {
  const clm_tensor *out = &r->task->a->dz;
  if (!out->buffer) return;
  int64_t stride;
  float *p = scan_tile_target(out, r->b, span->t0, &r->strip, r->w.pack[PACK_OUTPUT], &stride);
  for (int t = 0; t < span->steps; t++)
    for (int i = 0; i < r->strip.count; i++) {
      int64_t k = i * TILE + t;
      vec sigmoid = r->w.sigmoid[k];
      vec slope = sigmoid + at(r->z, t, i) * sigmoid * (vec_set(1.0f) - sigmoid);
      vec dz = at(r->dout, t, i) * r->w.y[k] * slope;
      vec_store(p + t * stride + i * LANES, scan_is_padding(&span->cut, t) ? vec_set(0) : dz);
    }
  scan_tile_unpack(out, r->b, span->t0, span->steps, &r->strip, r->w.pack[PACK_OUTPUT]);
}

/* du and dgate of block i stay in w.dy and w.gate until the tile is stored. */
static void finish_block(strip_run *r, int i, const tile_span *span) {
  const backward_scratch *w = &r->w;
  const bool softplus = r->task->a->forward.delta_softplus, gated = present(r->task->a->forward.gate);
  vec dD = r->dD[i], dbias = r->dbias[i], D = r->D[i];
  for (int t = span->steps - 1; t >= 0; t--) {
    int64_t k = i * TILE + t;
    if (scan_is_padding(&span->cut, t)) {
      w->dy[k] = w->ddelta[k] = vec_set(0);
      if (gated) w->gate[k] = vec_set(0);
      continue;
    }
    vec ddecay = vec_set(LN2) * w->sum_A[t]; /* by the rate */
    vec du = w->dt[k] * w->sum_B[t] + D * w->dy[k];
    vec ddelta = w->u[k] * w->sum_B[t] + (gated ? w->gate[k] * ddecay : ddecay);
    if (softplus) ddelta *= vec_softplus_slope(w->dt[k]);
    dD += w->dy[k] * w->u[k];
    dbias += ddelta;
    w->dy[k] = du;
    w->ddelta[k] = ddelta;
    if (gated) w->gate[k] = w->dt[k] * ddecay;
  }
  r->dD[i] = dD;
  r->dbias[i] = dbias;
}

static void store_rows(strip_run *r, const clm_tensor *x, const vec *values, const tile_span *span) {
  if (!x->buffer) return;
  int64_t stride;
  float *out = scan_tile_target(x, r->b, span->t0, &r->strip, r->w.pack[PACK_OUTPUT], &stride);
  for (int t = 0; t < span->steps; t++)
    for (int i = 0; i < r->strip.count; i++) vec_store(out + t * stride + i * LANES, values[i * TILE + t]);
  scan_tile_unpack(x, r->b, span->t0, span->steps, &r->strip, r->w.pack[PACK_OUTPUT]);
}

/* This strip's part of dB or dC for the tile: sums over the lanes. */
static void store_part(const strip_run *r, float *parts, const vec *sums, const tile_span *span) {
  const backward_task *task = r->task;
  int64_t numbers = task->blocks.numbers, i = 0;
  float *out = parts + ((r->b * task->strips + r->index) * task->s->length + span->t0) * numbers;
  for (; i + LANES <= span->steps * numbers; i += LANES) sum_lanes(sums + i, out + i);
  for (; i < span->steps * numbers; i++) out[i] = vec_sum(sums[i]);
}

static block_tile block_tile_at(const strip_run *r, int i, const tile_span *span) {
  const backward_scratch *w = &r->w;
  return (block_tile){.cut = &span->cut,
                      .rate = w->rate + i * TILE,
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
                      .states = r->task->blocks.states,
                      .sum_B = w->sum_B,
                      .sum_A = w->sum_A,
                      .sum_dB = w->sum_dB,
                      .sum_dC = w->sum_dC,
                      .h = w->h,
                      .decay = w->decay};
}

static void load_strip(strip_run *r) {
  const backward_task *task = r->task;
  const clm_selective_scan_args *f = &task->a->forward;
  size_t bytes = (size_t)task->blocks.numbers * sizeof(vec);
  for (int i = 0; i < r->strip.count; i++) {
    scan_block block = r->strip.block[i];
    r->bias[i] = scan_channel_vector(&f->delta_bias, block);
    r->D[i] = scan_channel_vector(&f->D, block);
    r->dbias[i] = r->dD[i] = vec_set(0);
    r->most_A2[i] = scan_gather_rates(&f->A, f->A_is_log, &task->blocks, block, r->w.A2[i]);
    if (!task->s->B_varies) scan_gather_fixed(&f->B, &task->blocks, block, r->w.B_fixed[i]);
    if (!task->s->C_varies) scan_gather_fixed(&f->C, &task->blocks, block, r->w.C_fixed[i]);
    memset(r->w.dA[i], 0, bytes);
    memset(r->w.dB_fixed[i], 0, bytes);
    memset(r->w.dC_fixed[i], 0, bytes);
  }
}

static void store_strip(strip_run *r) {
  const backward_task *task = r->task;
  const selective_scan_shape *s = task->s;
  int64_t numbers = task->blocks.numbers, strips_per_group = task->strips / s->n_groups;
  size_t bytes = (size_t)numbers * sizeof(vec);
  int64_t first =
      r->index / strips_per_group * task->blocks.blocks_per_group + r->index % strips_per_group * task->width;
  for (int i = 0; i < r->strip.count; i++) {
    int64_t block = r->piece * task->blocks.count + first + i;
    memcpy(task->dA + block * numbers, r->w.dA[i], bytes);
    if (!s->B_varies) memcpy(task->dB_fixed + block * numbers, r->w.dB_fixed[i], bytes);
    if (!s->C_varies) memcpy(task->dC_fixed + block * numbers, r->w.dC_fixed[i], bytes);
    task->dD[block] = r->dD[i];
    task->dbias[block] = r->dbias[i];
  }
}

/* Asks for `count` of the tensors that a tile is made of, from `first` on: 0 is delta. */
static void look_ahead(const strip_run *r, tile_ahead *ahead, int64_t tile, int first, int count) {
  const clm_selective_scan_backward_args *a = r->task->a;
  const clm_tensor *streams[] = {&a->forward.delta, &a->forward.u, &a->forward.gate, &a->forward.z, &a->dout, &a->du,
                                 &a->ddelta,        &a->dz,        &a->out};
  int64_t t0 = r->row.begin + tile * TILE;
  int rows = tile < 0 ? 0 : (int)max_of(0, min_of(TILE, r->row.end - t0));
  tile_ahead_start(ahead, rows, &r->strip, r->task->s->dtype);
  for (int i = first; i < first + count; i++) tile_ahead_add(ahead, streams[i], r->b, t0, &r->strip);
  tile_ahead_row(ahead);
}

static tile_rows pack_states(strip_run *r, bool varies, const clm_tensor *x, const tile_span *span, float *scratch) {
  if (!varies) return (tile_rows){0};
  return scan_tile_states(x, &r->task->blocks, r->b, span->t0, span->steps, r->strip.block[0].group, scratch);
}

/* The state of block i at the beginning of a tile. */
static vec *start_of(const strip_run *r, int64_t tile, int i) {
  return r->w.starts + (tile * r->task->width + i) * r->task->blocks.numbers;
}

/* Leaves dt and the states at the beginning of every tile of the row. */
static void run_row_forward(strip_run *r, int64_t tiles) {
  const selective_scan_shape *s = r->task->s;
  const clm_selective_scan_args *f = &r->task->a->forward;
  int64_t numbers = r->task->blocks.numbers;
  for (int64_t tile = 0; tile < tiles; tile++) {
    tile_ahead ahead;
    tile_span span;
    begin_tile(r, tile, &span);
    prepare_dt(r, &span);
    if (tile + 1 == tiles) return;
    look_ahead(r, &ahead, tile + 1, 0, 3);
    tile_rows B = pack_states(r, s->B_varies, &f->B, &span, r->w.B);
    prepare(r, &span);
    for (int i = 0; i < r->strip.count; i++) {
      block_tile k = block_tile_at(r, i, &span);
      k.B = B;
      k.ahead = &ahead;
      vec *start = start_of(r, tile, i), *next = start_of(r, tile + 1, i);
      memcpy(next, start, (size_t)numbers * sizeof(vec));
      run_block(s, scan_is_near(r->most_dt[i], r->most_A2[i]), true, &k, next);
    }
  }
}

static void run_tile_backward(strip_run *r, int64_t tile) {
  const selective_scan_shape *s = r->task->s;
  const clm_selective_scan_backward_args *a = r->task->a;
  int64_t numbers = r->task->blocks.numbers;
  tile_ahead ahead;
  tile_span span;
  look_ahead(r, &ahead, tile - 1, 1, 8);
  begin_tile(r, tile, &span);
  tile_rows B = pack_states(r, s->B_varies, &a->forward.B, &span, r->w.B);
  tile_rows C = pack_states(r, s->C_varies, &a->forward.C, &span, r->w.C);
  prepare(r, &span);
  prepare_gradient(r, &span);
  memset(r->w.sum_dB, 0, (size_t)(TILE * numbers) * sizeof(vec));
  memset(r->w.sum_dC, 0, (size_t)(TILE * numbers) * sizeof(vec));
  for (int i = 0; i < r->strip.count; i++) {
    block_tile k = block_tile_at(r, i, &span);
    k.B = B;
    k.C = C;
    k.ahead = &ahead;
    memset(r->w.sum_B, 0, TILE * sizeof(vec));
    memset(r->w.sum_A, 0, TILE * sizeof(vec));
    run_block(s, scan_is_near(r->most_dt[i], r->most_A2[i]), false, &k, start_of(r, tile, i));
    finish_block(r, i, &span);
  }
  store_out(r, &span);
  store_dz(r, &span);
  store_rows(r, &a->du, r->w.dy, &span);
  store_rows(r, &a->ddelta, r->w.ddelta, &span);
  store_rows(r, &a->dgate, r->w.gate, &span);
  if (s->B_varies && present(a->dB)) store_part(r, r->task->dB, r->w.sum_dB, &span);
  if (s->C_varies && present(a->dC)) store_part(r, r->task->dC, r->w.sum_dC, &span);
}

static void run_row(strip_run *r) {
  const scan_blocks *blocks = &r->task->blocks;
  const clm_selective_scan_backward_args *a = r->task->a;
  int64_t tiles = div_up(r->row.end - r->row.begin, TILE);
  r->b = r->row.batch;
  scan_read_steps(&a->forward.seq_idx, r->row, r->w.kinds);
  for (int i = 0; i < r->strip.count; i++) {
    scan_gather_state(&a->forward.initial_state, blocks, r->row.state, r->strip.block[i], start_of(r, 0, i));
    scan_gather_state(&a->dfinal_state, blocks, r->row.state, r->strip.block[i], r->w.dh[i]);
  }
  run_row_forward(r, tiles);
  for (int64_t tile = tiles - 1; tile >= 0; tile--) run_tile_backward(r, tile);
  for (int i = 0; i < r->strip.count; i++)
    scan_scatter_state(&a->dinitial_state, blocks, r->row.state, r->strip.block[i], r->w.dh[i]);
}

static void run_strip(void *arg, int64_t index, int worker) {
  const backward_task *task = arg;
  strip_run r = {.task = task, .piece = index / task->strips, .index = index % task->strips};
  r.strip = scan_strip_at(&task->blocks, task->width, r.index);
  scratch_layout(task, task->scratch + (size_t)worker * task->scratch_bytes, &r.w);
  load_strip(&r);
  for (int64_t next = 0; scan_next_row(&task->pieces, r.piece, &next, &r.row);) run_row(&r);
  store_strip(&r);
}

/* Adds the strips' parts of a varying gradient for one (batch row, 64 steps). */
#define SUM_STEPS 64
static void sum_varying(const backward_task *task, const clm_tensor *out, const float *parts, int64_t b, int64_t t0) {
  const selective_scan_shape *s = task->s;
  const scan_blocks *blocks = &task->blocks;
  if (!out->buffer || !parts) return;
  int64_t strips_per_group = task->strips / s->n_groups, between = s->length * blocks->numbers;
  for (int64_t t = t0; t < min_of(t0 + SUM_STEPS, s->length); t++)
    for (int64_t g = 0; g < s->n_groups; g++) {
      const float *p = parts + ((b * task->strips + g * strips_per_group) * s->length + t) * blocks->numbers;
      int64_t place = b * out->stride[0] + t * out->stride[1] + g * out->stride[2];
      for (int64_t part = 0; part < blocks->parts; part++, p += blocks->states)
        for (int64_t n = 0; n < s->d_state; n += LANES) {
          int64_t count = min_of(LANES, s->d_state - n);
          vec sum = vec_load_part(p + n, count);
          for (int64_t i = 1; i < strips_per_group; i++) sum += vec_load_part(p + i * between + n, count);
          float values[LANES];
          vec_store(values, sum);
          int64_t from = place + n * out->stride[3];
          line_write(s->complex ? line_part(out, from, out->stride[3], (int)part)
                                : line_at(out, from, out->stride[3]),
                     count, values);
        }
    }
}

/* Adds the pieces' parts of a block's fixed gradients, in the order of the pieces. */
static vec sum_pieces(const backward_task *task, const vec *parts, int64_t per_block, int64_t block, int64_t n) {
  vec sum = parts[block * per_block + n];
  for (int64_t i = 1; i < task->pieces.count; i++) sum += parts[(i * task->blocks.count + block) * per_block + n];
  return sum;
}

/* In place of piece 0's part, which is read first. */
static vec *sum_fixed(const backward_task *task, vec *parts, int64_t block) {
  int64_t numbers = task->blocks.numbers;
  vec *sums = parts + block * numbers;
  for (int64_t n = 0; n < numbers; n++) sums[n] = sum_pieces(task, parts, numbers, block, n);
  return sums;
}

static void store_fixed(const backward_task *task, const clm_tensor *out, vec *parts, int64_t block) {
  if (!out->buffer || !parts) return;
  scan_scatter_fixed(out, &task->blocks, scan_block_at(&task->blocks, block), sum_fixed(task, parts, block));
}

/* dA; of A_log, whose gradient is dA conj(A), if that is what A holds. */
static void store_dA(const backward_task *task, int64_t block, vec *A) {
  const clm_tensor *out = &task->a->dA;
  const scan_blocks *blocks = &task->blocks;
  if (!out->buffer) return;
  scan_block k = scan_block_at(blocks, block);
  vec *sums = sum_fixed(task, task->dA, block);
  if (task->a->forward.A_is_log) {
    scan_gather_A(&task->a->forward.A, true, blocks, k, A);
    for (int64_t n = 0; n < blocks->states; n++) {
      vec re = sums[n];
      if (blocks->parts == 1) {
        sums[n] = re * A[n];
        continue;
      }
      vec im = sums[blocks->states + n], A_im = A[blocks->states + n];
      sums[n] = re * A[n] + im * A_im;
      sums[blocks->states + n] = im * A[n] - re * A_im;
    }
  }
  scan_scatter_fixed(out, blocks, k, sums);
}

static void sum_channels(const backward_task *task, const clm_tensor *out, const vec *parts, int64_t block) {
  if (!out->buffer) return;
  scan_block k = scan_block_at(&task->blocks, block);
  float lane[LANES];
  vec_store(lane, sum_pieces(task, parts, 1, block, 0));
  for (int i = 0; i < k.lanes; i++) kernel_data(*out)[(k.channel + i) * out->stride[0]] = lane[i];
}

static void run_sums(void *arg, int64_t index, int worker) {
  const backward_task *task = arg;
  const clm_selective_scan_backward_args *a = task->a;
  int64_t steps = div_up(task->s->length, SUM_STEPS);
  if (index >= task->blocks.count) {
    index -= task->blocks.count;
    if (task->s->B_varies) sum_varying(task, &a->dB, task->dB, index / steps, index % steps * SUM_STEPS);
    if (task->s->C_varies) sum_varying(task, &a->dC, task->dC, index / steps, index % steps * SUM_STEPS);
    return;
  }
  backward_scratch w;
  scratch_layout(task, task->scratch + (size_t)worker * task->scratch_bytes, &w);
  store_dA(task, index, w.A2[0]);
  store_fixed(task, &a->dB, task->dB_fixed, index);
  store_fixed(task, &a->dC, task->dC_fixed, index);
  sum_channels(task, &a->dD, task->dD, index);
  sum_channels(task, &a->ddelta_bias, task->dbias, index);
}

/* Lays the workspace out; returns its size. */
static size_t task_layout(backward_task *task, char *memory, int threads) {
  const selective_scan_shape *s = task->s;
  size_t numbers = (size_t)task->blocks.numbers, blocks = (size_t)(task->pieces.count * task->blocks.count), used = 0;
  size_t parts = (size_t)(s->batch * task->strips * s->length) * numbers;
  backward_scratch unused;
  task->scratch_bytes = scratch_layout(task, NULL, &unused);
  task->scratch = memory;
  used += task->scratch_bytes * (size_t)threads;
  vec **vectors[] = {&task->dA, &task->dD, &task->dbias, &task->dB_fixed, &task->dC_fixed};
  size_t sizes[] = {blocks * numbers, blocks, blocks, s->B_varies ? 0 : blocks * numbers,
                    s->C_varies ? 0 : blocks * numbers};
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
#define TASKS 16
static backward_task task_of(const selective_scan_shape *s, const clm_selective_scan_backward_args *a) {
  backward_task task = {.s = s, .a = a, .blocks = scan_blocks_of(s), .tiles = div_up(s->length, TILE)};
  task.width = max_of(1, min_of(STRIP, s->batch * task.blocks.count / TASKS));
  task.strips = scan_strips(&task.blocks, task.width);
  task.pieces = scan_pieces_of(s, &a->forward.cu_seqlens, task.strips, TASKS);
  return task;
}

size_t KERNEL(selective_scan_backward_workspace)(clm_context *ctx, const selective_scan_shape *s,
                                                 const clm_selective_scan_backward_args *a) {
  backward_task task = task_of(s, a);
  return task_layout(&task, NULL, cpu_pool_threads(cpu_context_pool(ctx)));
}

clm_status KERNEL(selective_scan_backward)(clm_context *ctx, const selective_scan_shape *s,
                                           const clm_selective_scan_backward_args *a) {
  if (s->dtype == CLM_F64) return ref_selective_scan_backward(ctx, s, a);
  int threads = cpu_pool_threads(cpu_context_pool(ctx));
  backward_task task = task_of(s, a);
  clm_buffer *workspace;
  clm_status status = context_workspace(ctx, task_layout(&task, NULL, threads), &workspace);
  if (status) return status;
  task_layout(&task, workspace->host, threads);
  cpu_pool_run(cpu_context_pool(ctx), task.pieces.count * task.strips, run_strip, &task);
  int64_t varying = s->B_varies || s->C_varies ? s->batch * div_up(s->length, SUM_STEPS) : 0;
  cpu_pool_run(cpu_context_pool(ctx), task.blocks.count + varying, run_sums, &task);
  context_explain(
      ctx,
      "selective_scan_backward: cpu %s, strips of %d x %d channels, tiles of %d steps recomputed, %lld parts "
      "of dB and dC, %d threads",
      cpu_context_level(ctx), (int)task.width, LANES, TILE, (long long)task.strips, threads);
  return CLM_OK;
}

/* SSD forward on mma's fragments, for rows of bf16 that 16-byte loads reach: a work-group owns 64 channels of a head in
 * a segment (a chunk, or all of the row) and walks its pieces with the state in registers, while the next piece is on
 * its way to local memory. A sub-group holds 16 channels, as rows:
 *
 *   y    = S C^T                times the decay up to each step     S: results are operands, in two planes
 *   W    = C B^T                times decays and d                  through local memory, in two planes
 *   y   += x^T W^T + D x
 *   S    = total S + (w x)^T B                                      w x: three planes
 *
 *   WALK_STATE   d_state, rounded up to 16
 *   WALK_ENDS    only what each segment adds to the state, and its decay: ssd_pass makes the states before them
 *   WALK_WHOLE   a segment is the row: the initial state comes in and the final one goes out here */
#define ENGINE_ITEMS 128
#include "ssd.h"
#include "squares.h"

#define STEPS        32 /* of a piece, at most */
#define DIMS         64
#define N_CHUNKS     (WALK_STATE / 8)
#define DIM_CHUNKS   (DIMS / 8)
#define STEP_CHUNKS  (STEPS / 8)
#define STATE_BLOCKS (WALK_STATE / 16)
#define STEP_BLOCKS  (STEPS / 16)
#define B_BYTES      (STEPS * WALK_STATE * 2)
#define X_BYTES      (STEPS * DIMS * 2)
#define W_BYTES      (STEPS * STEPS * 2) /* a plane */
#ifdef WALK_ENDS                         /* needs no C and no weights */
#define PIECE_BYTES  (B_BYTES + X_BYTES)
#define WHOLE_BYTES  (2 * PIECE_BYTES)
#else
#define PIECE_BYTES  (2 * B_BYTES + X_BYTES)
#define WHOLE_BYTES  (2 * PIECE_BYTES + 2 * W_BYTES)
#endif
#define LOG2_E       1.44269504f
#ifndef STATE_PLANES
#define STATE_PLANES 3
#endif

#ifdef ENGINE_EMULATED
#define SKIPPED(condition) 0 /* its barriers are the work-group's */
#else
#define SKIPPED(condition) (condition)
#endif

/* Of the steps of a piece: d, the two parts of the logarithm of the decay up to a step, that decay itself, and d times
 * the decay to the end. What is past the end has no d; the last decay is that of the piece. */
typedef struct walk_steps {
  float d[STEPS], sum[STEPS], rest[STEPS], begin[STEPS], weight[STEPS];
} walk_steps;

typedef struct walk_memory {
  local uchar *B, *C, *x, *W, *exchange;
  local const walk_steps *steps;
} walk_memory;

/* The pieces of a segment: the present one. */
typedef struct walk {
  long begin, slot, chunk_end, end;
  int steps;
} walk;

/* Where a work-group and a work-item are. */
typedef struct lane_place {
  long batch;
  int head, group, dim;
  int item, lane, sub, g, t;
} lane_place;

INLINE void walk_next(walk *w, const ssd_args *a) {
  w->begin += w->steps;
  w->slot++;
  if (w->begin == w->chunk_end) w->chunk_end = min(w->chunk_end + a->chunk, w->end);
  w->steps = (int)min((long)a->steps, w->chunk_end - w->begin);
}

/* `size` numbers of the piece's steps, from 16 bytes to 16 bytes; what is past the piece or the size is 0. */
INLINE void bring_rows(local uchar *to, global const x_t *first, int stride, int steps, int size, int chunks,
                       int item) {
  UNROLL
  for (int i = 0; i < (STEPS * chunks + ENGINE_ITEMS - 1) / ENGINE_ITEMS; i++) {
    const int e = item + i * ENGINE_ITEMS, row = e / chunks, chunk = e % chunks;
    if (e < STEPS * chunks)
      bring_chunk(to + swizzled(row, chunk, chunks) * 16, first + (row * stride + chunk * 8),
                  row < steps && chunk * 8 < size);
  }
}

/* What the first STEPS work-items know of a piece's steps: d, sum, rest, and the piece's sum, rest. */
typedef struct own_step {
  float d, sum, rest, last_sum, last_rest;
} own_step;

INLINE void load_step(own_step *to, const walk *w, int head, int item, const ssd_args *a, global const float *work) {
  if (item >= STEPS) return;
  const int last = w->steps - 1, i = min(item, last);
  const long at = (w->slot * a->heads + head) * a->steps;
  to->d = item <= last ? work[a->d + at + i] : 0.0f;
  to->sum = work[a->sum + at + i];
  to->rest = work[a->rest + at + i];
  to->last_sum = work[a->sum + at + last];
  to->last_rest = work[a->rest + at + last];
}
INLINE void put_step(local walk_steps *to, const own_step *s, int item) {
  if (item >= STEPS) return;
  to->d[item] = s->d;
  to->sum[item] = s->sum;
  to->rest[item] = s->rest;
  to->begin[item] = exp(s->sum + s->rest);
  to->weight[item] = s->d * exp((s->last_sum - s->sum) + (s->last_rest - s->rest));
}

/* y = S C^T, times the decay up to each step: 8 blocks of 8 steps. */
INLINE void through_state(float y[][4], float state[][4], const walk_memory *m, const lane_place *w) {
  UNROLL
  for (int i = 0; i < 2 * STEP_BLOCKS; i++) UNROLL
  for (int e = 0; e < 4; e++) y[i][e] = 0.0f;
  UNROLL
  for (int k = 0; k < STATE_BLOCKS; k++) {
    uint s[2][4];
    UNROLL
    for (int i = 0; i < 4; i++) {
      float low = state[2 * k + i / 2][i % 2 * 2], high = state[2 * k + i / 2][i % 2 * 2 + 1];
      s[0][i] = take_pair(&low, &high);
      s[1][i] = pack_bf16(low, high);
    }
    UNROLL
    for (int l = 0; l < STEP_BLOCKS; l++) {
      uint f[4];
      load_squares(f, m->C, N_CHUNKS, l * 16, k * 2, 0, 0, w->lane);
      UNROLL
      for (int plane = 1; plane >= 0; plane--) {
        multiply(y[2 * l], s[plane], f, m->exchange, w->item);
        multiply(y[2 * l + 1], s[plane], f + 2, m->exchange, w->item);
      }
    }
  }
  UNROLL
  for (int i = 0; i < 2 * STEP_BLOCKS; i++) {
    const float2 decay = *(local const float2 *)(m->steps->begin + i * 8 + w->t * 2);
    y[i][0] *= decay.x;
    y[i][1] *= decay.y;
    y[i][2] *= decay.x;
    y[i][3] *= decay.y;
  }
}

/* The weights of the piece's steps: each sub-group makes 16 x 16 of them. */
INLINE void weigh(const walk_memory *m, const lane_place *w) {
  float c[2][4];
  const int l0 = w->sub / 2 * 16, s0 = w->sub % 2 * 16;
  if (SKIPPED(s0 > l0)) return; /* nobody reads them */
  UNROLL
  for (int i = 0; i < 2; i++) UNROLL
  for (int e = 0; e < 4; e++) c[i][e] = 0.0f;
  UNROLL
  for (int k = 0; k < STATE_BLOCKS; k++) {
    uint a[4], b[4];
    load_squares(a, m->C, N_CHUNKS, l0, k * 2, 1, 0, w->lane);
    load_squares(b, m->B, N_CHUNKS, s0, k * 2, 0, 0, w->lane);
    multiply(c[0], a, b, m->exchange, w->item);
    multiply(c[1], a, b + 2, m->exchange, w->item);
  }
  local const walk_steps *steps = m->steps;
  UNROLL
  for (int part = 0; part < 2; part++) {
    const int l = l0 + w->g + part * 8;
    const float sum = steps->sum[l], rest = steps->rest[l];
    UNROLL
    for (int i = 0; i < 2; i++) {
      const int s = s0 + i * 8 + w->t * 2;
      const float2 sums = *(local const float2 *)(steps->sum + s), rests = *(local const float2 *)(steps->rest + s),
                   d = *(local const float2 *)(steps->d + s);
      float low = s <= l ? c[i][part * 2] * d.x * power_of_2(((sum - sums.x) + (rest - rests.x)) * LOG2_E) : 0.0f;
      float high =
          s + 1 <= l ? c[i][part * 2 + 1] * d.y * power_of_2(((sum - sums.y) + (rest - rests.y)) * LOG2_E) : 0.0f;
      local uint *to = (local uint *)(m->W + swizzled(l, s0 / 8 + i, STEP_CHUNKS) * 16) + w->t;
      to[0] = take_pair(&low, &high);
      to[W_BYTES / 4] = pack_bf16(low, high);
    }
  }
}

/* y += x^T W^T: of no later steps. */
INLINE void add_within(float y[][4], uint x[][4], const walk_memory *m, const lane_place *w) {
  UNROLL
  for (int k = 0; k < STEP_BLOCKS; k++) UNROLL
  for (int l = k; l < STEP_BLOCKS; l++) UNROLL
  for (int plane = 1; plane >= 0; plane--) {
    uint b[4];
    load_squares(b, m->W + plane * W_BYTES, STEP_CHUNKS, l * 16, k * 2, 0, 0, w->lane);
    multiply(y[2 * l], x[k], b, m->exchange, w->item);
    multiply(y[2 * l + 1], x[k], b + 2, m->exchange, w->item);
  }
}

/* S = total S + (w x)^T B. */
INLINE void add_to_state(float state[][4], uint x[][4], const walk_memory *m, const lane_place *w) {
  const float total = m->steps->begin[STEPS - 1];
  UNROLL
  for (int i = 0; i < 2 * STATE_BLOCKS; i++) UNROLL
  for (int e = 0; e < 4; e++) state[i][e] *= total;
  UNROLL
  for (int k = 0; k < STEP_BLOCKS; k++) {
    uint planes[STATE_PLANES][4];
    UNROLL
    for (int i = 0; i < 4; i++) {
      const float2 weight = *(local const float2 *)(m->steps->weight + k * 16 + i / 2 * 8 + w->t * 2);
      float low = low_bf16(x[k][i]) * weight.x, high = high_bf16(x[k][i]) * weight.y;
      UNROLL
      for (int plane = 0; plane < STATE_PLANES; plane++) planes[plane][i] = take_pair(&low, &high);
    }
    UNROLL
    for (int n = 0; n < STATE_BLOCKS; n++) {
      uint b[4];
      load_squares(b, m->B, N_CHUNKS, k * 16, n * 2, 1, 1, w->lane);
      UNROLL
      for (int plane = STATE_PLANES - 1; plane >= 0; plane--) {
        multiply(state[2 * n], planes[plane], b, m->exchange, w->item);
        multiply(state[2 * n + 1], planes[plane], b + 2, m->exchange, w->item);
      }
    }
  }
}

/* y + D x, gated, to memory: through the columns of x in local memory that are the sub-group's own. */
INLINE void write_results(float y[][4], uint x[][4], const float *skip, const ssd_args *a, global const x_t *z,
                          global x_t *out, const walk *p, const walk_memory *m, const lane_place *w) {
  const int dim = w->dim + w->sub * 16;
  UNROLL
  for (int part = 0; part < 2; part++) {
    const int mine = dim + w->g + part * 8;
    UNROLL
    for (int i = 0; i < 2 * STEP_BLOCKS; i++) {
      const uint own = x[i / 2][i % 2 * 2 + part];
      float value[2] = {y[i][part * 2] + skip[part] * low_bf16(own), y[i][part * 2 + 1] + skip[part] * high_bf16(own)};
      const int l = i * 8 + w->t * 2, chunk = w->sub * 2 + part;
      if (a->flags & SSD_HAS_Z) UNROLL
      for (int e = 0; e < 2; e++)
        if (l + e < p->steps && mine < a->head_dim)
          value[e] *= silu(LOAD(X_TYPE, z, view_at(&a->z, w->batch, p->begin + l + e, w->head, mine)));
      const uint both = pack_bf16(value[0], value[1]);
      ((local ushort *)m->x)[swizzled(l, chunk, DIM_CHUNKS) * 8 + w->g] = (ushort)both;
      ((local ushort *)m->x)[swizzled(l + 1, chunk, DIM_CHUNKS) * 8 + w->g] = (ushort)(both >> 16);
    }
  }
  lanes_barrier();
  out += view_at(&a->out, w->batch, p->begin, w->head, dim);
  UNROLL
  for (int e = w->lane; e < STEPS * 2; e += LANES) {
    const int l = e / 2, chunk = e % 2;
    if (l < p->steps && dim + chunk * 8 < a->head_dim)
      *(global uint4 *)(out + (l * (int)a->out.stride[1] + chunk * 8)) =
          *(local const uint4 *)(m->x + swizzled(l, w->sub * 2 + chunk, DIM_CHUNKS) * 16);
  }
}

/* The place of a result in a state's view. */
#define FOR_STATE(body)                                                                                              \
  UNROLL                                                                                                             \
  for (int i = 0; i < 2 * STATE_BLOCKS; i++) UNROLL                                                                  \
  for (int e = 0; e < 4; e++) {                                                                                      \
    const int dim = at.dim + at.sub * 16 + at.g + e / 2 * 8, n = i * 8 + at.t * 2 + e % 2;                               \
    body                                                                                                             \
  }

/* Brings what the walk needs of a piece. */
#define BRING_SUMMANDS(to, steps)                                                                                    \
  bring_rows(to, x, x_stride, steps, dims, DIM_CHUNKS, item);                                                        \
  bring_rows((to) + X_BYTES, B, B_stride, steps, a.d_state, N_CHUNKS, item);
#ifdef WALK_ENDS
#define BRING(to, steps) BRING_SUMMANDS(to, steps)
#else
#define BRING(to, steps)                                                                                             \
  bring_rows((to) + X_BYTES + B_BYTES, C, C_stride, steps, a.d_state, N_CHUNKS, item);                               \
  BRING_SUMMANDS(to, steps)
#endif

/* `a` cuts rows into pieces, `s` into segments. */
kernel __attribute__((reqd_work_group_size(ENGINE_ITEMS, 1, 1))) void
ssd_walk(const ssd_args a, const ssd_args s, global const x_t *x, global const x_t *B, global const x_t *C,
         global const float *D, global const x_t *z, global const int *ends, global const float *in,
         global float *last, global x_t *out, global float *work) {
  local uchar memory[WHOLE_BYTES + EXCHANGE_BYTES] __attribute__((aligned(128)));
  local walk_steps steps[2];
  const int tiles = (a.head_dim + DIMS - 1) / DIMS, heads = a.heads * tiles;
  const long segment = (long)get_group_id(0) / heads;
  const int rest = (int)(get_group_id(0) % heads), item = (int)get_local_id(0);
  const piece p = piece_of(&s, ends, segment);
#ifdef SSD_PACKED
  const sequence row = sequence_of(&a, ends, (int)(a.reversed ? a.rows - 1 - p.row : p.row));
#else
  const sequence row = sequence_of(&a, ends, (int)p.row);
#endif
  const lane_place at = {.batch = p.batch,
                         .head = rest / tiles,
                         .group = rest / tiles / (a.heads / a.groups),
                         .dim = rest % tiles * DIMS,
                         .item = item,
                         .lane = item % LANES,
                         .sub = item / LANES,
                         .g = item % LANES / 4,
                         .t = item % 4};
  walk w = {.begin = p.begin,
            .end = p.begin + p.steps,
            .slot = row.slot + (p.begin - row.begin) / a.chunk * a.pieces_of_chunk};
  w.chunk_end = min(w.begin + a.chunk, w.end);
  w.steps = (int)min((long)a.steps, w.chunk_end - w.begin);
  const int dims = min(a.head_dim - at.dim, DIMS);
  const int x_stride = (int)a.x.stride[1], B_stride = (int)a.B.stride[1], C_stride = (int)a.C.stride[1];
  x += view_at(&a.x, at.batch, w.begin, at.head, at.dim);
  B += view_at(&a.B, at.batch, w.begin, at.group, 0);
  C += view_at(&a.C, at.batch, w.begin, at.group, 0);
  float state[2 * STATE_BLOCKS][4], all = 1.0f;
#ifdef WALK_ENDS
  FOR_STATE(state[i][e] = 0.0f;)
#elif defined(WALK_WHOLE)
  FOR_STATE(state[i][e] = a.flags & SSD_HAS_INITIAL && dim < a.head_dim && n < a.d_state
                              ? in[view_at(&a.state_in, p.row, at.head, dim, n)]
                              : 0.0f;)
#else
  FOR_STATE(state[i][e] = dim < a.head_dim && n < a.d_state
                              ? work[s.states + state_at(&a, segment, at.head) + dim * a.d_state + n]
                              : 0.0f;)
#endif
#ifndef WALK_ENDS
  float skip[2];
  UNROLL
  for (int i = 0; i < 2; i++) {
    const int dim = at.dim + at.sub * 16 + at.g + i * 8;
    skip[i] = a.flags & SSD_HAS_D && dim < a.head_dim
                  ? D[a.D.offset + at.head * a.D.stride[0] + dim * a.D.stride[1]]
                  : 0.0f;
  }
#endif
  own_step own;
  if (w.begin < w.end) {
    load_step(&own, &w, at.head, item, &a, work);
    BRING(memory, w.steps)
    put_step(steps, &own, item);
  }
  int turn = 0;
  while (w.begin < w.end) {
    const walk_memory m = {.x = memory + turn * PIECE_BYTES,
                           .B = memory + turn * PIECE_BYTES + X_BYTES,
                           .C = memory + turn * PIECE_BYTES + X_BYTES + B_BYTES,
                           .W = memory + 2 * PIECE_BYTES,
                           .exchange = memory + WHOLE_BYTES,
                           .steps = steps + turn};
    await_chunks();
    local_barrier(); /* the piece is there, and the one before has been read */
    walk next = w;
    walk_next(&next, &a);
    if (next.begin < next.end) {
      x += w.steps * x_stride;
      B += w.steps * B_stride;
      C += w.steps * C_stride;
      BRING(memory + (1 - turn) * PIECE_BYTES, next.steps)
      load_step(&own, &next, at.head, item, &a, work);
    }
    uint xs[STEP_BLOCKS][4];
#ifdef WALK_ENDS
    all *= m.steps->begin[STEPS - 1];
#else
    float y[2 * STEP_BLOCKS][4];
    through_state(y, state, &m, &at);
    weigh(&m, &at);
    local_barrier(); /* W is whole */
#endif
    UNROLL
    for (int k = 0; k < STEP_BLOCKS; k++) load_squares(xs[k], m.x, DIM_CHUNKS, k * 16, at.sub * 2, 0, 1, at.lane);
#ifndef WALK_ENDS
    add_within(y, xs, &m, &at);
    lanes_barrier();
    write_results(y, xs, skip, &a, z, out, &w, &m, &at);
#endif
    add_to_state(state, xs, &m, &at);
    put_step(steps + 1 - turn, &own, item);
    turn = 1 - turn;
    w = next;
  }
  ANCHOR
#ifdef WALK_ENDS
  FOR_STATE(if (dim < a.head_dim && n < a.d_state)
                work[s.states + state_at(&a, segment, at.head) + dim * a.d_state + n] = state[i][e];)
  if (item == 0 && at.dim == 0) work[s.total + segment * a.heads + at.head] = all;
#elif defined(WALK_WHOLE)
  if (a.flags & SSD_HAS_FINAL && p.begin == row.begin) /* of a row's segments that are not used, none */
    FOR_STATE(if (dim < a.head_dim && n < a.d_state)
                  last[view_at(&a.state_out, p.row, at.head, dim, n)] = state[i][e];)
#endif
}

/* Selective scan, backward: one work-group owns SCAN_CHANNELS channels of one batch row and walks its chunk of the
 * sequence backwards in tiles of SCAN_TILE steps, each tile in blocks of SCAN_BLOCK. From the state at a tile's
 * beginning (kept by the forward kernel, SCAN_KEEP_EVERY) it computes the state at each block's beginning, then from
 * the last block to the first the block's states again into registers, and runs the gradient g of the state back:
 *   g[t] = C[t] dy[t] + a[t+1] g[t+1],  a[t] = exp(dt[t] A)
 *   du = D dy + dt sum_n g B     ddt = sum_n g (A a h[t-1] + B u)     dA += dt g a h[t-1]
 * (complex: conjugates of all factors; with the gate, a = exp(dt gate A) and the decay's part of ddt is taken apart)
 *   dB = dt u g and dC = dy h, summed over channels: over those of a lane in registers, over those of the work-group
 *   in local memory, then over work-groups by scan_reduce. dA, dD and ddelta_bias likewise over chunks and batch.
 *   Every sum has a fixed order.
 *   bytes per element: read u, delta, z, dout and d_state / SCAN_TILE states, write du, ddelta, dz; partial sums of dB
 *   and dC
 *   special functions per element: d_state (2 - SCAN_BLOCK / SCAN_TILE) + 6
 * With chunks, BACKWARD_LOCAL first walks each chunk forwards from zero: its final state, its sum of dt, and what its
 * gradient hands to the step before it; two carries (scan_carry) turn them into each chunk's initial state and incoming
 * gradient.
 * Variants: plain (sums over lanes in local memory), shuffle. See docs/kernels/selective_scan_backward.md. */
#include "scan.h"
#include "selective_scan_tile.h"

#define PARTS  (SCAN_SHUFFLE ? 1 : SCAN_LANES)
#define BLOCKS (SCAN_TILE / SCAN_BLOCK)

/* The elements that a work-item stages and finishes: HELD neighbouring steps of one channel in each block. */
#define SHARERS      (WORK_GROUP / SCAN_CHANNELS < SCAN_BLOCK ? WORK_GROUP / SCAN_CHANNELS : SCAN_BLOCK)
#define HELD_STEPS   (SCAN_BLOCK / SHARERS)
#define HELD_OF_TILE (HELD_STEPS * BLOCKS)
#if SCAN_LENGTH_FAST
#define HELD_CHANNEL (lid / SHARERS)
#define HELD_FIRST   (lid % SHARERS * HELD_STEPS)
#define HELD_IN_TILE (lid / SHARERS < SCAN_CHANNELS)
#else
#define HELD_CHANNEL (lid % SCAN_CHANNELS)
#define HELD_FIRST   (lid / SCAN_CHANNELS * HELD_STEPS)
#define HELD_IN_TILE (lid / SCAN_CHANNELS < SHARERS)
#endif
#define HELD_STEP(k) ((k) / HELD_STEPS * SCAN_BLOCK + HELD_FIRST + (k) % HELD_STEPS)

/* Rows of steps, one for each channel; the padding keeps vectors aligned and neighbouring rows in different banks. */
#define TILE_PITCH  (SCAN_TILE % 8 == 0 ? SCAN_TILE + 4 : SCAN_TILE)
#define BLOCK_PITCH SCAN_BLOCK

/* dB and dC of a step and channel slot lie side by side, dC first in every other slot: no bank conflicts. */
#define SUM_ROW          (2 * PADDED)
#define BC_SLOT(t, slot) (((t) * SLOTS + (slot)) * SUM_ROW)
#define BC_FLIP(slot)    (((slot) & 1) * PADDED)
#define SUMS             (SCAN_BLOCK * SUM_ROW * NUMBER_PARTS) /* of a block, over channels */
#define SUM_CHAINS       (SLOTS < 4 ? SLOTS : 4) /* additions that do not wait for each other */
#define WANTS_Y          (flags & (SCAN_WANT_DZ | SCAN_WANT_OUT))
#define WANTS_BC         ((SCAN_B_VARIES && (flags & SCAN_WANT_DB)) || (SCAN_C_VARIES && (flags & SCAN_WANT_DC)))

/* SCAN_BLOCK neighbouring steps of a row. */
__attribute__((always_inline)) static inline void read_steps(float *values, local const float *row) {
#if SCAN_BLOCK % 4 == 0
  UNROLL
  for (int q = 0; q < SCAN_BLOCK / 4; q++) {
    const float4 v = ((local const float4 *)row)[q];
    values[4 * q] = v.x, values[4 * q + 1] = v.y, values[4 * q + 2] = v.z, values[4 * q + 3] = v.w;
  }
#else
  UNROLL
  for (int t = 0; t < SCAN_BLOCK; t++) values[t] = row[t];
#endif
}

/* values[SCAN_BLOCK] of this lane's channel j -> `tile`: the sums over lanes, or each lane's part. */
#if SCAN_LANES > 1 && SCAN_SHUFFLE
#define OVER_LANES(values) sum_lanes(values, lane SHUFFLE_ARGUMENT);
#define PART               0
#else
#define OVER_LANES(values)
#define PART lane
#endif
#define SUM_LANES(values, tile, j)                                                                                    \
  {                                                                                                                   \
    OVER_LANES(values)                                                                                                \
    UNROLL for (int i = 0; i < OWNED_STEPS; i++)                                                                      \
      if (OWNS_THEM) tile[(PART * SCAN_CHANNELS + OWN(j)) * BLOCK_PITCH + OWNED_FROM + i] = values[i];                \
  }

/* Offsets of elements in their tensors. */
#ifndef SCAN_OFFSET
#define SCAN_OFFSET long
#endif
typedef SCAN_OFFSET offset_t;

kernel __attribute__((reqd_work_group_size(WORK_GROUP, 1, 1))) void selective_scan_backward(
    TENSOR(u), STRIDES3(u, batch, step, channel), TENSOR(delta), STRIDES3(delta, batch, step, channel),
    TENSOR_OF(NUMBER_TYPE, A), STRIDES2(A, channel, state),       /* */
    TENSOR_OF(B_TYPE, B), STRIDES4(B, batch, step, group, state), /* static: B_step is the stride of a channel */
    TENSOR_OF(C_TYPE, C), STRIDES4(C, batch, step, group, state), /* likewise */
    TENSOR_F32(D), STRIDES1(D, channel), TENSOR(z), STRIDES3(z, batch, step, channel), /* */
    TENSOR_F32(bias), STRIDES1(bias, channel), TENSOR(gate), STRIDES3(gate, batch, step, channel), /* */
    TENSOR(dout), STRIDES3(dout, batch, step, channel),                                                     /* */
    TENSOR_OF(NUMBER_TYPE, dfinal), STRIDES3(dfinal, batch, channel, state),                                /* */
    OUTPUT(du), STRIDES3(du, batch, step, channel),                                                         /* */
    OUTPUT(ddelta), STRIDES3(ddelta, batch, step, channel), OUTPUT(dz), STRIDES3(dz, batch, step, channel),
    OUTPUT(dgate), STRIDES3(dgate, batch, step, channel), OUTPUT(out), STRIDES3(out, batch, step, channel), /* */
    OUTPUT_OF(NUMBER_TYPE, dinitial), STRIDES3(dinitial, batch, channel, state),                            /* */
    global float *work, /* offsets in floats: */
    long tiles_at,      /* (tiles, d_inner, d_state)   each tile's first state                     */
    long states_at,     /* (slots, d_inner, d_state)   BACKWARD_LOCAL: each chunk's final state    */
    long gradients_at,  /* (slots, d_inner, d_state)   its gradient handed back, or coming in      */
    long sums_at,       /* (slots, d_inner)            its sum of dt                               */
    long marks_at,      /* (batch, length) bytes       seq_idx as scan_marks leaves it             */
    long drops_at,      /* (slots) ints                a sequence begins in the chunk              */
    long dA_at,         /* (slots, d_inner, d_state); dB and dC too where they are static          */
    long dB_at,         /* (blocks of a group, batch, length, groups, d_state)                     */
    long dC_at, long dD_at, /* (slots, d_inner), then the same of ddelta_bias */
    PACKED_PARAMETERS, long batches, long slots, long length, long chunk, int chunks, int d_inner, int group_channels,
    int group_blocks, int given_flags) {
  const int flags = SCAN_FLAGS(given_flags);
  const int lid = (int)get_local_id(0), lane = lid % SCAN_LANES, slot = lid / SCAN_LANES;
  const int groups = d_inner / group_channels;
  const scan_sequences sequences = {ends + ends_offset, ends_stride, rows, reversed};
  const scan_place place = place_of(groups * group_blocks, length, chunk, chunks, chunks, sequences);
  const int group = place.column / group_blocks, block_column = place.column % group_blocks;
  const int first = group * group_channels + block_column * SCAN_CHANNELS;
  const int count = min(SCAN_CHANNELS, (group + 1) * group_channels - first); /* channels of this work-group */
  const long batch = place.row.batch, begin = place.begin, end = place.end;
#define OWN(j) (slot + (j) * SLOTS) /* this lane's channel j in the work-group */
#define OWN_ROW(j) (place.slot * d_inner + first + OWN(j))
#define MATRIX(at) ((global number_t *)(work + (at)))
#if SCAN_RESETS
  global const uchar *const marks = (global const uchar *)(work + marks_at) + batch * length;
#endif

  SHUFFLE_SCRATCH
#define STEP_TILE(name, parts, pitch) local float name[(parts) * SCAN_CHANNELS * (pitch)] __attribute__((aligned(16)))
  STEP_TILE(dt_tile, 1, TILE_PITCH);
  STEP_TILE(dtu_tile, 1, TILE_PITCH);
  STEP_TILE(dy_tile, 1, TILE_PITCH);
#if SCAN_B_VARIES
  local number_t B_tile[BC_TILE] __attribute__((aligned(16)));
#endif
#if SCAN_C_VARIES
  local number_t C_tile[BC_TILE] __attribute__((aligned(16)));
#endif
#if SCAN_RESETS
  local int mark_tile[SCAN_TILE];
#endif
#if !BACKWARD_LOCAL
  STEP_TILE(gB_tile, PARTS, BLOCK_PITCH);
  STEP_TILE(ddt_tile, PARTS, BLOCK_PITCH);
  STEP_TILE(y_tile, PARTS, BLOCK_PITCH);
#if SCAN_B_VARIES || SCAN_C_VARIES
  local number_t bc_tile[SCAN_BLOCK * SLOTS * SUM_ROW] __attribute__((aligned(16)));
#endif
#endif

  number_t rate[SCAN_PER_LANE][SCAN_STATES], g[SCAN_PER_LANE][SCAN_STATES];
#if BACKWARD_LOCAL
  number_t h[SCAN_PER_LANE][SCAN_STATES], decay_all[SCAN_PER_LANE][SCAN_STATES];
  float dt_sum[SCAN_PER_LANE];
#if SCAN_RESETS
  bool dropped = false;
#endif
#else
  number_t dA[SCAN_PER_LANE][SCAN_STATES];
#endif
#if SCAN_B_VARIES
  number_t B_now[SCAN_STATES];
#define B_OF(j, s) B_now[s]
#else
  number_t B_fixed[SCAN_PER_LANE][SCAN_STATES], dB_fixed[SCAN_PER_LANE][SCAN_STATES];
#define B_OF(j, s) B_fixed[j][s]
#endif
#if SCAN_C_VARIES
  number_t C_now[SCAN_STATES];
#define C_OF(j, s) C_now[s]
#else
  number_t C_fixed[SCAN_PER_LANE][SCAN_STATES], dC_fixed[SCAN_PER_LANE][SCAN_STATES];
#define C_OF(j, s) C_fixed[j][s]
#endif
  UNROLL
  for (int j = 0; j < SCAN_PER_LANE; j++) {
    const long own = first + OWN(j);
    UNROLL
    for (int s = 0; s < SCAN_STATES; s++) {
      const int n = STATE(lane, s);
      const bool real = n < SCAN_D_STATE && OWN(j) < count;
      number_t a = real ? A[A_offset + own * A_channel + n * A_state] : ZERO;
      if (flags & SCAN_A_LOG) a = real ? -exponential(a) : ZERO;
      rate[j][s] = rate_of(a);
      g[j][s] = ZERO;
#if !SCAN_B_VARIES
      B_fixed[j][s] = real ? LOAD(B_TYPE, B, B_offset + own * B_step + n * B_state) : ZERO;
      dB_fixed[j][s] = ZERO;
#endif
#if !SCAN_C_VARIES
      C_fixed[j][s] = real ? twice(LOAD(C_TYPE, C, C_offset + own * C_step + n * C_state)) : ZERO;
      dC_fixed[j][s] = ZERO;
#endif
#if BACKWARD_LOCAL
      h[j][s] = ZERO;
      decay_all[j][s] = ONE;
#else
      dA[j][s] = ZERO;
      if (real && (flags & SCAN_FROM_CARRY)) g[j][s] = MATRIX(gradients_at)[OWN_ROW(j) * SCAN_D_STATE + n];
      else if (real && (flags & SCAN_DFINAL))
        g[j][s] = dfinal[dfinal_offset + place.row.states * dfinal_batch + own * dfinal_channel + n * dfinal_state];
#endif
    }
#if BACKWARD_LOCAL
    dt_sum[j] = 0.0f;
#endif
  }

  const int c = HELD_CHANNEL;
  const bool in_tile = HELD_IN_TILE, held = in_tile && c < count;
  const float D_held = held && (flags & SCAN_HAS_D) ? D[D_offset + (first + c) * D_channel] : 0.0f;
  const float bias_held = held && (flags & SCAN_HAS_BIAS) ? bias[bias_offset + (first + c) * bias_channel] : 0.0f;
#define HELD_AT(name)                                                                                                 \
  (name##_offset + batch * name##_batch + (first + min(c, count - 1)) * name##_channel +                              \
   (begin + HELD_FIRST) * STEP(name))
#define FIRST_BC(name)                                                                                                \
  (name##_offset + batch * name##_batch + group * name##_group + (begin + BC_STEP(lid)) * name##_step +               \
   BC_STATE(lid) * name##_state)
#define BC_AT(name, e) ((BC_STEP(e) - BC_STEP(lid)) * name##_step + (BC_STATE(e) - BC_STATE(lid)) * name##_state)
  /* Pointers to what this work-item holds first of the chunk's first tile. */
  u += HELD_AT(u);
  delta += HELD_AT(delta);
  z += HELD_AT(z);
  dout += HELD_AT(dout);
#if SCAN_GATE
  gate += HELD_AT(gate);
#endif
  B += FIRST_BC(B);
  C += FIRST_BC(C);
#define AT(name, k) (tile_offset * STEP(name) + (HELD_STEP(k) - HELD_FIRST) * STEP(name))

  /* Global memory -> registers, the tile that begins at step `from`: bits as they lie there, so that nothing waits. */
  storage_t u_next[HELD_OF_TILE], delta_next[HELD_OF_TILE], z_next[HELD_OF_TILE], dout_next[HELD_OF_TILE];
  STORAGE(B_TYPE) B_next[BC_ITEMS];
  STORAGE(C_TYPE) C_next[BC_ITEMS];
#if SCAN_GATE
  storage_t gate_next[HELD_OF_TILE];
#define FETCH_GATE(k) gate_next[k] = gate[AT(gate, k)];
#define NO_GATE(k)    gate_next[k] = 0;
#else
#define FETCH_GATE(k)
#define NO_GATE(k)
#endif
#define FETCH_ELEMENT(k)                                                                                              \
  {                                                                                                                   \
    u_next[k] = u[AT(u, k)];                                                                                          \
    delta_next[k] = delta[AT(delta, k)];                                                                              \
    dout_next[k] = dout[AT(dout, k)];                                                                                 \
    if (flags & SCAN_HAS_Z) z_next[k] = z[AT(z, k)];                                                                  \
    FETCH_GATE(k)                                                                                                     \
  }
#define FETCH_BC(k)                                                                                                   \
  {                                                                                                                   \
    if (SCAN_B_VARIES) B_next[k] = B[tile_offset * (offset_t)B_step + BC_AT(B, lid + k * WORK_GROUP)];                \
    if (SCAN_C_VARIES) C_next[k] = C[tile_offset * (offset_t)C_step + BC_AT(C, lid + k * WORK_GROUP)];                \
  }
#define BC_IN_TILE(e) ((BC_TILE % WORK_GROUP == 0 || (e) < BC_TILE) && BC_STATE(e) < SCAN_D_STATE)

/* A tile in which every step and channel counts needs no questions. */
#if SCAN_RESETS
#define WHOLE(from) false
#else
#define WHOLE(from) (count == SCAN_CHANNELS && (from) + SCAN_TILE <= end)
#endif
#define FETCH(from)                                                                                                   \
  {                                                                                                                   \
    const offset_t tile_offset = (offset_t)((from)-begin);                                                            \
    UNROLL for (int k = 0; k < HELD_OF_TILE; k++) {                                                                   \
      u_next[k] = delta_next[k] = z_next[k] = dout_next[k] = 0;                                                       \
      NO_GATE(k)                                                                                                      \
    }                                                                                                                 \
    UNROLL for (int k = 0; k < BC_ITEMS; k++) {                                                                       \
      B_next[k] = 0;                                                                                                  \
      C_next[k] = 0;                                                                                                  \
    }                                                                                                                 \
    if (WHOLE(from)) {                                                                                                \
      UNROLL for (int k = 0; k < HELD_OF_TILE; k++) if (in_tile) FETCH_ELEMENT(k)                                     \
      UNROLL for (int k = 0; k < BC_ITEMS; k++) if (BC_IN_TILE(lid + k * WORK_GROUP)) FETCH_BC(k)                     \
    } else {                                                                                                          \
      UNROLL for (int k = 0; k < HELD_OF_TILE; k++) if (held && COUNTS((from) + HELD_STEP(k))) FETCH_ELEMENT(k)       \
      UNROLL for (int k = 0; k < BC_ITEMS; k++)                                                                       \
        if (COUNTS((from) + BC_STEP(lid + k * WORK_GROUP)) && BC_IN_TILE(lid + k * WORK_GROUP)) FETCH_BC(k)           \
    }                                                                                                                 \
  }

  /* Registers -> local memory. Where a step does not count dt is 0: the state stays as it is. */
  float u_raw[HELD_OF_TILE], x_raw[HELD_OF_TILE], z_raw[HELD_OF_TILE], dout_raw[HELD_OF_TILE]; /* x: delta + bias */
#if SCAN_GATE
  float gate_raw[HELD_OF_TILE];
#define KEEP_GATE(k)      gate_raw[k] = value(gate_next[k]);
#define DECAY_STEP(dt, k) ((dt)*gate_raw[k])
#else
#define KEEP_GATE(k)
#define DECAY_STEP(dt, k) (dt)
#endif
#if SCAN_B_VARIES
#define KEEP_B(k, at) B_tile[at] = VALUE(B_TYPE, B_next[k]);
#else
#define KEEP_B(k, at)
#endif
#if SCAN_C_VARIES
#define KEEP_C(k, at) C_tile[at] = twice(VALUE(C_TYPE, C_next[k]));
#else
#define KEEP_C(k, at)
#endif
#if SCAN_RESETS /* others may still read the marks of the tile before */
#define KEEP_MARKS(from)                                                                                              \
  local_barrier();                                                                                                    \
  for (int t = lid; t < SCAN_TILE; t += WORK_GROUP) mark_tile[t] = (from) + t < end ? marks[(from) + t] : 0;
#else
#define KEEP_MARKS(from)
#endif
#define KEEP(from)                                                                                                    \
  {                                                                                                                   \
    KEEP_MARKS(from)                                                                                                  \
    UNROLL for (int k = 0; k < HELD_OF_TILE; k++) {                                                                   \
      const int at_tile = c * TILE_PITCH + HELD_STEP(k);                                                              \
      u_raw[k] = value(u_next[k]);                                                                                    \
      x_raw[k] = value(delta_next[k]) + bias_held;                                                                    \
      z_raw[k] = value(z_next[k]);                                                                                    \
      dout_raw[k] = value(dout_next[k]);                                                                              \
      KEEP_GATE(k)                                                                                                    \
      float dt = (flags & SCAN_SOFTPLUS) ? fast_softplus(x_raw[k]) : x_raw[k];                                             \
      if (!WHOLE(from) && !COUNTS((from) + HELD_STEP(k))) dt = 0.0f;                                                  \
      if (!in_tile) continue;                                                                                         \
      dt_tile[at_tile] = DECAY_STEP(dt, k);                                                                           \
      dtu_tile[at_tile] = dt * u_raw[k];                                                                              \
      dy_tile[at_tile] = (flags & SCAN_HAS_Z) ? dout_raw[k] * swish(z_raw[k]) : dout_raw[k];                          \
    }                                                                                                                 \
    UNROLL for (int k = 0; k < BC_ITEMS; k++) {                                                                       \
      const int e = lid + k * WORK_GROUP;                                                                             \
      if (BC_TILE % WORK_GROUP == 0 || e < BC_TILE) {                                                                 \
        KEEP_B(k, BC_STEP(e) * PADDED + BC_STATE(e))                                                                  \
        KEEP_C(k, BC_STEP(e) * PADDED + BC_STATE(e))                                                                  \
      }                                                                                                               \
    }                                                                                                                 \
    local_barrier();                                                                                                  \
  }

#if SCAN_B_VARIES
#define READ_B(t) read_states(B_now, &B_tile[(t) * PADDED], lane);
#else
#define READ_B(t)
#endif
#if SCAN_C_VARIES
#define READ_C(t) read_states(C_now, &C_tile[(t) * PADDED], lane);
#else
#define READ_C(t)
#endif
#if SCAN_RESETS
#define BEGINS(t) (mark_tile[t] == SCAN_BEGINS)
#else
#define BEGINS(t) false
#endif
#define STEPS_OF(tile, j, block) &tile[OWN(j) * TILE_PITCH + (block) * SCAN_BLOCK]
#define READ_STEPS(j, block)                                                                                          \
  read_steps(dt[j], STEPS_OF(dt_tile, j, block));                                                                     \
  read_steps(dtu[j], STEPS_OF(dtu_tile, j, block));                                                                   \
  read_steps(dy[j], STEPS_OF(dy_tile, j, block));

  const long tiles = (end - begin + SCAN_TILE - 1) / SCAN_TILE;
#if BACKWARD_LOCAL
  FETCH(begin)
  KEEP(begin)
  for (long at = begin; at < end; at += SCAN_TILE) {
    FETCH(at + SCAN_TILE)
    UNROLL
    for (int b = 0; b < BLOCKS; b++) {
      float dt[SCAN_PER_LANE][SCAN_BLOCK], dtu[SCAN_PER_LANE][SCAN_BLOCK], dy[SCAN_PER_LANE][SCAN_BLOCK];
      UNROLL
      for (int j = 0; j < SCAN_PER_LANE; j++) {
        READ_STEPS(j, b)
      }
      UNROLL
      for (int t = 0; t < SCAN_BLOCK; t++) {
        const int step = b * SCAN_BLOCK + t;
        READ_B(step)
        READ_C(step)
#if SCAN_RESETS
        dropped |= BEGINS(step);
#endif
        UNROLL
        for (int j = 0; j < SCAN_PER_LANE; j++) {
          dt_sum[j] += dt[j][t];
          UNROLL
          for (int s = 0; s < SCAN_STATES; s++) {
            const number_t a = decay_after(dt[j][t], rate[j][s]);
            if (BEGINS(step)) h[j][s] = ZERO;
            h[j][s] = times(a, h[j][s]) + dtu[j][t] * B_OF(j, s);
            decay_all[j][s] = times(decay_all[j][s], a);
#if SCAN_RESETS
            if (!dropped)
#endif
              g[j][s] += conjugate_times(decay_all[j][s], conjugate(C_OF(j, s)) * dy[j][t]);
          }
        }
      }
    }
    local_barrier();
    KEEP(at + SCAN_TILE)
  }
  ANCHOR

#if SCAN_RESETS
  if (lid == 0 && place.column == 0) ((global int *)(work + drops_at))[place.slot] = dropped;
#endif
  UNROLL
  for (int j = 0; j < SCAN_PER_LANE; j++) {
    if (OWN(j) >= count) continue;
    if (lane == 0) work[sums_at + OWN_ROW(j)] = dt_sum[j];
    UNROLL
    for (int s = 0; s < SCAN_STATES; s++) {
      const int n = STATE(lane, s);
      if (n >= SCAN_D_STATE) continue;
      MATRIX(states_at)[OWN_ROW(j) * SCAN_D_STATE + n] = h[j][s];
      MATRIX(gradients_at)[OWN_ROW(j) * SCAN_D_STATE + n] = g[j][s];
    }
  }
#else
  du += HELD_AT(du);
  ddelta += HELD_AT(ddelta);
  dz += HELD_AT(dz);
  out += HELD_AT(out);
#if SCAN_GATE
  dgate += HELD_AT(dgate);
#endif
  float dD_held = 0.0f, dbias_held = 0.0f;
  /* Where the sums over channels of a step go. */
  const long sums_step = (long)groups * (SCAN_D_STATE * NUMBER_PARTS);
  const long first_sums_row =
      ((block_column * batches + batch) * length + begin) * sums_step + group * (SCAN_D_STATE * NUMBER_PARTS);

  /* The state at the beginning of each block of a tile; that of the first comes from the forward kernel. */
  number_t start[BLOCKS][SCAN_PER_LANE][SCAN_STATES], start_next[SCAN_PER_LANE][SCAN_STATES];
#define FETCH_START(index)                                                                                            \
  UNROLL for (int j = 0; j < SCAN_PER_LANE; j++) {                                                                    \
    const long row = (place.tile + (index)) * d_inner + first + OWN(j);                                               \
    UNROLL for (int s = 0; s < SCAN_STATES; s++) start_next[j][s] = ZERO;                                             \
    if ((index) >= 0 && OWN(j) < count) load_row(start_next[j], MATRIX(tiles_at) + row * SCAN_D_STATE, lane);        \
  }

  {
    const long from = tiles > 0 ? begin + (tiles - 1) * SCAN_TILE : end;
    FETCH(from)
    FETCH_START(tiles - 1)
    KEEP(from)
  }
  for (long tile = tiles - 1; tile >= 0; tile--) {
    const long at = begin + tile * SCAN_TILE, before = tile > 0 ? at - SCAN_TILE : end;
    const offset_t tile_offset = (offset_t)(at - begin);
    const bool whole = WHOLE(at);
    UNROLL
    for (int j = 0; j < SCAN_PER_LANE; j++)
      UNROLL
      for (int s = 0; s < SCAN_STATES; s++) start[0][j][s] = start_next[j][s];
    UNROLL
    for (int b = 1; b < BLOCKS; b++) {
      UNROLL
      for (int j = 0; j < SCAN_PER_LANE; j++) {
        float dt[SCAN_BLOCK], dtu[SCAN_BLOCK];
        read_steps(dt, STEPS_OF(dt_tile, j, b - 1));
        read_steps(dtu, STEPS_OF(dtu_tile, j, b - 1));
        UNROLL
        for (int s = 0; s < SCAN_STATES; s++) start[b][j][s] = start[b - 1][j][s];
        UNROLL
        for (int t = 0; t < SCAN_BLOCK; t++) {
          READ_B((b - 1) * SCAN_BLOCK + t)
          UNROLL
          for (int s = 0; s < SCAN_STATES; s++) {
            if (BEGINS((b - 1) * SCAN_BLOCK + t)) start[b][j][s] = ZERO;
            start[b][j][s] = times(decay_after(dt[t], rate[j][s]), start[b][j][s]) + dtu[t] * B_OF(j, s);
          }
        }
      }
    }

    const long sums_row = first_sums_row + tile_offset * sums_step;
    UNROLL
    for (int b = BLOCKS - 1; b >= 0; b--) {
      /* The block's states again, forwards; states[t] is the one before step t. (With the first in an array of its own,
       * Intel's CPU compiler took a wrong one.) */
      number_t states[SCAN_BLOCK + 1][SCAN_PER_LANE][SCAN_STATES], decay[SCAN_BLOCK][SCAN_PER_LANE][SCAN_STATES];
      float dt[SCAN_PER_LANE][SCAN_BLOCK], dtu[SCAN_PER_LANE][SCAN_BLOCK], dy[SCAN_PER_LANE][SCAN_BLOCK];
      float gB[SCAN_PER_LANE][SCAN_BLOCK], ddt[SCAN_PER_LANE][SCAN_BLOCK], y[SCAN_PER_LANE][SCAN_BLOCK];
      UNROLL
      for (int j = 0; j < SCAN_PER_LANE; j++) {
        READ_STEPS(j, b)
        UNROLL
        for (int s = 0; s < SCAN_STATES; s++) states[0][j][s] = start[b][j][s];
      }
      UNROLL
      for (int t = 0; t < SCAN_BLOCK; t++) {
        READ_B(b * SCAN_BLOCK + t)
        READ_C(b * SCAN_BLOCK + t)
        UNROLL
        for (int j = 0; j < SCAN_PER_LANE; j++) {
          y[j][t] = 0.0f;
          UNROLL
          for (int s = 0; s < SCAN_STATES; s++) {
            number_t last = states[t][j][s];
            if (BEGINS(b * SCAN_BLOCK + t)) last = ZERO;
            decay[t][j][s] = decay_after(dt[j][t], rate[j][s]);
            states[t + 1][j][s] = times(decay[t][j][s], last) + dtu[j][t] * B_OF(j, s);
            y[j][t] += real_of_product(states[t + 1][j][s], C_OF(j, s));
          }
        }
      }

#if BLOCKS > 1 /* the sums of the block before have been read */
      local_barrier();
#endif

      /* The gradient, backwards. */
      UNROLL
      for (int t = SCAN_BLOCK - 1; t >= 0; t--) {
        READ_B(b * SCAN_BLOCK + t)
        READ_C(b * SCAN_BLOCK + t)
        number_t part_B[SCAN_STATES], part_C[SCAN_STATES];
        UNROLL
        for (int j = 0; j < SCAN_PER_LANE; j++) {
          gB[j][t] = ddt[j][t] = 0.0f;
          UNROLL
          for (int s = 0; s < SCAN_STATES; s++) {
            g[j][s] += conjugate(C_OF(j, s)) * dy[j][t];
            number_t last = states[t][j][s];
            if (BEGINS(b * SCAN_BLOCK + t)) last = ZERO;
            const number_t passed = conjugate_times(decay[t][j][s], g[j][s]), before = conjugate_times(last, passed);
            gB[j][t] += real_of_conjugate_product(B_OF(j, s), g[j][s]);
            ddt[j][t] += along_rate(rate[j][s], before);
            dA[j][s] += dt[j][t] * before;
#if SCAN_B_VARIES
            part_B[s] = j > 0 ? part_B[s] + dtu[j][t] * g[j][s] : dtu[j][t] * g[j][s];
#else
            dB_fixed[j][s] += dtu[j][t] * g[j][s];
#endif
#if SCAN_C_VARIES
            const number_t from_C = twice(dy[j][t]) * conjugate(states[t + 1][j][s]);
            part_C[s] = j > 0 ? part_C[s] + from_C : from_C;
#else
            dC_fixed[j][s] += twice(dy[j][t]) * conjugate(states[t + 1][j][s]);
#endif
            g[j][s] = BEGINS(b * SCAN_BLOCK + t) ? ZERO : passed;
          }
        }
#if SCAN_B_VARIES
        if (WANTS_BC) write_states(&bc_tile[BC_SLOT(t, slot) + BC_FLIP(slot)], part_B, lane);
#endif
#if SCAN_C_VARIES
        if (WANTS_BC) write_states(&bc_tile[BC_SLOT(t, slot) + (PADDED - BC_FLIP(slot))], part_C, lane);
#endif
      }
      UNROLL
      for (int j = 0; j < SCAN_PER_LANE; j++) {
        SUM_LANES(gB[j], gB_tile, j)
        SUM_LANES(ddt[j], ddt_tile, j)
        if (WANTS_Y) SUM_LANES(y[j], y_tile, j)
      }
      local_barrier();

      if (b == 0) { /* while the sums are taken: earlier costs registers */
        FETCH(before)
        FETCH_START(tile - 1)
      }
      UNROLL
      for (int i = 0; i < HELD_STEPS; i++) {
        const int k = b * HELD_STEPS + i;
        const long step = at + HELD_STEP(k);
        if (!in_tile || !(whole || (held && step < end))) continue;
        float sum_gB = 0.0f, sum_ddt = 0.0f, sum_y = 0.0f;
        UNROLL
        for (int part = 0; part < PARTS; part++) {
          const int from = (part * SCAN_CHANNELS + c) * BLOCK_PITCH + HELD_FIRST + i;
          sum_gB += gB_tile[from];
          sum_ddt += ddt_tile[from];
          if (WANTS_Y) sum_y += y_tile[from];
        }
#if SCAN_RESETS
        if (mark_tile[HELD_STEP(k)] == SCAN_PADDING) sum_gB = sum_ddt = sum_y = 0.0f;
#endif
        const int at_tile = c * TILE_PITCH + HELD_STEP(k);
        const float dy = dy_tile[at_tile], ddecay = sum_ddt * LN_2;
#if SCAN_GATE
        const float dt_own = (flags & SCAN_SOFTPLUS) ? fast_softplus(x_raw[k]) : x_raw[k];
        float grad = gate_raw[k] * ddecay + u_raw[k] * sum_gB;
        if (flags & SCAN_WANT_DGATE) store(dgate, AT(dgate, k), dt_own * ddecay);
#else
        const float dt_own = dt_tile[at_tile];
        float grad = ddecay + u_raw[k] * sum_gB;
#endif
        if ((flags & SCAN_SOFTPLUS) && x_raw[k] <= 20.0f) grad *= fast_sigmoid(x_raw[k]);
        sum_y += D_held * u_raw[k];
        dD_held += dy * u_raw[k];
        dbias_held += grad;
        if (flags & SCAN_WANT_DU) store(du, AT(du, k), D_held * dy + dt_own * sum_gB);
        if (flags & SCAN_WANT_DDELTA) store(ddelta, AT(ddelta, k), grad);
        if (WANTS_Y) {
          const float open = fast_sigmoid(z_raw[k]);
          if (flags & SCAN_WANT_DZ)
            store(dz, AT(dz, k), dout_raw[k] * sum_y * (open * (1.0f + z_raw[k] * (1.0f - open))));
          if (flags & SCAN_WANT_OUT)
            store(out, AT(out, k), (flags & SCAN_HAS_Z) ? sum_y * (z_raw[k] * open) : sum_y);
        }
      }

#if SCAN_B_VARIES || SCAN_C_VARIES
      if (WANTS_BC)
        for (int e = lid; e < SUMS; e += WORK_GROUP) {
          const int t = e / (SUM_ROW * NUMBER_PARTS), n = e % (SUM_ROW * NUMBER_PARTS);
          const bool is_B = n < PADDED * NUMBER_PARTS;
          const int part = is_B ? n : n - PADDED * NUMBER_PARTS;
          const int step = b * SCAN_BLOCK + t; /* of the tile */
          float chain[SUM_CHAINS]; /* real and imaginary parts by themselves (PoCL 3.1 loses stores of float2 here) */
          UNROLL
          for (int k = 0; k < SLOTS; k++) {
            const int from = (n + BC_FLIP(k) * NUMBER_PARTS) % (SUM_ROW * NUMBER_PARTS);
            const float part_k = ((local const float *)&bc_tile[BC_SLOT(t, k)])[from];
            chain[k % SUM_CHAINS] = k < SUM_CHAINS ? part_k : chain[k % SUM_CHAINS] + part_k;
          }
          float sum = chain[0];
          UNROLL
          for (int k = 1; k < SUM_CHAINS; k++) sum += chain[k];
#if SCAN_RESETS
          if (mark_tile[step] == SCAN_PADDING) sum = 0.0f;
#endif
          if ((whole || at + step < end) && part < SCAN_D_STATE * NUMBER_PARTS) {
            const long to = sums_row + step * sums_step + part;
            if (SCAN_B_VARIES && is_B && (flags & SCAN_WANT_DB)) work[dB_at + to] = sum;
            if (SCAN_C_VARIES && !is_B && (flags & SCAN_WANT_DC)) work[dC_at + to] = sum;
          }
        }
#endif
    }
    KEEP(before)
  }
  ANCHOR

  UNROLL
  for (int j = 0; j < SCAN_PER_LANE; j++)
    UNROLL
    for (int s = 0; s < SCAN_STATES; s++) {
      const int n = STATE(lane, s);
      if (n >= SCAN_D_STATE || OWN(j) >= count) continue;
      const long to = OWN_ROW(j) * SCAN_D_STATE + n;
      if (flags & SCAN_WANT_DA)
        MATRIX(dA_at)[to] = (flags & SCAN_A_LOG) ? conjugate_times(of_rate(rate[j][s]), dA[j][s]) : dA[j][s];
#if !SCAN_B_VARIES
      if (flags & SCAN_WANT_DB) MATRIX(dB_at)[to] = dB_fixed[j][s];
#endif
#if !SCAN_C_VARIES
      if (flags & SCAN_WANT_DC) MATRIX(dC_at)[to] = dC_fixed[j][s];
#endif
      if ((flags & SCAN_WANT_DINITIAL) && place.chunk == 0)
        dinitial[dinitial_offset + place.row.states * dinitial_batch + (first + OWN(j)) * dinitial_channel +
                 n * dinitial_state] = g[j][s];
    }
  /* Over the work-items that hold a channel, in order of their steps. */
  if (in_tile) {
    dt_tile[c * TILE_PITCH + HELD_FIRST / HELD_STEPS] = dD_held;
    dtu_tile[c * TILE_PITCH + HELD_FIRST / HELD_STEPS] = dbias_held;
  }
  local_barrier();
  for (int own = lid; own < ((flags & SCAN_WANT_SUMS) ? count : 0); own += WORK_GROUP) {
    float sum_D = 0.0f, sum_bias = 0.0f;
    for (int i = 0; i < SHARERS; i++) {
      sum_D += dt_tile[own * TILE_PITCH + i];
      sum_bias += dtu_tile[own * TILE_PITCH + i];
    }
    const long row = place.slot * d_inner + first + own;
    work[dD_at + row] = sum_D;
    work[dD_at + slots * d_inner + row] = sum_bias;
  }
#endif
}

/* Selective scan, forward: one work-group owns SCAN_CHANNELS channels of one batch row and walks its chunk of the
 * sequence in tiles of SCAN_TILE steps. States sit in registers: SCAN_LANES lanes share a channel, SCAN_STATES states
 * each; a lane serves SCAN_PER_LANE channels, so that B and C are read from local memory once for all of them.
 *   bytes per element: read u, delta, z, write out; B and C once per work-group (local memory)
 *   special functions per element: d_state + 4 (softplus 2, gate 2); with chunks 2 d_state + 6
 * A tile in local memory holds per element (dt, dt u) and (D u, silu(z)), computed once by the work-item that read
 * them; the next tile's inputs are on their way to registers meanwhile, and with SCAN_BUFFERS 2 there is one barrier a
 * tile.
 * Variants (chosen by src/schedule): plain (y summed over lanes in local memory), shuffle (by sub-group shuffles),
 * one lane a channel (no sum at all).
 * Chunks: A does not depend on time, so a chunk's whole decay is exp(A sum dt). Pass 1 (SCAN_STATES_ONLY) writes each
 * chunk's final state from zero and its sum of dt; the carry is a left fold over chunks, either inside pass 2
 * (SCAN_FOLD) or by scan_carry (SCAN_FROM_CARRY), which leaves each chunk's initial state in place.
 * See docs/kernels/selective_scan.md. */
#include "scan.h"
#include "selective_scan_tile.h"

#define SUM_BY_SHUFFLE (SCAN_LANES > 1 && SCAN_SHUFFLE)
#define STAGED         (SCAN_LENGTH_FAST || (SCAN_LANES > 1 && !SCAN_SHUFFLE)) /* y goes through local memory */
#define PARTS          (SCAN_SHUFFLE ? 1 : SCAN_LANES)
#define NEED_C         (SCAN_C_VARIES && !SCAN_STATES_ONLY)

kernel __attribute__((reqd_work_group_size(WORK_GROUP, 1, 1))) void
selective_scan(TENSOR(u), STRIDES3(u, batch, step, channel),             /* */
               TENSOR(delta), STRIDES3(delta, batch, step, channel),     /* */
               TENSOR_OF(NUMBER_TYPE, A), STRIDES2(A, channel, state),   /* */
               TENSOR_OF(B_TYPE, B), STRIDES4(B, batch, step, group, state), /* static: B_step is a channel's stride */
               TENSOR_OF(C_TYPE, C), STRIDES4(C, batch, step, group, state), /* likewise */
               TENSOR_F32(D), STRIDES1(D, channel),                      /* */
               TENSOR(z), STRIDES3(z, batch, step, channel),             /* */
               TENSOR_F32(bias), STRIDES1(bias, channel),                /* */
               TENSOR(gate), STRIDES3(gate, batch, step, channel),       /* */
               global const number_t *initial, long initial_offset, STRIDES3(initial, batch, channel, state), /* */
               OUTPUT(out), STRIDES3(out, batch, step, channel),         /* */
               global number_t *final, long final_offset, STRIDES3(final, batch, channel, state), /* may be initial */
               global float *work, /* offsets in floats: */
               long states_at,     /* (slots, d_inner, d_state)                                */
               long sums_at,       /* (slots, d_inner): sum of dt                              */
               long tiles_at,      /* (tiles, d_inner, d_state): every SCAN_KEEP_EVERY-th state */
               long marks_at,      /* (batch, length) bytes: seq_idx as scan_marks leaves it   */
               long drops_at,      /* (slots) ints: a sequence begins in the chunk             */
               PACKED_PARAMETERS, long length, long chunk, int chunks, int launched, int d_inner, int group_channels,
               int group_blocks, int given_flags) {
  const int flags = SCAN_FLAGS(given_flags);
  const int lid = (int)get_local_id(0), lane = lid % SCAN_LANES, slot = lid / SCAN_LANES;
  const scan_sequences sequences = {ends + ends_offset, ends_stride, rows, reversed};
  const scan_place place = place_of(d_inner / group_channels * group_blocks, length, chunk, chunks, launched, sequences);
  const int group = place.column / group_blocks;
  const int first = group * group_channels + place.column % group_blocks * SCAN_CHANNELS;
  const int count = min(SCAN_CHANNELS, (group + 1) * group_channels - first); /* channels of this work-group */
  const long batch = place.row.batch, begin = place.begin, end = place.end;
  global number_t *const states = (global number_t *)(work + states_at);
#if SCAN_RESETS
  global const uchar *const marks = (global const uchar *)(work + marks_at) + batch * length;
  global int *const drops = (global int *)(work + drops_at);
#endif

  SHUFFLE_SCRATCH
  local float2 steps[SCAN_BUFFERS][SCAN_TILE][PITCH]; /* dt, dt u */
#if !SCAN_STATES_ONLY
  local float2 finish[SCAN_BUFFERS][SCAN_TILE][PITCH]; /* D u, silu(z) */
#endif
#if SCAN_B_VARIES
  local number_t B_tile[SCAN_BUFFERS][BC_TILE] __attribute__((aligned(16)));
#endif
#if NEED_C
  local number_t C_tile[SCAN_BUFFERS][BC_TILE] __attribute__((aligned(16)));
#endif
#if SCAN_RESETS
  local int mark_tile[SCAN_BUFFERS][SCAN_TILE];
#endif
#if STAGED && !SCAN_STATES_ONLY
  local float y_tile[PARTS][SCAN_TILE][PITCH];
#endif

  /* What this lane keeps: A as a rate and the states of its channels (and B, C where they do not vary). */
  number_t rate[SCAN_PER_LANE][SCAN_STATES], h[SCAN_PER_LANE][SCAN_STATES];
#if !SCAN_B_VARIES
  number_t B_fixed[SCAN_PER_LANE][SCAN_STATES];
#endif
#if !SCAN_C_VARIES && !SCAN_STATES_ONLY
  number_t C_fixed[SCAN_PER_LANE][SCAN_STATES];
#endif
UNROLL
  for (int j = 0; j < SCAN_PER_LANE; j++) {
    const int local_channel = slot + j * SLOTS;
    const long channel = first + local_channel;
UNROLL
    for (int s = 0; s < SCAN_STATES; s++) {
      const int n = STATE(lane, s);
      const bool real = n < SCAN_D_STATE && local_channel < count;
      number_t a = real ? A[A_offset + channel * A_channel + n * A_state] : ZERO;
      if (flags & SCAN_A_LOG) a = real ? -exponential(a) : ZERO;
      rate[j][s] = rate_of(a);
#if !SCAN_B_VARIES
      B_fixed[j][s] = real ? LOAD(B_TYPE, B, B_offset + channel * B_step + n * B_state) : ZERO;
#endif
#if !SCAN_C_VARIES && !SCAN_STATES_ONLY
      C_fixed[j][s] = real ? twice(LOAD(C_TYPE, C, C_offset + channel * C_step + n * C_state)) : ZERO;
#endif
      h[j][s] = ZERO;
      if (real && (flags & SCAN_FROM_CARRY))
        h[j][s] = states[(place.slot * d_inner + channel) * SCAN_D_STATE + n];
      else if (real && (flags & SCAN_FROM_INITIAL))
        h[j][s] = initial[initial_offset + place.row.states * initial_batch + channel * initial_channel +
                          n * initial_state];
    }
  }
#if !SCAN_STATES_ONLY
  for (int k = 0; k < ((flags & SCAN_FOLD) ? place.chunk : 0); k++)
UNROLL
    for (int j = 0; j < SCAN_PER_LANE; j++) {
      const int local_channel = slot + j * SLOTS;
      if (local_channel >= count) continue;
      const long row = (place.row.slot + k) * d_inner + first + local_channel;
      const float sum = work[sums_at + row];
UNROLL
      for (int s = 0; s < SCAN_STATES; s++) {
        const int n = STATE(lane, s);
        if (n >= SCAN_D_STATE) continue;
        number_t carried = times(decay_after(sum, rate[j][s]), h[j][s]);
#if SCAN_RESETS
        if (drops[place.row.slot + k]) carried = ZERO; /* the sum may be another sequence's NaN */
#endif
        h[j][s] = carried + states[row * SCAN_D_STATE + n];
      }
    }
#endif

  /* Element k of this work-item in a tile: where it is read, and the constants of its channel. */
  float D_held[CHANNELS_HELD], bias_held[CHANNELS_HELD];
UNROLL
  for (int k = 0; k < CHANNELS_HELD; k++) {
    const int c = ELEMENT_CHANNEL(k);
    D_held[k] = bias_held[k] = 0.0f;
    if ((flags & SCAN_HAS_D) && c < count) D_held[k] = D[D_offset + (first + c) * D_channel];
    if ((flags & SCAN_HAS_BIAS) && c < count) bias_held[k] = bias[bias_offset + (first + c) * bias_channel];
  }
  /* Pointers to what this work-item stages first of the tile that is fetched next, and to what it writes. */
#define FIRST_ELEMENT(name)                                                                                           \
  (name##_offset + batch * name##_batch + (begin + ELEMENT_STEP(0)) * STEP(name) +                                    \
   (first + min(ELEMENT_CHANNEL(0), count - 1)) * name##_channel)
#define ELEMENT_AT(name, k)                                                                                           \
  ((ELEMENT_STEP(k) - ELEMENT_STEP(0)) * STEP(name) + (ELEMENT_CHANNEL(k) - ELEMENT_CHANNEL(0)) * name##_channel)
#define FIRST_BC(name)                                                                                                \
  (name##_offset + batch * name##_batch + group * name##_group + (begin + BC_STEP(lid)) * name##_step +               \
   BC_STATE(lid) * name##_state)
#define BC_AT(name, e) ((BC_STEP(e) - BC_STEP(lid)) * name##_step + (BC_STATE(e) - BC_STATE(lid)) * name##_state)
  u += FIRST_ELEMENT(u);
  delta += FIRST_ELEMENT(delta);
  z += FIRST_ELEMENT(z);
#if SCAN_GATE
  gate += FIRST_ELEMENT(gate);
  storage_t gate_next[ELEMENTS];
#endif
  out += out_offset + batch * out_batch + first * out_channel + begin * STEP(out);
  B += FIRST_BC(B);
  C += FIRST_BC(C);

  storage_t u_next[ELEMENTS], delta_next[ELEMENTS], z_next[ELEMENTS];
  STORAGE(B_TYPE) B_next[BC_ITEMS];
  STORAGE(C_TYPE) C_next[BC_ITEMS];
  UNROLL for (int k = 0; k < BC_ITEMS; k++) { /* padding states are not fetched */
    B_next[k] = 0;
    C_next[k] = 0;
  }
#if SCAN_STATES_ONLY
  float dt_sum[SCAN_PER_LANE];
UNROLL
  for (int j = 0; j < SCAN_PER_LANE; j++) dt_sum[j] = 0.0f;
#if SCAN_RESETS
  int dropped = 0;
#endif
#endif

/* The gate on A: dt g in place of dt in the decay. */
#if SCAN_GATE
#define FETCH_GATE(k)     gate_next[k] = gate[ELEMENT_AT(gate, k)];
#define DECAY_STEP(dt, k) ((dt) * value(gate_next[k]))
#define NO_GATE(k)        gate_next[k] = 0;
#define NEXT_GATE         gate += SCAN_TILE * gate_step;
#else
#define FETCH_GATE(k)
#define DECAY_STEP(dt, k) (dt)
#define NO_GATE(k)
#define NEXT_GATE
#endif

/* Global memory -> registers: an element, and B and C of one step and state. */
#define FETCH_ELEMENT(k)                                                                                              \
  {                                                                                                                   \
    u_next[k] = u[ELEMENT_AT(u, k)];                                                                                  \
    delta_next[k] = delta[ELEMENT_AT(delta, k)];                                                                      \
    if (!SCAN_STATES_ONLY && (flags & SCAN_HAS_Z)) z_next[k] = z[ELEMENT_AT(z, k)];                                   \
    FETCH_GATE(k)                                                                                                     \
  }
#define FETCH_BC(k)                                                                                                   \
  {                                                                                                                   \
    if (SCAN_B_VARIES) B_next[k] = B[BC_AT(B, lid + k * WORK_GROUP)];                                                 \
    if (NEED_C) C_next[k] = C[BC_AT(C, lid + k * WORK_GROUP)];                                                        \
  }
#define BC_IN_TILE(e) ((BC_TILE % WORK_GROUP == 0 || (e) < BC_TILE) && BC_STATE(e) < SCAN_D_STATE)

/* A tile in which every step and channel counts needs no questions. */
#if SCAN_RESETS
#define WHOLE(at) false
#else
#define WHOLE(at) (count == SCAN_CHANNELS && (at) + SCAN_TILE <= end)
#endif

/* The tile that begins at step `at`; the next call is for the next tile. */
#define FETCH(at)                                                                                                     \
  {                                                                                                                   \
    if (WHOLE(at)) {                                                                                                  \
      UNROLL for (int k = 0; k < ELEMENTS; k++) if (IN_TILE(k)) FETCH_ELEMENT(k)                                      \
      UNROLL for (int k = 0; k < BC_ITEMS; k++) if (BC_IN_TILE(lid + k * WORK_GROUP)) FETCH_BC(k)                     \
    } else {                                                                                                          \
      UNROLL for (int k = 0; k < ELEMENTS; k++) {                                                                     \
        u_next[k] = delta_next[k] = z_next[k] = 0;                                                                    \
        NO_GATE(k)                                                                                                    \
        if (IN_TILE(k) && COUNTS((at) + ELEMENT_STEP(k)) && ELEMENT_CHANNEL(k) < count) FETCH_ELEMENT(k)              \
      }                                                                                                               \
      UNROLL for (int k = 0; k < BC_ITEMS; k++) {                                                                     \
        B_next[k] = 0;                                                                                                \
        C_next[k] = 0;                                                                                                \
        if (COUNTS((at) + BC_STEP(lid + k * WORK_GROUP)) && BC_IN_TILE(lid + k * WORK_GROUP)) FETCH_BC(k)             \
      }                                                                                                               \
    }                                                                                                                 \
    u += SCAN_TILE * STEP(u);                                                                                         \
    delta += SCAN_TILE * STEP(delta);                                                                                 \
    z += SCAN_TILE * STEP(z);                                                                                         \
    NEXT_GATE                                                                                                         \
    if (SCAN_B_VARIES) B += SCAN_TILE * B_step;                                                                       \
    if (NEED_C) C += SCAN_TILE * C_step;                                                                              \
  }

#if !SCAN_STATES_ONLY
#define KEEP_FINISH(buffer, k, c)                                                                                     \
  finish[buffer][ELEMENT_STEP(k)][c] =                                                                                \
      (float2)(D_held[HELD(k)] * value(u_next[k]), (flags & SCAN_HAS_Z) ? swish(value(z_next[k])) : 1.0f);
#else
#define KEEP_FINISH(buffer, k, c)
#endif
#if SCAN_B_VARIES
#define KEEP_B(buffer, k, at) B_tile[buffer][at] = VALUE(B_TYPE, B_next[k]);
#else
#define KEEP_B(buffer, k, at)
#endif
#if NEED_C
#define KEEP_C(buffer, k, at) C_tile[buffer][at] = twice(VALUE(C_TYPE, C_next[k]));
#else
#define KEEP_C(buffer, k, at)
#endif
#if SCAN_RESETS
#define KEEP_MARKS(at, buffer)                                                                                        \
  for (int t = lid; t < SCAN_TILE; t += WORK_GROUP) mark_tile[buffer][t] = (at) + t < end ? marks[(at) + t] : 0;
#else
#define KEEP_MARKS(at, buffer)
#endif

/* Registers -> local memory. Where a step does not count dt is 0: the state stays as it is. */
#define KEEP(at, buffer)                                                                                              \
  {                                                                                                                   \
    UNROLL for (int k = 0; k < ELEMENTS; k++) {                                                                       \
      const int c = ELEMENT_CHANNEL(k);                                                                               \
      float dt = value(delta_next[k]) + bias_held[HELD(k)];                                                           \
      if (flags & SCAN_SOFTPLUS) dt = fast_softplus(dt);                                                                   \
      if (!WHOLE(at) && !COUNTS((at) + ELEMENT_STEP(k))) dt = 0.0f;                                                   \
      if (IN_TILE(k)) {                                                                                               \
        steps[buffer][ELEMENT_STEP(k)][c] = (float2)(DECAY_STEP(dt, k), dt * value(u_next[k]));                       \
        KEEP_FINISH(buffer, k, c)                                                                                     \
      }                                                                                                               \
    }                                                                                                                 \
    UNROLL for (int k = 0; k < BC_ITEMS; k++) {                                                                       \
      const int e = lid + k * WORK_GROUP;                                                                             \
      if (BC_TILE % WORK_GROUP == 0 || e < BC_TILE) {                                                                 \
        KEEP_B(buffer, k, BC_STEP(e) * PADDED + BC_STATE(e))                                                          \
        KEEP_C(buffer, k, BC_STEP(e) * PADDED + BC_STATE(e))                                                          \
      }                                                                                                               \
    }                                                                                                                 \
    KEEP_MARKS(at, buffer)                                                                                            \
  }

/* The output: with D u and the gate, 0 at padding. */
#if SCAN_RESETS
#define FINISHED(value, t, c)                                                                                         \
  (mark_tile[buffer][t] == SCAN_PADDING ? 0.0f : ((value) + finish[buffer][t][c].x) * finish[buffer][t][c].y)
#else
#define FINISHED(value, t, c) (((value) + finish[buffer][t][c].x) * finish[buffer][t][c].y)
#endif

  FETCH(begin)
  KEEP(begin, 0)
  local_barrier();
  int buffer = 0;
  for (long at = begin; at < end; at += SCAN_TILE) {
    const bool whole = WHOLE(at);
    FETCH(at + SCAN_TILE)
#pragma unroll 1
    for (int block = 0; block < SCAN_TILE; block += SCAN_BLOCK) {
#if SCAN_KEEP_EVERY
      if ((at - begin + block) % SCAN_KEEP_EVERY == 0 && at + block < end)
UNROLL
        for (int j = 0; j < SCAN_PER_LANE; j++) {
          const int c = slot + j * SLOTS;
          const long row = (place.tile + (at - begin + block) / SCAN_KEEP_EVERY) * d_inner + first + c;
          if (c < count) store_row((global number_t *)(work + tiles_at) + row * SCAN_D_STATE, h[j], lane);
        }
#endif
      float y[SCAN_PER_LANE][SCAN_BLOCK];
UNROLL
      for (int i = 0; i < SCAN_BLOCK; i++) {
        number_t B_now[SCAN_STATES], C_now[SCAN_STATES];
#if SCAN_RESETS
        const bool begins = mark_tile[buffer][block + i] == SCAN_BEGINS;
#if SCAN_STATES_ONLY
        dropped |= begins;
#endif
#endif
#if SCAN_B_VARIES
        read_states(B_now, &B_tile[buffer][(block + i) * PADDED], lane);
#endif
#if NEED_C
        read_states(C_now, &C_tile[buffer][(block + i) * PADDED], lane);
#endif
UNROLL
        for (int j = 0; j < SCAN_PER_LANE; j++) {
          const float2 step = steps[buffer][block + i][slot + j * SLOTS];
          float sum = 0.0f;
UNROLL
          for (int s = 0; s < SCAN_STATES; s++) {
#if SCAN_B_VARIES
            const number_t input = step.y * B_now[s];
#else
            const number_t input = step.y * B_fixed[j][s];
#endif
#if SCAN_RESETS
            if (begins) h[j][s] = ZERO;
#endif
            h[j][s] = times(decay_after(step.x, rate[j][s]), h[j][s]) + input;
#if NEED_C
            sum += real_of_product(h[j][s], C_now[s]);
#elif !SCAN_STATES_ONLY
            sum += real_of_product(h[j][s], C_fixed[j][s]);
#endif
          }
#if SCAN_STATES_ONLY
          dt_sum[j] += step.x;
#endif
          y[j][i] = sum;
        }
      }
#if !SCAN_STATES_ONLY
UNROLL
      for (int j = 0; j < SCAN_PER_LANE; j++) {
        const int c = slot + j * SLOTS;
#if SUM_BY_SHUFFLE
        sum_lanes(y[j], lane SHUFFLE_ARGUMENT);
#endif
UNROLL
        for (int i = 0; i < OWNED_STEPS; i++) {
          const int t = block + OWNED_FROM + i;
#if STAGED
          if (OWNS_THEM) y_tile[SCAN_SHUFFLE ? 0 : lane][t][c] = y[j][i];
#else
          const float value = FINISHED(y[j][i], t, c);
          if (OWNS_THEM && (whole || (at + t < end && c < count))) store(out, t * STEP(out) + c * out_channel, value);
#endif
        }
      }
#endif
    }
#if (STAGED && !SCAN_STATES_ONLY) || SCAN_BUFFERS == 1
    local_barrier();
#endif
#if STAGED && !SCAN_STATES_ONLY
    ANCHOR
UNROLL
    for (int k = 0; k < ELEMENTS; k++) {
      const int t = ELEMENT_STEP(k), c = ELEMENT_CHANNEL(k);
      if (!IN_TILE(k)) continue;
      float value = y_tile[0][t][c];
UNROLL
      for (int part = 1; part < PARTS; part++) value += y_tile[part][t][c];
      value = FINISHED(value, t, c);
      if (whole || (at + t < end && c < count)) store(out, t * STEP(out) + c * out_channel, value);
    }
#endif
#if SCAN_BUFFERS == 2
    buffer ^= 1;
#endif
    KEEP(at + SCAN_TILE, buffer)
    out += SCAN_TILE * STEP(out);
    local_barrier();
  }
  ANCHOR

#if SCAN_KEEP_EVERY
  return;
#elif !SCAN_STATES_ONLY
  if (!(flags & SCAN_TO_FINAL) || !place.last) return;
#endif
#if SCAN_RESETS && SCAN_STATES_ONLY && !SCAN_KEEP_EVERY
  if (lid == 0 && place.column == 0) drops[place.slot] = dropped;
#endif
UNROLL
  for (int j = 0; j < SCAN_PER_LANE; j++) {
    const int c = slot + j * SLOTS;
    const long channel = first + c, row = place.slot * d_inner + channel;
    if (c >= count) continue;
#if SCAN_STATES_ONLY
    if (lane == 0) work[sums_at + row] = dt_sum[j];
#endif
UNROLL
    for (int s = 0; s < SCAN_STATES; s++) {
      const int n = STATE(lane, s);
      if (n >= SCAN_D_STATE) continue;
#if SCAN_STATES_ONLY
      states[row * SCAN_D_STATE + n] = h[j][s];
#else
      final[final_offset + place.row.states * final_batch + channel * final_channel + n * final_state] = h[j][s];
#endif
    }
  }
}

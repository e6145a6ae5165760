/* The tile of a selective scan as both directions see it: SCAN_CHANNELS channels x (SCAN_LANES x SCAN_STATES) states
 * x SCAN_TILE steps, the elements that a work-item stages, the states that a lane keeps, the sum over lanes. What few
 * calls have is compiled in only for them: SCAN_GATE (the gate on A), SCAN_RESETS (seq_idx), SCAN_PACKED
 * (cu_seqlens), NUMBER_COMPLEX. */

#define SLOTS      (SCAN_CHANNELS / SCAN_PER_LANE)
#define WORK_GROUP (SCAN_LANES * SLOTS)
#define PADDED     (SCAN_LANES * SCAN_STATES) /* states with the padding */
#define ELEMENTS   ((SCAN_TILE * SCAN_CHANNELS + WORK_GROUP - 1) / WORK_GROUP)
#define BC_TILE    (SCAN_TILE * PADDED)
#define BC_ITEMS   ((BC_TILE + WORK_GROUP - 1) / WORK_GROUP)

#include "scan_flags.h"
#include "scan_number.h"
#include "scan_rows.h"

/* B and C that vary are stored as u is, or complex beside a complex A; those that do not, as A. */
#if NUMBER_COMPLEX || !SCAN_B_VARIES
#define B_TYPE NUMBER_TYPE
#else
#define B_TYPE STORAGE_TYPE
#endif
#if NUMBER_COMPLEX || !SCAN_C_VARIES
#define C_TYPE NUMBER_TYPE
#else
#define C_TYPE STORAGE_TYPE
#endif

/* On a GPU kernels have the flags compiled in: what a call does not have then costs no registers. (The backward
 * kernel only what a Mamba block asks for: there are too many sets of them.) */
#ifdef SCAN_FIXED
#define SCAN_FLAGS(given) SCAN_FIXED
#else
#define SCAN_FLAGS(given) (given)
#endif

/* Elements between neighbouring steps: compiled in, SCAN_STEP_u and so on, where that is worth a program of its own.
 * Few calls have a gate. */
#if SCAN_FIXED_STEPS
#define STEP(name)      SCAN_STEP_##name
#define SCAN_STEP_gate  gate_step
#define SCAN_STEP_dgate dgate_step
#else
#define STEP(name) name##_step
#endif

/* Element k of a work-item in a tile. Rows are one longer where neighbouring work-items stage neighbouring steps: no
 * bank conflicts. */
#if SCAN_LENGTH_FAST
#define PITCH (SCAN_CHANNELS + 1)
#if WORK_GROUP >= SCAN_TILE
#define ELEMENT_STEP(k)    (lid % SCAN_TILE)
#define ELEMENT_CHANNEL(k) (lid / SCAN_TILE + (k) * (WORK_GROUP / SCAN_TILE))
#else
#define ELEMENT_STEP(k)    (lid + (k) % (SCAN_TILE / WORK_GROUP) * WORK_GROUP)
#define ELEMENT_CHANNEL(k) ((k) / (SCAN_TILE / WORK_GROUP))
#endif
#define CHANNELS_HELD ELEMENTS
#define HELD(k)       (k)
#else
#define PITCH              SCAN_CHANNELS
#define ELEMENT_STEP(k)    (lid / SCAN_CHANNELS + (k) * (WORK_GROUP / SCAN_CHANNELS))
#define ELEMENT_CHANNEL(k) (lid % SCAN_CHANNELS)
#define CHANNELS_HELD      1
#define HELD(k)            0
#endif
/* Some work-items have no element in a tile of fewer elements than work-items. */
#define IN_TILE(k) (ELEMENTS > 1 || (ELEMENT_STEP(k) < SCAN_TILE && ELEMENT_CHANNEL(k) < SCAN_CHANNELS))

#if SCAN_BC_LENGTH_FAST
#define BC_STEP(e)  ((e) % SCAN_TILE)
#define BC_STATE(e) ((e) / SCAN_TILE)
#else
#define BC_STEP(e)  ((e) / PADDED)
#define BC_STATE(e) ((e) % PADDED)
#endif

/* A lane's states come in vectors that lie beside those of the next lane: no bank conflicts there either. */
#if NUMBER_COMPLEX
#define VECTOR 1
typedef number_t state_vector;
#elif SCAN_STATES % 4 == 0
#define VECTOR 4
typedef float4 state_vector;
#elif SCAN_STATES % 2 == 0
#define VECTOR 2
typedef float2 state_vector;
#else
#define VECTOR 1
typedef float state_vector;
#endif
#define STATE(lane, s) (((s) / VECTOR * SCAN_LANES + (lane)) * VECTOR + (s) % VECTOR)

/* number[SCAN_STATES] read as state_vectors: lane `lane`, row `row` of PADDED numbers. */
__attribute__((always_inline)) static inline void read_states(number_t *values, local const number_t *row, int lane) {
  local const state_vector *vectors = (local const state_vector *)row + lane;
  UNROLL
  for (int q = 0; q < SCAN_STATES / VECTOR; q++) {
    state_vector v = vectors[q * SCAN_LANES];
#if VECTOR == 4
    values[q * 4] = v.x, values[q * 4 + 1] = v.y, values[q * 4 + 2] = v.z, values[q * 4 + 3] = v.w;
#elif VECTOR == 2
    values[q * 2] = v.x, values[q * 2 + 1] = v.y;
#else
    values[q] = v;
#endif
  }
}

/* A row of SCAN_D_STATE states in global memory -> this lane's registers; the padding keeps what it has. */
#if SCAN_D_STATE % VECTOR == 0
#define ROW_VECTOR VECTOR
typedef state_vector row_vector;
#else
#define ROW_VECTOR 1
typedef number_t row_vector;
#endif
__attribute__((always_inline)) static inline void load_row(number_t *values, global const number_t *row, int lane) {
  UNROLL
  for (int s = 0; s < SCAN_STATES; s += ROW_VECTOR) {
    const int n = STATE(lane, s);
    if (n >= SCAN_D_STATE) continue;
    const row_vector v = *(global const row_vector *)(row + n);
#if ROW_VECTOR == 4
    values[s] = v.x, values[s + 1] = v.y, values[s + 2] = v.z, values[s + 3] = v.w;
#elif ROW_VECTOR == 2
    values[s] = v.x, values[s + 1] = v.y;
#else
    values[s] = v;
#endif
  }
}

/* The reverse of load_row, and of read_states. */
__attribute__((always_inline)) static inline void store_row(global number_t *row, const number_t *values, int lane) {
  UNROLL
  for (int s = 0; s < SCAN_STATES; s += ROW_VECTOR) {
    const int n = STATE(lane, s);
    if (n >= SCAN_D_STATE) continue;
#if ROW_VECTOR == 4
    *(global row_vector *)(row + n) = (float4)(values[s], values[s + 1], values[s + 2], values[s + 3]);
#elif ROW_VECTOR == 2
    *(global row_vector *)(row + n) = (float2)(values[s], values[s + 1]);
#else
    row[n] = values[s];
#endif
  }
}
__attribute__((always_inline)) static inline void write_states(local number_t *row, const number_t *values, int lane) {
  local state_vector *vectors = (local state_vector *)row + lane;
  UNROLL
  for (int q = 0; q < SCAN_STATES / VECTOR; q++)
#if VECTOR == 4
    vectors[q * SCAN_LANES] = (float4)(values[q * 4], values[q * 4 + 1], values[q * 4 + 2], values[q * 4 + 3]);
#elif VECTOR == 2
    vectors[q * SCAN_LANES] = (float2)(values[q * 2], values[q * 2 + 1]);
#else
    vectors[q * SCAN_LANES] = values[q];
#endif
}

#if SCAN_LANES > 1 && SCAN_SHUFFLE
#define OWNED (SCAN_BLOCK / SCAN_LANES) /* steps of a block that a lane holds after the sum over lanes, or: */
#if OWNED > 0
#define OWNED_STEPS OWNED
#define OWNED_FROM  (lane * OWNED)
#define OWNS_THEM   true
#else /* fewer steps than lanes: each is held by several neighbours, the first of which owns it */
#define OWNED_STEPS 1
#define OWNED_FROM  (lane / (SCAN_LANES / SCAN_BLOCK))
#define OWNS_THEM   (lane % (SCAN_LANES / SCAN_BLOCK) == 0)
#endif

/* y[step] of every lane -> the sums over lanes of the steps OWNED_FROM + i, in y[i]: each exchange halves the steps
 * a lane still holds; with one left, it adds. The order of the additions is the same for every step. */
#define SUM_LEVEL(width)                                                                                             \
  {                                                                                                                  \
    const bool upper = (lane & (width)) != 0;                                                                        \
    const int half_count = SCAN_BLOCK * (width) / SCAN_LANES;                                                        \
    UNROLL for (int i = 0; i < half_count; i++) {                                                                    \
      const float low = y[i], high = y[i + half_count]; /* both read first: no index at run time */                  \
      const float keep = upper ? high : low, send = upper ? low : high;                                              \
      y[i] = keep + lane_xor(send, width);                                                                           \
    }                                                                                                                \
    if (half_count == 0) y[0] += lane_xor(y[0], width);                                                              \
  }
__attribute__((always_inline)) static inline void sum_lanes(float *y, int lane SHUFFLE_PARAMETER) {
#if SCAN_LANES > 16
  SUM_LEVEL(16)
#endif
#if SCAN_LANES > 8
  SUM_LEVEL(8)
#endif
#if SCAN_LANES > 4
  SUM_LEVEL(4)
#endif
#if SCAN_LANES > 2
  SUM_LEVEL(2)
#endif
  SUM_LEVEL(1)
}
#else
#define OWNED_STEPS SCAN_BLOCK
#define OWNED_FROM  0
#define OWNS_THEM   true
#endif

/* Steps between the states that the forward kernel keeps for the backward one, which calls them a tile. */
#if !SCAN_KEEP_EVERY
#undef SCAN_KEEP_EVERY
#define SCAN_KEEP_EVERY 0
#define TILE_OF_STATES  SCAN_TILE
#else
#define TILE_OF_STATES SCAN_KEEP_EVERY
#endif

/* Which channels and which steps a work-group owns. */
typedef struct scan_place {
  scan_row row;
  int column;      /* which block of channels                                        */
  int chunk;       /* of the row                                                     */
  long begin, end; /* its steps: none in a slot that the row does not need           */
  long slot, tile; /* of its state and sum of dt; of its first tile                  */
  bool last;       /* the row ends here                                              */
} scan_place;

/* Work-groups are numbered by block of channels, then by chunk (the first `launched` of a row), then by row. */
static inline scan_place place_of(int columns, long length, long chunk, int chunks, int launched,
                                  scan_sequences sequences) {
  const uint id = (uint)get_group_id(0), number = id / (uint)columns;
  scan_place p;
  p.column = (int)(id % (uint)columns);
#if SCAN_PACKED
  p.slot = number;
  const int sequence = packed_sequence(p.slot, length, chunk, sequences);
  p.row = packed_row(length, chunk, TILE_OF_STATES, sequence, sequences);
  p.chunk = (int)max(p.slot - p.row.slot, 0L);
#else
  p.row.states = p.row.batch = number / (uint)launched;
  p.chunk = (int)(number % (uint)launched);
  p.row.begin = 0;
  p.row.end = length;
  p.row.slot = p.row.batch * chunks;
  p.row.tile = p.row.batch * ((length + TILE_OF_STATES - 1) / TILE_OF_STATES);
  p.slot = p.row.slot + p.chunk;
#endif
  const long begin = p.row.begin + p.chunk * chunk;
  p.begin = min(begin, p.row.end);
  p.end = min(begin + chunk, p.row.end);
  p.tile = p.row.tile + (p.begin - p.row.begin) / TILE_OF_STATES;
  p.last = begin + chunk >= p.row.end && (begin < p.row.end || p.chunk == 0);
  return p;
}

/* Steps that do not count: past the chunk's end, and padding. */
#if SCAN_RESETS
#define IS_PADDING(t) (marks[t] == SCAN_PADDING)
#else
#define IS_PADDING(t) false
#endif
#define COUNTS(t) ((t) < end && !IS_PADDING(t))

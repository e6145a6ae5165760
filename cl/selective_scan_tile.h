/* The tile of a selective scan as both directions see it: SCAN_CHANNELS channels x (SCAN_LANES x SCAN_STATES) states x
 * SCAN_TILE steps, the elements that a work-item stages, the states that a lane keeps, the sum over lanes. */

#define SLOTS      (SCAN_CHANNELS / SCAN_PER_LANE)
#define WORK_GROUP (SCAN_LANES * SLOTS)
#define PADDED     (SCAN_LANES * SCAN_STATES) /* states with the padding */
#define ELEMENTS   ((SCAN_TILE * SCAN_CHANNELS + WORK_GROUP - 1) / WORK_GROUP)
#define BC_TILE    (SCAN_TILE * PADDED)
#define BC_ITEMS   ((BC_TILE + WORK_GROUP - 1) / WORK_GROUP)

/* What a call has, in `flags`: run-time values where compiling is slow (scan_family.h has the same). */
#define SCAN_HAS_D        1
#define SCAN_HAS_Z        2
#define SCAN_HAS_BIAS     4
#define SCAN_SOFTPLUS     8
#define SCAN_A_LOG        16
#define SCAN_FROM_INITIAL 32  /* starts from `initial`           */
#define SCAN_TO_FINAL     64  /* the last chunk writes `final`   */
#define SCAN_FROM_CARRY   128 /* starts from `states`            */
#define SCAN_FOLD         256 /* folds the chunks before its own */

/* On a GPU the forward kernel has them compiled in: what a call does not have then costs no registers. (The backward
 * kernel gains 1% by it, and there are too many sets of them.) */
#ifdef SCAN_FIXED
#define SCAN_FLAGS(given) SCAN_FIXED
#else
#define SCAN_FLAGS(given) (given)
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
#if SCAN_STATES % 4 == 0
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

/* float[count] read as state_vectors: lane `lane`, row `row` of PADDED floats. */
__attribute__((always_inline)) static inline void read_states(float *values, local const float *row, int lane) {
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

#if SCAN_LANES > 1 && SCAN_SHUFFLE
#define OWNED (SCAN_BLOCK / SCAN_LANES) /* steps of a block that a lane holds after the sum over lanes */

/* y[step] of every lane -> the sums over lanes of the steps lane * OWNED + i, in y[i]: each exchange halves the steps a
 * lane still holds. The order of the additions is the same for every step. */
#define SUM_LEVEL(width)                                                                                              \
  {                                                                                                                   \
    const bool upper = (lane & (width)) != 0;                                                                         \
    const int half_count = SCAN_BLOCK * (width) / SCAN_LANES;                                                         \
    UNROLL for (int i = 0; i < half_count; i++) {                                                          \
      const float low = y[i], high = y[i + half_count]; /* both read first: no index at run time */                 \
      const float keep = upper ? high : low, send = upper ? low : high;                                               \
      y[i] = keep + lane_xor(send, width);                                                                            \
    }                                                                                                                 \
  }
#if OWNED > 0
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
#endif
#endif

/* The number of tiles in a sequence, where each tile's first state is kept: (batch, tiles, d_inner, d_state). */
#define TILES(length) (((length) + SCAN_TILE - 1) / SCAN_TILE)

/* Associative scan: h[i] = a[i] h[i-1] + b[i] over the steps of one (batch row, channel), by the operator
 * (a1, b1) . (a2, b2) = (a1 a2, a2 b1 + b2). A work-group owns SCAN_CHANNELS channels and walks its chunk of the
 * sequence in tiles of SCAN_SEGMENTS x SCAN_STEPS steps: each work-item composes SCAN_STEPS steps in registers, the
 * segments of a channel are scanned by an up-sweep and a down-sweep in local memory (Blelloch 1990), and each work-item
 * then applies what came before its segment. Chunks by reduce-then-scan: a pass with ASSOC_REDUCE leaves each chunk's
 * pair, assoc_scan_carry folds them from the left, the main pass starts from the carries.
 *   bytes per element: read a, b, write h; with chunks a and b are read twice
 * The gradients are scans too, g[i] = conj(a[i-1]) g[i-1] + dh[i or i-1] against the direction of the run: hence the
 * shifts. A run has `count` steps, one more than `length` where the state behind the last is wanted. */
#include "scan.h"
#include "number.h"

#ifndef X_TYPE /* of the sequences; states are f32 */
#define X_TYPE f32
#endif
#ifndef H_TYPE /* of the states written; f32 where they are kept for the gradient */
#define H_TYPE X_TYPE
#endif

#define WORK_GROUP (SCAN_CHANNELS * SCAN_SEGMENTS)
#define TILE       (SCAN_SEGMENTS * SCAN_STEPS)

enum { /* flags, as in src/backend/opencl/assoc_scan.c */
  ASSOC_REVERSE = 1,
  ASSOC_EXCLUSIVE = 2,
  ASSOC_CONJUGATE = 4,
  ASSOC_INITIAL = 8,
  ASSOC_FINAL = 16,
  ASSOC_CARRIED = 32,
  ASSOC_OUTPUT = 64,
  ASSOC_PRODUCT = 128,
  ASSOC_REDUCE = 256,
};

typedef struct pair {
  number_t a, b;
} pair;

static inline pair compose(pair first, pair second) {
  return (pair){times(first.a, second.a), times(second.a, first.b) + second.b};
}

/* Exclusive scan over the segments of channel `c`: pairs[segment] becomes what all segments before it come to; the whole
 * tile's pair is returned. (From a place of its own: PoCL 7.1 reads local memory again after a barrier, where the value
 * read before it was meant.) */
static inline pair scan_segments(local number_t *A, local number_t *B, local number_t *total, int c, int segment) {
#define PAIR(s)       (pair){A[(s) * SCAN_CHANNELS + c], B[(s) * SCAN_CHANNELS + c]}
#define KEEP(s, pair) A[(s) * SCAN_CHANNELS + c] = (pair).a, B[(s) * SCAN_CHANNELS + c] = (pair).b
  for (int step = 1; step < SCAN_SEGMENTS; step *= 2) {
    local_barrier();
    const int right = (segment + 1) * 2 * step - 1;
    if (right < SCAN_SEGMENTS) {
      const pair sum = compose(PAIR(right - step), PAIR(right));
      KEEP(right, sum);
    }
  }
  local_barrier();
  if (segment == SCAN_SEGMENTS - 1) {
    const pair identity = {ONE, ZERO}, whole = PAIR(segment);
    total[c] = whole.a, total[SCAN_CHANNELS + c] = whole.b;
    KEEP(segment, identity);
  }
  for (int step = SCAN_SEGMENTS / 2; step > 0; step /= 2) {
    local_barrier();
    const int right = (segment + 1) * 2 * step - 1;
    if (right < SCAN_SEGMENTS) {
      const pair left_sum = PAIR(right - step), before = PAIR(right), both = compose(before, left_sum);
      KEEP(right - step, before);
      KEEP(right, both);
    }
  }
  local_barrier();
  return (pair){total[c], total[SCAN_CHANNELS + c]};
}

kernel __attribute__((reqd_work_group_size(WORK_GROUP, 1, 1))) void
assoc_scan(NUMBERS_AS(X_TYPE, a), STRIDES3(a, batch, step, channel), NUMBERS_AS(X_TYPE, b),                 /* */
           STRIDES3(b, batch, step, channel),                                                            /* */
           NUMBERS(initial), STRIDES2(initial, batch, channel),                                          /* */
           NUMBERS_OUT_AS(H_TYPE, h), STRIDES3(h, batch, step, channel),                                 /* */
           NUMBERS_OUT(final), STRIDES2(final, batch, channel),                                          /* */
           NUMBERS(factor), STRIDES3(factor, batch, step, channel),       /* product = conj(factor) h    */
           NUMBERS_OUT_AS(X_TYPE, product), STRIDES3(product, batch, step, channel), /*                  */
           global number_t *restrict pairs,         /* (batch, chunks, channels, 2): ASSOC_REDUCE writes   */
           global const number_t *restrict carries, /* (batch, chunks, channels): ASSOC_CARRIED reads      */
           long carries_offset, long count, long length, long chunk, int chunks, int channels, int a_shift,
           int b_shift, int flags) {
  const int lid = (int)get_local_id(0), c = lid % SCAN_CHANNELS, segment = lid / SCAN_CHANNELS;
  const long channel = (long)get_group_id(0) * SCAN_CHANNELS + c, batch = (long)get_group_id(2);
  const long row = (batch * chunks + (long)get_group_id(1)) * channels + channel;
  const bool real = channel < channels;
  const long begin = (long)get_group_id(1) * chunk, end = min(begin + chunk, count);
  local number_t A[WORK_GROUP], B[WORK_GROUP], tile_total[2 * SCAN_CHANNELS];

  a += a_offset + batch * a_batch + channel * a_channel;
  b += b_offset + batch * b_batch + channel * b_channel;
  number_t state = ZERO; /* before the tile, the same in all segments of a channel */
  if (real && (flags & ASSOC_CARRIED)) state = carries[carries_offset + row];
  else if (real && (flags & ASSOC_INITIAL))
    state = initial[initial_offset + batch * initial_batch + channel * initial_channel];
  pair whole = {ONE, ZERO}; /* of the chunk so far */

/* Where step i of the run stands in memory. */
#define STEP(i) ((flags & ASSOC_REVERSE) ? length - 1 - (i) : (i))
  const long direction = (flags & ASSOC_REVERSE) ? -1 : 1, a_next = direction * a_step, b_next = direction * b_step;

/* A segment whose every step is one of the sequence needs no questions. */
#define WHOLE(first) (real && (first) >= a_shift && (first) >= b_shift && (first) + SCAN_STEPS <= min(end, length))

  /* Memory -> registers, this work-item's segment of the tile that begins at step `at`. */
  pair next[SCAN_STEPS];
#define FETCH(at)                                                                                                     \
  {                                                                                                                   \
    const long first = (at) + segment * SCAN_STEPS;                                                                   \
    if (WHOLE(first)) {                                                                                               \
      const long a_at = STEP(first - a_shift) * a_step, b_at = STEP(first - b_shift) * b_step;                        \
      UNROLL for (int k = 0; k < SCAN_STEPS; k++) {                                                                   \
        next[k].a = NUMBER_LOAD(X_TYPE, a, a_at + k * a_next);                                                        \
        next[k].b = NUMBER_LOAD(X_TYPE, b, b_at + k * b_next);                                                        \
      }                                                                                                               \
    } else {                                                                                                          \
      UNROLL for (int k = 0; k < SCAN_STEPS; k++) {                                                                   \
        const long i_a = first + k - a_shift, i_b = first + k - b_shift;                                              \
        const bool inside = real && first + k < end;                                                                  \
        next[k].a = inside && i_a >= 0 && i_a < length ? NUMBER_LOAD(X_TYPE, a, STEP(i_a) * a_step) : ONE;      \
        next[k].b = inside && i_b >= 0 && i_b < length ? NUMBER_LOAD(X_TYPE, b, STEP(i_b) * b_step) : ZERO;      \
      }                                                                                                               \
    }                                                                                                                 \
  }

/* `value` to step first + k of the sequence, for all that the sequence has. */
#define WRITE(type, name, value)                                                                                      \
  {                                                                                                                   \
    const long name##_at = name##_offset + batch * name##_batch + channel * name##_channel + STEP(first) * name##_step; \
    const long name##_next = direction * name##_step;                                                                 \
    if (WHOLE(first)) {                                                                                               \
      UNROLL for (int k = 0; k < SCAN_STEPS; k++) NUMBER_STORE(type, name, name##_at + k * name##_next, value);       \
    } else if (real) {                                                                                                \
      UNROLL for (int k = 0; k < SCAN_STEPS; k++)                                                                     \
        if (first + k < min(end, length)) NUMBER_STORE(type, name, name##_at + k * name##_next, value);               \
    }                                                                                                                 \
  }

  FETCH(begin)
  for (long at = begin; at < end; at += TILE) {
    const long first = at + segment * SCAN_STEPS;
    pair steps[SCAN_STEPS], sum = {ONE, ZERO};
    UNROLL
    for (int k = 0; k < SCAN_STEPS; k++) {
      steps[k] = next[k];
      if (flags & ASSOC_CONJUGATE) steps[k].a = conjugate(steps[k].a);
      sum = compose(sum, steps[k]);
    }
    FETCH(at + TILE)
    A[lid] = sum.a;
    B[lid] = sum.b;
    const pair total = scan_segments(A, B, tile_total, c, segment);
    if (flags & ASSOC_REDUCE) {
      whole = compose(whole, total);
      continue;
    }
    number_t before[SCAN_STEPS], after[SCAN_STEPS], now = times(A[lid], state) + B[lid];
    UNROLL
    for (int k = 0; k < SCAN_STEPS; k++) {
      before[k] = now;
      now = times(steps[k].a, now) + steps[k].b;
      after[k] = now;
    }
    if (flags & ASSOC_OUTPUT) WRITE(H_TYPE, h, (flags & ASSOC_EXCLUSIVE) ? before[k] : after[k])
    if (flags & ASSOC_PRODUCT)
      WRITE(X_TYPE, product,
            times(conjugate(factor[factor_offset + batch * factor_batch + STEP(first + k) * factor_step +
                                   channel * factor_channel]),
                  after[k]))
    state = times(total.a, state) + total.b;
  }
  ANCHOR
  if (real && segment == 0) {
    if (flags & ASSOC_REDUCE) {
      pairs[2 * row] = whole.a;
      pairs[2 * row + 1] = whole.b;
    } else if ((flags & ASSOC_FINAL) && end == count) {
      final[final_offset + batch * final_batch + channel * final_channel] = state;
    }
  }
}

/* carries[k] = the state before chunk k: a left fold over the chunks' pairs, one work-item for each channel of a batch
 * row. The last chunk's pair is not needed. */
kernel void assoc_scan_carry(global const number_t *restrict pairs, global number_t *restrict carries,
                             long carries_offset, NUMBERS(initial), STRIDES2(initial, batch, channel), int has_initial,
                             int chunks, int channels) {
  const long channel = (long)get_global_id(0), batch = (long)get_global_id(1);
  number_t state = ZERO;
  if (has_initial) state = initial[initial_offset + batch * initial_batch + channel * initial_channel];
  for (int k = 0; k < chunks; k++) {
    const long row = (batch * chunks + k) * channels + channel;
    carries[carries_offset + row] = state;
    if (k + 1 < chunks) state = times(pairs[2 * row], state) + pairs[2 * row + 1];
  }
}

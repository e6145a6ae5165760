/* Shared by the kernels of the causal convolution: the filter, and the inputs that a step sees. e is the sequence with
 * the width - 1 steps before it; its index is a step, negative before the sequence.
 *
 *   CONV_WIDTH     taps of the filter
 *   CONV_VECTOR    neighbouring channels of a work-item, 1 or 2
 *   CONV_MARKED    rows have several sequences or padding; `marks` (causal_conv1d_marks.cl) says what a step may see */
#include "storage.h"
#include "scan.h"
#include "inline.h"
#include "causal_conv1d_args.h"
#include "view.h"

#ifndef CONV_WIDTH
#define CONV_WIDTH 4
#endif
#ifndef CONV_VECTOR
#define CONV_VECTOR 1
#endif
#ifndef CONV_MARKED
#define CONV_MARKED 0
#endif
#define BEFORE (CONV_WIDTH - 1)

/* Flags of a call: known to the compiler on a GPU, an argument on CPU devices, which compile slowly. */
#ifdef CONV_FIXED
#define HAS(a, flag) ((CONV_FIXED & (flag)) != 0)
#else
#define HAS(a, flag) (((a)->flags & (flag)) != 0)
#endif

/* Elements between neighbouring steps: compiled in, CONV_STEP_x and so on, where that is worth a program of its own. */
#if CONV_FIXED_STEPS
#define STEP(a, name) ((long)CONV_STEP_##name)
#else
#define STEP(a, name) ((a)->name.stride[1])
#endif

#ifndef X_TYPE
#define X_TYPE f32
#endif
#ifndef W_TYPE
#define W_TYPE f32
#endif
#ifndef B_TYPE
#define B_TYPE f32
#endif
#ifndef INITIAL_TYPE /* of the states before the sequences, or of an update */
#define INITIAL_TYPE f32
#endif
#ifndef FINAL_TYPE /* of those after them, or of their gradient */
#define FINAL_TYPE f32
#endif
typedef STORAGE(X_TYPE) x_t;
typedef STORAGE(W_TYPE) w_t;
typedef STORAGE(B_TYPE) b_t;
typedef STORAGE(INITIAL_TYPE) initial_t;
typedef STORAGE(FINAL_TYPE) final_t;

/* ---- Neighbouring channels ---- */

#if CONV_VECTOR == 2 /* aligned to two numbers: one access of the memory for both */
typedef float2 real_t;
#define MAP(f, value) ((float2)(f((value).x), f((value).y)))
#ifdef CLM_PTX
static inline ushort half_bits(float x) {
  ushort r;
  __asm__("cvt.rn.f16.f32 %0, %1;" : "=h"(r) : "f"(x));
  return r;
}
#else
static inline ushort half_bits(float x) {
  ushort h;
  vstore_half_rte(x, 0, (half *)&h);
  return h;
}
#endif
static inline float2 load2_f32(global const float *p, long i) { return *(global const float2 *)(p + i); }
static inline float2 load2_f16(global const ushort *p, long i) {
  const ushort2 both = *(global const ushort2 *)(p + i);
  return (float2)(value_f16(both.x), value_f16(both.y));
}
static inline float2 load2_bf16(global const ushort *p, long i) {
  const ushort2 both = *(global const ushort2 *)(p + i);
  return (float2)(as_float((uint)both.x << 16), as_float((uint)both.y << 16));
}
static inline void store2_f32(global float *p, long i, float2 x) { *(global float2 *)(p + i) = x; }
static inline void store2_f16(global ushort *p, long i, float2 x) {
  *(global ushort2 *)(p + i) = (ushort2)(half_bits(x.x), half_bits(x.y));
}
static inline void store2_bf16(global ushort *p, long i, float2 x) {
  *(global ushort2 *)(p + i) = (ushort2)(bf16_bits(x.x), bf16_bits(x.y));
}
#define LOAD2_BY(type)                STORAGE_PASTE(load2_, type)
#define STORE2_BY(type)               STORAGE_PASTE(store2_, type)
#define LOAD_X(p, i)                  LOAD2_BY(X_TYPE)(p, i)
#define STORE_X(p, i, x)              STORE2_BY(X_TYPE)(p, i, x)
#define LOAD_EACH(type, p, i, stride) ((float2)(LOAD(type, p, i), LOAD(type, p, (i) + (stride))))
#define STORE_FLOATS(p, i, x)         vstore2(x, 0, (p) + (i))
#else
typedef float real_t;
#define MAP(f, x)                     f(x)
#define LOAD_X(p, i)                  LOAD(X_TYPE, p, i)
#define STORE_X(p, i, x)              STORE(X_TYPE, p, i, x)
#define LOAD_EACH(type, p, i, stride) LOAD(type, p, i)
#define STORE_FLOATS(p, i, x)         ((p)[i] = (x))
#endif
#define NOTHING ((real_t)(0.0f))

/* ---- The filter ---- */

typedef struct conv_filter {
  real_t w[CONV_WIDTH], bias;
} conv_filter;

INLINE void filter_load(const conv_args *a, global const w_t *weight, global const b_t *bias, long channel,
                        conv_filter *f) {
  UNROLL for (int k = 0; k < CONV_WIDTH; k++) f->w[k] =
      LOAD_EACH(W_TYPE, weight, view_at(&a->weight, channel, k, 0, 0), a->weight.stride[0]);
  f->bias = HAS(a, CONV_BIAS) ? LOAD_EACH(B_TYPE, bias, view_at(&a->bias, channel, 0, 0, 0), a->bias.stride[0])
                              : NOTHING;
}

/* ---- The input ---- */

/* A channel, or CONV_VECTOR of them, of a batch row. */
typedef struct conv_row {
  const conv_args *a;
  global const x_t *x; /* step 0 */
  global const initial_t *initial;
  global const int4 *marks;
  long batch, channel;
} conv_row;

INLINE void row_open(const conv_args *a, global const x_t *x, global const initial_t *initial,
                     global const int4 *marks, long batch, long channel, conv_row *r) {
  r->a = a;
  r->x = x + view_at(&a->x, batch, 0, channel, 0);
  r->initial = initial;
  r->marks = marks;
  r->batch = batch;
  r->channel = channel;
}

/* A mark: x = how many steps back a step may look (-1: it is padding), y = which state its sequence has, z = how far
 * before the end of its sequence it stands if that is in the final state, else 0. The mark after the last step of a
 * row is that of a step to come. */
static inline int4 mark_of(const conv_row *r, long t) {
#if CONV_MARKED
  return r->marks[r->batch * (r->a->length + 1) + t];
#else
  const long left = r->a->length - t;
  return (int4)(BEFORE, (int)r->batch, (int)(left <= BEFORE ? left : 0), 0);
#endif
}

static inline bool is_padding(const conv_row *r, long t) { return CONV_MARKED && mark_of(r, t).x < 0; }

/* How far step t looks back. */
static inline int reach_of(const conv_row *r, long t) {
  return CONV_MARKED && t >= 0 && t < r->a->length ? mark_of(r, t).x : BEFORE;
}

/* Whether a step that looks back so far sees the input of weight k. */
static inline bool sees(int reach, int k) { return !CONV_MARKED || BEFORE - k <= reach; }

static inline real_t initial_element(const conv_row *r, long row, long k) {
  return LOAD_EACH(INITIAL_TYPE, r->initial, view_at(&r->a->initial, row, r->channel, k, 0), r->a->initial.stride[1]);
}

/* e[t]; 0 past the end. */
static inline real_t element(const conv_row *r, long t) {
  if (t < 0)
    return HAS(r->a, CONV_INITIAL) && !HAS(r->a, CONV_PACKED) ? initial_element(r, r->batch, t + BEFORE) : NOTHING;
  return t < r->a->length && !is_padding(r, t) ? LOAD_X(r->x, t * STEP(r->a, x)) : NOTHING;
}

/* The input of weight k as a step with the mark m sees it, where the batch row has `value`. */
static inline real_t seen(const conv_row *r, int4 m, int k, real_t value) {
#if CONV_MARKED
  if (sees(m.x, k)) return value;
  if (HAS(r->a, CONV_PACKED) && HAS(r->a, CONV_INITIAL) && m.x >= 0) return initial_element(r, m.y, k + m.x);
  return NOTHING;
#else
  return value;
#endif
}

/* The sum of a step with the mark m before SiLU: e[0] is the input of weight 0. */
INLINE real_t filter_sum(const conv_row *r, const conv_filter *f, int4 m, const real_t *e) {
  real_t sum = f->bias;
  UNROLL for (int k = 0; k < CONV_WIDTH; k++) sum += f->w[k] * seen(r, m, k, e[k]);
  return sum;
}

/* The same of step t, its inputs from memory. */
INLINE real_t filter_sum_at(const conv_row *r, const conv_filter *f, int4 m, long t) {
  real_t e[CONV_WIDTH];
  UNROLL for (int k = 0; k < CONV_WIDTH; k++) e[k] = element(r, t - BEFORE + k);
  return filter_sum(r, f, m, e);
}

/* ---- Rows of the states ---- */

/* Begin and end of row `row` of the states. */
typedef struct span {
  long begin, end;
} span;

static inline span span_of(const conv_args *a, global const int *ends, long row) {
  const long begin = clamp((long)ends[view_at(&a->numbers, row, 0, 0, 0)], 0L, a->length);
  const long end = clamp((long)ends[view_at(&a->numbers, row + 1, 0, 0, 0)], begin, a->length);
  const span s = {a->reversed ? a->length - end : begin, a->reversed ? a->length - begin : end};
  return s;
}

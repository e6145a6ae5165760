/* Causal depthwise convolution. A work-item owns CONV_VECTOR neighbouring channels and CONV_STEPS steps (channels are
 * neighbours in memory), or a work-group one channel and CONV_STEPS * WORK_GROUP steps (CONV_LENGTH_FAST: steps are).
 *   bytes per element: read x, write out; the width - 1 steps before a run come from the cache
 *   special functions per element: 2 with SiLU, else none
 * e below is the sequence with the width - 1 steps before it; its index is a step, negative before the sequence.
 * CONV_MARKED: rows have several sequences or padding; `marks` (causal_conv1d_marks) then says what a step may see. */
#include "storage.h"
#include "scan.h"

#define BEFORE (CONV_WIDTH - 1)

/* What a call has: known to the compiler on a GPU, an argument on CPU devices, which compile slowly. */
#define CONV_SILU    1
#define CONV_BIAS    2
#define CONV_INITIAL 4
#define CONV_DFINAL  8
#define CONV_DX      16
#define CONV_PARTS   32
#define CONV_PACKED  64
#ifdef CONV_FIXED
#define HAS(flag) ((CONV_FIXED & (flag)) != 0)
#else
#define HAS(flag) ((flags & (flag)) != 0)
#endif

#ifndef X_TYPE /* a kernel without activations */
#define X_TYPE f32
#define W_TYPE f32
#define B_TYPE f32
#endif
#ifndef INITIAL_TYPE /* of the states before the sequences, or of an update */
#define INITIAL_TYPE f32
#endif
#ifndef FINAL_TYPE /* of those after them, or of their gradient */
#define FINAL_TYPE f32
#endif
#ifndef DINITIAL_TYPE
#define DINITIAL_TYPE f32
#endif

#if CONV_VECTOR == 2 /* aligned to two numbers: one access of the memory for both */
typedef float2 real_t;
#define MAP(f, value)       ((float2)(f((value).x), f((value).y)))
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
#define LOAD2_BY(type)      STORAGE_PASTE(load2_, type)
#define STORE2_BY(type)     STORAGE_PASTE(store2_, type)
#define LOAD_X(p, i)        LOAD2_BY(X_TYPE)(p, i)
#define STORE_X(p, i, x)    STORE2_BY(X_TYPE)(p, i, x)
#define LOAD_EACH(type, p, i, stride) ((float2)(LOAD(type, p, i), LOAD(type, p, (i) + (stride))))
#define STORE_FLOATS(p, i, x) vstore2(x, 0, (p) + (i))
#else
typedef float real_t;
#define MAP(f, x)           f(x)
#define LOAD_X(p, i)        LOAD(X_TYPE, p, i)
#define STORE_X(p, i, x)    STORE(X_TYPE, p, i, x)
#define LOAD_EACH(type, p, i, stride) LOAD(type, p, i)
#define STORE_FLOATS(p, i, x) ((p)[i] = (x))
#endif

/* Elements between neighbouring steps: compiled in, CONV_STEP_x and so on, where that is worth a program of its own. */
#if CONV_FIXED_STEPS
#define STEP(name) ((long)CONV_STEP_##name)
#else
#define STEP(name) name##_step
#endif

static inline float swish_gradient(float x) {
  float s = sigmoid(x);
  return s * (1.0f + x * (1.0f - s));
}

typedef STORAGE(X_TYPE) x_t;
typedef STORAGE(W_TYPE) w_t;
typedef STORAGE(B_TYPE) b_t;
typedef STORAGE(INITIAL_TYPE) initial_t;
typedef STORAGE(FINAL_TYPE) final_t;
#define IN(type, name)  global const type *restrict name, long name##_offset
#define OUT(type, name) global type *restrict name, long name##_offset

#define FILTER_PARAMETERS                                                                                             \
  IN(w_t, weight), STRIDES2(weight, channel, k), IN(b_t, bias), STRIDES1(bias, channel)
#define INPUT_PARAMETERS                                                                                              \
  IN(x_t, x), STRIDES3(x, batch, step, channel), FILTER_PARAMETERS, global const initial_t *initial, long initial_offset, \
      STRIDES3(initial, batch, channel, k), global const int4 *restrict marks, int flags, long length, int channels

/* A mark: x = how many steps back a step may look (-1: it is padding), y = which state its sequence has, z = how far
 * before the end of its sequence it stands if that is in the final state, else 0. The mark behind the last step of a
 * row is that of a step to come. */
#if CONV_MARKED
#define MARK(t)        marks[batch * (length + 1) + (t)]
#define IS_PADDING(t)  (MARK(t).x < 0)
#define REACH(t)       ((t) >= 0 && (t) < length ? MARK(t).x : BEFORE)
#define SEES(reach, k) (BEFORE - (k) <= (reach))
/* The input of weight k as a step with the mark `m` sees it, where the sequence at hand has `value`. */
#define SEEN(m, k, value)                                                                                             \
  (SEES((m).x, k)                              ? (value)                                                              \
   : HAS(CONV_PACKED) && HAS(CONV_INITIAL) && (m).x >= 0                                                              \
       ? LOAD_EACH(INITIAL_TYPE, initial,                                                                                   \
                   initial_offset + (m).y * initial_batch + channel * initial_channel + ((k) + (m).x) * initial_k,    \
                   initial_channel)                                                                                   \
       : (real_t)(0.0f))
#else
#define MARK(t)           ((int4)(BEFORE, (int)batch, (int)(length - (t) <= BEFORE ? length - (t) : 0), 0))
#define IS_PADDING(t)     false
#define REACH(t)          BEFORE
#define SEES(reach, k)    true
#define SEEN(m, k, value) (value)
#endif

/* e[t] for the batch row and channel in hand; 0 past the end */
#define ELEMENT(t)                                                                                                    \
  ((t) < 0 ? (HAS(CONV_INITIAL) && !HAS(CONV_PACKED)                                                                  \
                  ? LOAD_EACH(INITIAL_TYPE, initial, initial_row + ((t) + BEFORE) * initial_k, initial_channel)             \
                  : (real_t)(0.0f))                                                                                   \
           : (t) < length && !IS_PADDING(t) ? LOAD_X(x, x_row + (t) * STEP(x)) : (real_t)(0.0f))

#define FILTER                                                                                                        \
  real_t w[CONV_WIDTH];                                                                                               \
  UNROLL for (int k = 0; k < CONV_WIDTH; k++) w[k] =                                                                  \
      LOAD_EACH(W_TYPE, weight, weight_offset + channel * weight_channel + k * weight_k, weight_channel);             \
  const real_t bias_value = HAS(CONV_BIAS)                                                                            \
                                ? LOAD_EACH(B_TYPE, bias, bias_offset + channel * bias_channel, bias_channel)         \
                                : (real_t)(0.0f);
#define ROWS_OF_INPUT                                                                                                 \
  const long x_row = x_offset + batch * x_batch + channel * x_channel;                                                \
  const long initial_row = initial_offset + batch * initial_batch + channel * initial_channel;                        \
  FILTER

#ifdef CONV_FORWARD
kernel __attribute__((reqd_work_group_size(WORK_GROUP, 1, 1))) void
causal_conv1d(INPUT_PARAMETERS, OUT(x_t, out), STRIDES3(out, batch, step, channel)) {
  const long batch = (long)get_group_id(2);
#if CONV_LENGTH_FAST
  const long channel = (long)get_group_id(1), first = (long)get_group_id(0) * WORK_GROUP * CONV_STEPS + get_local_id(0);
  ROWS_OF_INPUT
  UNROLL for (int i = 0; i < CONV_STEPS; i++) {
    const long t = first + i * WORK_GROUP;
    if (t < length) {
      const int4 m = MARK(t);
      real_t sum = bias_value;
      UNROLL for (int k = 0; k < CONV_WIDTH; k++) sum += w[k] * SEEN(m, k, ELEMENT(t - BEFORE + k));
      if (HAS(CONV_SILU)) sum = MAP(swish, sum);
      STORE_X(out, out_offset + batch * out_batch + channel * out_channel + t * out_step,
              m.x < 0 ? (real_t)(0.0f) : sum);
    }
  }
#else
  const long channel = (long)get_global_id(0) * CONV_VECTOR, first = (long)get_group_id(1) * CONV_STEPS;
  if (channel < channels) {
    ROWS_OF_INPUT
    real_t e[BEFORE + CONV_STEPS];
    const bool whole = !CONV_MARKED && first >= BEFORE && first + CONV_STEPS <= length; /* no questions to ask */
    if (whole) {
      global const x_t *row = x + x_row + (first - BEFORE) * STEP(x);
      UNROLL for (int i = 0; i < BEFORE + CONV_STEPS; i++) e[i] = LOAD_X(row, i * STEP(x));
    } else {
      UNROLL for (int i = 0; i < BEFORE + CONV_STEPS; i++) e[i] = ELEMENT(first - BEFORE + i);
    }
    out += out_offset + batch * out_batch + channel * out_channel + first * STEP(out);
    UNROLL for (int i = 0; i < CONV_STEPS; i++) {
      if (whole || first + i < length) {
        const int4 m = MARK(first + i);
        real_t sum = bias_value;
        UNROLL for (int k = 0; k < CONV_WIDTH; k++) sum += w[k] * SEEN(m, k, e[i + k]);
        if (HAS(CONV_SILU)) sum = MAP(swish, sum);
        STORE_X(out, i * STEP(out), m.x < 0 ? (real_t)(0.0f) : sum);
      }
    }
  }
#endif
}
#endif

/* Begin and end of row `row` of the states. */
typedef struct span {
  long begin, end;
} span;

static inline span span_of(global const int *ends, long offset, long stride, long row, long length, int reversed) {
  long begin = clamp((long)ends[offset + row * stride], 0L, length);
  long end = clamp((long)ends[offset + (row + 1) * stride], begin, length);
  span s = {reversed ? length - end : begin, reversed ? length - begin : end};
  return s;
}

#define SPAN_PARAMETERS global const int *restrict ends, long ends_offset, long ends_stride, int reversed
#define SPAN                                                                                                          \
  span row_span = {0, length};                                                                                        \
  if (HAS(CONV_PACKED)) row_span = span_of(ends, ends_offset, ends_stride, row, length, reversed);                    \
  const long begin = row_span.begin, end = row_span.end, batch = HAS(CONV_PACKED) ? 0 : row;

#ifdef CONV_STATES
/* final[j] = e[end - (width - 1) + j], as a step to come would see it. In place is allowed: element j comes from a later
 * one. */
kernel void causal_conv1d_final(INPUT_PARAMETERS, SPAN_PARAMETERS, global final_t *final, long final_offset,
                                STRIDES3(final, batch, channel, k)) {
  const long channel = (long)get_global_id(0), row = (long)get_global_id(1);
  SPAN
  const int reach = HAS(CONV_PACKED) ? BEFORE : MARK(length).x;
  for (int j = 0; j < BEFORE; j++) {
    const long p = end - BEFORE + j;
    float value = 0.0f;
    if (SEES(reach, j)) {
      if (p >= begin)
        value = IS_PADDING(p) ? 0.0f : LOAD(X_TYPE, x, x_offset + batch * x_batch + channel * x_channel + p * x_step);
      else if (HAS(CONV_INITIAL))
        value = LOAD(INITIAL_TYPE, initial, initial_offset + row * initial_batch + channel * initial_channel +
                                          (p - begin + BEFORE) * initial_k);
    }
    STORE(FINAL_TYPE, final, final_offset + row * final_batch + channel * final_channel + j * final_k, value);
  }
}

/* dinitial[i] = sum_q weight[i - q] ds[q] over the first steps of a row, and what comes in through a final state that
 * reaches back as far. */
kernel void causal_conv1d_dinitial(INPUT_PARAMETERS, SPAN_PARAMETERS, IN(x_t, dout), STRIDES3(dout, batch, step, channel),
                                   IN(final_t, dfinal), STRIDES3(dfinal, batch, channel, k), OUT(STORAGE(DINITIAL_TYPE), dinitial),
                                   STRIDES3(dinitial, batch, channel, k)) {
  const long channel = (long)get_global_id(0), row = (long)get_global_id(1);
  SPAN
  FILTER
  float ds[BEFORE + 1];
  int reach[BEFORE + 1];
  for (int q = 0; q < BEFORE; q++) {
    const long t = begin + q;
    ds[q] = 0.0f;
    reach[q] = BEFORE;
    if (t < end && !IS_PADDING(t)) {
      if (!HAS(CONV_PACKED)) reach[q] = MARK(t).x;
      float s = bias_value;
      for (int k = 0; k < CONV_WIDTH; k++) {
        const int p = q - BEFORE + k;
        float value = 0.0f;
        if (SEES(reach[q], k)) {
          if (p < 0) {
            if (HAS(CONV_INITIAL))
              value = LOAD(INITIAL_TYPE, initial, initial_offset + row * initial_batch + channel * initial_channel +
                                                (p + BEFORE) * initial_k);
          } else if (!IS_PADDING(begin + p)) {
            value = LOAD(X_TYPE, x, x_offset + batch * x_batch + channel * x_channel + (begin + p) * x_step);
          }
        }
        s += w[k] * value;
      }
      ds[q] = LOAD(X_TYPE, dout, dout_offset + batch * dout_batch + channel * dout_channel + t * dout_step) *
              (HAS(CONV_SILU) ? swish_gradient(s) : 1.0f);
    }
  }
  const int reach_end = HAS(CONV_PACKED) ? BEFORE : MARK(length).x;
  for (int i = 0; i < BEFORE; i++) {
    float sum = 0.0f;
    for (int q = 0; q <= i; q++) sum += SEES(reach[q], i - q) ? w[i - q] * ds[q] : 0.0f;
    const long j = i - (end - begin);
    if (HAS(CONV_DFINAL) && j >= 0 && SEES(reach_end, j))
      sum += LOAD(FINAL_TYPE, dfinal, dfinal_offset + row * dfinal_batch + channel * dfinal_channel + j * dfinal_k);
    STORE(DINITIAL_TYPE, dinitial, dinitial_offset + row * dinitial_batch + channel * dinitial_channel + i * dinitial_k, sum);
  }
}
#endif

#ifdef CONV_BACKWARD
/* With s the sum before SiLU and ds its gradient:  dx[p] = sum_k weight[k] ds[p + width - 1 - k],
 * dweight[k] = sum_t ds[t] e[t - (width - 1) + k]. Each run of steps leaves a partial sum of dweight and dbias:
 * parts[batch row and run][k][channel], dbias behind dweight. */
#define STORE_DX(p, sum)                                                                                              \
  if (HAS(CONV_DX)) {                                                                                                 \
    const int4 pm = MARK(p);                                                                                          \
    real_t value = pm.x < 0 ? (real_t)(0.0f) : sum;                                                                   \
    if (HAS(CONV_DFINAL) && pm.z > 0)                                                                                 \
      value += LOAD_EACH(FINAL_TYPE, dfinal, dfinal_offset + pm.y * dfinal_batch + channel * dfinal_channel +             \
                                             (BEFORE - pm.z) * dfinal_k, dfinal_channel);                             \
    STORE_X(dx, dx_row + (p) * STEP(dx), value);                                                                                                \
  }

kernel __attribute__((reqd_work_group_size(WORK_GROUP, 1, 1))) void
causal_conv1d_backward(INPUT_PARAMETERS, IN(x_t, dout), STRIDES3(dout, batch, step, channel), /* */
                       IN(final_t, dfinal), STRIDES3(dfinal, batch, channel, k),                  /* */
                       OUT(x_t, dx), STRIDES3(dx, batch, step, channel),                      /* */
                       global float *restrict parts, long parts_offset, long run, int runs) {
  const long batch = (long)get_group_id(2);
  real_t dweight[CONV_WIDTH], dbias = (real_t)(0.0f);
  UNROLL for (int k = 0; k < CONV_WIDTH; k++) dweight[k] = (real_t)(0.0f);
#if CONV_LENGTH_FAST
  const int lid = (int)get_local_id(0), number = (int)get_group_id(0);
  const long channel = (long)get_group_id(1);
#else
  const int number = (int)get_group_id(1);
  const long channel = (long)get_global_id(0) * CONV_VECTOR;
#endif
  const long begin = number * run, end = min(begin + run, length);
  const long part = parts_offset + (batch * runs + number) * (CONV_WIDTH + 1) * channels + channel;
  const long dout_row = dout_offset + batch * dout_batch + channel * dout_channel;
  const long dx_row = dx_offset + batch * dx_batch + channel * dx_channel;

#if CONV_LENGTH_FAST
  ROWS_OF_INPUT
  local float ds_tile[WORK_GROUP + BEFORE + 1];
  for (long first = begin; first < end + (end == length ? BEFORE : 0); first += WORK_GROUP) {
    for (int i = lid; i < WORK_GROUP + BEFORE; i += WORK_GROUP) { /* ds of steps first - BEFORE + i */
      const long t = first - BEFORE + i;
      float ds = 0.0f;
      if (t >= 0 && t < length) {
        const int4 m = MARK(t);
        if (m.x >= 0) {
          float s = bias_value;
          if (HAS(CONV_SILU)) {
            UNROLL for (int k = 0; k < CONV_WIDTH; k++) s += w[k] * SEEN(m, k, ELEMENT(t - BEFORE + k));
          }
          ds = LOAD_X(dout, dout_row + t * STEP(dout)) * (HAS(CONV_SILU) ? swish_gradient(s) : 1.0f);
        }
      }
      ds_tile[i] = ds;
    }
    local_barrier();
    /* dx of step t - BEFORE is complete with ds of step t; the steps of dweight are the run's own. */
    const long t = first + lid, p = t - BEFORE;
    float sum = 0.0f;
    UNROLL for (int k = 0; k < CONV_WIDTH; k++) sum += SEES(REACH(p + BEFORE - k), k) ? w[k] * ds_tile[lid + BEFORE - k] : 0.0f;
    if (p >= 0 && p < length && t < end + (end == length ? BEFORE : 0)) STORE_DX(p, sum)
    if (t < end) {
      const int4 m = MARK(t);
      const float ds = ds_tile[lid + BEFORE];
      dbias += ds;
      UNROLL for (int k = 0; k < CONV_WIDTH; k++) dweight[k] += ds * SEEN(m, k, ELEMENT(t - BEFORE + k));
    }
    local_barrier();
  }
  local float sums[WORK_GROUP];
  if (HAS(CONV_PARTS)) {
    for (int k = 0; k <= CONV_WIDTH; k++) {
      float own = dbias;
      UNROLL for (int i = 0; i < CONV_WIDTH; i++) own = k == i ? dweight[i] : own;
      sums[lid] = own;
      local_barrier();
      for (int step = WORK_GROUP / 2; step > 0; step /= 2) {
        ANCHOR
        if (lid < step) sums[lid] += sums[lid + step];
        local_barrier();
      }
      ANCHOR
      if (lid == 0) parts[part + (long)k * channels] = sums[0];
      local_barrier();
    }
  }
#else
  if (channel < channels) {
    ROWS_OF_INPUT
    real_t e[BEFORE + CONV_STEPS], ds[BEFORE + CONV_STEPS]; /* the last width - 1 steps, then the block's */
    int reach[BEFORE + CONV_STEPS];
    UNROLL for (int i = 0; i < BEFORE; i++) {
      e[i] = ELEMENT(begin - BEFORE + i);
      ds[i] = (real_t)(0.0f);
      reach[i] = BEFORE;
    }
    for (long first = begin; first < end + BEFORE; first += CONV_STEPS) {
      const bool whole = !CONV_MARKED && first >= begin + BEFORE && first + CONV_STEPS <= end; /* no questions to ask */
      if (whole) {
        global const x_t *row = x + x_row + first * STEP(x), *dout_at = dout + dout_row + first * STEP(dout);
        UNROLL for (int i = 0; i < CONV_STEPS; i++) {
          e[BEFORE + i] = LOAD_X(row, i * STEP(x));
          ds[BEFORE + i] = LOAD_X(dout_at, i * STEP(dout));
        }
      } else {
        UNROLL for (int i = 0; i < CONV_STEPS; i++) {
          const long t = first + i;
          e[BEFORE + i] = ELEMENT(t);
          ds[BEFORE + i] = t < length && t < end + BEFORE ? LOAD_X(dout, dout_row + t * STEP(dout)) : (real_t)(0.0f);
        }
      }
      UNROLL for (int i = 0; i < CONV_STEPS; i++) {
        const long t = first + i;
        const int4 m = MARK(min(t, length));
        reach[BEFORE + i] = m.x;
        if (HAS(CONV_SILU)) {
          real_t s = bias_value;
          UNROLL for (int k = 0; k < CONV_WIDTH; k++) s += w[k] * SEEN(m, k, e[i + k]);
          ds[BEFORE + i] *= MAP(swish_gradient, s);
        }
        if (m.x < 0) ds[BEFORE + i] = (real_t)(0.0f);
        const real_t own = whole || t < end ? ds[BEFORE + i] : (real_t)(0.0f); /* steps past the end: the next run's sums */
        dbias += own;
        real_t sum = (real_t)(0.0f);
        UNROLL for (int k = 0; k < CONV_WIDTH; k++) {
          dweight[k] += own * SEEN(m, k, e[i + k]);
          sum += SEES(reach[i + BEFORE - k], k) ? w[k] * ds[BEFORE + i - k] : (real_t)(0.0f);
        }
        const long p = t - BEFORE;
        if (whole || (p < end && p >= begin)) STORE_DX(p, sum)
      }
      UNROLL for (int i = 0; i < BEFORE; i++) {
        e[i] = e[CONV_STEPS + i];
        ds[i] = ds[CONV_STEPS + i];
        reach[i] = reach[CONV_STEPS + i];
      }
    }
    if (HAS(CONV_PARTS)) {
      UNROLL for (int k = 0; k < CONV_WIDTH; k++) STORE_FLOATS(parts, part + (long)k * channels, dweight[k]);
      STORE_FLOATS(parts, part + (long)CONV_WIDTH * channels, dbias);
    }
  }
#endif
}

/* dweight and dbias: the sums of all parts, in order. */
kernel void causal_conv1d_sum(IN(float, parts), long count, int channels,                    /* */
                              OUT(STORAGE(DW_TYPE), dweight), STRIDES2(dweight, channel, k), /* */
                              OUT(STORAGE(DB_TYPE), dbias), STRIDES1(dbias, channel)) {
  const long channel = (long)get_global_id(0), stride = (long)channels * (CONV_WIDTH + 1);
  const int k = (int)get_global_id(1);
  parts += parts_offset + (long)k * channels + channel;
  float sum[8] = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f}; /* eight chains, so that loads overlap */
  long i = 0;
  for (; i + 8 <= count; i += 8)
    UNROLL for (int j = 0; j < 8; j++) sum[j] += parts[(i + j) * stride];
  for (; i < count; i++) sum[0] += parts[i * stride];
  const float all = ((sum[0] + sum[1]) + (sum[2] + sum[3])) + ((sum[4] + sum[5]) + (sum[6] + sum[7]));
  if (k < CONV_WIDTH) {
    if (dweight) STORE(DW_TYPE, dweight, dweight_offset + channel * dweight_channel + k * dweight_k, all);
  } else if (dbias) {
    STORE(DB_TYPE, dbias, dbias_offset + channel * dbias_channel, all);
  }
}
#endif

#ifdef CONV_MARKS
/* The mark of every step, and of the one behind the last, of every batch row. `numbers` is seq_idx or cu_seqlens.
 * Whether two steps belong together shows within the filter's width: what lies between them is of the same number or
 * padding, which counts as 0 anyway. */
kernel void causal_conv1d_marks(global const int *restrict numbers, long offset, long stride_batch, long stride_step,
                                int sequences, int reversed, long length, int before, global int4 *restrict marks) {
  const long t = (long)get_global_id(0), batch = (long)get_global_id(1);
  int4 m = (int4)(before, (int)batch, 0, 0);
  if (sequences > 0) {
    const long at = reversed ? length - 1 - t : t;
    int low = 0, high = sequences; /* the last sequence that begins at `at` or before */
    while (high - low > 1) {
      const int middle = low + (high - low) / 2;
      if ((long)numbers[offset + middle * stride_step] <= at) low = middle;
      else high = middle;
    }
    const span row = span_of(numbers, offset, stride_step, low, length, reversed);
    const long begin = clamp(row.begin, 0L, t), end = max(row.end, t + 1);
    m = (int4)((int)min((long)before, t - begin), low, end - t <= before ? (int)(end - t) : 0, 0);
  } else {
    const long row = offset + batch * stride_batch;
    int number = t < length ? numbers[row + t * stride_step] : -1;
    if (number < 0 && t < length) m.x = -1;
    for (int j = 1; j <= m.x; j++) {
      const int other = t - j >= 0 ? numbers[row + (t - j) * stride_step] : number;
      if (other >= 0 && number < 0) number = other; /* the step to come is of the last sequence */
      if (other >= 0 && other != number) m.x = j - 1;
    }
    if (m.x >= 0 && length - t <= before) { /* seen by the step to come */
      int last = -1;
      m.z = (int)(length - t);
      for (long p = length - 1; p >= t; p--) {
        const int other = numbers[row + p * stride_step];
        if (last < 0) last = other;
        if (other >= 0 && other != last) m.z = 0;
      }
    }
  }
  marks[batch * (length + 1) + t] = m;
}
#endif

#ifdef CONV_UPDATE
/* Steps one by one: one work-item for each channel of a batch row. The state is a ring of `size` places, or (0) the last
 * `places` inputs in order. */
kernel void causal_conv1d_update(global initial_t *state, long state_offset, STRIDES3(state, batch, channel, k), /* */
                                 IN(x_t, x), STRIDES3(x, batch, step, channel), FILTER_PARAMETERS,         /* */
                                 IN(int, position), STRIDES1(position, batch),                             /* */
                                 IN(int, index), STRIDES1(index, batch),                                   /* */
                                 OUT(x_t, out), STRIDES3(out, batch, step, channel), long steps, long pool, int size,
                                 int places, int flags) {
  const long channel = (long)get_global_id(0), batch = (long)get_global_id(1);
  const long number = index ? (long)index[index_offset + batch * index_batch] : batch;
  const long row = state_offset + number * state_batch + channel * state_channel;
  const bool padding = number < 0 || number >= pool;
  int now = 0;
  if (size > 0) {
    now = position[position_offset + batch * position_batch] % size;
    if (now < 0) now += size;
  }
  FILTER
  float e[CONV_WIDTH];
  UNROLL for (int k = 0; k < BEFORE; k++) {
    int place = places - BEFORE + k;
    if (size > 0) {
      place = now - BEFORE + k;
      if (place < 0) place += size;
    }
    e[k] = padding ? 0.0f : LOAD(INITIAL_TYPE, state, row + place * state_k);
  }
  for (long t = 0; t < steps; t++) {
    e[BEFORE] = LOAD(X_TYPE, x, x_offset + batch * x_batch + channel * x_channel + t * x_step);
    float sum = bias_value;
    UNROLL for (int k = 0; k < CONV_WIDTH; k++) sum += w[k] * e[k];
    if (HAS(CONV_SILU)) sum = swish(sum);
    STORE(X_TYPE, out, out_offset + batch * out_batch + channel * out_channel + t * out_step, padding ? 0.0f : sum);
    if (size > 0 && !padding) {
      STORE(INITIAL_TYPE, state, row + now * state_k, e[BEFORE]);
      now = now + 1 < size ? now + 1 : 0;
    }
    UNROLL for (int k = 0; k < BEFORE; k++) e[k] = e[k + 1];
  }
  if (size == 0 && !padding) {
    for (long k = 0; k < places - BEFORE; k++) { /* those that the filter does not see */
      const long from = k + steps, input = x_offset + batch * x_batch + channel * x_channel + (from - places) * x_step;
      STORE(INITIAL_TYPE, state, row + k * state_k,
            from < places ? LOAD(INITIAL_TYPE, state, row + from * state_k) : LOAD(X_TYPE, x, input));
    }
    UNROLL for (int k = 0; k < BEFORE; k++) STORE(INITIAL_TYPE, state, row + (places - BEFORE + k) * state_k, e[k]);
  }
}
#endif

/* Causal depthwise convolution. A work-item owns one channel and CONV_STEPS steps (channels are neighbours in memory),
 * or a work-group one channel and CONV_STEPS * WORK_GROUP steps (CONV_LENGTH_FAST: steps are neighbours).
 *   bytes per element: read x, write out; the width - 1 steps before a run come from the cache
 *   special functions per element: 2 with SiLU, else none
 * e below is the sequence with the width - 1 steps before it; its index is a step, negative before the sequence. */
#include "scan.h"

#define BEFORE (CONV_WIDTH - 1)

static inline float silu(float x) { return x * sigmoid(x); }
static inline float silu_gradient(float x) {
  float s = sigmoid(x);
  return s * (1.0f + x * (1.0f - s));
}

#define INPUT_PARAMETERS                                                                                              \
  TENSOR(x), STRIDES3(x, batch, step, channel), TENSOR_F32(weight), STRIDES2(weight, channel, k), TENSOR_F32(bias),   \
      STRIDES1(bias, channel), TENSOR(initial), STRIDES3(initial, batch, channel, k)

/* e[t] for the batch row and channel in hand; 0 past the end */
#define ELEMENT(t)                                                                                                    \
  ((t) < 0 ? (CONV_HAS_INITIAL ? load(initial, initial_row + ((t) + BEFORE) * initial_k) : 0.0f)                       \
           : (t) < length ? load(x, x_row + (t) * x_step) : 0.0f)

#define ROWS_OF_INPUT                                                                                                 \
  const long x_row = x_offset + batch * x_batch + channel * x_channel;                                                \
  const long initial_row = initial_offset + batch * initial_batch + channel * initial_channel;                        \
  float w[CONV_WIDTH];                                                                                                \
  _Pragma("unroll") for (int k = 0; k < CONV_WIDTH; k++) w[k] =                                                       \
      weight[weight_offset + channel * weight_channel + k * weight_k];                                                \
  const float bias_value = CONV_HAS_BIAS ? bias[bias_offset + channel * bias_channel] : 0.0f;

#ifdef CONV_FORWARD
kernel __attribute__((reqd_work_group_size(WORK_GROUP, 1, 1))) void
causal_conv1d(INPUT_PARAMETERS, OUTPUT(out), STRIDES3(out, batch, step, channel), long length, int channels) {
  const long batch = (long)get_group_id(2);
#if CONV_LENGTH_FAST
  const long channel = (long)get_group_id(1), first = (long)get_group_id(0) * WORK_GROUP * CONV_STEPS + get_local_id(0);
  ROWS_OF_INPUT
#pragma unroll
  for (int i = 0; i < CONV_STEPS; i++) {
    const long t = first + i * WORK_GROUP;
    float sum = bias_value;
#pragma unroll
    for (int k = 0; k < CONV_WIDTH; k++) sum += w[k] * ELEMENT(t - BEFORE + k);
    if (t < length)
      store(out, out_offset + batch * out_batch + channel * out_channel + t * out_step, CONV_SILU ? silu(sum) : sum);
  }
#else
  const long channel = (long)get_global_id(0), first = (long)get_group_id(1) * CONV_STEPS;
  if (channel >= channels) return;
  ROWS_OF_INPUT
  float e[BEFORE + CONV_STEPS];
#pragma unroll
  for (int i = 0; i < BEFORE + CONV_STEPS; i++) e[i] = ELEMENT(first - BEFORE + i);
#pragma unroll
  for (int i = 0; i < CONV_STEPS; i++) {
    float sum = bias_value;
#pragma unroll
    for (int k = 0; k < CONV_WIDTH; k++) sum += w[k] * e[i + k];
    if (first + i < length)
      store(out, out_offset + batch * out_batch + channel * out_channel + (first + i) * out_step,
            CONV_SILU ? silu(sum) : sum);
  }
#endif
}

/* final[j] = e[length - (width - 1) + j]. In place is allowed: element j comes from a later one. */
kernel void causal_conv1d_final(TENSOR(x), STRIDES3(x, batch, step, channel),                                  /* */
                                global const storage_t *initial, long initial_offset,                          /* */
                                STRIDES3(initial, batch, channel, k),                                          /* */
                                global storage_t *final, long final_offset, STRIDES3(final, batch, channel, k), /* */
                                long length, int channels) {
  const long channel = (long)get_global_id(0), batch = (long)get_global_id(1);
  const long x_row = x_offset + batch * x_batch + channel * x_channel;
  const long initial_row = initial_offset + batch * initial_batch + channel * initial_channel;
  for (int j = 0; j < BEFORE; j++) {
    const float value = ELEMENT(length - BEFORE + j);
    store(final, final_offset + batch * final_batch + channel * final_channel + j * final_k, value);
  }
}
#endif

#ifdef CONV_BACKWARD
/* With s the sum before SiLU and ds its gradient:  dx[p] = sum_k weight[k] ds[p + width - 1 - k]  (dinitial where
 * p < 0), dweight[k] = sum_t ds[t] e[t - (width - 1) + k]. Each run of steps leaves a partial sum of dweight and dbias:
 * parts[batch row and run][channel][k], then part_bias[batch row and run][channel]. */
#define STORE_DX(p, sum)                                                                                              \
  {                                                                                                                   \
    const long j = (p) - length + BEFORE; /* where e[p] stands in the final state */                                   \
    float value = sum;                                                                                                \
    if (CONV_HAS_DFINAL && j >= 0)                                                                                    \
      value += load(dfinal, dfinal_offset + batch * dfinal_batch + channel * dfinal_channel + j * dfinal_k);           \
    if ((p) >= 0) {                                                                                                   \
      if (CONV_DX) store(dx, dx_offset + batch * dx_batch + channel * dx_channel + (p) * dx_step, value);              \
    } else if (CONV_DINITIAL) {                                                                                       \
      store(dinitial, dinitial_offset + batch * dinitial_batch + channel * dinitial_channel + ((p) + BEFORE) * dinitial_k, \
            value);                                                                                                   \
    }                                                                                                                 \
  }

kernel __attribute__((reqd_work_group_size(WORK_GROUP, 1, 1))) void causal_conv1d_backward(
    INPUT_PARAMETERS, TENSOR(dout), STRIDES3(dout, batch, step, channel),    /* */
    TENSOR(dfinal), STRIDES3(dfinal, batch, channel, k),                     /* */
    OUTPUT(dx), STRIDES3(dx, batch, step, channel),                          /* */
    OUTPUT(dinitial), STRIDES3(dinitial, batch, channel, k),                 /* */
    global float *restrict parts, long part_bias, long length, int channels, long run, int runs) {
  const long batch = (long)get_group_id(2);
  float dweight[CONV_WIDTH], dbias = 0.0f;
#pragma unroll
  for (int k = 0; k < CONV_WIDTH; k++) dweight[k] = 0.0f;
#if CONV_LENGTH_FAST
  const int lid = (int)get_local_id(0), number = (int)get_group_id(0);
  const long channel = (long)get_group_id(1);
#else
  const int number = (int)get_group_id(1);
  const long channel = (long)get_global_id(0);
  if (channel >= channels) return;
#endif
  const long begin = number * run, end = min(begin + run, length);
  ROWS_OF_INPUT
  const long dout_row = dout_offset + batch * dout_batch + channel * dout_channel;
  const long part = batch * runs + number;

#if CONV_LENGTH_FAST
  local float ds_tile[WORK_GROUP + BEFORE + 1];
  for (long first = begin; first < end + (end == length ? BEFORE : 0); first += WORK_GROUP) {
    for (int i = lid; i < WORK_GROUP + BEFORE; i += WORK_GROUP) { /* ds of steps first - BEFORE + i */
      const long t = first - BEFORE + i;
      float ds = 0.0f;
      if (t >= 0 && t < length) {
        float s = bias_value;
#pragma unroll
        for (int k = 0; k < CONV_WIDTH; k++) s += w[k] * ELEMENT(t - BEFORE + k);
        ds = load(dout, dout_row + t * dout_step) * (CONV_SILU ? silu_gradient(s) : 1.0f);
      }
      ds_tile[i] = ds;
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    /* dx of step t - BEFORE is complete with ds of step t; the steps of dweight are the run's own. */
    const long t = first + lid;
    float sum = 0.0f;
#pragma unroll
    for (int k = 0; k < CONV_WIDTH; k++) sum += w[k] * ds_tile[lid + BEFORE - k];
    if (t - BEFORE < length && t < end + (end == length ? BEFORE : 0)) STORE_DX(t - BEFORE, sum)
    if (t < end) {
      const float ds = ds_tile[lid + BEFORE];
      dbias += ds;
#pragma unroll
      for (int k = 0; k < CONV_WIDTH; k++) dweight[k] += ds * ELEMENT(t - BEFORE + k);
    }
    barrier(CLK_LOCAL_MEM_FENCE);
  }
#if CONV_PARTS
  local float sums[WORK_GROUP];
  for (int k = 0; k <= CONV_WIDTH; k++) {
    float own = dbias;
#pragma unroll
    for (int i = 0; i < CONV_WIDTH; i++) own = k == i ? dweight[i] : own;
    sums[lid] = own;
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int step = WORK_GROUP / 2; step > 0; step /= 2) {
      if (lid < step) sums[lid] += sums[lid + step];
      barrier(CLK_LOCAL_MEM_FENCE);
    }
    if (lid == 0) parts[k < CONV_WIDTH ? (part * channels + channel) * CONV_WIDTH + k
                                       : part_bias + part * channels + channel] = sums[0];
    barrier(CLK_LOCAL_MEM_FENCE);
  }
#endif
#else
  float e[BEFORE + CONV_STEPS], ds[BEFORE + CONV_STEPS]; /* the last width - 1 steps, then the block's */
#pragma unroll
  for (int i = 0; i < BEFORE; i++) {
    e[i] = ELEMENT(begin - BEFORE + i);
    ds[i] = 0.0f;
  }
  for (long first = begin; first < end + BEFORE; first += CONV_STEPS) {
#pragma unroll
    for (int i = 0; i < CONV_STEPS; i++) {
      const long t = first + i;
      e[BEFORE + i] = ELEMENT(t);
      ds[BEFORE + i] = t < length && t < end + BEFORE ? load(dout, dout_row + t * dout_step) : 0.0f;
    }
#pragma unroll
    for (int i = 0; i < CONV_STEPS; i++) {
      const long t = first + i;
      float s = bias_value, sum = 0.0f;
      if (CONV_SILU) {
#pragma unroll
        for (int k = 0; k < CONV_WIDTH; k++) s += w[k] * e[i + k];
        ds[BEFORE + i] *= silu_gradient(s);
      }
      const float own = t < end ? ds[BEFORE + i] : 0.0f; /* the steps past the end belong to the next run's sums */
      dbias += own;
#pragma unroll
      for (int k = 0; k < CONV_WIDTH; k++) {
        dweight[k] += own * e[i + k];
        sum += w[k] * ds[BEFORE + i - k];
      }
      const long p = t - BEFORE;
      if (p < end && (p >= begin || begin == 0)) STORE_DX(p, sum)
    }
#pragma unroll
    for (int i = 0; i < BEFORE; i++) {
      e[i] = e[CONV_STEPS + i];
      ds[i] = ds[CONV_STEPS + i];
    }
  }
#if CONV_PARTS
#pragma unroll
  for (int k = 0; k < CONV_WIDTH; k++) parts[(part * channels + channel) * CONV_WIDTH + k] = dweight[k];
  parts[part_bias + part * channels + channel] = dbias;
#endif
#endif
}
#endif

#ifdef CONV_UPDATE
/* One step: one work-item for each channel of a batch row. */
kernel void causal_conv1d_update(global storage_t *state, long state_offset, STRIDES3(state, batch, channel, k), /* */
                                 TENSOR(x), STRIDES2(x, batch, channel), TENSOR_F32(weight),                     /* */
                                 STRIDES2(weight, channel, k), TENSOR_F32(bias), STRIDES1(bias, channel),        /* */
                                 OUTPUT(out), STRIDES2(out, batch, channel)) {
  const long channel = (long)get_global_id(0), batch = (long)get_global_id(1);
  const long row = state_offset + batch * state_batch + channel * state_channel;
  const long weight_row = weight_offset + channel * weight_channel;
  const float now = load(x, x_offset + batch * x_batch + channel * x_channel);
  float sum = CONV_HAS_BIAS ? bias[bias_offset + channel * bias_channel] : 0.0f;
  float e[CONV_WIDTH];
#pragma unroll
  for (int k = 0; k < BEFORE; k++) e[k] = load(state, row + k * state_k);
  e[BEFORE] = now;
#pragma unroll
  for (int k = 0; k < CONV_WIDTH; k++) sum += weight[weight_row + k * weight_k] * e[k];
#pragma unroll
  for (int k = 0; k < BEFORE; k++) store(state, row + k * state_k, e[k + 1]);
  store(out, out_offset + batch * out_batch + channel * out_channel, CONV_SILU ? silu(sum) : sum);
}
#endif

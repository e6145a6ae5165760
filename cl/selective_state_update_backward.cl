/* Gradients of the state update. A work-item owns one channel of a batch row, a work-group UPDATE_GROUP channels of one
 * group: what they add to the gradients of B and C is summed in local memory, one state after the other.
 *   bytes per channel: the state and its gradient read, the gradient and a part of dA written; the rest is small
 * Parts, summed in order by state_update_sum: dA[batch][channel][n], dD and dbias[batch][channel],
 * dB and dC[chunk of channels][batch][step][group][n]. */
#include "scan.h"
#include "state_update.h"

#define PARTS_A  32
#define PARTS_B  64
#define PARTS_C  128
#define PARTS_D  256
#define PARTS_DT 512

#ifdef UPDATE_BACKWARD
static inline float sigmoid_slope(float z) {
  const float s = sigmoid(z);
  return s * (1.0f + z * (1.0f - s));
}

/* The sum of `value` over the work-group, in every work-item. */
static inline float group_sum(float value, local float *scratch) {
  const int lid = (int)get_local_id(0);
  barrier(CLK_LOCAL_MEM_FENCE);
  scratch[lid] = value;
  for (int step = WORK_GROUP / 2; step > 0; step /= 2) {
    barrier(CLK_LOCAL_MEM_FENCE);
    if (lid < step) scratch[lid] += scratch[lid + step];
  }
  barrier(CLK_LOCAL_MEM_FENCE);
  return scratch[0];
}

#if NUMBER_COMPLEX
#define GROUP_SUM(value) ((float2)(group_sum((value).x, scratch), group_sum((value).y, scratch)))
#else
#define GROUP_SUM(value) group_sum(value, scratch)
#endif

kernel __attribute__((reqd_work_group_size(WORK_GROUP, 1, 1))) void
selective_state_update_backward(TENSOR_OF(S_TYPE, state), STRIDES4(state, row, head, dim, n), UPDATE_INPUTS, /* */
                                TENSOR_OF(X_TYPE, dout), STRIDES4(dout, batch, step, head, dim),             /* */
                                TENSOR_OF(A_TYPE, dnew), STRIDES4(dnew, batch, head, dim, n),                /* */
                                OUTPUT_OF(X_TYPE, du), STRIDES4(du, batch, step, head, dim),                 /* */
                                OUTPUT_OF(X_TYPE, ddelta), STRIDES4(ddelta, batch, step, head, dim),         /* */
                                OUTPUT_OF(X_TYPE, dz), STRIDES4(dz, batch, step, head, dim),                 /* */
                                OUTPUT_OF(A_TYPE, dstate), STRIDES4(dstate, batch, head, dim, n),            /* */
                                global number_t *restrict parts, long parts_A, long parts_B, long parts_C,
                                long parts_D, long parts_dt) {
  const int lid = (int)get_local_id(0), group = (int)get_group_id(1), b = (int)get_group_id(2);
  const int groups = (int)get_num_groups(1), batch = (int)get_num_groups(2), chunk = (int)get_group_id(0);
  const int of_group = group_heads * head_dim, in_group = chunk * WORK_GROUP + lid;
  const bool own = in_group < of_group;
  const int channel = group * of_group + (own ? in_group : 0), head = channel / head_dim, dim = channel % head_dim;
  const long row = row_of(index, index_offset + b * index_batch, b, pool);
  const bool there = own && row >= 0;
  local float scratch[WORK_GROUP];
  float dt[UPDATE_STEPS], slope[UPDATE_STEPS], x[UPDATE_STEPS], dy[UPDATE_STEPS], y[UPDATE_STEPS], dx[UPDATE_STEPS],
      ddt[UPDATE_STEPS];
  number_t h[UPDATE_STEPS + 1];
  const float D_value = there && flags & HAS_D ? D[D_offset + head * D_head + dim * D_dim] : 0.0f;
  const float bias_value = there && flags & HAS_BIAS ? bias[bias_offset + head * bias_head + dim * bias_dim] : 0.0f;
  for (int t = 0; t < steps; t++) {
    dt[t] = slope[t] = x[t] = dy[t] = y[t] = dx[t] = ddt[t] = 0.0f;
    if (there) {
      const float argument = LOAD(X_TYPE, delta, AT_STEP(delta)) + bias_value;
      dt[t] = flags & SOFTPLUS ? softplus(argument) : argument;
      slope[t] = flags & SOFTPLUS && argument <= 20.0f ? sigmoid(argument) : 1.0f;
      x[t] = LOAD(X_TYPE, u, AT_STEP(u));
      dy[t] = LOAD(X_TYPE, dout, AT_STEP(dout));
      if (flags & HAS_Z) {
        const float gate = LOAD(X_TYPE, z, AT_STEP(z));
        dy[t] *= gate * sigmoid(gate);
      }
    }
  }
  for (int n = 0; n < d_state; n++) {
    number_t a = there ? LOAD(A_TYPE, A, A_offset + head * A_head + dim * A_dim + n * A_n) : NUMBER(0.0f);
    if (there && flags & A_LOG) a = -exponential(a);
    const number_t rate = rate_of(a, 0);
    h[0] = there ? LOAD(S_TYPE, state, state_offset + row * state_row + head * state_head + dim * state_dim + n * state_n)
                 : NUMBER(0.0f);
    for (int t = 0; t < steps; t++) {
      const number_t b_now = there ? LOAD(BC_TYPE, B, AT_INPUT(B) + n * B_n) : NUMBER(0.0f);
      h[t + 1] = times(decay_of(dt[t], rate), h[t]) + dt[t] * x[t] * b_now;
    }
    number_t dh = there && dnew ? LOAD(A_TYPE, dnew, dnew_offset + b * dnew_batch + head * dnew_head + dim * dnew_dim + n * dnew_n)
                                : NUMBER(0.0f);
    number_t da = NUMBER(0.0f);
    for (int t = steps - 1; t >= 0; t--) {
      const number_t b_now = there ? LOAD(BC_TYPE, B, AT_INPUT(B) + n * B_n) : NUMBER(0.0f);
      const number_t c_now = there ? LOAD(BC_TYPE, C, AT_INPUT(C) + n * C_n) : NUMBER(0.0f);
      const number_t decay = decay_of(dt[t], rate), kept = times(decay, h[t]);
      const long input = (((long)chunk * batch + b) * steps + t) * groups * d_state + (long)group * d_state + n;
      y[t] += TWICE * real_part(times(c_now, h[t + 1]));
      dh += TWICE * dy[t] * conjugate(c_now);
      if (flags & PARTS_C) {
        const number_t own_dc = TWICE * dy[t] * conjugate(h[t + 1]), sum = GROUP_SUM(own_dc);
        if (lid == 0) parts[parts_C + input] = sum;
      }
      if (flags & PARTS_B) {
        const number_t own_db = dt[t] * x[t] * dh, sum = GROUP_SUM(own_db);
        if (lid == 0) parts[parts_B + input] = sum;
      }
      dx[t] += dt[t] * real_part(times(conjugate(b_now), dh));
      ddt[t] += real_part(times(conjugate(b_now * x[t] + times(a, kept)), dh));
      da += times(conjugate(dt[t] * kept), dh);
      dh = times(dh, conjugate(decay));
    }
    if (flags & A_LOG) da = times(conjugate(a), da);
    if (own && flags & PARTS_A) parts[parts_A + ((long)b * channels + channel) * d_state + n] = da;
    if (own && dstate)
      STORE(A_TYPE, dstate, dstate_offset + b * dstate_batch + head * dstate_head + dim * dstate_dim + n * dstate_n, dh);
  }
  if (own) {
    float dD = 0.0f, dbias = 0.0f;
    for (int t = 0; t < steps; t++) {
      const float from_dt = ddt[t] * slope[t];
      dD += dy[t] * x[t];
      dbias += from_dt;
      if (du) STORE(X_TYPE, du, AT_STEP(du), dx[t] + D_value * dy[t]);
      if (ddelta) STORE(X_TYPE, ddelta, AT_STEP(ddelta), from_dt);
      if (dz) {
        const float gate = there ? LOAD(X_TYPE, z, AT_STEP(z)) : 0.0f;
        const float from_out = there ? LOAD(X_TYPE, dout, AT_STEP(dout)) : 0.0f;
        STORE(X_TYPE, dz, AT_STEP(dz), from_out * (y[t] + D_value * x[t]) * sigmoid_slope(gate));
      }
    }
    const long at = (long)b * channels + channel;
    if (flags & PARTS_D) parts[parts_D + at] = NUMBER(dD);
    if (flags & PARTS_DT) parts[parts_dt + at] = NUMBER(dbias);
  }
}
#else
/* Element (i, j, k, l) of out = the sum over p of parts[p], in order. G_TYPE: f32, f16, bf16, or c64. */
kernel void state_update_sum(global const number_t *restrict parts, long parts_at, int count, long part_stride,
                             OUTPUT_OF(G_TYPE, out), STRIDES4(out, i, j, k, l), long size_j, long size_k, long size_l) {
  const long at = (long)get_global_id(0);
  number_t sum = NUMBER(0.0f);
  for (int p = 0; p < count; p++) sum += parts[parts_at + p * part_stride + at];
  const long l = at % size_l, k = at / size_l % size_k, j = at / size_l / size_k % size_j,
             i = at / size_l / size_k / size_j;
  const long to = out_offset + i * out_i + j * out_j + k * out_k + l * out_l;
#if SUM_REAL_PART
  STORE(G_TYPE, out, to, real_part(sum));
#else
  STORE(G_TYPE, out, to, sum);
#endif
}
#endif

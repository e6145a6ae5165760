/* Gradients of the state update. A work-item owns one channel of a batch row, a work-group UPDATE_GROUP channels of one
 * group: what they add to the gradients of B and C is summed in local memory, one state after the other. More than
 * UPDATE_STEPS steps are taken in blocks, from the last to the first: the states that each block starts from are
 * computed before, and lie in the workspace; each gives way to the gradient that goes on into the block before.
 *   bytes per channel: the state and its gradient read, the gradient and a part of dA written; the rest is small
 * Parts, summed in order by state_update_sum: dA[batch][channel][n], dD and dbias[batch][channel],
 * dB and dC[chunk of channels][batch][step][group][n]. In blocks: starts[block - 1][batch][channel][n]. */
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
  local_barrier();
  scratch[lid] = value;
  for (int step = WORK_GROUP / 2; step > 0; step /= 2) {
    local_barrier();
    if (lid < step) scratch[lid] += scratch[lid + step];
  }
  local_barrier();
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
                                OUTPUT_OF(DELTA_TYPE, ddelta), STRIDES4(ddelta, batch, step, head, dim),     /* */
                                OUTPUT_OF(Z_TYPE, dz), STRIDES4(dz, batch, step, head, dim),                 /* */
                                OUTPUT_OF(A_TYPE, dstate), STRIDES4(dstate, batch, head, dim, n),            /* */
                                global number_t *restrict parts, long parts_A, long parts_B, long parts_C,
                                long parts_D, long parts_dt, long starts) {
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
  float dD = 0.0f, dbias = 0.0f;
  const int blocks = (steps + UPDATE_STEPS - 1) / UPDATE_STEPS;
  const long state_at = state_offset + row * state_row + head * state_head + dim * state_dim;
  const long matrix = ((long)b * channels + channel) * d_state, block_size = (long)batch * channels * d_state;
  for (int k = 0; k + 1 < blocks; k++) {
    for (int i = 0; i < UPDATE_STEPS; i++) {
      const int t = k * UPDATE_STEPS + i;
      dt[i] = x[i] = 0.0f;
      if (!there) continue;
      dt[i] = LOAD(DELTA_TYPE, delta, AT_STEP(delta)) + bias_value;
      if (flags & SOFTPLUS) dt[i] = softplus(dt[i]);
      x[i] = LOAD(X_TYPE, u, AT_STEP(u));
    }
    for (int n = 0; n < d_state && there; n++) {
      const number_t rate = rate_of(LOAD(A_TYPE, A, A_offset + head * A_head + dim * A_dim + n * A_n), flags);
      const long start = starts + k * block_size + matrix + n;
      number_t now = k > 0 ? parts[start - block_size] : LOAD(S_TYPE, state, state_at + n * state_n);
      for (int i = 0; i < UPDATE_STEPS; i++) {
        const int t = k * UPDATE_STEPS + i;
        now = times(decay_of(dt[i], rate), now) + dt[i] * x[i] * LOAD(B_TYPE, B, AT_INPUT(B) + n * B_n);
      }
      parts[start] = now;
    }
  }
  for (int k = blocks - 1; k >= 0; k--) {
    const int first = k * UPDATE_STEPS, count = min(UPDATE_STEPS, steps - first);
    for (int i = 0; i < count; i++) {
      const int t = first + i;
      dt[i] = slope[i] = x[i] = dy[i] = y[i] = dx[i] = ddt[i] = 0.0f;
      if (there) {
        const float argument = LOAD(DELTA_TYPE, delta, AT_STEP(delta)) + bias_value;
        dt[i] = flags & SOFTPLUS ? softplus(argument) : argument;
        slope[i] = flags & SOFTPLUS && argument <= 20.0f ? sigmoid(argument) : 1.0f;
        x[i] = LOAD(X_TYPE, u, AT_STEP(u));
        dy[i] = LOAD(X_TYPE, dout, AT_STEP(dout));
        if (flags & HAS_Z) {
          const float gate = LOAD(Z_TYPE, z, AT_STEP(z));
          dy[i] *= gate * sigmoid(gate);
        }
      }
    }
    for (int n = 0; n < d_state; n++) {
      number_t a = there ? LOAD(A_TYPE, A, A_offset + head * A_head + dim * A_dim + n * A_n) : NUMBER(0.0f);
      if (there && flags & A_LOG) a = -exponential(a);
      const number_t rate = rate_of(a, 0);
      const long start = starts + (k - 1) * block_size + matrix + n;
      h[0] = NUMBER(0.0f);
      if (there) h[0] = k > 0 ? parts[start] : LOAD(S_TYPE, state, state_at + n * state_n);
      for (int i = 0; i < count; i++) {
        const int t = first + i;
        const number_t b_now = there ? LOAD(B_TYPE, B, AT_INPUT(B) + n * B_n) : NUMBER(0.0f);
        h[i + 1] = times(decay_of(dt[i], rate), h[i]) + dt[i] * x[i] * b_now;
      }
      number_t dh = NUMBER(0.0f), da = NUMBER(0.0f);
      if (there && k + 1 < blocks) dh = parts[start + block_size];
      else if (there && dnew)
        dh = LOAD(A_TYPE, dnew, dnew_offset + b * dnew_batch + head * dnew_head + dim * dnew_dim + n * dnew_n);
      for (int i = count - 1; i >= 0; i--) {
        const int t = first + i;
        const number_t b_now = there ? LOAD(B_TYPE, B, AT_INPUT(B) + n * B_n) : NUMBER(0.0f);
        const number_t c_now = there ? LOAD(C_TYPE, C, AT_INPUT(C) + n * C_n) : NUMBER(0.0f);
        const number_t decay = decay_of(dt[i], rate), kept = times(decay, h[i]);
        const long input = (((long)chunk * batch + b) * steps + t) * groups * d_state + (long)group * d_state + n;
        y[i] += TWICE * real_part(times(c_now, h[i + 1]));
        dh += TWICE * dy[i] * conjugate(c_now);
        if (flags & PARTS_C) {
          const number_t own_dc = TWICE * dy[i] * conjugate(h[i + 1]), sum = GROUP_SUM(own_dc);
          if (lid == 0) parts[parts_C + input] = sum;
        }
        if (flags & PARTS_B) {
          const number_t own_db = dt[i] * x[i] * dh, sum = GROUP_SUM(own_db);
          if (lid == 0) parts[parts_B + input] = sum;
        }
        dx[i] += dt[i] * real_part(times(conjugate(b_now), dh));
        ddt[i] += real_part(times(conjugate(b_now * x[i] + times(a, kept)), dh));
        da += times(conjugate(dt[i] * kept), dh);
        dh = times(dh, conjugate(decay));
      }
      if (flags & A_LOG) da = times(conjugate(a), da);
      if (own && flags & PARTS_A) parts[parts_A + matrix + n] = k + 1 < blocks ? parts[parts_A + matrix + n] + da : da;
      if (there && k > 0) parts[start] = dh;
      if (own && dstate && k == 0)
        STORE(A_TYPE, dstate, dstate_offset + b * dstate_batch + head * dstate_head + dim * dstate_dim + n * dstate_n, dh);
    }
    for (int i = 0; i < count && own; i++) {
      const int t = first + i;
      const float from_dt = ddt[i] * slope[i];
      dD += dy[i] * x[i];
      dbias += from_dt;
      if (du) STORE(X_TYPE, du, AT_STEP(du), dx[i] + D_value * dy[i]);
      if (ddelta) STORE(DELTA_TYPE, ddelta, AT_STEP(ddelta), from_dt);
      if (dz) {
        const float gate = there ? LOAD(Z_TYPE, z, AT_STEP(z)) : 0.0f;
        const float from_out = there ? LOAD(X_TYPE, dout, AT_STEP(dout)) : 0.0f;
        STORE(Z_TYPE, dz, AT_STEP(dz), from_out * (y[i] + D_value * x[i]) * sigmoid_slope(gate));
      }
    }
  }
  if (own) {
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

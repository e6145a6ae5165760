/* One step of the selective scan, the state updated in place. UPDATE_LANES work-items share a channel of a batch row;
 * each takes every UPDATE_LANES-th state, so that neighbours read neighbouring states.
 *   bytes per channel: the state read and written once; everything else is small beside it
 *   special functions per channel: d_state + 4 */
#include "scan.h"

#define SLOTS (WORK_GROUP / UPDATE_LANES)

kernel __attribute__((reqd_work_group_size(WORK_GROUP, 1, 1))) void
selective_state_update(global float *state, long state_offset, STRIDES3(state, batch, channel, n), /* */
                       TENSOR(u), STRIDES2(u, batch, channel), TENSOR(delta), STRIDES2(delta, batch, channel),
                       TENSOR_F32(A), STRIDES2(A, channel, n), TENSOR(B), STRIDES3(B, batch, group, n), /* */
                       TENSOR(C), STRIDES3(C, batch, group, n), TENSOR_F32(D), STRIDES1(D, channel),    /* */
                       TENSOR(z), STRIDES2(z, batch, channel), TENSOR_F32(bias), STRIDES1(bias, channel), /* */
                       OUTPUT(out), STRIDES2(out, batch, channel),                                        /* */
                       int has_D, int has_z, int has_bias, int use_softplus, int A_is_log,                /* */
                       int d_inner, int d_state, int group_channels) {
  const int lid = (int)get_local_id(0), lane = lid % UPDATE_LANES, slot = lid / UPDATE_LANES;
  const long batch = (long)get_group_id(1), channel = (long)get_group_id(0) * SLOTS + slot;
  local float parts[WORK_GROUP];
  float y = 0.0f, x = 0.0f;
  if (channel < d_inner) {
    const long group = channel / group_channels;
    float dt = load(delta, delta_offset + batch * delta_batch + channel * delta_channel);
    if (has_bias) dt += bias[bias_offset + channel * bias_channel];
    if (use_softplus) dt = softplus(dt);
    x = load(u, u_offset + batch * u_batch + channel * u_channel);
    for (int n = lane; n < d_state; n += UPDATE_LANES) {
      const long at = state_offset + batch * state_batch + channel * state_channel + n * state_n;
      float a = A[A_offset + channel * A_channel + n * A_n];
      if (A_is_log) a = -exp(a);
      const float h = exp2_fast(dt * (a * LOG2_E)) * state[at] +
                      dt * x * load(B, B_offset + batch * B_batch + group * B_group + n * B_n);
      state[at] = h;
      y += h * load(C, C_offset + batch * C_batch + group * C_group + n * C_n);
    }
  }
  parts[lid] = y;
  for (int step = UPDATE_LANES / 2; step > 0; step /= 2) {
    barrier(CLK_LOCAL_MEM_FENCE);
    if (lane < step) parts[lid] += parts[lid + step];
  }
  if (lane == 0 && channel < d_inner) {
    y = parts[lid];
    if (has_D) y += D[D_offset + channel * D_channel] * x;
    if (has_z) {
      const float gate = load(z, z_offset + batch * z_batch + channel * z_channel);
      y *= gate * sigmoid(gate);
    }
    store(out, out_offset + batch * out_batch + channel * out_channel, y);
  }
}

/* Steps of the selective scan with the state updated in place. UPDATE_LANES work-items share a channel, each with
 * UPDATE_STATES of its states in registers, in blocks that lie side by side (UPDATE_ALIGNED: one access each). A
 * work-group has UPDATE_ROWS rows of the batch, so that A is read and prepared once for them; what they need is all
 * asked for before the first of them is computed (of one step: the inputs, too), as waiting for it is what takes time.
 *   bytes per channel and row: the state read and written once; everything else is small beside it
 *   special functions per channel and row: d_state + 4 */
#include "state_update.h"

/* One by one: in a struct they took 0.0176 ms instead of 0.0160 for 64 x 5120 channels (H100, 2026-11-28). */
#define UPDATE_INPUTS                                                                                                \
  TENSOR_OF(X_TYPE, u), STRIDES4(u, batch, step, head, dim), TENSOR_OF(DELTA_TYPE, delta),                               \
      STRIDES4(delta, batch, step, head, dim), TENSOR_OF(A_TYPE, A), STRIDES3(A, head, dim, n),                      \
      TENSOR_OF(B_TYPE, B), STRIDES4(B, batch, step, group, n), TENSOR_OF(C_TYPE, C),                              \
      STRIDES4(C, batch, step, group, n), TENSOR_F32(D), STRIDES2(D, head, dim), TENSOR_OF(Z_TYPE, z),               \
      STRIDES4(z, batch, step, head, dim), TENSOR_F32(bias), STRIDES2(bias, head, dim),                              \
      global const int *restrict index, long index_offset, STRIDES1(index, batch), int flags, int channels,          \
      int head_dim, int d_state, int group_heads, int steps, long pool

#define AT_STEP(name)  (name##_offset + b * name##_batch + t * name##_step + head * name##_head + dim * name##_dim)
#define AT_INPUT(name) (name##_offset + b * name##_batch + t * name##_step + group * name##_group)

#define SLOTS (WORK_GROUP / UPDATE_LANES)
#if UPDATE_STATES < 4
#define BLOCK UPDATE_STATES
#else
#define BLOCK 4
#endif
#define STATE(j) (((j) / BLOCK * UPDATE_LANES + lane) * BLOCK + (j) % BLOCK) /* the lane's j-th of the channel */

#ifdef UPDATE_D_STATE /* known to the compiler on a GPU */
#define D_STATE UPDATE_D_STATE
#else
#define D_STATE d_state
#endif

/* Likewise what a call has, its heads and groups, and that it has one step. */
#ifdef UPDATE_FIXED
#define FLAGS       UPDATE_FIXED
#define HEAD_DIM    UPDATE_HEAD_DIM
#define GROUP_HEADS UPDATE_GROUP_HEADS
#else
#define FLAGS       flags
#define HEAD_DIM    head_dim
#define GROUP_HEADS group_heads
#endif
#ifdef UPDATE_ONE_STEP
#define STEPS   1
#define FETCHED UPDATE_ROWS /* sets of inputs at hand, and which of them is a row's */
#define SLOT(r) (r)
#else
#define STEPS   steps
#define FETCHED 1
#define SLOT(r) 0
#endif

/* into[] = the lane's elements of a vector of d_state numbers; 0 past the end. */
#define LOAD_LANE(into, type, p, base, stride, there)                                                                 \
  UNROLL for (int j = 0; j < UPDATE_STATES; j++) {                                                                    \
    const int n = STATE(j);                                                                                           \
    into[j] = (there) && n < D_STATE ? LOAD(type, p, (base) + (long)n * (stride)) : NUMBER(0.0f);                     \
  }
#define LOAD_LANE_ALIGNED(into, p, base, there)                                                                       \
  UNROLL for (int j = 0; j < UPDATE_STATES; j += 4) {                                                                 \
    const int n = STATE(j);                                                                                           \
    const float4 four = (there) && n < D_STATE ? *(global const float4 *)((p) + (base) + n) : (float4)(0.0f);         \
    into[j] = four.x, into[j + 1] = four.y, into[j + 2] = four.z, into[j + 3] = four.w;                               \
  }

#if UPDATE_ALIGNED
#define LOAD_STATE(into, base, there) LOAD_LANE_ALIGNED(into, state, base, there)
#else
#define LOAD_STATE(into, base, there) LOAD_LANE(into, S_TYPE, state, base, state_n, there)
#endif
#if UPDATE_ALIGNED_INPUTS
#define LOAD_INPUT(into, name, base) LOAD_LANE_ALIGNED(into, name, base, own)
#else
#define LOAD_INPUT(into, name, base) LOAD_LANE(into, name##_TYPE, name, base, name##_n, own)
#endif

kernel __attribute__((reqd_work_group_size(WORK_GROUP, 1, 1))) void
selective_state_update(global STORAGE(S_TYPE) *state, long state_offset, STRIDES4(state, row, head, dim, n),
                       UPDATE_INPUTS, OUTPUT_OF(X_TYPE, out), STRIDES4(out, batch, step, head, dim), /* */
                       int batch) {
  const int lid = (int)get_local_id(0), lane = lid % UPDATE_LANES, slot = lid / UPDATE_LANES;
  const int channel = (int)get_group_id(0) * SLOTS + slot;
  const bool own = channel < channels;
  const int head = own ? channel / HEAD_DIM : 0, dim = own ? channel % HEAD_DIM : 0, group = head / GROUP_HEADS;
  const int first = (int)get_group_id(1) * UPDATE_ROWS;
  SHUFFLE_SCRATCH
#if UPDATE_LANES > 1 && !defined(SHUFFLE_PTX) && !defined(SHUFFLE_KHR) && !defined(SHUFFLE_LOCAL)
  local float parts[WORK_GROUP];
#endif
  number_t rate[UPDATE_STATES], h[UPDATE_ROWS][UPDATE_STATES];
  number_t B_now[FETCHED][UPDATE_STATES], C_now[FETCHED][UPDATE_STATES];
  float u_now[FETCHED], delta_now[FETCHED], z_now[FETCHED];
  long row[UPDATE_ROWS];
  LOAD_LANE(rate, A_TYPE, A, A_offset + head * A_head + dim * A_dim, A_n, own)
  UNROLL for (int j = 0; j < UPDATE_STATES; j++) rate[j] = rate_of(rate[j], FLAGS);
  const float D_value = FLAGS & UPDATE_HAS_D ? D[D_offset + head * D_head + dim * D_dim] : 0.0f;
  const float bias_value = FLAGS & UPDATE_HAS_BIAS ? bias[bias_offset + head * bias_head + dim * bias_dim] : 0.0f;
  const long place = state_offset + head * state_head + dim * state_dim;

/* The inputs of row b at step t. */
#define FETCH(k)                                                                                                      \
  {                                                                                                                   \
    delta_now[k] = own ? LOAD(DELTA_TYPE, delta, AT_STEP(delta)) : 0.0f;                                                  \
    u_now[k] = own ? LOAD(X_TYPE, u, AT_STEP(u)) : 0.0f;                                                              \
    z_now[k] = own && lane == 0 && (FLAGS & UPDATE_HAS_Z) ? LOAD(Z_TYPE, z, AT_STEP(z)) : 0.0f;                              \
    LOAD_INPUT(B_now[k], B, AT_INPUT(B))                                                                              \
    LOAD_INPUT(C_now[k], C, AT_INPUT(C))                                                                              \
  }

  UNROLL for (int r = 0; r < UPDATE_ROWS; r++) {
    const int b = min(first + r, batch - 1), t = 0;
    row[r] = row_of(index, index_offset + b * index_batch, b, pool);
    LOAD_STATE(h[r], place + row[r] * state_row, own && row[r] >= 0)
#ifdef UPDATE_ONE_STEP
    FETCH(r)
#endif
  }
  UNROLL for (int r = 0; r < UPDATE_ROWS; r++) {
    const int b = first + r, k = SLOT(r);
    if (b >= batch) break;
    for (int t = 0; t < STEPS; t++) {
#ifndef UPDATE_ONE_STEP
      FETCH(0)
#endif
      float dt = delta_now[k] + bias_value, y = 0.0f;
      if (FLAGS & UPDATE_SOFTPLUS) dt = fast_softplus(dt);
      UNROLL for (int j = 0; j < UPDATE_STATES; j++) {
        h[r][j] = times(decay_of(dt, rate[j]), h[r][j]) + dt * u_now[k] * B_now[k][j];
        y += real_part(times(h[r][j], C_now[k][j]));
      }
#if UPDATE_LANES > 1
#if defined(SHUFFLE_PTX) || defined(SHUFFLE_KHR) || defined(SHUFFLE_LOCAL)
      UNROLL for (int step = UPDATE_LANES / 2; step > 0; step /= 2) y += lane_xor(y, step);
#else
      local_barrier(); /* of the sum before this one */
      parts[lid] = y;
      for (int step = UPDATE_LANES / 2; step > 0; step /= 2) {
        local_barrier();
        if (lane < step) parts[lid] += parts[lid + step];
      }
      ANCHOR
      y = parts[lid];
#endif
#endif
      if (own && lane == 0) {
        y = twice(y) + D_value * u_now[k];
        if (FLAGS & UPDATE_HAS_Z) y *= z_now[k] * fast_sigmoid(z_now[k]);
        STORE(X_TYPE, out, AT_STEP(out), row[r] < 0 ? 0.0f : y);
      }
    }
    if (own && row[r] >= 0) {
      const long at = place + row[r] * state_row;
      UNROLL for (int j = 0; j < UPDATE_STATES; j += UPDATE_ALIGNED ? 4 : 1) {
        const int n = STATE(j);
        if (n >= D_STATE) continue;
#if UPDATE_ALIGNED
        *(global float4 *)(state + at + n) = (float4)(h[r][j], h[r][j + 1], h[r][j + 2], h[r][j + 3]);
#else
        STORE(S_TYPE, state, at + (long)n * state_n, h[r][j]);
#endif
      }
    }
  }
}

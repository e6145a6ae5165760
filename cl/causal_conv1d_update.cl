/* Steps of a causal convolution one by one: one work-item for each channel of a batch row. The state is a ring of `size`
 * places, or (0) the last `places` inputs in order. */
#include "causal_conv1d.h"

/* The inputs in order after the last step; the filter sees only the last of them. */
static inline void keep_inputs(const conv_args *a, global const x_t *x, global initial_t *state, const float *seen) {
  const int places = a->places;
  const long k_stride = a->initial.stride[2];
  for (long k = 0; k < places - BEFORE; k++) {
    const long from = k + a->length;
    STORE(INITIAL_TYPE, state, k * k_stride,
          from < places ? LOAD(INITIAL_TYPE, state, from * k_stride)
                        : LOAD(X_TYPE, x, (from - places) * a->x.stride[1]));
  }
  UNROLL for (int k = 0; k < BEFORE; k++) STORE(INITIAL_TYPE, state, (places - BEFORE + k) * k_stride, seen[k]);
}

kernel void causal_conv1d_update(const conv_args a, global initial_t *state, global const x_t *restrict x,
                                 global const w_t *restrict weight, global const b_t *restrict bias,
                                 global const int *restrict position, global const int *restrict index,
                                 global x_t *restrict out) {
  const long channel = (long)get_global_id(0), batch = (long)get_global_id(1);
  const long number = index ? (long)index[view_at(&a.index, batch, 0, 0, 0)] : batch;
  const bool padding = number < 0 || number >= a.pool;
  const int size = a.size;
  int now = 0;
  if (size > 0) {
    now = position[view_at(&a.position, batch, 0, 0, 0)] % size;
    if (now < 0) now += size;
  }
  conv_filter f;
  filter_load(&a, weight, bias, channel, &f);
  state += view_at(&a.initial, number, channel, 0, 0);
  x += view_at(&a.x, batch, 0, channel, 0);
  float e[CONV_WIDTH];
  UNROLL for (int k = 0; k < BEFORE; k++) {
    int place = a.places - BEFORE + k;
    if (size > 0) {
      place = now - BEFORE + k;
      if (place < 0) place += size;
    }
    e[k] = padding ? 0.0f : LOAD(INITIAL_TYPE, state, place * a.initial.stride[2]);
  }
  for (long t = 0; t < a.length; t++) {
    e[BEFORE] = LOAD(X_TYPE, x, t * a.x.stride[1]);
    float sum = f.bias;
    UNROLL for (int k = 0; k < CONV_WIDTH; k++) sum += f.w[k] * e[k];
    if (HAS(&a, CONV_SILU)) sum = swish(sum);
    STORE(X_TYPE, out, view_at(&a.out, batch, t, channel, 0), padding ? 0.0f : sum);
    if (size > 0 && !padding) {
      STORE(INITIAL_TYPE, state, now * a.initial.stride[2], e[BEFORE]);
      now = now + 1 < size ? now + 1 : 0;
    }
    UNROLL for (int k = 0; k < BEFORE; k++) e[k] = e[k + 1];
  }
  if (size == 0 && !padding) keep_inputs(&a, x, state, e);
}

/* One step of a selective scan's states, in place. Lanes share a channel of a row; each has every lanes-th state. */

#define HELD 4 /* numbers of each kind in a lane's registers */

INLINE __global float *step_channel(__local const step_memory *m, __local const step_view *v, int row, int head,
                                    int dim) {
  return (__global float *)step_at(m, v) + (long)row * v->stride[0] + head * v->stride[1] + dim * v->stride[2];
}

INLINE float step_parameter(__local const step_memory *m, __local const step_view *v, int head, int dim) {
  return ((__global const float *)step_at(m, v))[head * v->stride[0] + dim * v->stride[1]];
}

INLINE void step_update_stage(__local step_memory *m, __local const step_stage *s SHUFFLE_PARAMETER) {
  __local const step_update *p = &s->update;
  __local const step_product *d = &s->product; /* of the step sizes */
  const bool product = s->parts & STEP_PRODUCT;
  int lanes = 1;
  while (2 * lanes <= STEP_LANES && 2 * lanes <= p->d_state) lanes *= 2;
  const int lane = ITEM % lanes, at_once = WORK_GROUP / lanes;
  const int2 mine = step_share(p->heads * p->head_dim);
  const int channels = mine.y - mine.x, count = channels * STEP_ROWS;
  for (int first = 0; first < count; first += at_once) {
    const int i = min(first + ITEM / lanes, count - 1), row = STEP_ROWS == 1 ? 0 : i / channels;
    const int channel = mine.x + i - row * channels;
    const bool own = first + ITEM / lanes < count;
    const int head = p->head_dim == 1 ? channel : channel / p->head_dim, dim = channel - head * p->head_dim;
    const int group = p->group_heads == p->heads ? 0 : head / p->group_heads;
    __global float *state = step_channel(m, &p->state, row, head, dim);
    __global const float *A = (__global const float *)step_at(m, &p->A) + head * p->A.stride[0] + dim * p->A.stride[1];
    __global const float *B = step_channel(m, &p->B, row, group, 0), *C = step_channel(m, &p->C, row, group, 0);
    /* All loads are under way before the first of them is waited for. */
    float a[HELD], h[HELD], b[HELD], c[HELD], dt = 0.0f, y = 0.0f;
    const float u = step_load(step_channel(m, &p->u, row, head, dim));
    if (product) {
      __global const b_t *w = (__global const b_t *)step_at(m, &d->weight) + (long)channel * d->weight.stride[0];
      __global const float *in = (__global const float *)step_at(m, &d->in) + row * d->in.stride[0];
      for (int k0 = lane; k0 < d->k; k0 += HELD * lanes) {
        UNROLL
        for (int i = 0; i < HELD; i++) {
          const int k = min(k0 + i * lanes, d->k - 1);
          a[i] = LOAD(B_TYPE, w, k);
          b[i] = step_load(in + k * d->in.stride[1]);
        }
        UNROLL
        for (int i = 0; i < HELD; i++) dt = k0 + i * lanes < d->k ? fma(a[i], b[i], dt) : dt;
      }
    } else {
      dt = step_load(step_channel(m, &p->delta, row, head, dim));
    }
    const float scale = product && SCALED(B_TYPE) ? step_vector(m, &d->scale, channel) : 1.0f;
    const float product_bias = product && step_has(&d->bias) ? step_vector(m, &d->bias, channel) : 0.0f;
    const float bias = step_has(&p->bias) ? step_parameter(m, &p->bias, head, dim) : 0.0f;
    const float D = step_has(&p->D) ? step_parameter(m, &p->D, head, dim) : 0.0f;
    const float z = step_has(&p->z) ? step_load(step_channel(m, &p->z, row, head, dim)) : 0.0f;
    for (int n0 = lane; n0 < p->d_state; n0 += HELD * lanes) {
      UNROLL
      for (int i = 0; i < HELD; i++) {
        const int n = n0 + i * lanes;
        if (n >= p->d_state || !own) continue;
        a[i] = A[n * p->A.stride[2]];
        h[i] = step_load(state + n * p->state.stride[3]);
        b[i] = step_load(B + n * p->B.stride[2]);
        c[i] = step_load(C + n * p->C.stride[2]);
      }
      if (n0 == lane) {
        if (product) dt = activate(STEP_SUM(dt, lanes) * scale + product_bias, d->activation);
        dt += bias;
        if (p->flags & STEP_UPDATE_SOFTPLUS) dt = fast_softplus(dt);
      }
      UNROLL
      for (int i = 0; i < HELD; i++) {
        const int n = n0 + i * lanes;
        if (n >= p->d_state || !own) continue;
        const float rate = p->flags & STEP_UPDATE_A_LOG ? -exp2_fast(LOG2_E * a[i]) : a[i];
        h[i] = exp2_fast(LOG2_E * dt * rate) * h[i] + dt * u * b[i];
        step_store(state + n * p->state.stride[3], h[i]);
        y = fma(h[i], c[i], y);
      }
    }
    y = STEP_SUM(y, lanes);
    if (own && lane == 0) {
      y += u * D;
      if (step_has(&p->z)) y *= swish(z);
      step_store(step_channel(m, &p->out, row, head, dim), y);
    }
  }
  ANCHOR
}

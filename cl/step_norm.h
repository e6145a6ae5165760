/* Norms of the rows in m->x, of `k` numbers each, the first of them row `first` of the step: every work-group that
 * needs them makes them for itself. */

/* Over the work-group, in every work-item: over lanes, then over lines. */
INLINE float step_group_sum(__local step_memory *m, float value SHUFFLE_PARAMETER) {
  const float sum = STEP_SUM(value, STEP_LANES);
  float total = 0.0f;
  step_barrier();
  if (LANE == 0) m->part[LINE] = sum;
  step_barrier();
  for (int i = LANE; i < LINES; i += STEP_LANES) total += m->part[i];
  return STEP_SUM(total, STEP_LANES);
}

INLINE float step_gate(__local const step_memory *m, __local const step_norm *p, int row, int j) {
  return silu(step_load((__global const float *)step_at(m, &p->z) + row * p->z.stride[0] + j * p->z.stride[1]));
}

INLINE void step_norm_rows(__local step_memory *m, __local const step_norm *p, int first, int rows, int k SHUFFLE_PARAMETER) {
  __global const float *weight = (__global const float *)step_at(m, &p->weight);
  __global const float *bias = (__global const float *)step_at(m, &p->bias);
  const bool has_weight = step_has(&p->weight), has_bias = step_has(&p->bias);
  for (int begin = 0; begin < rows * k; begin += p->width) {
    __local float *x = m->x + begin;
    const int row = first + begin / k, column = begin % k;
    float mean = 0.0f, squares = 0.0f;
    if (p->flags & STEP_NORM_GATED_FIRST)
      for (int j = ITEM; j < p->width; j += WORK_GROUP) x[j] *= step_gate(m, p, row, column + j);
    if (p->flags & STEP_NORM_LAYER) {
      float sum = 0.0f;
      for (int j = ITEM; j < p->width; j += WORK_GROUP) sum += x[j];
      mean = step_group_sum(m, sum SHUFFLE_ARGUMENT) / (float)p->width;
    }
    for (int j = ITEM; j < p->width; j += WORK_GROUP) squares += (x[j] - mean) * (x[j] - mean);
    squares = step_group_sum(m, squares SHUFFLE_ARGUMENT);
    const float scale = 1.0f / sqrt(squares / (float)p->width + p->epsilon);
    for (int j = ITEM; j < p->width; j += WORK_GROUP) {
      float y = (x[j] - mean) * scale;
      if (has_weight) y *= weight[(column + j) * p->weight.stride[0]];
      if (has_bias) y += bias[(column + j) * p->bias.stride[0]];
      if (p->flags & STEP_NORM_GATED_LAST) y *= step_gate(m, p, row, column + j);
      x[j] = y;
    }
  }
  step_barrier();
}

/* m->x = rows of `from`, (row, k). All that a work-item loads is under way before it waits for any. */
#define AT_ONCE 4
INLINE void step_load_rows(__local step_memory *m, __local const step_view *from, int first, int rows, int k) {
  __global const float *in = (__global const float *)step_at(m, from) + first * from->stride[0];
  for (int begin = ITEM; begin < rows * k; begin += AT_ONCE * WORK_GROUP) {
    float x[AT_ONCE];
    UNROLL
    for (int i = 0; i < AT_ONCE; i++) {
      const int at = min(begin + i * WORK_GROUP, rows * k - 1), row = STEP_ROWS == 1 ? 0 : at / k;
      x[i] = step_load(in + row * from->stride[0] + (at - row * k) * from->stride[1]);
    }
    UNROLL
    for (int i = 0; i < AT_ONCE; i++)
      if (begin + i * WORK_GROUP < rows * k) m->x[begin + i * WORK_GROUP] = x[i];
  }
  step_barrier();
}

/* A norm by itself: the rows are shared out. */
INLINE void step_norm_stage(__local step_memory *m, __local const step_stage *s SHUFFLE_PARAMETER) {
  __local const step_product *p = &s->product;
  const int2 mine = step_share(STEP_ROWS);
  const int rows = mine.y - mine.x;
  if (rows > 0) {
    step_load_rows(m, &p->in, mine.x, rows, p->k);
    step_norm_rows(m, &s->norm, mine.x, rows, p->k SHUFFLE_ARGUMENT);
    __global float *out = (__global float *)step_at(m, &p->out) + mine.x * p->out.stride[0];
    for (int i = ITEM; i < rows * p->k; i += WORK_GROUP)
      step_store(out + i / p->k * p->out.stride[0] + i % p->k * p->out.stride[1], m->x[i]);
  }
}

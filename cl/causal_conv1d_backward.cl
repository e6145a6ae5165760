/* Gradients of the causal convolution. With s the sum before SiLU and ds its gradient:
 *   dx[p] = sum_k weight[k] ds[p + width - 1 - k],  dweight[k] = sum_t ds[t] e[t - (width - 1) + k]
 * Each run of steps leaves a partial sum of dweight and dbias: parts[batch row and run][k][channel], dbias after
 * dweight. Work-items and layouts as in causal_conv1d.cl. */
#include "causal_conv1d.h"

/* CONV_VECTOR channels of a batch row, and their gradients. */
typedef struct conv_gradient {
  conv_row r;
  conv_filter f;
  global const x_t *dout; /* step 0 */
  global const final_t *dfinal;
  global x_t *dx; /* step 0 */
} conv_gradient;

typedef struct conv_sums {
  real_t dweight[CONV_WIDTH], dbias;
} conv_sums;

INLINE void sums_clear(conv_sums *sums) {
  UNROLL for (int k = 0; k < CONV_WIDTH; k++) sums->dweight[k] = NOTHING;
  sums->dbias = NOTHING;
}

static inline void store_dx(const conv_gradient *g, long p, real_t sum) {
  const conv_args *a = g->r.a;
  if (!HAS(a, CONV_DX)) return;
  const int4 m = mark_of(&g->r, p);
  real_t value = m.x < 0 ? NOTHING : sum;
  if (HAS(a, CONV_DFINAL) && m.z > 0)
    value += LOAD_EACH(FINAL_TYPE, g->dfinal, view_at(&a->final, m.y, g->r.channel, BEFORE - m.z, 0),
                       a->final.stride[1]);
  STORE_X(g->dx, p * STEP(a, dx), value);
}

#if CONV_LENGTH_FAST
/* ds of step t; 0 where there is none. */
INLINE float sum_gradient(const conv_gradient *g, long t) {
  const conv_args *a = g->r.a;
  if (t < 0 || t >= a->length) return 0.0f;
  const int4 m = mark_of(&g->r, t);
  if (m.x < 0) return 0.0f;
  const float dout = LOAD_X(g->dout, t * STEP(a, dout));
  return HAS(a, CONV_SILU) ? dout * swish_gradient(filter_sum_at(&g->r, &g->f, m, t)) : dout;
}

/* A work-item has one step of WORK_GROUP; dx of step t - BEFORE is complete with ds of step t. */
INLINE void run_steps(const conv_gradient *g, long begin, long end, local float *ds_tile, conv_sums *sums) {
  const int lid = (int)get_local_id(0);
  const long length = g->r.a->length, last = end + (end == length ? BEFORE : 0);
  for (long first = begin; first < last; first += WORK_GROUP) {
    for (int i = lid; i < WORK_GROUP + BEFORE; i += WORK_GROUP) ds_tile[i] = sum_gradient(g, first - BEFORE + i);
    local_barrier();
    const long t = first + lid, p = t - BEFORE;
    float sum = 0.0f;
    UNROLL for (int k = 0; k < CONV_WIDTH; k++) sum +=
        sees(reach_of(&g->r, p + BEFORE - k), k) ? g->f.w[k] * ds_tile[lid + BEFORE - k] : 0.0f;
    if (p >= 0 && p < length && t < last) store_dx(g, p, sum);
    if (t < end) { /* the steps of dweight are the run's own */
      const int4 m = mark_of(&g->r, t);
      const float ds = ds_tile[lid + BEFORE];
      sums->dbias += ds;
      UNROLL for (int k = 0; k < CONV_WIDTH; k++) sums->dweight[k] +=
          ds * seen(&g->r, m, k, element(&g->r, t - BEFORE + k));
    }
    local_barrier();
  }
}

/* Over the work-group, as a tree. */
INLINE void store_sums(const conv_sums *sums, global float *parts, long channels, local float *scratch) {
  const int lid = (int)get_local_id(0);
  for (int k = 0; k <= CONV_WIDTH; k++) {
    float own = sums->dbias;
    UNROLL for (int i = 0; i < CONV_WIDTH; i++) own = k == i ? sums->dweight[i] : own;
    scratch[lid] = own;
    local_barrier();
    for (int step = WORK_GROUP / 2; step > 0; step /= 2) {
      ANCHOR
      if (lid < step) scratch[lid] += scratch[lid + step];
      local_barrier();
    }
    ANCHOR
    if (lid == 0) parts[(long)k * channels] = scratch[0];
    local_barrier();
  }
}
#else
#define HELD (BEFORE + CONV_STEPS) /* the last width - 1 steps, then the block's */

typedef struct conv_window {
  real_t e[HELD], ds[HELD];
  int reach[HELD];
} conv_window;

INLINE void window_open(const conv_gradient *g, long begin, conv_window *w) {
  UNROLL for (int i = 0; i < BEFORE; i++) {
    w->e[i] = element(&g->r, begin - BEFORE + i);
    w->ds[i] = NOTHING;
    w->reach[i] = BEFORE;
  }
}

/* Inputs and dout of the block from `first` on. `whole`: no bounds to check. */
INLINE void window_fill(const conv_gradient *g, long first, long end, bool whole, conv_window *w) {
  const conv_args *a = g->r.a;
  if (whole) {
    global const x_t *x = g->r.x + first * STEP(a, x), *dout = g->dout + first * STEP(a, dout);
    UNROLL for (int i = 0; i < CONV_STEPS; i++) {
      w->e[BEFORE + i] = LOAD_X(x, i * STEP(a, x));
      w->ds[BEFORE + i] = LOAD_X(dout, i * STEP(a, dout));
    }
  } else {
    UNROLL for (int i = 0; i < CONV_STEPS; i++) {
      const long t = first + i;
      w->e[BEFORE + i] = element(&g->r, t);
      w->ds[BEFORE + i] = t < a->length && t < end + BEFORE ? LOAD_X(g->dout, t * STEP(a, dout)) : NOTHING;
    }
  }
}

INLINE void window_move(conv_window *w) {
  UNROLL for (int i = 0; i < BEFORE; i++) {
    w->e[i] = w->e[CONV_STEPS + i];
    w->ds[i] = w->ds[CONV_STEPS + i];
    w->reach[i] = w->reach[CONV_STEPS + i];
  }
}

/* Step i of the block: dout becomes ds; its part of the sums; dx of the step BEFORE before it, where `stores`. */
INLINE void run_step(const conv_gradient *g, long t, int i, bool owned, bool stores, conv_window *w, conv_sums *sums) {
  const int4 m = mark_of(&g->r, min(t, g->r.a->length));
  real_t *ds = &w->ds[BEFORE + i], sum = NOTHING;
  w->reach[BEFORE + i] = m.x;
  if (HAS(g->r.a, CONV_SILU)) *ds *= MAP(swish_gradient, filter_sum(&g->r, &g->f, m, w->e + i));
  if (m.x < 0) *ds = NOTHING;
  const real_t own = owned ? *ds : NOTHING; /* steps past the end: the next run's sums */
  sums->dbias += own;
  UNROLL for (int k = 0; k < CONV_WIDTH; k++) {
    sums->dweight[k] += own * seen(&g->r, m, k, w->e[i + k]);
    sum += sees(w->reach[i + BEFORE - k], k) ? g->f.w[k] * w->ds[BEFORE + i - k] : NOTHING;
  }
  if (stores) store_dx(g, t - BEFORE, sum);
}

INLINE void run_steps(const conv_gradient *g, long begin, long end, conv_sums *sums) {
  conv_window w;
  window_open(g, begin, &w);
  for (long first = begin; first < end + BEFORE; first += CONV_STEPS) {
    const bool whole = !CONV_MARKED && first >= begin + BEFORE && first + CONV_STEPS <= end;
    window_fill(g, first, end, whole, &w);
    UNROLL for (int i = 0; i < CONV_STEPS; i++) {
      const long t = first + i, p = t - BEFORE;
      run_step(g, t, i, whole || t < end, whole || (p < end && p >= begin), &w, sums);
    }
    window_move(&w);
  }
}

INLINE void store_sums(const conv_sums *sums, global float *parts, long channels) {
  UNROLL for (int k = 0; k < CONV_WIDTH; k++) STORE_FLOATS(parts, (long)k * channels, sums->dweight[k]);
  STORE_FLOATS(parts, (long)CONV_WIDTH * channels, sums->dbias);
}
#endif

kernel __attribute__((reqd_work_group_size(WORK_GROUP, 1, 1))) void
causal_conv1d_backward(const conv_args a, global const x_t *restrict x, global const w_t *restrict weight,
                       global const b_t *restrict bias, global const initial_t *restrict initial,
                       global const int4 *restrict marks, global const x_t *restrict dout,
                       global const final_t *restrict dfinal, global x_t *restrict dx, global float *restrict parts) {
  const long batch = (long)get_group_id(2);
#if CONV_LENGTH_FAST
  const int number = (int)get_group_id(0);
  const long channel = (long)get_group_id(1);
  local float ds_tile[WORK_GROUP + BEFORE + 1], scratch[WORK_GROUP];
#else
  const int number = (int)get_group_id(1);
  const long channel = (long)get_global_id(0) * CONV_VECTOR;
  if (channel < a.channels)
#endif
  {
    const long begin = number * a.run, end = min(begin + a.run, a.length);
    conv_gradient g;
    conv_sums sums;
    row_open(&a, x, initial, marks, batch, channel, &g.r);
    filter_load(&a, weight, bias, channel, &g.f);
    g.dout = dout + view_at(&a.dout, batch, 0, channel, 0);
    g.dx = dx + view_at(&a.dx, batch, 0, channel, 0);
    g.dfinal = dfinal;
    parts += a.parts + (batch * a.runs + number) * (CONV_WIDTH + 1) * a.channels + channel;
    sums_clear(&sums);
#if CONV_LENGTH_FAST
    run_steps(&g, begin, end, ds_tile, &sums);
    if (HAS(&a, CONV_PARTS)) store_sums(&sums, parts, a.channels, scratch);
#else
    run_steps(&g, begin, end, &sums);
    if (HAS(&a, CONV_PARTS)) store_sums(&sums, parts, a.channels);
#endif
  }
}

/* dweight and dbias: the sums of `count` parts, in order. */
kernel void causal_conv1d_sum(const conv_args a, global const float *restrict parts, long count,
                              global STORAGE(DW_TYPE) *restrict dweight, global STORAGE(DB_TYPE) *restrict dbias) {
  const long channel = (long)get_global_id(0), stride = (long)a.channels * (CONV_WIDTH + 1);
  const int k = (int)get_global_id(1);
  parts += a.parts + (long)k * a.channels + channel;
  float sum[8] = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f}; /* eight chains, so that loads overlap */
  long i = 0;
  for (; i + 8 <= count; i += 8)
    UNROLL for (int j = 0; j < 8; j++) sum[j] += parts[(i + j) * stride];
  for (; i < count; i++) sum[0] += parts[i * stride];
  const float all = ((sum[0] + sum[1]) + (sum[2] + sum[3])) + ((sum[4] + sum[5]) + (sum[6] + sum[7]));
  if (k < CONV_WIDTH) {
    if (dweight) STORE(DW_TYPE, dweight, view_at(&a.dweight, channel, k, 0, 0), all);
  } else if (dbias) {
    STORE(DB_TYPE, dbias, view_at(&a.dbias, channel, 0, 0, 0), all);
  }
}

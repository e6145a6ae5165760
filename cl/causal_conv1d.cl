/* Causal depthwise convolution. A work-item owns CONV_VECTOR neighbouring channels and CONV_STEPS steps (channels are
 * neighbours in memory), or a work-group one channel and CONV_STEPS * WORK_GROUP steps (CONV_LENGTH_FAST: steps are).
 *   bytes per element: read x, write out; the width - 1 steps before a run come from the cache
 *   special functions per element: 2 with SiLU, else none */
#include "causal_conv1d.h"

static inline real_t output(const conv_row *r, int4 m, real_t sum) {
  if (m.x < 0) return NOTHING;
  return HAS(r->a, CONV_SILU) ? MAP(swish, sum) : sum;
}

kernel __attribute__((reqd_work_group_size(WORK_GROUP, 1, 1))) void
causal_conv1d(const conv_args a, global const x_t *restrict x, global const w_t *restrict weight,
              global const b_t *restrict bias, global const initial_t *restrict initial,
              global const int4 *restrict marks, global x_t *restrict out) {
  const long batch = (long)get_group_id(2);
  conv_row r;
  conv_filter f;
#if CONV_LENGTH_FAST
  const long channel = (long)get_group_id(1), first = (long)get_group_id(0) * WORK_GROUP * CONV_STEPS + get_local_id(0);
  row_open(&a, x, initial, marks, batch, channel, &r);
  filter_load(&a, weight, bias, channel, &f);
  UNROLL for (int i = 0; i < CONV_STEPS; i++) {
    const long t = first + i * WORK_GROUP;
    if (t < a.length) {
      const int4 m = mark_of(&r, t);
      STORE_X(out, view_at(&a.out, batch, t, channel, 0), output(&r, m, filter_sum_at(&r, &f, m, t)));
    }
  }
#else
  const long channel = (long)get_global_id(0) * CONV_VECTOR, first = (long)get_group_id(1) * CONV_STEPS;
  if (channel < a.channels) {
    row_open(&a, x, initial, marks, batch, channel, &r);
    filter_load(&a, weight, bias, channel, &f);
    real_t e[BEFORE + CONV_STEPS];
    const bool whole = !CONV_MARKED && first >= BEFORE && first + CONV_STEPS <= a.length; /* no bounds to check */
    if (whole) {
      global const x_t *from = r.x + (first - BEFORE) * STEP(&a, x);
      UNROLL for (int i = 0; i < BEFORE + CONV_STEPS; i++) e[i] = LOAD_X(from, i * STEP(&a, x));
    } else {
      UNROLL for (int i = 0; i < BEFORE + CONV_STEPS; i++) e[i] = element(&r, first - BEFORE + i);
    }
    out += view_at(&a.out, batch, 0, channel, 0) + first * STEP(&a, out);
    UNROLL for (int i = 0; i < CONV_STEPS; i++) {
      if (whole || first + i < a.length) {
        const int4 m = mark_of(&r, first + i);
        STORE_X(out, i * STEP(&a, out), output(&r, m, filter_sum(&r, &f, m, e + i)));
      }
    }
  }
#endif
}

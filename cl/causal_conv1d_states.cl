/* States of a causal convolution, one work-item for each channel of a row of the states: those after the sequences, and
 * the gradient of those before them. Any layout. */
#include "causal_conv1d.h"

#ifndef DINITIAL_TYPE
#define DINITIAL_TYPE f32
#endif

static inline span row_span(const conv_args *a, global const int *ends, long row) {
  const span all = {0, a->length};
  return HAS(a, CONV_PACKED) ? span_of(a, ends, row) : all;
}

/* How far the step after the row's last looks back. */
static inline int reach_of_next(const conv_row *r) {
  return HAS(r->a, CONV_PACKED) ? BEFORE : mark_of(r, r->a->length).x;
}

/* Element i of the row's sequence as it lies in memory: negative before it, where the state has it. */
static inline float element_of(const conv_row *r, span s, long row, long i) {
  if (i < 0) return HAS(r->a, CONV_INITIAL) ? initial_element(r, row, i + BEFORE) : 0.0f;
  return is_padding(r, s.begin + i) ? 0.0f : LOAD_X(r->x, (s.begin + i) * r->a->x.stride[1]);
}

/* final[j] = e[end - (width - 1) + j], as a step to come would see it. In place is allowed: element j comes from a later
 * one. */
kernel void causal_conv1d_final(const conv_args a, global const x_t *restrict x, global const initial_t *initial,
                                global const int4 *restrict marks, global const int *restrict ends,
                                global final_t *final) {
  const long channel = (long)get_global_id(0), row = (long)get_global_id(1);
  const span s = row_span(&a, ends, row);
  conv_row r;
  row_open(&a, x, initial, marks, HAS(&a, CONV_PACKED) ? 0 : row, channel, &r);
  const int reach = reach_of_next(&r);
  for (int j = 0; j < BEFORE; j++) {
    const float value = sees(reach, j) ? element_of(&r, s, row, s.end - s.begin - BEFORE + j) : 0.0f;
    STORE(FINAL_TYPE, final, view_at(&a.final, row, channel, j, 0), value);
  }
}

/* The gradient of the sum of step q of a row before SiLU; its inputs come from the row alone. (An int that is negative
 * and becomes a long is a large number to rusticl 22.3: q is a long.) */
static inline float sum_gradient(const conv_row *r, const conv_filter *f, span s, long row, long q, int reach,
                                 global const x_t *dout) {
  float sum = f->bias;
  for (int k = 0; k < CONV_WIDTH; k++)
    sum += f->w[k] * (sees(reach, k) ? element_of(r, s, row, q - BEFORE + k) : 0.0f);
  return LOAD_X(dout, view_at(&r->a->dout, r->batch, s.begin + q, r->channel, 0)) *
         (HAS(r->a, CONV_SILU) ? swish_gradient(sum) : 1.0f);
}

/* dinitial[i] = sum_q weight[i - q] ds[q] over the first steps of a row, and what comes in through a final state that
 * reaches back as far. */
kernel void causal_conv1d_dinitial(const conv_args a, global const x_t *restrict x, global const w_t *restrict weight,
                                   global const b_t *restrict bias, global const initial_t *restrict initial,
                                   global const int4 *restrict marks, global const int *restrict ends,
                                   global const x_t *restrict dout, global const final_t *restrict dfinal,
                                   global STORAGE(DINITIAL_TYPE) *restrict dinitial) {
  const long channel = (long)get_global_id(0), row = (long)get_global_id(1);
  const span s = row_span(&a, ends, row);
  conv_row r;
  conv_filter f;
  row_open(&a, x, initial, marks, HAS(&a, CONV_PACKED) ? 0 : row, channel, &r);
  filter_load(&a, weight, bias, channel, &f);
  float ds[BEFORE + 1];
  int reach[BEFORE + 1];
  for (int q = 0; q < BEFORE; q++) {
    const long t = s.begin + q;
    ds[q] = 0.0f;
    reach[q] = BEFORE;
    if (t >= s.end || is_padding(&r, t)) continue;
    if (!HAS(&a, CONV_PACKED)) reach[q] = mark_of(&r, t).x;
    ds[q] = sum_gradient(&r, &f, s, row, q, reach[q], dout);
  }
  const int reach_end = reach_of_next(&r);
  for (int i = 0; i < BEFORE; i++) {
    float sum = 0.0f;
    for (int q = 0; q <= i; q++) sum += sees(reach[q], i - q) ? f.w[i - q] * ds[q] : 0.0f;
    const long j = i - (s.end - s.begin);
    if (HAS(&a, CONV_DFINAL) && j >= 0 && sees(reach_end, (int)j))
      sum += LOAD(FINAL_TYPE, dfinal, view_at(&a.final, row, channel, j, 0));
    STORE(DINITIAL_TYPE, dinitial, view_at(&a.dinitial, row, channel, i, 0), sum);
  }
}

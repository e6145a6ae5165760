/* Parameters and states of the selective scan as vectors of channels, one for each padded state; of complex ones the
 * imaginary parts follow `states` vectors after the real parts. */
#ifndef CLM_CPU_SCAN_STATES_H
#define CLM_CPU_SCAN_STATES_H

#include "scan_tile.h"

#define LN2 0.693147180559945309f

/* Elements of a (channel, state) matrix that begins at element `at`; zeros if the tensor is absent. */
static inline void scan_gather(const clm_tensor *x, int64_t at, int64_t channel_stride, int64_t state_stride,
                               const scan_blocks *s, scan_block k, vec *out) {
  const float *p = kernel_data(*x);
  float *o = (float *)out;
  memset(out, 0, (size_t)s->numbers * sizeof(vec));
  if (!p) return;
  for (int64_t part = 0; part < s->parts; part++)
    for (int lane = 0; lane < k.lanes; lane++)
      for (int64_t n = 0; n < s->d_state; n++)
        o[(part * s->states + n) * LANES + lane] =
            p[(at + lane * channel_stride + n * state_stride) * s->parts + part];
}

static inline void scan_scatter(const clm_tensor *x, int64_t at, int64_t channel_stride, int64_t state_stride,
                                const scan_blocks *s, scan_block k, const vec *in) {
  const float *o = (const float *)in;
  float *p = kernel_data(*x);
  if (!p) return;
  for (int64_t part = 0; part < s->parts; part++)
    for (int lane = 0; lane < k.lanes; lane++)
      for (int64_t n = 0; n < s->d_state; n++)
        p[(at + lane * channel_stride + n * state_stride) * s->parts + part] =
            o[(part * s->states + n) * LANES + lane];
}

static inline void scan_gather_fixed(const clm_tensor *x, const scan_blocks *s, scan_block k, vec *out) {
  scan_gather(x, k.channel * x->stride[0], x->stride[0], x->stride[1], s, k, out);
}

static inline void scan_scatter_fixed(const clm_tensor *x, const scan_blocks *s, scan_block k, const vec *in) {
  scan_scatter(x, k.channel * x->stride[0], x->stride[0], x->stride[1], s, k, in);
}

/* Row `row` of (row, channel, state). */
static inline void scan_gather_state(const clm_tensor *x, const scan_blocks *s, int64_t row, scan_block k, vec *out) {
  scan_gather(x, row * x->stride[0] + k.channel * x->stride[1], x->stride[1], x->stride[2], s, k, out);
}

static inline void scan_scatter_state(const clm_tensor *x, const scan_blocks *s, int64_t row, scan_block k,
                                      const vec *in) {
  scan_scatter(x, row * x->stride[0] + k.channel * x->stride[1], x->stride[1], x->stride[2], s, k, in);
}

/* A itself; padding states have 0. */
static inline void scan_gather_A(const clm_tensor *A, bool is_log, const scan_blocks *s, scan_block k, vec *out) {
  scan_gather_fixed(A, s, k, out);
  for (int64_t n = 0; n < s->d_state && is_log; n++) {
    out[n] = -vec_exp(out[n]);
    if (s->parts == 1) continue;
    vec cosine, sine;
    vec_cos_sin(vec_set(1), out[s->states + n], &cosine, &sine);
    out[s->states + n] = out[n] * sine;
    out[n] *= cosine;
  }
}

/* A in the units of scan_decay: the real part times log2 e, the imaginary part as it is. Returns the largest
 * of the real parts. */
static inline vec scan_gather_rates(const clm_tensor *A, bool is_log, const scan_blocks *s, scan_block k, vec *A2) {
  vec largest = vec_set(0);
  scan_gather_A(A, is_log, s, k, A2);
  for (int64_t n = 0; n < s->states; n++) {
    A2[n] = vec_plain(A2[n] * vec_set(LOG2E));
    largest = vec_max(vec_abs(A2[n]), largest);
  }
  return largest;
}

/* Whether vec_exp2_near may take every decay of a tile whose largest dt is `most_dt`. NaN is near. */
static inline bool scan_is_near(vec most_dt, vec most_A2) { return vec_largest(most_dt * most_A2) <= 125; }

/* exp(dt A); `im` is left alone where A is real. */
INLINE vec scan_decay(bool complex, bool near, vec dt, vec rate, vec rate_im, vec *im) {
  vec size = near ? vec_exp2_near(dt, rate) : vec_exp2_product(dt, rate), cosine, sine;
  if (!complex) return size;
  vec_cos_sin(dt, rate_im, &cosine, &sine);
  *im = size * sine;
  return size * cosine;
}

static inline vec scan_channel_vector(const clm_tensor *x, scan_block k) {
  float lane[LANES] = {0};
  const float *p = kernel_data(*x);
  for (int i = 0; p && i < k.lanes; i++) lane[i] = p[(k.channel + i) * x->stride[0]];
  return vec_load(lane);
}

/* The states of steps [t0, t0 + steps) of a (batch, length, group, state) tensor, padded, in place or in scratch. */
static inline tile_rows scan_tile_states(const clm_tensor *x, const scan_blocks *s, int64_t b, int64_t t0, int steps,
                                         int64_t group, float *scratch) {
  int64_t at = b * x->stride[0] + t0 * x->stride[1] + group * x->stride[2];
  if (x->dtype == CLM_F32 && x->stride[3] == 1 && s->d_state == s->states)
    return (tile_rows){kernel_data(*x) + at, x->stride[1]};
  for (int t = 0; t < steps; t++, at += x->stride[1])
    for (int64_t part = 0; part < s->parts; part++) {
      float *out = scratch + t * s->numbers + part * s->states;
      line_read(s->parts == 2 ? line_part(x, at, x->stride[3], (int)part) : line_at(x, at, x->stride[3]), s->d_state,
                out);
      for (int64_t n = s->d_state; n < s->states; n++) out[n] = 0;
    }
  return (tile_rows){scratch, s->numbers};
}

#endif

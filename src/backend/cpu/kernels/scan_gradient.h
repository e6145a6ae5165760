/* The arithmetic of the selective scan's gradient on one block of channels and one tile: a group of states is run
 * forward over the tile, its states and decays kept, then backward. A complex gradient is dL/dRe + i dL/dIm. */
#ifndef CLM_CPU_SCAN_GRADIENT_H
#define CLM_CPU_SCAN_GRADIENT_H

#include "scan_rows.h"
#include "scan_states.h"

#define TILE 16
#if SIMD_LANES == 16
#define STATES 8 /* states of a group; of complex ones half as many */
#else
#define STATES 4
#endif

/* One block's part of a tile. Vectors for each state have the imaginary parts `states` further on. */
typedef struct block_tile {
  const scan_cut *cut;
  const vec *rate; /* dt, times the gate on A if there is one */
  const vec *u, *dtu, *dy, *A2, *B_fixed, *C_fixed;
  vec *y, *dh, *dA, *dB_fixed, *dC_fixed;
  tile_rows B, C;
  int64_t states;
  tile_ahead *ahead;
  /* shared by the blocks */
  vec *sum_B, *sum_A;   /* TILE: sum over states of Re(conj(B) dh) and of Re(conj(A2) q)              */
  vec *sum_dB, *sum_dC; /* TILE of all numbers: sums over blocks                                      */
  vec *h, *decay;       /* slots: step t of segment i finds the state before it in t + i, its own in t + i + 1 */
} block_tile;

/* What is known when a function is compiled. */
typedef struct tile_form {
  bool B_varies, C_varies, complex;
  bool near;    /* scan_is_near                               */
  bool forward; /* only to the states at the end, no gradient */
} tile_form;

#define SLOT(complex) ((complex) ? 2 * STATES : STATES) /* of h and decay: real parts, then imaginary ones */

/* The states at the end of the tile from those at its beginning, in place. */
INLINE void advance(int count, tile_form form, const block_tile *k, int64_t first, vec *state) {
  const bool B_varies = form.B_varies, complex = form.complex, near = form.near;
  const vec *A2 = k->A2 + first, *A2_im = A2 + k->states;
  const vec *B_fixed = k->B_fixed + first, *B_fixed_im = B_fixed + k->states;
  vec h[STATES], h_im[STATES];
  state += first;
  UNROLL for (int n = 0; n < count; n++) {
    h[n] = state[n];
    if (complex) h_im[n] = state[k->states + n];
  }
  for (int i = 0; i < k->cut->count; i++) {
    scan_segment segment = k->cut->at[i];
    UNROLL for (int n = 0; n < count; n++) if (segment.resets) h[n] = h_im[n] = vec_set(0);
    for (int t = segment.begin; t < segment.end; t++) {
      const float *B = k->B.data + t * k->B.stride + first, *B_im = B + k->states;
      vec rate = k->rate[t], dtu = k->dtu[t];
      tile_prefetch(k->ahead);
      UNROLL for (int n = 0; n < count; n++) {
        vec decay_im, decay = scan_decay(complex, near, rate, A2[n], complex ? A2_im[n] : rate, &decay_im);
        vec re = decay * h[n] + dtu * (B_varies ? vec_set(B[n]) : B_fixed[n]);
        if (complex) {
          re -= decay_im * h_im[n];
          h_im[n] = decay * h_im[n] + decay_im * h[n] + dtu * (B_varies ? vec_set(B_im[n]) : B_fixed_im[n]);
        }
        h[n] = re;
      }
    }
  }
  UNROLL for (int n = 0; n < count; n++) {
    state[n] = h[n];
    if (complex) state[k->states + n] = h_im[n];
  }
}

/* States of every step of the tile, the one before each segment with them, decays, and y. */
INLINE void recompute(int count, tile_form form, const block_tile *k, int64_t first, const vec *start) {
  const bool B_varies = form.B_varies, C_varies = form.C_varies, complex = form.complex, near = form.near;
  const vec *A2 = k->A2 + first, *A2_im = A2 + k->states;
  const vec *B_fixed = k->B_fixed + first, *B_fixed_im = B_fixed + k->states;
  const vec *C_fixed = k->C_fixed + first, *C_fixed_im = C_fixed + k->states;
  vec h[STATES], h_im[STATES];
  start += first;
  UNROLL for (int n = 0; n < count; n++) {
    h[n] = start[n];
    if (complex) h_im[n] = start[k->states + n];
  }
  for (int i = 0; i < k->cut->count; i++) {
    scan_segment segment = k->cut->at[i];
    vec *kept = k->h + (segment.begin + i) * SLOT(complex);
    UNROLL for (int n = 0; n < count; n++) {
      if (segment.resets) h[n] = h_im[n] = vec_set(0);
      kept[n] = h[n];
      if (complex) kept[STATES + n] = h_im[n];
    }
    for (int t = segment.begin; t < segment.end; t++) {
      const float *B = k->B.data + t * k->B.stride + first, *B_im = B + k->states;
      const float *C = k->C.data + t * k->C.stride + first, *C_im = C + k->states;
      vec rate = k->rate[t], dtu = k->dtu[t], y = complex ? vec_set(0) : k->y[t],
          *kept_decay = k->decay + t * SLOT(complex);
      tile_prefetch(k->ahead);
      kept += SLOT(complex);
      UNROLL for (int n = 0; n < count; n++) {
        vec decay_im, decay = scan_decay(complex, near, rate, A2[n], complex ? A2_im[n] : rate, &decay_im);
        vec re = decay * h[n] + dtu * (B_varies ? vec_set(B[n]) : B_fixed[n]);
        if (complex) {
          re -= decay_im * h_im[n];
          h_im[n] = decay * h_im[n] + decay_im * h[n] + dtu * (B_varies ? vec_set(B_im[n]) : B_fixed_im[n]);
          y -= h_im[n] * (C_varies ? vec_set(C_im[n]) : C_fixed_im[n]);
          kept_decay[STATES + n] = decay_im;
          kept[STATES + n] = h_im[n];
        }
        h[n] = re;
        y = h[n] * (C_varies ? vec_set(C[n]) : C_fixed[n]) + y;
        kept_decay[n] = decay;
        kept[n] = h[n];
      }
      k->y[t] = complex ? k->y[t] + vec_set(2) * y : y;
    }
  }
}

/* The steps of the tile backwards. With q = conj(h[t-1]) conj(decay) dh:  sum_A = sum of Re(conj(A2) q),
 * dA = sum of rate q. */
INLINE void walk_back(int count, tile_form form, const block_tile *k, int64_t first) {
  const bool B_varies = form.B_varies, C_varies = form.C_varies, complex = form.complex;
  const int64_t im = k->states, numbers = complex ? 2 * im : im;
  const vec *A2 = k->A2 + first, *B_fixed = k->B_fixed + first, *C_fixed = k->C_fixed + first;
  const vec unit = vec_set(LOG2E); /* between those of A2's parts */
  vec dh[STATES], dh_im[STATES], dA[STATES], dA_im[STATES];
  UNROLL for (int n = 0; n < count; n++) {
    dh[n] = k->dh[first + n];
    dA[n] = dA_im[n] = vec_set(0); /* a tile's own: the sum of all is rounded once a tile */
    if (complex) dh_im[n] = k->dh[im + first + n];
  }
  for (int i = k->cut->count - 1; i >= 0; i--) {
    scan_segment segment = k->cut->at[i];
    for (int t = segment.end - 1; t >= segment.begin; t--) {
      const float *B = k->B.data + t * k->B.stride + first, *C = k->C.data + t * k->C.stride + first;
      const vec *before = k->h + (t + i) * SLOT(complex), *now = before + SLOT(complex);
      const vec *decay = k->decay + t * SLOT(complex);
      vec rate = k->rate[t], dtu = k->dtu[t], dy = complex ? vec_set(2) * k->dy[t] : k->dy[t];
      vec sum_B = k->sum_B[t], sum_A = k->sum_A[t];
      vec *sum_dB = (B_varies ? k->sum_dB + t * numbers : k->dB_fixed) + first;
      vec *sum_dC = (C_varies ? k->sum_dC + t * numbers : k->dC_fixed) + first;
      UNROLL for (int n = 0; n < count; n++) {
        sum_dC[n] = dy * now[n] + sum_dC[n];
        dh[n] = dy * (C_varies ? vec_set(C[n]) : C_fixed[n]) + dh[n];
        sum_dB[n] = dtu * dh[n] + sum_dB[n];
        sum_B = dh[n] * (B_varies ? vec_set(B[n]) : B_fixed[n]) + sum_B;
        if (!complex) {
          dh[n] *= decay[n];
          vec q = dh[n] * before[n];
          sum_A = q * A2[n] + sum_A;
          dA[n] = q * rate + dA[n];
          continue;
        }
        sum_dC[im + n] = sum_dC[im + n] - dy * now[STATES + n];
        dh_im[n] = dh_im[n] - dy * (C_varies ? vec_set(C[im + n]) : C_fixed[im + n]);
        sum_dB[im + n] = dtu * dh_im[n] + sum_dB[im + n];
        sum_B = dh_im[n] * (B_varies ? vec_set(B[im + n]) : B_fixed[im + n]) + sum_B;
        vec re = dh[n] * decay[n] + dh_im[n] * decay[STATES + n];
        dh_im[n] = dh_im[n] * decay[n] - dh[n] * decay[STATES + n];
        dh[n] = re;
        vec q = before[n] * dh[n] + before[STATES + n] * dh_im[n];
        vec q_im = before[n] * dh_im[n] - before[STATES + n] * dh[n];
        sum_A = q * A2[n] + q_im * (unit * A2[im + n]) + sum_A;
        dA[n] = q * rate + dA[n];
        dA_im[n] = q_im * rate + dA_im[n];
      }
      k->sum_B[t] = sum_B;
      k->sum_A[t] = sum_A;
    }
    UNROLL for (int n = 0; n < count; n++) if (segment.resets) dh[n] = dh_im[n] = vec_set(0);
  }
  UNROLL for (int n = 0; n < count; n++) {
    k->dh[first + n] = dh[n];
    k->dA[first + n] += dA[n];
    if (complex) k->dh[im + first + n] = dh_im[n];
    if (complex) k->dA[im + first + n] += dA_im[n];
  }
}

INLINE void some_states(int count, tile_form form, const block_tile *k, int64_t first, vec *start) {
  if (form.forward) {
    advance(count, form, k, first, start);
    return;
  }
  recompute(count, form, k, first, start);
  walk_back(count, form, k, first);
}

INLINE void all_states(tile_form form, const block_tile *k, vec *start) {
  const int group = form.complex && STATES > STATE_QUANTUM ? STATES / 2 : STATES;
  int64_t n = 0;
  for (; n + group <= k->states; n += group) some_states(group, form, k, n, start);
  if (group > STATE_QUANTUM)
    for (; n < k->states; n += STATE_QUANTUM) some_states(STATE_QUANTUM, form, k, n, start);
}

INLINE void run_kind(bool complex, bool near, const selective_scan_shape *s, bool forward, const block_tile *k,
                     vec *start) {
  if (forward) {
    if (s->B_varies) all_states((tile_form){true, false, complex, near, true}, k, start);
    else all_states((tile_form){false, false, complex, near, true}, k, start);
  } else if (s->B_varies && s->C_varies) all_states((tile_form){true, true, complex, near, false}, k, start);
  else if (s->B_varies) all_states((tile_form){true, false, complex, near, false}, k, start);
  else if (s->C_varies) all_states((tile_form){false, true, complex, near, false}, k, start);
  else all_states((tile_form){false, false, complex, near, false}, k, start);
}

static void run_near(const selective_scan_shape *s, bool forward, const block_tile *k, vec *start) {
  run_kind(false, true, s, forward, k, start);
}
static void run_far(const selective_scan_shape *s, bool forward, const block_tile *k, vec *start) {
  run_kind(false, false, s, forward, k, start);
}
static void run_complex(const selective_scan_shape *s, bool forward, const block_tile *k, vec *start) {
  run_kind(true, false, s, forward, k, start);
}

/* `forward`: `start` from the tile's beginning to its end. Else the gradient; `start` is only read. */
static void run_block(const selective_scan_shape *s, bool near, bool forward, const block_tile *k, vec *start) {
  (s->complex ? run_complex : near ? run_near : run_far)(s, forward, k, start);
}

#endif

/* Shared by the kernels of SSD.
 *
 * A row (of the batch, or a packed sequence) is cut into chunks and these into pieces of at most SSD_STEPS steps;
 * each piece has a slot of the workspace. Products are tiles of SSD_STEPS x SSD_STEPS results, one for each
 * work-group of SSD_SIDE x SSD_SIDE work-items, 4 x 4 results for each of them.
 *
 *   SSD_SIDE     16, or 8 for devices with small work-groups and for CPUs
 *   SSD_SEQ      with seq_idx: a piece may hold several sequences, told apart by their number in it. What belongs to
 *                another sequence is left out of the sums, not multiplied with 0: it may not be a number.
 *   SSD_PACKED   with cu_seqlens */
#include "common.h"
#include "scan_flags.h"
#include "ssd_args.h"
#include "storage.h"

#ifndef SSD_SIDE
#define SSD_SIDE 16
#endif
#ifndef X_TYPE
#define X_TYPE f32
#endif
typedef STORAGE(X_TYPE) x_t;

#define SIDE SSD_SIDE
#ifdef SSD_SEQ /* a zero of `a` keeps b out of the sum */
#define MULTIPLY(sum, a, b) ((a) != 0.0f ? fma(a, b, sum) : (sum))
#endif
#include "tile.h"
#define SSD_STEPS  TILE
#define STEP_LIMIT (-1000.0f) /* of d A: its exponential is 0, and sums of it stay exact */
#define PADDING    (-1)       /* segment of a step that is padding                       */

/* ---- Where pieces lie ---- */

typedef struct piece {
  long row, batch; /* of the states, of the sequences */
  long begin;      /* its first step                  */
  int steps;
} piece;

typedef struct sequence {
  long begin, end, slot; /* its first slot */
} sequence;

#ifdef SSD_PACKED
/* The first step of sequence i, both counted in the order of the scan. */
static inline long sequence_begin(const ssd_args *a, global const int *ends, int i) {
  const long step =
      clamp((long)ends[a->ends_offset + (a->reversed ? a->rows - i : i) * a->ends_stride], 0L, a->length);
  return a->reversed ? a->length - step : step;
}

/* Never fewer slots than a sequence has pieces, and a sum that the host knows without reading cu_seqlens. */
static inline sequence sequence_of(const ssd_args *a, global const int *ends, int i) {
  sequence s;
  s.begin = sequence_begin(a, ends, i);
  s.end = max(s.begin, sequence_begin(a, ends, i + 1));
  s.slot = s.begin / a->steps + s.begin / a->chunk + 3L * i;
  return s;
}
#else
static inline sequence sequence_of(const ssd_args *a, global const int *ends, int i) {
  sequence s;
  s.begin = 0;
  s.end = a->length;
  s.slot = i * a->slots_of_row;
  return s;
}
#endif

/* The number of a row's pieces. */
static inline long count_pieces(const ssd_args *a, sequence s) {
  const long length = s.end - s.begin, rest = length % a->chunk;
  return length / a->chunk * a->pieces_of_chunk + (rest + a->steps - 1) / a->steps;
}

/* The piece of a slot; without steps where the slot is not used. */
static inline piece piece_of(const ssd_args *a, global const int *ends, long slot) {
  piece p;
#ifdef SSD_PACKED
  int low = 0, high = a->rows - 1;
  while (low < high) {
    const int middle = low + (high - low + 1) / 2;
    if (sequence_of(a, ends, middle).slot <= slot) low = middle;
    else high = middle - 1;
  }
  p.row = a->reversed ? a->rows - 1 - low : low;
  p.batch = 0;
  const sequence s = sequence_of(a, ends, low);
#else
  p.row = p.batch = slot / a->slots_of_row;
  const sequence s = sequence_of(a, ends, (int)p.row);
#endif
  const long i = slot - s.slot, chunk = i / a->pieces_of_chunk * a->chunk;
  const long from = chunk + i % a->pieces_of_chunk * a->steps;
  const long to = min(min(from + a->steps, chunk + a->chunk), s.end - s.begin);
  p.begin = s.begin + from;
  p.steps = (int)max(0L, to - from);
  return p;
}

/* ---- Steps and decays of a head in a piece ---- */

typedef struct decays {
  global const float *d, *sum, *rest; /* the logarithm of the decay up to a step is sum + rest */
  global const int *segments;
  int last; /* the last step of the piece */
} decays;

static inline decays decays_of(const ssd_args *a, global const float *work, long slot, int head, int steps) {
  const long at = (slot * a->heads + head) * a->steps;
  decays k;
  k.d = work + a->d + at;
  k.sum = work + a->sum + at;
  k.rest = work + a->rest + at;
  k.segments = (global const int *)(work + a->segments) + slot * a->steps;
  k.last = steps - 1;
  return k;
}

#ifdef SSD_SEQ
/* The number of a step's sequence in its piece; of padding the one before. A padded step has no d. */
static inline int segment_of(const decays *k, int step) { return k->segments[step] >> 1; }
static inline int is_padding(const decays *k, int step) { return k->segments[step] & 1; }
static inline int connected(const decays *k, int l, int s) { return segment_of(k, l) == segment_of(k, s); }
static inline int from_before(const decays *k, int l) { return segment_of(k, l) == 0; }
static inline int restarts(const decays *k) { return segment_of(k, k->last) > 0; }
#else
static inline int is_padding(const decays *k, int step) { return 0; }
static inline int connected(const decays *k, int l, int s) { return 1; }
static inline int from_before(const decays *k, int l) { return 1; }
static inline int restarts(const decays *k) { return 0; }
#endif

static inline float decay_to(const decays *k, int l, int s) {
  return exp((k->sum[l] - k->sum[s]) + (k->rest[l] - k->rest[s]));
}

/* From step s to step l, 0 where they are not connected. */
static inline float decay_between(const decays *k, int l, int s) {
  return s <= l && l <= k->last && connected(k, l, s) ? decay_to(k, l, s) : 0.0f;
}
/* Up to a step from the piece's begin, and after it to the piece's end. */
static inline float decay_from_begin(const decays *k, int l) {
  return l <= k->last && from_before(k, l) ? exp(k->sum[l] + k->rest[l]) : 0.0f;
}
static inline float decay_to_end(const decays *k, int s) { return decay_between(k, k->last, s); }

/* What of x at a step is left in the state at the piece's end. Of another sequence nothing, though its d may not be a
 * number. */
static inline float weight_to_end(const decays *k, int s) {
  const float decay = decay_to_end(k, s);
  return decay == 0.0f ? 0.0f : k->d[s] * decay;
}

/* ---- Elements ---- */

/* 0 where the step is padding or past the piece, or the index is past its dimension. */
static inline float element(global const x_t *x, const kernel_view *v, const piece *p, const decays *k, int step,
                            int i, int j, int size) {
  if (step >= p->steps || j >= size || is_padding(k, step)) return 0.0f;
  return LOAD(X_TYPE, x, view_at(v, p->batch, p->begin + step, i, j));
}

static inline float skip_of(const ssd_args *a, global const float *D, int head, int dim) {
  return a->flags & SSD_HAS_D ? D[a->D.offset + head * a->D.stride[0] + dim * a->D.stride[1]] : 0.0f;
}

/* dout silu(z) */
static inline float dy_of(const ssd_args *a, global const x_t *dout, global const x_t *z, const piece *p,
                          const decays *k, int step, int head, int dim) {
  const float dy = element(dout, &a->dout, p, k, step, head, dim, a->head_dim);
  if (!(a->flags & SSD_HAS_Z) || step >= p->steps || dim >= a->head_dim || is_padding(k, step)) return dy;
  return dy * silu(LOAD(X_TYPE, z, view_at(&a->z, p->batch, p->begin + step, head, dim)));
}

/* The place of (slot, head, dim, n) in states. */
static inline long state_at(const ssd_args *a, long slot, int head) {
  return (slot * a->heads + head) * a->head_dim * (long)a->d_state;
}

/* ---- Tiles ---- */

/* The steps' `u` (B or C of a group) times a state, or the gradient of one: columns p0 on of the result. */
static tile times_state(const ssd_args *a, global const x_t *u, const kernel_view *view, global const float *state,
                        const piece *p, const decays *k, int group, int p0, local float (*a_tile)[SSD_STEPS + 1],
                        local float (*b_tile)[SSD_STEPS + 1]) {
  WORK_ITEM;
  tile sum = tile_zero();
  for (int k0 = 0; k0 < a->d_state; k0 += DEPTH) {
    local_barrier();
    FOR_SLICE(e) {
      ALONG_K(e);
      a_tile[kk][i] = element(u, view, p, k, i, group, k0 + kk, a->d_state);
      b_tile[kk][i] =
          p0 + i < a->head_dim && k0 + kk < a->d_state ? state[(long)(p0 + i) * a->d_state + k0 + kk] : 0.0f;
    }
    local_barrier();
    tile_multiply(&sum, a_tile, b_tile, x, y);
  }
  ANCHOR
  return sum;
}

/* Shared by the kernels of SSD.
 *
 * A row (of the batch, or a packed sequence) is cut into chunks and these into pieces of at most TILE steps;
 * each piece has a slot of the workspace. Products are tiles of TILE x TILE results, one for each
 * work-group of SSD_SIDE x SSD_SIDE work-items, 4 x 4 results for each of them.
 *
 *   SSD_ENGINE   products on the matrix engine ENGINE_<name> (tile_engine.h); not with SSD_SEQ
 *   SSD_CHUNKS   on an engine, rows are whole chunks of eight numbers that loads of 16 bytes reach
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

#include "inline.h"
#include "panels.h"
#include "view.h"

#define SIDE SSD_SIDE
#ifdef SSD_SEQ /* a zero of `a` keeps b out of the sum */
#define MULTIPLY(sum, a, b) ((a) != 0.0f ? fma(a, b, sum) : (sum))
#endif
#ifdef SSD_ENGINE
#include "tile_engine.h"
#else
#include "tile.h"
#endif
#define STEP_LIMIT (-1000.0f) /* of d A: its exponential is 0, and sums of it stay exact */

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

/* Functions with barriers are always INLINE: where PoCL 3.1 has to inline them itself, sums of the gradient's tiles get
 * mixed up. */
#if defined(SSD_ENGINE) && !defined(ENGINE_EMULATED)
#define FUNCTION INLINE
#else
#define FUNCTION static inline
#endif

/* ---- Steps and decays of a head in a piece ---- */

/* In local memory, so that a tile's weights cost no look-ups. */
typedef local float (*step_memory)[TILE];
#define STEP_MEMORY(name) local float name[3][TILE]

typedef struct decays {
  local const float *d, *sum, *rest; /* the logarithm of the decay up to a step is sum + rest */
  global const int *segments;
  int last; /* the last step of the piece */
} decays;

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

/* Where a work-group is: a head, or the heads of a group, in a piece. */
typedef struct place {
  const ssd_args *a;
  global float *work;
  long slot;
  piece p;
  decays k; /* of `head` */
  int head, group;
} place;

FUNCTION void place_of(place *at, const ssd_args *a, global const int *ends, global float *work, long slot,
                       int head) {
  at->a = a;
  at->work = work;
  at->slot = slot;
  at->p = piece_of(a, ends, slot);
  at->head = head;
  at->group = head / (a->heads / a->groups);
  at->k.segments = (global const int *)(work + a->segments) + slot * a->steps;
  at->k.last = at->p.steps - 1;
}

/* The places of a piece and head in what the workspace keeps: of the first step; of the state; of C B^T of its group.
 */
FUNCTION long steps_at(const place *at) { return (at->slot * at->a->heads + at->head) * at->a->steps; }
static inline long state_at(const ssd_args *a, long slot, int head) {
  return (slot * a->heads + head) * a->head_dim * (long)a->d_state;
}
FUNCTION long between_at(const place *at) {
  return (at->slot * at->a->groups + at->group) * at->a->steps * (long)at->a->steps;
}

/* Brings a head's steps to local memory: all work-items of a tile. */
INLINE void enter_head(place *at, int head, step_memory steps) {
  const int item = tile_item();
  at->head = head;
  local_barrier();
  if (item < at->p.steps) {
    const long i = steps_at(at) + item;
    steps[0][item] = at->work[at->a->d + i];
    steps[1][item] = at->work[at->a->sum + i];
    steps[2][item] = at->work[at->a->rest + i];
  }
  local_barrier();
  at->k.d = steps[0];
  at->k.sum = steps[1];
  at->k.rest = steps[2];
}

/* Elements of a piece count from its first step and head: an engine's form has room for 32 bits (the host asks). */
#ifdef SSD_ENGINE
typedef int near_index;
#else
typedef long near_index;
#endif
typedef struct rows {
  global const x_t *first;
  near_index step, last; /* strides */
} rows;

/* What kernels read, each some of them; as a whole and from a place on. */
typedef struct buffers {
  global const x_t *x, *B, *C, *z, *dout;
  global const float *D;
} buffers;
typedef struct inputs {
  rows x, B, C, z, dout;
  global const float *D;
} inputs;

FUNCTION void rows_of(rows *r, global const x_t *x, const kernel_view *v, const place *at, int i) {
  r->first = x + view_at(v, at->p.batch, at->p.begin, i, 0);
  r->step = (near_index)v->stride[1];
  r->last = (near_index)v->stride[3];
}

FUNCTION void inputs_of(inputs *in, const place *at, const buffers *all) {
  rows_of(&in->x, all->x, &at->a->x, at, at->head);
  rows_of(&in->z, all->z, &at->a->z, at, at->head);
  rows_of(&in->dout, all->dout, &at->a->dout, at, at->head);
  rows_of(&in->B, all->B, &at->a->B, at, at->group);
  rows_of(&in->C, all->C, &at->a->C, at, at->group);
  in->D = all->D;
}

/* 0 where the step is padding or past the piece, or the index is past its dimension. */
FUNCTION float element(const place *at, const rows *r, int step, int j, int size) {
  if (step >= at->p.steps || j >= size || is_padding(&at->k, step)) return 0.0f;
  return LOAD(X_TYPE, r->first, step * r->step + j * r->last);
}

FUNCTION float x_of(const place *at, const inputs *in, int step, int dim) {
  return element(at, &in->x, step, dim, at->a->head_dim);
}
/* dout silu(z) */
FUNCTION float dy_of(const place *at, const inputs *in, int step, int dim) {
  const float dy = element(at, &in->dout, step, dim, at->a->head_dim);
  if (!(at->a->flags & SSD_HAS_Z)) return dy;
  if (step >= at->p.steps || dim >= at->a->head_dim || is_padding(&at->k, step)) return dy;
  return dy * silu(LOAD(X_TYPE, in->z.first, step * in->z.step + dim * in->z.last));
}

FUNCTION float skip_of(const place *at, const inputs *in, int dim) {
  const ssd_args *a = at->a;
  return a->flags & SSD_HAS_D ? in->D[a->D.offset + at->head * a->D.stride[0] + dim * a->D.stride[1]] : 0.0f;
}

/* ---- Slices of operands ---- */

/* What a work-item brings of a slice at once: neighbours along k of a row (along), or neighbouring rows of two numbers
 * of k (across). */
#ifdef SSD_CHUNKS
typedef float8 along, across;
#define FOR_ALONG(e)                        FOR_EIGHTS(e, TILE *DEPTH / 8)
#define FOR_ACROSS(e)                       FOR_EIGHTS(e, TILE *DEPTH / 16)
#define FOR_EIGHTS(e, count)                UNROLL for (int e = item; e < (count); e += TILE_ITEMS)
#define PLACE_ALONG(e)                      const int kk = e % (DEPTH / 8) * 8, i = e / (DEPTH / 8)
#define PLACE_ACROSS(e)                     const int kk = e / (TILE / 8) * 2, i = e % (TILE / 8) * 8
#define put_along_a(m, planes, row, k, v)   put_eight(m, planes, row, k, v)
#define put_along_b(m, planes, row, k, v)   put_eight((m) + OPERAND_BYTES, planes, row, k, v)
#define put_across_a(m, planes, row, k, v, next) put_eight_rows(m, planes, row, k, v, next)
#define put_across_b(m, planes, row, k, v, next) put_eight_rows((m) + OPERAND_BYTES, planes, row, k, v, next)

INLINE float8 eight_f32(global const float *p) {
  const float4 low = *(global const float4 *)p, high = *(global const float4 *)(p + 4);
  return (float8)(low, high);
}
INLINE float8 eight_bf16(global const ushort *p) {
  const uint4 w = *(global const uint4 *)p;
  const float4 low = as_float4(w << (uint4)(16)), high = as_float4(w & (uint4)(0xffff0000u));
  return (float8)(low.x, high.x, low.y, high.y, low.z, high.z, low.w, high.w);
}
INLINE float8 eight_f16(global const ushort *p) {
  const ushort8 h = as_ushort8(*(global const uint4 *)p);
  return (float8)(value_f16(h.s0), value_f16(h.s1), value_f16(h.s2), value_f16(h.s3), value_f16(h.s4),
                  value_f16(h.s5), value_f16(h.s6), value_f16(h.s7));
}
#define LOAD_EIGHT(type, p) STORAGE_PASTE(eight_, type)(p)

INLINE along load_along(const place *at, const rows *r, int step, int j, int size) {
  if (step >= at->p.steps || j >= size) return (float8)(0.0f);
  return LOAD_EIGHT(X_TYPE, r->first + (step * r->step + j));
}
#define load_across load_along
INLINE along floats_along(global const float *p, int left) { return left > 0 ? eight_f32(p) : (float8)(0.0f); }
#define floats_across floats_along
#else
typedef float2 along;
typedef float across;
#define FOR_ALONG(e)                             FOR_PAIRS(e)
#define FOR_ACROSS(e)                            FOR_PAIRS(e)
#define PLACE_ALONG(e)                           PAIR_ALONG_K(e)
#define PLACE_ACROSS(e)                          PAIR_ALONG_ROWS(e)
#define put_along_a(m, planes, row, k, v)        put_a(m, planes, row, k, (v).x, (v).y)
#define put_along_b(m, planes, row, k, v)        put_b(m, planes, row, k, (v).x, (v).y)
#define put_across_a(m, planes, row, k, v, next) put_a(m, planes, row, k, v, next)
#define put_across_b(m, planes, row, k, v, next) put_b(m, planes, row, k, v, next)

FUNCTION along load_along(const place *at, const rows *r, int step, int j, int size) {
  return (along)(element(at, r, step, j, size), element(at, r, step, j + 1, size));
}
#define load_across element
/* `left` of them lie before the end. */
FUNCTION along floats_along(global const float *p, int left) {
  return (along)(left > 0 ? p[0] : 0.0f, left > 1 ? p[1] : 0.0f);
}
FUNCTION across floats_across(global const float *p, int left) { return left > 0 ? p[0] : 0.0f; }
#endif

#define SILU(x) ((x) / (1.0f + exp(-(x))))
FUNCTION along dy_along(const place *at, const inputs *in, int step, int dim) {
  const along dy = load_along(at, &in->dout, step, dim, at->a->head_dim);
  if (!(at->a->flags & SSD_HAS_Z)) return dy;
  return dy * SILU(load_along(at, &in->z, step, dim, at->a->head_dim));
}
FUNCTION across dy_across(const place *at, const inputs *in, int step, int dim) {
  const across dy = load_across(at, &in->dout, step, dim, at->a->head_dim);
  if (!(at->a->flags & SSD_HAS_Z)) return dy;
  return dy * SILU(load_across(at, &in->z, step, dim, at->a->head_dim));
}

/* ---- Tiles ---- */

/* The steps' B or C times a state, or the gradient of one: columns p0 on of the result. */
INLINE void times_state(tile *sum, const place *at, const rows *u, global const float *state, int p0,
                          tile_memory m) {
  const int item = tile_item(), d_state = at->a->d_state;
  tile_clear(sum);
  for (int k0 = 0; k0 < d_state; k0 += DEPTH) {
    local_barrier();
    FOR_ALONG(e) {
      PLACE_ALONG(e);
      const int n = k0 + kk, dim = p0 + i;
      put_along_a(m, PLANES_STORED, i, kk, load_along(at, u, i, n, d_state));
      put_along_b(m, PLANES_COMPUTED, i, kk,
                  floats_along(state + dim * d_state + n, dim < at->a->head_dim ? d_state - n : 0));
    }
    local_barrier();
    tile_add(sum, m, PLANES_STORED, PLANES_COMPUTED);
  }
  ANCHOR
}

/* A tile in local memory, and sums over it in the order of its rows and columns. */
typedef local float (*square)[TILE + 1];

FUNCTION void square_put(square s, const tile *t) {
  const int item = tile_item();
  FOR_RESULTS(e) s[tile_row(item, e)][tile_column(item, e)] = tile_result(t, e);
}
#define PARTS (TILE_ITEMS / TILE) /* of a row, each one work-item's */
#define PART  (TILE / PARTS)
/* The sum of row `item` of a tile that has been put there, in the first TILE work-items. `scratch`: TILE_ITEMS floats. */
INLINE float square_row(square s, local float *scratch) {
  const int item = tile_item(), row = item / PARTS, first = item % PARTS * PART;
  float sum = 0.0f;
  local_barrier();
  for (int i = 0; i < PART; i++) sum += s[row][first + i];
  scratch[item] = sum;
  local_barrier();
  sum = 0.0f;
  if (item < TILE)
    for (int i = 0; i < PARTS; i++) sum += scratch[item * PARTS + i];
  return sum;
}
static inline float square_column(square s, int column) {
  float sum = 0.0f;
  for (int i = 0; i < TILE; i++) sum += s[i][column];
  return sum;
}

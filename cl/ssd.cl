/* SSD (Mamba-2) in pieces: what lies within a piece is products of its steps with each other, what comes from before
 * it products with the state. In turn:
 *   ssd_steps     d and the sums of d A of each piece                          a work-group for some heads of a slot
 *   ssd_between   C B^T of the steps of a piece, for each group
 *   ssd_states    what a piece adds to the state (SSD_GRADIENT: to the gradient of the state before it)
 *   ssd_pass      from there the state before each piece (SSD_GRADIENT: the gradient of the state after each)
 *   ssd_out       the result; SSD_GRADIENT: what decays give through C and, unless SSD_NO_RESULT, out and dz
 * seq_idx, cu_seqlens and tiles: ssd.h. Sums have a fixed order. */
#include "ssd.h"

#ifdef SSD_SEQ
/* Segments of a piece: how often a sequence has begun in it, twice, plus 1 where a step is padding. */
static void write_segments(const ssd_args *a, global float *work, const piece *p, long slot) {
  global const uchar *marks = (global const uchar *)(work + a->marks) + p->batch * a->length + p->begin;
  global int *segments = (global int *)(work + a->segments) + slot * a->steps;
  int segment = 0;
  for (int i = 0; i < p->steps; i++) {
    segment += marks[i] == SCAN_BEGINS;
    segments[i] = 2 * segment + (marks[i] == SCAN_PADDING);
  }
}
#endif

static float step_size(const ssd_args *a, float raw) {
  float d = a->flags & SSD_SOFTPLUS ? softplus(raw) : raw;
  if (a->flags & SSD_LIMITED) d = d < a->dt_min ? a->dt_min : d > a->dt_max ? a->dt_max : d;
  return d;
}

/* Some heads of a piece; their steps one after the other, for sums in a fixed order. */
kernel __attribute__((reqd_work_group_size(SSD_STEP_ITEMS, 1, 1))) void
ssd_steps(const ssd_args a, global const x_t *dt, global const float *A, global const float *bias,
          global const int *ends, global float *work) {
  local float d[SSD_STEP_HEADS][TILE + 1], sums[SSD_STEP_HEADS][TILE + 1], rests[SSD_STEP_HEADS][TILE + 1];
  const int parts = (a.heads + SSD_STEP_HEADS - 1) / SSD_STEP_HEADS, item = (int)get_local_id(0);
  const int first = (int)(get_group_id(0) % parts) * SSD_STEP_HEADS, heads = min(SSD_STEP_HEADS, a.heads - first);
  const long slot = (long)get_group_id(0) / parts;
  const piece p = piece_of(&a, ends, slot);
#ifdef SSD_SEQ
  global const uchar *marks = (global const uchar *)(work + a.marks) + p.batch * a.length + p.begin;
  if (first == 0 && item == 0) write_segments(&a, work, &p, slot);
#endif
  for (int e = item; e < SSD_STEP_HEADS * p.steps; e += SSD_STEP_ITEMS) {
    const int t = e / SSD_STEP_HEADS, i = e % SSD_STEP_HEADS, head = first + i;
    if (i >= heads) continue;
    const float shift = a.flags & SSD_HAS_BIAS ? bias[a.bias.offset + head * a.bias.stride[0]] : 0.0f;
    float size = step_size(&a, LOAD(X_TYPE, dt, view_at(&a.dt, p.batch, p.begin + t, head, 0)) + shift);
#ifdef SSD_SEQ
    if (marks[t] == SCAN_PADDING) size = 0.0f;
#endif
    d[i][t] = size;
  }
  local_barrier();
  if (item < heads) {
    float rate = A[a.A.offset + (first + item) * a.A.stride[0]], sum = 0.0f, rest = 0.0f;
    int begun = 0;
    if (a.flags & SSD_A_LOG) rate = -exp(rate);
    for (int t = 0; t < p.steps; t++) {
#ifdef SSD_SEQ
      if (marks[t] == SCAN_BEGINS) {
        sum = rest = 0.0f; /* decays across are never asked for */
        begun = 1;
      }
#endif
      const float size = d[item][t], step = size == 0.0f ? 0.0f : size * rate,
                  bounded = step < STEP_LIMIT ? STEP_LIMIT : step;
      const float before = sum, added = before + bounded, part = added - before; /* two-sum */
      rest += (before - (added - part)) + (bounded - part);
      sum = added;
      sums[item][t] = sum;
      rests[item][t] = rest;
    }
    work[a.total + slot * a.heads + first + item] = begun ? -1.0f : exp(sum + rest);
  }
  local_barrier();
  for (int e = item; e < heads * p.steps; e += SSD_STEP_ITEMS) {
    const int i = e / p.steps, t = e % p.steps;
    const long at = (slot * a.heads + first + i) * a.steps + t;
    work[a.d + at] = d[i][t];
    work[a.sum + at] = sums[i][t];
    work[a.rest + at] = rests[i][t];
  }
}

kernel TILE_GROUP void ssd_between(const ssd_args a, global const x_t *B, global const x_t *C, global const int *ends,
                                   global float *work) {
  TILE_MEMORY(m);
  const int item = tile_item(), group = (int)(get_group_id(0) % a.groups);
  const buffers all = {.B = B, .C = C};
  place at;
  inputs in;
  place_of(&at, &a, ends, work, (long)get_group_id(0) / a.groups, group * (a.heads / a.groups));
  inputs_of(&in, &at, &all);
  tile sum;
  tile_clear(&sum);
  for (int k0 = 0; k0 < a.d_state; k0 += DEPTH) {
    local_barrier();
    FOR_ALONG(e) {
      PLACE_ALONG(e);
      put_along_a(m, PLANES_STORED, i, kk, load_along(&at, &in.C, i, k0 + kk, a.d_state));
      put_along_b(m, PLANES_STORED, i, kk, load_along(&at, &in.B, i, k0 + kk, a.d_state));
    }
    local_barrier();
    tile_add(&sum, m, PLANES_STORED, PLANES_STORED);
  }
  ANCHOR
  global float *between = work + a.between + between_at(&at);
  FOR_RESULTS(e) {
    const int l = tile_row(item, e), s = tile_column(item, e);
    if (l < at.p.steps && s < at.p.steps) between[(long)l * a.steps + s] = tile_result(&sum, e);
  }
}

/* A step's summand of the state: the weighted factor for a row, and that for a column. */
FUNCTION across row_factor(const place *at, const inputs *in, int step, int dim) {
  if (step >= at->p.steps) return (across)(0.0f);
#ifdef SSD_GRADIENT
  const float weight = decay_from_begin(&at->k, step);
  return weight == 0.0f ? (across)(0.0f) : weight * dy_across(at, in, step, dim);
#else
  const float weight = weight_to_end(&at->k, step);
  return weight == 0.0f ? (across)(0.0f) : weight * load_across(at, &in->x, step, dim, at->a->head_dim);
#endif
}
FUNCTION across column_factor(const place *at, const inputs *in, int step, int n) {
#ifdef SSD_GRADIENT
  return load_across(at, &in->C, step, n, at->a->d_state);
#else
  return load_across(at, &in->B, step, n, at->a->d_state);
#endif
}

/* Forward: u is x, v is B. SSD_GRADIENT: u is dout, v is C. */
kernel TILE_GROUP void ssd_states(const ssd_args a, global const x_t *u, global const x_t *v, global const x_t *z,
                                  global const int *ends, global float *work) {
  TILE_MEMORY(m);
  STEP_MEMORY(steps);
  const int item = tile_item(), tiles = (a.d_state + TILE - 1) / TILE;
  const int n0 = (int)get_group_id(1) % tiles * TILE, p0 = (int)get_group_id(1) / tiles * TILE;
  const buffers all = {.x = u, .dout = u, .B = v, .C = v, .z = z};
  place at;
  inputs in;
  place_of(&at, &a, ends, work, (long)get_group_id(0) / a.heads, (int)(get_group_id(0) % a.heads));
  enter_head(&at, at.head, steps);
  inputs_of(&in, &at, &all);
  tile sum;
  tile_clear(&sum);
  for (int k0 = 0; k0 < at.p.steps; k0 += DEPTH) {
    local_barrier();
    FOR_ACROSS(e) {
      PLACE_ACROSS(e);
      const int step = k0 + kk, dim = p0 + i, n = n0 + i;
      put_across_a(m, PLANES_COMPUTED, i, kk, row_factor(&at, &in, step, dim), row_factor(&at, &in, step + 1, dim));
      put_across_b(m, PLANES_STORED, i, kk, column_factor(&at, &in, step, n), column_factor(&at, &in, step + 1, n));
    }
    local_barrier();
    tile_add(&sum, m, PLANES_COMPUTED, PLANES_STORED);
  }
  ANCHOR
#ifdef SSD_GRADIENT
  global float *states = work + a.dstates + state_at(&a, at.slot, at.head);
#else
  global float *states = work + a.states + state_at(&a, at.slot, at.head);
#endif
  FOR_RESULTS(e) {
    const int dim = p0 + tile_row(item, e), n = n0 + tile_column(item, e);
    if (dim < a.head_dim && n < a.d_state) states[(long)dim * a.d_state + n] = tile_result(&sum, e);
  }
}

#define AHEAD 8 /* pieces that are loaded together */
#ifdef SSD_GRADIENT
#define PIECE(i) (count - 1 - (i)) /* the number i in the order of the pass */
#else
#define PIECE(i) (i)
#endif

/* Forward: in is the initial state, out the final one. SSD_GRADIENT: the final one's gradient, the initial one's. */
kernel void ssd_pass(const ssd_args a, global const float *in, global float *out, global const int *ends,
                     global float *work) {
  const long matrix = (long)a.head_dim * a.d_state, i = (long)get_global_id(0);
  const int index = (int)(i / matrix / a.heads), head = (int)(i / matrix % a.heads);
  if (index >= a.rows) return;
  const long dim = i % matrix / a.d_state, n = i % matrix % a.d_state;
  const sequence s = sequence_of(&a, ends, index);
  const long count = count_pieces(&a, s);
#ifdef SSD_PACKED
  const long row = a.reversed ? a.rows - 1 - index : index;
#else
  const long row = index;
#endif
  float state = a.flags & SSD_HAS_INITIAL ? in[view_at(&a.state_in, row, head, dim, n)] : 0.0f;
  const long next = (long)a.heads * matrix; /* from a piece's state to the next one's */
#ifdef SSD_GRADIENT
  global float *own = work + a.dstates + state_at(&a, s.slot, head) + i % matrix;
#else
  global float *own = work + a.states + state_at(&a, s.slot, head) + i % matrix;
#endif
  global const float *totals = work + a.total + s.slot * a.heads + head;
  for (long first = 0; first < count; first += AHEAD) {
    float added[AHEAD], total[AHEAD]; /* loads do not wait for the state */
    for (int e = 0; e < AHEAD; e++) {
      const long piece = PIECE(first + e);
      added[e] = first + e < count ? own[piece * next] : 0.0f;
      total[e] = first + e < count ? totals[piece * a.heads] : 0.0f;
    }
    for (int e = 0; e < AHEAD; e++) {
      if (first + e >= count) break;
      own[PIECE(first + e) * next] = state;
      state = total[e] < 0.0f ? added[e] : total[e] * state + added[e];
    }
  }
  if (a.flags & SSD_HAS_FINAL) out[view_at(&a.state_out, row, head, dim, n)] = state;
}

/* C times the state before the piece, times the decay up to each step: columns p0 on of the result. */
INLINE void through_state(tile *sum, const place *at, const inputs *in, int p0, tile_memory m) {
  const int item = tile_item();
  times_state(sum, at, &in->C, at->work + at->a->states + state_at(at->a, at->slot, at->head), p0, m);
  FOR_RESULTS(e) {
    const float decay = decay_from_begin(&at->k, tile_row(item, e));
    tile_result(sum, e) = decay == 0.0f ? 0.0f : decay * tile_result(sum, e);
  }
}

/* What x of step s counts in y of step l. */
FUNCTION float weighted(const place *at, global const float *between, int l, int s) {
  const float decay = decay_between(&at->k, l, s);
  return decay == 0.0f ? 0.0f : decay * at->k.d[s] * between[l * at->a->steps + s];
}

/* Adds what comes from the piece's own steps. */
INLINE void add_within(tile *sum, const place *at, const inputs *in, int p0, tile_memory m) {
  const int item = tile_item();
  global const float *between = at->work + at->a->between + between_at(at);
  for (int k0 = 0; k0 < at->p.steps; k0 += DEPTH) {
    local_barrier();
    FOR_PAIRS(e) {
      PAIR_ALONG_K(e);
      const int s = k0 + kk;
      put_a(m, PLANES_COMPUTED, i, kk, weighted(at, between, i, s), weighted(at, between, i, s + 1));
    }
    FOR_ACROSS(e) {
      PLACE_ACROSS(e);
      const int s = k0 + kk, dim = p0 + i, size = at->a->head_dim;
      put_across_b(m, PLANES_STORED, i, kk, load_across(at, &in->x, s, dim, size),
                   load_across(at, &in->x, s + 1, dim, size));
    }
    local_barrier();
    tile_add(sum, m, PLANES_COMPUTED, PLANES_STORED);
  }
  ANCHOR
}

typedef struct results {
  global x_t *out, *dz;
} results;

/* The gate: the result goes out; in the backward, where y is wanted, dz too. */
FUNCTION void write_result(const place *at, const inputs *in, const results *to, float y, int l, int dim) {
  const ssd_args *a = at->a;
  if (l >= at->p.steps || dim >= a->head_dim) return;
  const long step = at->p.begin + l;
#ifdef SSD_GRADIENT
  float dgate = 0.0f;
#endif
  if (is_padding(&at->k, l)) y = 0.0f;
  else {
    y += skip_of(at, in, dim) * x_of(at, in, l, dim);
    if (a->flags & SSD_HAS_Z) {
      const float gate = LOAD(X_TYPE, in->z.first, l * in->z.step + dim * in->z.last);
#ifdef SSD_GRADIENT
      dgate = LOAD(X_TYPE, in->dout.first, l * in->dout.step + dim * in->dout.last) * y * silu_gradient(gate);
#endif
      y *= silu(gate);
    }
  }
#ifdef SSD_GRADIENT
  if (a->flags & SSD_WANT_DZ) STORE(X_TYPE, to->dz, view_at(&a->dz, at->p.batch, step, at->head, dim), dgate);
  if (!(a->flags & SSD_WANT_OUT)) return;
#endif
  STORE(X_TYPE, to->out, view_at(&a->out, at->p.batch, step, at->head, dim), y);
}

kernel TILE_GROUP void ssd_out(const ssd_args a, global const x_t *x, global const x_t *C, global const float *D,
                               global const x_t *z, global const x_t *dout, global const int *ends, global x_t *out,
                               global x_t *dz, global float *work) {
  TILE_MEMORY(m);
  STEP_MEMORY(steps);
  const int item = tile_item();
  const buffers all = {.x = x, .C = C, .z = z, .dout = dout, .D = D};
  place at;
  inputs in;
  place_of(&at, &a, ends, work, (long)get_group_id(0) / a.heads, (int)(get_group_id(0) % a.heads));
  enter_head(&at, at.head, steps);
  inputs_of(&in, &at, &all);
#ifdef SSD_GRADIENT
  local float products[TILE][TILE + 1];
  float to = 0.0f; /* of step `item` */
#endif
  for (int p0 = 0; p0 < a.head_dim; p0 += TILE) {
    tile sum;
    through_state(&sum, &at, &in, p0, m);
#ifdef SSD_GRADIENT
    FOR_RESULTS(e) {
      const int l = tile_row(item, e), dim = tile_column(item, e);
      products[l][dim] = dy_of(&at, &in, l, p0 + dim) * tile_result(&sum, e);
    }
    to += square_row(products, (local float *)m);
#endif
#ifndef SSD_NO_RESULT
    add_within(&sum, &at, &in, p0, m);
    const results written = {out, dz};
    FOR_RESULTS(e)
    write_result(&at, &in, &written, tile_result(&sum, e), tile_row(item, e), p0 + tile_column(item, e));
#endif
  }
  ANCHOR
#ifdef SSD_GRADIENT
  if (item < at.p.steps) /* of another sequence nothing, though it may not be a number */
    work[a.to + steps_at(&at) + item] = decay_from_begin(&at.k, item) == 0.0f ? 0.0f : to;
#endif
}

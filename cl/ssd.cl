/* SSD (Mamba-2) in pieces: what lies within a piece is products of its steps with each other, what comes from before
 * it products with the state. In turn:
 *   ssd_steps     d and the sums of d A of each piece                          a work-item for each (slot, head)
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

kernel void ssd_steps(const ssd_args a, global const x_t *dt, global const float *A, global const float *bias,
                      global const int *ends, global float *work) {
  const long i = (long)get_global_id(0), slot = i / a.heads, at = i * a.steps;
  const int head = (int)(i % a.heads);
  if (slot >= a.slots) return;
  const piece p = piece_of(&a, ends, slot);
#ifdef SSD_SEQ
  global const uchar *marks = (global const uchar *)(work + a.marks) + p.batch * a.length + p.begin;
  if (head == 0) write_segments(&a, work, &p, slot);
#endif
  const float shift = a.flags & SSD_HAS_BIAS ? bias[a.bias.offset + head * a.bias.stride[0]] : 0.0f;
  float rate = A[a.A.offset + head * a.A.stride[0]], sum = 0.0f, rest = 0.0f;
  if (a.flags & SSD_A_LOG) rate = -exp(rate);
  for (int t = 0; t < p.steps; t++) {
    float d = step_size(&a, LOAD(X_TYPE, dt, view_at(&a.dt, p.batch, p.begin + t, head, 0)) + shift);
#ifdef SSD_SEQ
    if (marks[t] == SCAN_PADDING) d = 0.0f;
    if (marks[t] == SCAN_BEGINS) sum = rest = 0.0f; /* decays across are never asked for */
#endif
    const float step = d == 0.0f ? 0.0f : d * rate, bounded = step < STEP_LIMIT ? STEP_LIMIT : step;
    const float before = sum, added = before + bounded, part = added - before; /* two-sum */
    rest += (before - (added - part)) + (bounded - part);
    sum = added;
    work[a.d + at + t] = d;
    work[a.sum + at + t] = sum;
    work[a.rest + at + t] = rest;
  }
}

kernel TILE_GROUP void ssd_between(const ssd_args a, global const x_t *B, global const x_t *C, global const int *ends,
                                   global float *work) {
  local float a_tile[DEPTH][SSD_STEPS + 1], b_tile[DEPTH][SSD_STEPS + 1];
  WORK_ITEM;
  const long slot = (long)get_group_id(0) / a.groups;
  const int group = (int)(get_group_id(0) % a.groups);
  const piece p = piece_of(&a, ends, slot);
  const decays k = decays_of(&a, work, slot, 0, p.steps);
  tile sum = tile_zero();
  for (int k0 = 0; k0 < a.d_state; k0 += DEPTH) {
    local_barrier();
    FOR_SLICE(e) {
      ALONG_K(e);
      a_tile[kk][i] = element(C, &a.C, &p, &k, i, group, k0 + kk, a.d_state);
      b_tile[kk][i] = element(B, &a.B, &p, &k, i, group, k0 + kk, a.d_state);
    }
    local_barrier();
    tile_multiply(&sum, a_tile, b_tile, x, y);
  }
  ANCHOR
  for (int r = 0; r < 4; r++)
    for (int c = 0; c < 4; c++) {
      const int l = y + r * SIDE, s = x + c * SIDE;
      if (l < p.steps && s < p.steps)
        work[a.between + ((slot * a.groups + group) * a.steps + l) * a.steps + s] = sum.v[r][c];
    }
}

/* Forward: u is x, v is B. SSD_GRADIENT: u is dout, v is C. */
kernel TILE_GROUP void ssd_states(const ssd_args a, global const x_t *u, global const x_t *v, global const x_t *z,
                                  global const int *ends, global float *work) {
  local float a_tile[DEPTH][SSD_STEPS + 1], b_tile[DEPTH][SSD_STEPS + 1];
  WORK_ITEM;
  const long slot = (long)get_group_id(0) / a.heads;
  const int tiles = (a.d_state + SSD_STEPS - 1) / SSD_STEPS, head = (int)(get_group_id(0) % a.heads);
  const int group = head / (a.heads / a.groups);
  const int n0 = (int)get_group_id(1) % tiles * SSD_STEPS, p0 = (int)get_group_id(1) / tiles * SSD_STEPS;
  const piece p = piece_of(&a, ends, slot);
  const decays k = decays_of(&a, work, slot, head, p.steps);
  tile sum = tile_zero();
  for (int k0 = 0; k0 < p.steps; k0 += DEPTH) {
    local_barrier();
    FOR_SLICE(e) {
      ALONG_ROWS(e);
      const int step = k0 + kk;
      float weight = 0.0f, value = 0.0f;
      if (step < p.steps) {
#ifdef SSD_GRADIENT
        weight = decay_from_begin(&k, step);
        value = dy_of(&a, u, z, &p, &k, step, head, p0 + i);
        b_tile[kk][i] = element(v, &a.C, &p, &k, step, group, n0 + i, a.d_state);
#else
        weight = weight_to_end(&k, step);
        value = element(u, &a.x, &p, &k, step, head, p0 + i, a.head_dim);
        b_tile[kk][i] = element(v, &a.B, &p, &k, step, group, n0 + i, a.d_state);
#endif
      } else {
        b_tile[kk][i] = 0.0f;
      }
      a_tile[kk][i] = weight == 0.0f ? 0.0f : weight * value;
    }
    local_barrier();
    tile_multiply(&sum, a_tile, b_tile, x, y);
  }
  ANCHOR
#ifdef SSD_GRADIENT
  global float *states = work + a.dstates + state_at(&a, slot, head);
#else
  global float *states = work + a.states + state_at(&a, slot, head);
#endif
  for (int r = 0; r < 4; r++)
    for (int c = 0; c < 4; c++) {
      const int dim = p0 + y + r * SIDE, n = n0 + x + c * SIDE;
      if (dim < a.head_dim && n < a.d_state) states[(long)dim * a.d_state + n] = sum.v[r][c];
    }
}

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
  for (long j = 0; j < count; j++) {
#ifdef SSD_GRADIENT
    const long slot = s.slot + count - 1 - j;
    global float *own = work + a.dstates + state_at(&a, slot, head) + i % matrix;
#else
    const long slot = s.slot + j;
    global float *own = work + a.states + state_at(&a, slot, head) + i % matrix;
#endif
    const decays k = decays_of(&a, work, slot, head, piece_of(&a, ends, slot).steps);
    const float added = *own;
    *own = state;
    state = restarts(&k) ? added : decay_from_begin(&k, k.last) * state + added;
  }
  if (a.flags & SSD_HAS_FINAL) out[view_at(&a.state_out, row, head, dim, n)] = state;
}

/* C times the state before the piece, times the decay up to each step: columns p0 on of the result. */
static tile through_state(const ssd_args *a, global const x_t *C, global const float *work, const piece *p,
                          const decays *k, long slot, int head, int p0, local float (*a_tile)[SSD_STEPS + 1],
                          local float (*b_tile)[SSD_STEPS + 1]) {
  const int group = head / (a->heads / a->groups), y = (int)get_local_id(1);
  global const float *state = work + a->states + state_at(a, slot, head);
  tile sum = times_state(a, C, &a->C, state, p, k, group, p0, a_tile, b_tile);
  for (int r = 0; r < 4; r++) {
    const float decay = decay_from_begin(k, y + r * SIDE);
    for (int c = 0; c < 4; c++) sum.v[r][c] = decay == 0.0f ? 0.0f : decay * sum.v[r][c];
  }
  return sum;
}

/* Adds what comes from the piece's own steps. */
static void add_within(const ssd_args *a, tile *sum, global const x_t *in, global const float *work, const piece *p,
                       const decays *k, long slot, int head, int p0, local float (*a_tile)[SSD_STEPS + 1],
                       local float (*b_tile)[SSD_STEPS + 1]) {
  WORK_ITEM;
  const int group = head / (a->heads / a->groups);
  global const float *between = work + a->between + (slot * a->groups + group) * a->steps * (long)a->steps;
  for (int k0 = 0; k0 < p->steps; k0 += DEPTH) {
    local_barrier();
    FOR_SLICE(e) {
      ALONG_K(e);
      const int s = k0 + kk;
      const float decay = decay_between(k, i, s);
      a_tile[kk][i] = decay == 0.0f ? 0.0f : decay * between[(long)i * a->steps + s];
    }
    FOR_SLICE(e) {
      ALONG_ROWS(e);
      const int s = k0 + kk;
      b_tile[kk][i] = s < p->steps ? k->d[s] * element(in, &a->x, p, k, s, head, p0 + i, a->head_dim) : 0.0f;
    }
    local_barrier();
    tile_multiply(sum, a_tile, b_tile, x, y);
  }
  ANCHOR
}

/* The gate: the result goes out; in the backward, where y is wanted, dz too. */
static void write_result(const ssd_args *a, float y, int l, int dim, const piece *p, const decays *k, int head,
                         global const x_t *in, global const float *D, global const x_t *z, global x_t *out,
                         global const x_t *dout, global x_t *dz) {
  if (l >= p->steps || dim >= a->head_dim) return;
  const long step = p->begin + l;
#ifdef SSD_GRADIENT
  float dgate = 0.0f;
#endif
  if (is_padding(k, l)) y = 0.0f;
  else {
    y += skip_of(a, D, head, dim) * LOAD(X_TYPE, in, view_at(&a->x, p->batch, step, head, dim));
    if (a->flags & SSD_HAS_Z) {
      const float gate = LOAD(X_TYPE, z, view_at(&a->z, p->batch, step, head, dim));
#ifdef SSD_GRADIENT
      dgate = LOAD(X_TYPE, dout, view_at(&a->dout, p->batch, step, head, dim)) * y * silu_gradient(gate);
#endif
      y *= silu(gate);
    }
  }
#ifdef SSD_GRADIENT
  if (a->flags & SSD_WANT_DZ) STORE(X_TYPE, dz, view_at(&a->dz, p->batch, step, head, dim), dgate);
  if (!(a->flags & SSD_WANT_OUT)) return;
#endif
  STORE(X_TYPE, out, view_at(&a->out, p->batch, step, head, dim), y);
}

kernel TILE_GROUP void ssd_out(const ssd_args a, global const x_t *in, global const x_t *C, global const float *D,
                               global const x_t *z, global const x_t *dout, global const int *ends, global x_t *out,
                               global x_t *dz, global float *work) {
  local float a_tile[DEPTH][SSD_STEPS + 1], b_tile[DEPTH][SSD_STEPS + 1];
  WORK_ITEM;
  const long slot = (long)get_group_id(0) / a.heads;
  const int head = (int)(get_group_id(0) % a.heads);
  const piece p = piece_of(&a, ends, slot);
  const decays k = decays_of(&a, work, slot, head, p.steps);
#ifdef SSD_GRADIENT
  local float scratch[SSD_STEPS][SIDE + 1];
  float to[4] = {0.0f, 0.0f, 0.0f, 0.0f};
#endif
  for (int p0 = 0; p0 < a.head_dim; p0 += SSD_STEPS) {
    tile sum = through_state(&a, C, work, &p, &k, slot, head, p0, a_tile, b_tile);
#ifdef SSD_GRADIENT
    for (int r = 0; r < 4; r++)
      for (int c = 0; c < 4; c++)
        to[r] += dy_of(&a, dout, z, &p, &k, y + r * SIDE, head, p0 + x + c * SIDE) * sum.v[r][c];
#endif
#ifndef SSD_NO_RESULT
    add_within(&a, &sum, in, work, &p, &k, slot, head, p0, a_tile, b_tile);
    for (int r = 0; r < 4; r++)
      for (int c = 0; c < 4; c++)
        write_result(&a, sum.v[r][c], y + r * SIDE, p0 + x + c * SIDE, &p, &k, head, in, D, z, out, dout, dz);
#endif
  }
#ifdef SSD_GRADIENT
  for (int r = 0; r < 4; r++) scratch[y + r * SIDE][x] = to[r];
  local_barrier();
  if (ITEM < p.steps) /* of another sequence nothing, though it may not be a number */
    work[a.to + (slot * a.heads + head) * a.steps + ITEM] =
        decay_from_begin(&k, ITEM) == 0.0f ? 0.0f : row_sum(scratch, ITEM);
#endif
}

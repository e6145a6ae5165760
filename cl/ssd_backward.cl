/* Gradients of SSD, after the kernels of ssd.cl have left the states before the pieces and the gradients of those
 * after them, T. Per piece:
 *   ssd_inner           dx, and the gradient of d as far as it does not go through decays
 *   ssd_crossing        the gradient of C B^T, and what decays give from step to step
 *   ssd_inputs          parts of dB (SSD_OF_C: of dC), for some heads of a group each
 *   ssd_steps_backward  ddt, from all the decays that a step's d A is in; parts of dA and ddt_bias
 * The parts are added by scan_reduce. Sums have a fixed order; nothing is subtracted. */
#include "ssd.h"

/* B times T, times the decay from each step to the piece's end: columns p0 on. */
static tile through_gradient(const ssd_args *a, global const x_t *B, global const float *work, const piece *p,
                             const decays *k, long slot, int head, int p0, local float (*a_tile)[SSD_STEPS + 1],
                             local float (*b_tile)[SSD_STEPS + 1]) {
  const int group = head / (a->heads / a->groups), y = (int)get_local_id(1);
  global const float *gradient = work + a->dstates + state_at(a, slot, head);
  tile sum = times_state(a, B, &a->B, gradient, p, k, group, p0, a_tile, b_tile);
  for (int r = 0; r < 4; r++) {
    const float decay = decay_to_end(k, y + r * SIDE);
    for (int c = 0; c < 4; c++) sum.v[r][c] = decay == 0.0f ? 0.0f : decay * sum.v[r][c];
  }
  return sum;
}

/* Adds what the piece's later steps give. */
static void add_within(const ssd_args *a, tile *sum, global const x_t *dout, global const x_t *z,
                       global const float *work, const piece *p, const decays *k, long slot, int head, int p0,
                       local float (*a_tile)[SSD_STEPS + 1], local float (*b_tile)[SSD_STEPS + 1]) {
  WORK_ITEM;
  const int group = head / (a->heads / a->groups);
  global const float *between = work + a->between + (slot * a->groups + group) * a->steps * (long)a->steps;
  for (int k0 = 0; k0 < p->steps; k0 += DEPTH) {
    local_barrier();
    FOR_SLICE(e) {
      ALONG_ROWS(e);
      const int l = k0 + kk;
      const float decay = decay_between(k, l, i);
      a_tile[kk][i] = decay == 0.0f ? 0.0f : decay * between[(long)l * a->steps + i];
      b_tile[kk][i] = dy_of(a, dout, z, p, k, l, head, p0 + i);
    }
    local_barrier();
    tile_multiply(sum, a_tile, b_tile, x, y);
  }
  ANCHOR
}

/* dx of one element, and its part of dD. */
static float input_gradient(const ssd_args *a, float inner, int step, int dim, const piece *p, const decays *k,
                            int head, global const x_t *in, global const float *D, global const x_t *dout,
                            global const x_t *z, global x_t *dx) {
  if (step >= p->steps || dim >= a->head_dim) return 0.0f;
  const float dy = dy_of(a, dout, z, p, k, step, head, dim);
  const float value = is_padding(k, step) ? 0.0f : k->d[step] * inner + skip_of(a, D, head, dim) * dy;
  if (a->flags & SSD_WANT_DX) STORE(X_TYPE, dx, view_at(&a->out, p->batch, p->begin + step, head, dim), value);
  return dy * element(in, &a->x, p, k, step, head, dim, a->head_dim);
}

/* A work-item's numbers for rows i + SIDE r of `scratch`, in its column j: between barriers. */
static void put_rows(local float (*scratch)[SIDE + 1], const float *numbers, int i, int j) {
  local_barrier();
  for (int r = 0; r < 4; r++) scratch[i + r * SIDE][j] = numbers[r];
  local_barrier();
}

kernel TILE_GROUP void ssd_inner(const ssd_args a, global const x_t *in, global const x_t *B, global const float *D,
                                 global const x_t *z, global const x_t *dout, global const int *ends, global x_t *dx,
                                 global float *work) {
  local float a_tile[DEPTH][SSD_STEPS + 1], b_tile[DEPTH][SSD_STEPS + 1], scratch[SSD_STEPS][SIDE + 1];
  WORK_ITEM;
  const long slot = (long)get_group_id(0) / a.heads;
  const int head = (int)(get_group_id(0) % a.heads);
  const piece p = piece_of(&a, ends, slot);
  const decays k = decays_of(&a, work, slot, head, p.steps);
  const long row = (slot * a.heads + head) * a.steps;
  float from[4] = {0.0f, 0.0f, 0.0f, 0.0f}, inner[4] = {0.0f, 0.0f, 0.0f, 0.0f}, skip[4] = {0.0f, 0.0f, 0.0f, 0.0f};
  for (int p0 = 0; p0 < a.head_dim; p0 += SSD_STEPS) {
    float columns[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    tile sum = through_gradient(&a, B, work, &p, &k, slot, head, p0, a_tile, b_tile);
    for (int r = 0; r < 4; r++)
      for (int c = 0; c < 4; c++)
        from[r] += element(in, &a.x, &p, &k, y + r * SIDE, head, p0 + x + c * SIDE, a.head_dim) * sum.v[r][c];
    add_within(&a, &sum, dout, z, work, &p, &k, slot, head, p0, a_tile, b_tile);
    for (int r = 0; r < 4; r++)
      for (int c = 0; c < 4; c++) {
        const int step = y + r * SIDE, dim = p0 + x + c * SIDE;
        const float dD = input_gradient(&a, sum.v[r][c], step, dim, &p, &k, head, in, D, dout, z, dx);
        inner[r] += element(in, &a.x, &p, &k, step, head, dim, a.head_dim) * sum.v[r][c];
        skip[r] += dD;
        columns[c] += dD;
      }
    put_rows(scratch, columns, x, y);
    if (a.flags & SSD_WIDE_D && ITEM < SSD_STEPS && p0 + ITEM < a.head_dim)
      work[a.dD + (slot * a.heads + head) * a.head_dim + p0 + ITEM] = row_sum(scratch, ITEM);
  }
  ANCHOR
  put_rows(scratch, from, y, x);
  if (ITEM < p.steps)
    work[a.from + row + ITEM] = decay_to_end(&k, ITEM) == 0.0f ? 0.0f : k.d[ITEM] * row_sum(scratch, ITEM);
  put_rows(scratch, inner, y, x);
  if (ITEM < p.steps) work[a.inner + row + ITEM] = row_sum(scratch, ITEM);
  put_rows(scratch, skip, y, x);
  if (ITEM < SSD_STEPS) scratch[ITEM][SIDE] = row_sum(scratch, ITEM);
  local_barrier();
  if (ITEM > 0 || a.flags & SSD_WIDE_D) return;
  float all = 0.0f;
  for (int i = 0; i < SSD_STEPS; i++) all += scratch[i][SIDE];
  work[a.dD + slot * a.heads + head] = all;
}

/* dy x^T of the steps of a piece. */
static tile outer(const ssd_args *a, global const x_t *in, global const x_t *dout, global const x_t *z,
                  const piece *p, const decays *k, int head, local float (*a_tile)[SSD_STEPS + 1],
                  local float (*b_tile)[SSD_STEPS + 1]) {
  WORK_ITEM;
  tile sum = tile_zero();
  for (int k0 = 0; k0 < a->head_dim; k0 += DEPTH) {
    local_barrier();
    FOR_SLICE(e) {
      ALONG_K(e);
      a_tile[kk][i] = dy_of(a, dout, z, p, k, i, head, k0 + kk);
      b_tile[kk][i] = element(in, &a->x, p, k, i, head, k0 + kk, a->head_dim);
    }
    local_barrier();
    tile_multiply(&sum, a_tile, b_tile, x, y);
  }
  ANCHOR
  return sum;
}

/* The heads of a part: from, to. */
static int2 heads_of_part(const ssd_args *a, int group, int part) {
  const int all = a->heads / a->groups, each = (all + a->parts - 1) / a->parts;
  return (int2)(group * all + min(all, part * each), group * all + min(all, (part + 1) * each));
}

/* crossing[t] is the sum of products[l][s] over s < t <= l: first along each row, then down the columns. */
kernel TILE_GROUP void ssd_crossing(const ssd_args a, global const x_t *in, global const x_t *z,
                                    global const x_t *dout, global const int *ends, global float *work) {
  local float a_tile[DEPTH][SSD_STEPS + 1], b_tile[DEPTH][SSD_STEPS + 1], products[SSD_STEPS][SSD_STEPS + 1];
  WORK_ITEM;
  const long slot = (long)get_group_id(0) / a.groups, square = (long)a.steps * a.steps;
  const int group = (int)(get_group_id(0) % a.groups), part = (int)get_group_id(1);
  const int2 heads = heads_of_part(&a, group, part);
  const piece p = piece_of(&a, ends, slot);
  global const float *between = work + a.between + (slot * a.groups + group) * square;
  global float *to = work + a.dbetween + ((part * a.slots + slot) * a.groups + group) * square;
  tile total = tile_zero();
  for (int head = heads.x; head < heads.y; head++) {
    const decays k = decays_of(&a, work, slot, head, p.steps);
    tile sum = outer(&a, in, dout, z, &p, &k, head, a_tile, b_tile);
    for (int r = 0; r < 4; r++)
      for (int c = 0; c < 4; c++) {
        const int l = y + r * SIDE, s = x + c * SIDE;
        const float decay = decay_between(&k, l, s), one = decay == 0.0f ? 0.0f : decay * k.d[s] * sum.v[r][c];
        total.v[r][c] += one;
        products[l][s] = decay == 0.0f ? 0.0f : one * between[(long)l * a.steps + s];
      }
    local_barrier();
    if (ITEM < SSD_STEPS) {
      float before = 0.0f;
      for (int s = 0; s < SSD_STEPS; s++) {
        const float own = products[ITEM][s];
        products[ITEM][s] = before;
        before += own;
      }
    }
    local_barrier();
    if (ITEM < p.steps) {
      float column = 0.0f;
      for (int l = ITEM; l < p.steps; l++) column += products[l][ITEM];
      work[a.crossing + (slot * a.heads + head) * a.steps + ITEM] = column;
    }
  }
  ANCHOR
  for (int r = 0; r < 4; r++)
    for (int c = 0; c < 4; c++) {
      const int l = y + r * SIDE, s = x + c * SIDE;
      if (l < p.steps && s < p.steps) to[(long)l * a.steps + s] = total.v[r][c];
    }
}

#ifdef SSD_OF_C
#define OTHER B
#else
#define OTHER C
#endif

/* Adds what a head gives through the states: u T with u = d x and the decay to the end (SSD_OF_C: dy S). */
static void add_head(const ssd_args *a, tile *sum, global const x_t *in, global const x_t *z, global const x_t *dout,
                     global const float *work, const piece *p, long slot, int head, int n0,
                     local float (*a_tile)[SSD_STEPS + 1], local float (*b_tile)[SSD_STEPS + 1]) {
  WORK_ITEM;
  const decays k = decays_of(a, work, slot, head, p->steps);
#ifdef SSD_OF_C
  global const float *state = work + a->states + state_at(a, slot, head);
#else
  global const float *state = work + a->dstates + state_at(a, slot, head);
#endif
  for (int k0 = 0; k0 < a->head_dim; k0 += DEPTH) {
    local_barrier();
    FOR_SLICE(e) {
      ALONG_K(e);
      float weight = 0.0f, value = 0.0f;
      if (i < p->steps) {
#ifdef SSD_OF_C
        weight = decay_from_begin(&k, i);
        value = dy_of(a, dout, z, p, &k, i, head, k0 + kk);
#else
        weight = weight_to_end(&k, i);
        value = element(in, &a->x, p, &k, i, head, k0 + kk, a->head_dim);
#endif
      }
      a_tile[kk][i] = weight == 0.0f ? 0.0f : weight * value;
    }
    FOR_SLICE(e) {
      ALONG_ROWS(e);
      b_tile[kk][i] =
          k0 + kk < a->head_dim && n0 + i < a->d_state ? state[(long)(k0 + kk) * a->d_state + n0 + i] : 0.0f;
    }
    local_barrier();
    tile_multiply(sum, a_tile, b_tile, x, y);
  }
  ANCHOR
}

kernel TILE_GROUP void ssd_inputs(const ssd_args a, global const x_t *in, global const x_t *other,
                                  global const x_t *z, global const x_t *dout, global const int *ends,
                                  global float *work) {
  local float a_tile[DEPTH][SSD_STEPS + 1], b_tile[DEPTH][SSD_STEPS + 1];
  WORK_ITEM;
  const long slot = (long)get_group_id(0) / a.groups;
  const int tiles = (a.d_state + SSD_STEPS - 1) / SSD_STEPS, group = (int)(get_group_id(0) % a.groups);
  const int part = (int)get_group_id(1) / tiles, n0 = (int)get_group_id(1) % tiles * SSD_STEPS;
  const int2 heads = heads_of_part(&a, group, part);
  const piece p = piece_of(&a, ends, slot);
  const decays k = decays_of(&a, work, slot, 0, p.steps);
  global const float *dbetween =
      work + a.dbetween + ((part * a.slots + slot) * a.groups + group) * a.steps * (long)a.steps;
  tile sum = tile_zero();
  for (int head = heads.x; head < heads.y; head++)
    add_head(&a, &sum, in, z, dout, work, &p, slot, head, n0, a_tile, b_tile);
  for (int k0 = 0; k0 < p.steps; k0 += DEPTH) {
    local_barrier();
    FOR_SLICE(e) {
      ALONG_ROWS(e);
      const int step = k0 + kk, inside = i < p.steps && step < p.steps;
#ifdef SSD_OF_C
      a_tile[kk][i] = inside ? dbetween[(long)i * a.steps + step] : 0.0f;
#else
      a_tile[kk][i] = inside ? dbetween[(long)step * a.steps + i] : 0.0f;
#endif
      b_tile[kk][i] = element(other, &a.OTHER, &p, &k, step, group, n0 + i, a.d_state);
    }
    local_barrier();
    tile_multiply(&sum, a_tile, b_tile, x, y);
  }
  ANCHOR
  for (int r = 0; r < 4; r++)
    for (int c = 0; c < 4; c++) {
      const int step = y + r * SIDE, n = n0 + x + c * SIDE;
      const long at = ((part * (long)a.batch + p.batch) * a.length + p.begin + step) * a.groups + group;
      if (step < p.steps && n < a.d_state)
        work[a.inputs + at * a.d_state + n] = is_padding(&k, step) ? 0.0f : sum.v[r][c];
    }
}

/* ddt and the piece's sums, step by step; `whole`: what the decay of the whole piece gives. */
static void walk_steps(const ssd_args *a, float whole, const piece *p, const decays *k, long slot, int head,
                       global const x_t *dt, global const float *A, global const float *bias, global x_t *ddt,
                       global float *work) {
  const long at = (slot * a->heads + head) * a->steps;
  const float shift = a->flags & SSD_HAS_BIAS ? bias[a->bias.offset + head * a->bias.stride[0]] : 0.0f;
  float rate = A[a->A.offset + head * a->A.stride[0]], sum = 0.0f, dA = 0.0f, dbias = 0.0f;
  if (a->flags & SSD_A_LOG) rate = -exp(rate);
  for (int t = 0; t < p->steps; t++) {
    const float own = work[a->from + at + t];
    work[a->crossing + at + t] += sum;
    sum += own;
  }
  sum = whole;
  for (int t = p->steps - 1; t >= 0; t--) {
    sum += work[a->to + at + t];
    float gradient = 0.0f;
    if (!is_padding(k, t)) {
      const float raw = LOAD(X_TYPE, dt, view_at(&a->dt, p->batch, p->begin + t, head, 0)) + shift;
      const float d = a->flags & SSD_SOFTPLUS ? softplus(raw) : raw, gathered = work[a->crossing + at + t] + sum;
      const int held = (a->flags & SSD_LIMITED) && (d < a->dt_min || d > a->dt_max);
      if (!held) gradient = work[a->inner + at + t] + rate * gathered;
      if ((a->flags & SSD_SOFTPLUS) && raw <= 20.0f) gradient *= sigmoid(raw);
      dA += k->d[t] * gathered;
      dbias += gradient;
    }
    if (a->flags & SSD_WANT_DDT) STORE(X_TYPE, ddt, view_at(&a->ddt, p->batch, p->begin + t, head, 0), gradient);
  }
  work[a->dA + slot * a->heads + head] = a->flags & SSD_A_LOG ? dA * rate : dA;
  work[a->dbias + slot * a->heads + head] = dbias;
}

/* A work-group for each (slot, head). */
kernel void ssd_steps_backward(const ssd_args a, global const x_t *dt, global const float *A,
                               global const float *bias, global const int *ends, global x_t *ddt, global float *work,
                               local float *scratch) {
  const long slot = (long)get_group_id(0) / a.heads, matrix = (long)a.head_dim * a.d_state;
  const int head = (int)(get_group_id(0) % a.heads);
  const piece p = piece_of(&a, ends, slot);
  const decays k = decays_of(&a, work, slot, head, p.steps);
  float sum = 0.0f;
  if (p.steps > 0 && !restarts(&k))
    for (long i = (long)get_local_id(0); i < matrix; i += (long)get_local_size(0))
      sum += work[a.states + state_at(&a, slot, head) + i] * work[a.dstates + state_at(&a, slot, head) + i];
  sum = work_group_sum(sum, scratch);
  ANCHOR
  if (get_local_id(0) > 0) return;
  const float decay = p.steps > 0 ? decay_from_begin(&k, k.last) : 0.0f;
  walk_steps(&a, decay == 0.0f ? 0.0f : decay * sum, &p, &k, slot, head, dt, A, bias, ddt, work);
}

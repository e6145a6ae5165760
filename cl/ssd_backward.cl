/* Gradients of SSD, after the kernels of ssd.cl have left the states before the pieces and the gradients of those
 * after them, T. Per piece:
 *   ssd_inner           dx, and the gradient of d as far as it does not go through decays
 *   ssd_crossing        the gradient of C B^T, and what decays give from step to step
 *   ssd_inputs          parts of dB (SSD_OF_C: of dC), for some heads of a group each
 *   ssd_steps_backward  ddt, from all the decays that a step's d A is in; parts of dA and ddt_bias
 * The parts are added by scan_reduce. Sums have a fixed order; nothing is subtracted. */
#include "ssd.h"

/* B times T, times the decay from each step to the piece's end: columns p0 on. */
INLINE void through_gradient(tile *sum, const place *at, const inputs *in, int p0, tile_memory m) {
  const int item = tile_item();
  times_state(sum, at, &in->B, at->work + at->a->dstates + state_at(at->a, at->slot, at->head), p0, m);
  FOR_RESULTS(e) {
    const float decay = decay_to_end(&at->k, tile_row(item, e));
    tile_result(sum, e) = decay == 0.0f ? 0.0f : decay * tile_result(sum, e);
  }
}

/* What dy of step l counts in the gradient of d x at step s. */
FUNCTION float decayed(const place *at, global const float *between, int l, int s) {
  const float decay = decay_between(&at->k, l, s);
  return decay == 0.0f ? 0.0f : decay * between[l * at->a->steps + s];
}

/* Adds what the piece's later steps give. */
INLINE void add_within(tile *sum, const place *at, const inputs *in, int p0, tile_memory m) {
  const int item = tile_item();
  global const float *between = at->work + at->a->between + between_at(at);
  for (int k0 = 0; k0 < at->p.steps; k0 += DEPTH) {
    local_barrier();
    FOR_PAIRS(e) {
      PAIR_ALONG_ROWS(e);
      const int l = k0 + kk;
      put_a(m, PLANES_COMPUTED, i, kk, decayed(at, between, l, i), decayed(at, between, l + 1, i));
    }
    FOR_ACROSS(e) {
      PLACE_ACROSS(e);
      const int l = k0 + kk, dim = p0 + i;
      put_across_b(m, PLANES_COMPUTED, i, kk, dy_across(at, in, l, dim), dy_across(at, in, l + 1, dim));
    }
    local_barrier();
    tile_add(sum, m, PLANES_COMPUTED, PLANES_COMPUTED);
  }
  ANCHOR
}

/* Stores dx of one element; its part of dD. */
FUNCTION float input_gradient(const place *at, const inputs *in, global x_t *dx, float inner, int step, int dim) {
  const ssd_args *a = at->a;
  if (step >= at->p.steps || dim >= a->head_dim) return 0.0f;
  const float dy = dy_of(at, in, step, dim);
  const float value = is_padding(&at->k, step) ? 0.0f : at->k.d[step] * inner + skip_of(at, in, dim) * dy;
  if (a->flags & SSD_WANT_DX)
    STORE(X_TYPE, dx, view_at(&a->out, at->p.batch, at->p.begin + step, at->head, dim), value);
  return dy * x_of(at, in, step, dim);
}

/* t times x, element by element. */
FUNCTION void times_x(tile *product, const tile *t, const place *at, const inputs *in, int p0) {
  const int item = tile_item();
  FOR_RESULTS(e)
  tile_result(product, e) = x_of(at, in, tile_row(item, e), p0 + tile_column(item, e)) * tile_result(t, e);
}

/* The sum of row `item` of a tile, in the first TILE work-items: between barriers. */
INLINE float row_of(square s, const tile *t, tile_memory m) {
  local_barrier();
  square_put(s, t);
  return square_row(s, (local float *)m);
}

kernel TILE_GROUP void ssd_inner(const ssd_args a, global const x_t *x, global const x_t *B, global const float *D,
                                 global const x_t *z, global const x_t *dout, global const int *ends, global x_t *dx,
                                 global float *work) {
  TILE_MEMORY(m);
  STEP_MEMORY(steps);
  local float products[TILE][TILE + 1];
  const int item = tile_item();
  const buffers all = {.x = x, .B = B, .z = z, .dout = dout, .D = D};
  place at;
  inputs in;
  place_of(&at, &a, ends, work, (long)get_group_id(0) / a.heads, (int)(get_group_id(0) % a.heads));
  enter_head(&at, at.head, steps);
  inputs_of(&in, &at, &all);
  float from = 0.0f, inner = 0.0f, skip = 0.0f; /* of step `item` */
  for (int p0 = 0; p0 < a.head_dim; p0 += TILE) {
    tile sum, product;
    through_gradient(&sum, &at, &in, p0, m);
    times_x(&product, &sum, &at, &in, p0);
    from += row_of(products, &product, m);
    add_within(&sum, &at, &in, p0, m);
    times_x(&product, &sum, &at, &in, p0);
    inner += row_of(products, &product, m);
    FOR_RESULTS(e)
    tile_result(&product, e) =
        input_gradient(&at, &in, dx, tile_result(&sum, e), tile_row(item, e), p0 + tile_column(item, e));
    skip += row_of(products, &product, m);
    if (a.flags & SSD_WIDE_D && item < TILE && p0 + item < a.head_dim)
      work[a.dD + (at.slot * a.heads + at.head) * a.head_dim + p0 + item] = square_column(products, item);
  }
  ANCHOR
  if (item < at.p.steps) {
    work[a.from + steps_at(&at) + item] = decay_to_end(&at.k, item) == 0.0f ? 0.0f : at.k.d[item] * from;
    work[a.inner + steps_at(&at) + item] = inner;
  }
  local_barrier();
  if (item < TILE) products[item][0] = skip;
  local_barrier();
  if (item > 0 || a.flags & SSD_WIDE_D) return;
  work[a.dD + at.slot * a.heads + at.head] = square_column(products, 0);
}

/* dy x^T of the steps of a piece. */
INLINE void outer(tile *sum, const place *at, const inputs *in, tile_memory m) {
  const int item = tile_item();
  tile_clear(sum);
  for (int k0 = 0; k0 < at->a->head_dim; k0 += DEPTH) {
    local_barrier();
    FOR_ALONG(e) {
      PLACE_ALONG(e);
      put_along_a(m, PLANES_COMPUTED, i, kk, dy_along(at, in, i, k0 + kk));
      put_along_b(m, PLANES_STORED, i, kk, load_along(at, &in->x, i, k0 + kk, at->a->head_dim));
    }
    local_barrier();
    tile_add(sum, m, PLANES_COMPUTED, PLANES_STORED);
  }
  ANCHOR
}

/* The heads of a part: from, to. */
static int2 heads_of_part(const ssd_args *a, int group, int part) {
  const int all = a->heads / a->groups, each = (all + a->parts - 1) / a->parts;
  return (int2)(group * all + min(all, part * each), group * all + min(all, (part + 1) * each));
}

/* What decays give from step to step: crossing[t] is the sum of products[l][s] over s < t <= l, first along each row,
 * then down the columns. Whole work-groups call this. */
INLINE void cross(const place *at, square products) {
  const int item = tile_item();
  local_barrier();
  if (item < TILE) {
    float before = 0.0f;
    for (int s = 0; s < TILE; s++) {
      const float own = products[item][s];
      products[item][s] = before;
      before += own;
    }
  }
  local_barrier();
  if (item < at->p.steps) {
    float column = 0.0f;
    for (int l = item; l < at->p.steps; l++) column += products[l][item];
    at->work[at->a->crossing + steps_at(at) + item] = column;
  }
}

kernel TILE_GROUP void ssd_crossing(const ssd_args a, global const x_t *x, global const x_t *z,
                                    global const x_t *dout, global const int *ends, global float *work) {
  TILE_MEMORY(m);
  STEP_MEMORY(steps);
  local float products[TILE][TILE + 1];
  const int item = tile_item(), group = (int)(get_group_id(0) % a.groups), part = (int)get_group_id(1);
  const int2 heads = heads_of_part(&a, group, part);
  const buffers all = {.x = x, .z = z, .dout = dout};
  place at;
  inputs in;
  place_of(&at, &a, ends, work, (long)get_group_id(0) / a.groups, group * (a.heads / a.groups));
  global const float *between = work + a.between + between_at(&at);
  global float *to = work + a.dbetween + part * a.slots * a.groups * a.steps * a.steps + between_at(&at);
  tile total;
  tile_clear(&total);
  for (int head = heads.x; head < heads.y; head++) {
    enter_head(&at, head, steps);
    inputs_of(&in, &at, &all);
    tile sum;
    outer(&sum, &at, &in, m);
    FOR_RESULTS(e) {
      const int l = tile_row(item, e), s = tile_column(item, e);
      const float decay = decay_between(&at.k, l, s);
      const float one = decay == 0.0f ? 0.0f : decay * at.k.d[s] * tile_result(&sum, e);
      tile_result(&total, e) += one;
      products[l][s] = decay == 0.0f ? 0.0f : one * between[(long)l * a.steps + s];
    }
    cross(&at, products);
  }
  ANCHOR
  FOR_RESULTS(e) {
    const int l = tile_row(item, e), s = tile_column(item, e);
    if (l < at.p.steps && s < at.p.steps) to[(long)l * a.steps + s] = tile_result(&total, e);
  }
}

#ifdef SSD_OF_C
#define OTHER B
#else
#define OTHER C
#endif

/* d x times the decay to the end (SSD_OF_C: dy times that from the begin). */
FUNCTION along head_factor(const place *at, const inputs *in, int step, int dim) {
  if (step >= at->p.steps) return (along)(0.0f);
#ifdef SSD_OF_C
  const float weight = decay_from_begin(&at->k, step);
  return weight == 0.0f ? (along)(0.0f) : weight * dy_along(at, in, step, dim);
#else
  const float weight = weight_to_end(&at->k, step);
  return weight == 0.0f ? (along)(0.0f) : weight * load_along(at, &in->x, step, dim, at->a->head_dim);
#endif
}

/* Adds what a head gives through the states: u T with u = d x and the decay to the end (SSD_OF_C: dy S). */
INLINE void add_head(tile *sum, const place *at, const inputs *in, int n0, tile_memory m) {
  const ssd_args *a = at->a;
  const int item = tile_item();
#ifdef SSD_OF_C
  global const float *state = at->work + a->states + state_at(a, at->slot, at->head);
#else
  global const float *state = at->work + a->dstates + state_at(a, at->slot, at->head);
#endif
  for (int k0 = 0; k0 < a->head_dim; k0 += DEPTH) {
    local_barrier();
    FOR_ALONG(e) {
      PLACE_ALONG(e);
      put_along_a(m, PLANES_COMPUTED, i, kk, head_factor(at, in, i, k0 + kk));
    }
    FOR_ACROSS(e) {
      PLACE_ACROSS(e);
      const int dim = k0 + kk, n = n0 + i, left = a->d_state - n;
      global const float *from = state + dim * a->d_state + n;
      put_across_b(m, PLANES_COMPUTED, i, kk, floats_across(from, dim < a->head_dim ? left : 0),
                   floats_across(from + a->d_state, dim + 1 < a->head_dim ? left : 0));
    }
    local_barrier();
    tile_add(sum, m, PLANES_COMPUTED, PLANES_COMPUTED);
  }
  ANCHOR
}

/* The gradient of C B^T at a row and a step of the other; turned for dB. */
FUNCTION float turned(const place *at, global const float *dbetween, int i, int step) {
  if (i >= at->p.steps || step >= at->p.steps) return 0.0f;
#ifdef SSD_OF_C
  return dbetween[i * at->a->steps + step];
#else
  return dbetween[step * at->a->steps + i];
#endif
}

/* Adds what comes through C B^T: its gradient, turned for dB, times the other of B and C. */
INLINE void add_between(tile *sum, const place *at, const inputs *in, global const float *dbetween, int n0,
                          tile_memory m) {
  const int item = tile_item();
  for (int k0 = 0; k0 < at->p.steps; k0 += DEPTH) {
    local_barrier();
    FOR_PAIRS(e) {
      PAIR_ALONG_ROWS(e);
      const int step = k0 + kk;
      put_a(m, PLANES_COMPUTED, i, kk, turned(at, dbetween, i, step), turned(at, dbetween, i, step + 1));
    }
    FOR_ACROSS(e) {
      PLACE_ACROSS(e);
      const int step = k0 + kk, n = n0 + i, size = at->a->d_state;
      put_across_b(m, PLANES_STORED, i, kk, load_across(at, &in->OTHER, step, n, size),
                   load_across(at, &in->OTHER, step + 1, n, size));
    }
    local_barrier();
    tile_add(sum, m, PLANES_COMPUTED, PLANES_STORED);
  }
  ANCHOR
}

kernel TILE_GROUP void ssd_inputs(const ssd_args a, global const x_t *x, global const x_t *other, global const x_t *z,
                                  global const x_t *dout, global const int *ends, global float *work) {
  TILE_MEMORY(m);
  STEP_MEMORY(steps);
  const int item = tile_item(), tiles = (a.d_state + TILE - 1) / TILE, group = (int)(get_group_id(0) % a.groups);
  const int part = (int)get_group_id(1) / tiles, n0 = (int)get_group_id(1) % tiles * TILE;
  const int2 heads = heads_of_part(&a, group, part);
  const buffers all = {.x = x, .B = other, .C = other, .z = z, .dout = dout};
  place at;
  inputs in;
  place_of(&at, &a, ends, work, (long)get_group_id(0) / a.groups, group * (a.heads / a.groups));
  tile sum;
  tile_clear(&sum);
  inputs_of(&in, &at, &all);
  for (int head = heads.x; head < heads.y; head++) {
    enter_head(&at, head, steps);
    inputs_of(&in, &at, &all);
    add_head(&sum, &at, &in, n0, m);
  }
  add_between(&sum, &at, &in, work + a.dbetween + part * a.slots * a.groups * a.steps * a.steps + between_at(&at), n0,
              m);
  FOR_RESULTS(e) {
    const int step = tile_row(item, e), n = n0 + tile_column(item, e);
    const long to = ((part * (long)a.batch + at.p.batch) * a.length + at.p.begin + step) * a.groups + group;
    if (step < at.p.steps && n < a.d_state)
      work[a.inputs + to * a.d_state + n] = is_padding(&at.k, step) ? 0.0f : tile_result(&sum, e);
  }
}

/* What the walk over a piece's steps reads besides the workspace. */
typedef struct step_data {
  global const x_t *dt;
  global const float *A, *bias;
} step_data;

/* The gradients of a step's d A (gathered from all decays that it is in) and of its raw size. */
static float2 step_gradient(const place *at, const step_data *data, int t, float rate, float gathered) {
  const ssd_args *a = at->a;
  const float shift = a->flags & SSD_HAS_BIAS ? data->bias[a->bias.offset + at->head * a->bias.stride[0]] : 0.0f;
  if (is_padding(&at->k, t)) return (float2)(0.0f);
  const float raw = LOAD(X_TYPE, data->dt, view_at(&a->dt, at->p.batch, at->p.begin + t, at->head, 0)) + shift;
  const float d = a->flags & SSD_SOFTPLUS ? softplus(raw) : raw;
  const int held = (a->flags & SSD_LIMITED) && (d < a->dt_min || d > a->dt_max);
  float gradient = held ? 0.0f : at->work[a->inner + steps_at(at) + t] + rate * gathered;
  if ((a->flags & SSD_SOFTPLUS) && raw <= 20.0f) gradient *= sigmoid(raw);
  return (float2)(at->work[a->d + steps_at(at) + t] * gathered, gradient);
}

/* A work-group for each (slot, head). */
kernel void ssd_steps_backward(const ssd_args a, global const x_t *dt, global const float *A,
                               global const float *bias, global const int *ends, global x_t *ddt, global float *work,
                               local float *scratch) {
  local float from[TILE], to[TILE];
  local float2 parts[TILE];
  const long matrix = (long)a.head_dim * a.d_state;
  const int item = (int)get_local_id(0), items = (int)get_local_size(0);
  place at;
  place_of(&at, &a, ends, work, (long)get_group_id(0) / a.heads, (int)(get_group_id(0) % a.heads));
  const long state = state_at(&a, at.slot, at.head), first = steps_at(&at);
  float rate = A[a.A.offset + at.head * a.A.stride[0]], sum = 0.0f;
  if (a.flags & SSD_A_LOG) rate = -exp(rate);
  if (at.p.steps > 0 && !restarts(&at.k))
    for (long i = item; i < matrix; i += items) sum += work[a.states + state + i] * work[a.dstates + state + i];
  for (int t = item; t < at.p.steps; t += items) {
    from[t] = work[a.from + first + t];
    to[t] = work[a.to + first + t];
  }
  sum = work_group_sum(sum, scratch); /* and all steps are there */
  ANCHOR
  const float decay = at.p.steps > 0 ? work[a.total + at.slot * a.heads + at.head] : 0.0f; /* below 0: restarts */
  if (item == 0) { /* sums before each step, and from the end to it: with what the decay of the whole piece gives */
    float before = 0.0f, after = decay > 0.0f ? decay * sum : 0.0f;
    for (int t = 0; t < at.p.steps; t++) {
      const float own = from[t];
      from[t] = before;
      before += own;
    }
    for (int t = at.p.steps - 1; t >= 0; t--) to[t] = after += to[t];
  }
  local_barrier();
  const step_data data = {dt, A, bias};
  for (int t = item; t < at.p.steps; t += items) {
    parts[t] = step_gradient(&at, &data, t, rate, work[a.crossing + first + t] + from[t] + to[t]);
    if (a.flags & SSD_WANT_DDT)
      STORE(X_TYPE, ddt, view_at(&a.ddt, at.p.batch, at.p.begin + t, at.head, 0), parts[t].y);
  }
  local_barrier();
  if (item > 0) return;
  float2 all = (float2)(0.0f);
  for (int t = at.p.steps - 1; t >= 0; t--) all += parts[t];
  work[a.dA + at.slot * a.heads + at.head] = a.flags & SSD_A_LOG ? all.x * rate : all.x;
  work[a.dbias + at.slot * a.heads + at.head] = all.y;
}

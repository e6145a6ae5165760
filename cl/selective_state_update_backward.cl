/* Gradients of the state update. A work-item owns one channel of a batch row, a work-group UPDATE_GROUP channels of one
 * group: what they add to the gradients of B and C is summed in local memory, one state after the other. More than
 * UPDATE_STEPS steps are taken in blocks, from the last to the first: the states that each block starts from are
 * computed before, and lie in the workspace; each gives way to the gradient that goes on into the block before.
 *   bytes per channel: the state and its gradient read, the gradient and a part of dA written; the rest is small
 * Parts (update_gradient_args) are summed in order by state_update_sum. */
#include "state_update.h"

#ifdef UPDATE_BACKWARD
/* The inputs: buffers of the kernel's arguments, and the same as a struct for its functions. */
#define UPDATE_BUFFERS                                                                                                \
  global const x_t *restrict u, global const delta_t *restrict delta, global const STORAGE(A_TYPE) *restrict A,       \
      global const STORAGE(B_TYPE) *restrict B, global const STORAGE(C_TYPE) *restrict C,                             \
      global const float *restrict D, global const z_t *restrict z, global const float *restrict bias,                \
      global const int *restrict index

typedef struct update_inputs {
  global const x_t *u;
  global const delta_t *delta;
  global const STORAGE(A_TYPE) *A;
  global const STORAGE(B_TYPE) *B;
  global const STORAGE(C_TYPE) *C;
  global const z_t *z;
} update_inputs;

/* A channel, or one that a work-item only seems to have (own is false): where its tensors are. */
typedef struct update_channel {
  int number, head, dim, group;
  bool own;
} update_channel;

/* An element of a channel's input at a step of a batch row. */
static inline long channel_at(const kernel_view *v, const update_channel *c, int b, int t) {
  return view_at(v, b, t, c->head, c->dim);
}

static inline float weight_of(const kernel_view *v, const update_channel *c, global const float *weight) {
  return weight[view_at(v, c->head, c->dim, 0, 0)];
}

/* The sum of `value` over the work-group, in every work-item. */
INLINE float group_sum(float value, local float *scratch) {
  const int lid = (int)get_local_id(0);
  local_barrier();
  scratch[lid] = value;
  for (int step = WORK_GROUP / 2; step > 0; step /= 2) {
    local_barrier();
    if (lid < step) scratch[lid] += scratch[lid + step];
  }
  local_barrier();
  return scratch[0];
}

INLINE number_t group_sum_number(number_t value, local float *scratch) {
#if NUMBER_COMPLEX
  return (float2)(group_sum(value.x, scratch), group_sum(value.y, scratch));
#else
  return group_sum(value, scratch);
#endif
}

/* A channel of a batch row. */
typedef struct owned {
  const update_args *a;
  const update_gradient_args *g;
  update_inputs in;
  global const STORAGE(S_TYPE) *state;
  global const STORAGE(A_TYPE) *dnew; /* NULL: zeros */
  global const x_t *dout;
  global number_t *parts;
  update_channel c;
  int b;
  bool there;    /* it is the work-item's own, and the row is no padding */
  float D, bias; /* 0 where there is none                                */
  long row, matrix, block_size; /* its state; its numbers in (batch, channels, d_state), and how many that has */
  long inputs;                  /* its group's numbers in parts of dB and dC, at step 0                        */
} owned;

/* A block of steps: the inputs, and sums over the states. */
typedef struct block {
  int first;
  float dt[UPDATE_STEPS], slope[UPDATE_STEPS], x[UPDATE_STEPS], dy[UPDATE_STEPS];
  float y[UPDATE_STEPS], dx[UPDATE_STEPS], ddt[UPDATE_STEPS];
} block;

static inline int steps_of(const owned *o, const block *k) {
  return UPDATE_STEPS == 1 ? 1 : min(UPDATE_STEPS, o->a->steps - k->first);
}

static inline number_t A_of(const owned *o, int n) {
  return LOAD(A_TYPE, o->in.A, view_at(&o->a->A, o->c.head, o->c.dim, n, 0));
}
static inline number_t B_of(const owned *o, int t, int n) {
  return o->there ? LOAD(B_TYPE, o->in.B, view_at(&o->a->B, o->b, t, o->c.group, n)) : ZERO;
}
static inline number_t C_of(const owned *o, int t, int n) {
  return o->there ? LOAD(C_TYPE, o->in.C, view_at(&o->a->C, o->b, t, o->c.group, n)) : ZERO;
}
static inline number_t state_of(const owned *o, int n) {
  return LOAD(S_TYPE, o->state, view_at(&o->a->state, o->row, o->c.head, o->c.dim, n));
}

/* ---- Forwards ---- */

/* delta + bias and u of step t. */
static inline float delta_of(const owned *o, int t) {
  return LOAD(DELTA_TYPE, o->in.delta, channel_at(&o->a->delta, &o->c, o->b, t)) + o->bias;
}
static inline float u_of(const owned *o, int t) {
  return LOAD(X_TYPE, o->in.u, channel_at(&o->a->u, &o->c, o->b, t));
}

/* The states after each block but the last go to the workspace. */
INLINE void leave_starts(const owned *o, int blocks, block *k) {
  const int flags = o->a->flags;
  for (int i = 0; i + 1 < blocks && o->there; i++) {
    k->first = i * UPDATE_STEPS;
    for (int j = 0; j < UPDATE_STEPS; j++) {
      k->dt[j] = delta_of(o, k->first + j);
      if (flags & UPDATE_SOFTPLUS) k->dt[j] = fast_softplus(k->dt[j]);
      k->x[j] = u_of(o, k->first + j);
    }
    for (int n = 0; n < o->a->d_state; n++) {
      const number_t rate = rate_of(A_of(o, n), flags);
      const long start = o->g->starts + i * o->block_size + o->matrix + n;
      number_t now = i > 0 ? o->parts[start - o->block_size] : state_of(o, n);
      for (int j = 0; j < UPDATE_STEPS; j++)
        now = times(decay_of(k->dt[j], rate), now) + k->dt[j] * k->x[j] * B_of(o, k->first + j, n);
      o->parts[start] = now;
    }
  }
}

INLINE void block_load(const owned *o, int first, block *k) {
  const update_args *a = o->a;
  k->first = first;
  for (int i = 0; i < steps_of(o, k); i++) {
    const int t = first + i;
    k->dt[i] = k->slope[i] = k->x[i] = k->dy[i] = k->y[i] = k->dx[i] = k->ddt[i] = 0.0f;
    if (o->there) {
      const float argument = delta_of(o, t);
      k->dt[i] = a->flags & UPDATE_SOFTPLUS ? fast_softplus(argument) : argument;
      k->slope[i] = a->flags & UPDATE_SOFTPLUS && argument <= 20.0f ? fast_sigmoid(argument) : 1.0f;
      k->x[i] = u_of(o, t);
      k->dy[i] = LOAD(X_TYPE, o->dout, channel_at(&o->g->dout, &o->c, o->b, t));
      if (a->flags & UPDATE_HAS_Z) k->dy[i] *= swish(LOAD(Z_TYPE, o->in.z, channel_at(&a->z, &o->c, o->b, t)));
    }
  }
}

/* ---- Backwards ---- */

/* State n of the block: dh, the gradient of the state after it, becomes that of the state before it, h[0]. Adds to the
 * block's sums over states; the block's part of dA. */
INLINE number_t walk_back(const owned *o, int n, block *k, number_t *h, number_t *dh, local float *scratch) {
  const update_args *a = o->a;
  const int lid = (int)get_local_id(0), count = steps_of(o, k);
  const long step_numbers = (long)get_num_groups(1) * a->d_state;
  number_t A = o->there ? A_of(o, n) : ZERO;
  if (o->there && a->flags & UPDATE_A_LOG) A = -exponential(A);
  const number_t rate = rate_of(A, 0);
  for (int i = 0; i < count; i++)
    h[i + 1] = times(decay_of(k->dt[i], rate), h[i]) + k->dt[i] * k->x[i] * B_of(o, k->first + i, n);
  number_t da = ZERO;
  for (int i = count - 1; i >= 0; i--) {
    const int t = k->first + i;
    const number_t b_now = B_of(o, t, n), c_now = C_of(o, t, n);
    const number_t decay = decay_of(k->dt[i], rate), kept = times(decay, h[i]);
    const long input = o->inputs + t * step_numbers + n;
    k->y[i] += twice(real_part(times(c_now, h[i + 1])));
    *dh += twice(k->dy[i]) * conjugate(c_now);
    if (a->flags & UPDATE_PARTS_C) {
      const number_t sum = group_sum_number(twice(k->dy[i]) * conjugate(h[i + 1]), scratch);
      if (lid == 0) o->parts[o->g->C + input] = sum;
    }
    if (a->flags & UPDATE_PARTS_B) {
      const number_t sum = group_sum_number(k->dt[i] * k->x[i] * *dh, scratch);
      if (lid == 0) o->parts[o->g->B + input] = sum;
    }
    k->dx[i] += k->dt[i] * real_part(times(conjugate(b_now), *dh));
    k->ddt[i] += real_part(times(conjugate(b_now * k->x[i] + times(A, kept)), *dh));
    da += times(conjugate(k->dt[i] * kept), *dh);
    *dh = times(*dh, conjugate(decay));
  }
  return a->flags & UPDATE_A_LOG ? times(conjugate(A), da) : da;
}

/* Gradients of the channel's inputs at the block's steps; adds to its dD and dbias. */
INLINE void block_store(const owned *o, const block *k, global x_t *du, global delta_t *ddelta, global z_t *dz,
                        float *dD, float *dbias) {
  const update_gradient_args *g = o->g;
  for (int i = 0; i < steps_of(o, k) && o->c.own; i++) {
    const int t = k->first + i;
    const float from_dt = k->ddt[i] * k->slope[i];
    *dD += k->dy[i] * k->x[i];
    *dbias += from_dt;
    if (du) STORE(X_TYPE, du, channel_at(&g->du, &o->c, o->b, t), k->dx[i] + o->D * k->dy[i]);
    if (ddelta) STORE(DELTA_TYPE, ddelta, channel_at(&g->ddelta, &o->c, o->b, t), from_dt);
    if (dz) {
      const float gate = o->there ? LOAD(Z_TYPE, o->in.z, channel_at(&o->a->z, &o->c, o->b, t)) : 0.0f;
      const float from_out = o->there ? LOAD(X_TYPE, o->dout, channel_at(&g->dout, &o->c, o->b, t)) : 0.0f;
      STORE(Z_TYPE, dz, channel_at(&g->dz, &o->c, o->b, t),
            from_out * (k->y[i] + o->D * k->x[i]) * swish_gradient(gate));
    }
  }
}

/* Which channel of which row. */
INLINE void place(const update_args *a, const update_gradient_args *g, global const int *index, owned *o) {
  const int group = (int)get_group_id(1), groups = (int)get_num_groups(1), chunk = (int)get_group_id(0);
  const int of_group = a->group_heads * a->head_dim, in_group = chunk * WORK_GROUP + (int)get_local_id(0);
  o->a = a;
  o->g = g;
  o->b = (int)get_group_id(2);
  o->c.own = in_group < of_group;
  o->c.number = group * of_group + (o->c.own ? in_group : 0);
  o->c.head = o->c.number / a->head_dim;
  o->c.dim = o->c.number % a->head_dim;
  o->c.group = group;
  o->row = row_of(index, view_at(&a->index, o->b, 0, 0, 0), o->b, a->pool);
  o->there = o->c.own && o->row >= 0;
  o->matrix = ((long)o->b * a->channels + o->c.number) * a->d_state;
  o->block_size = (long)a->batch * a->channels * a->d_state;
  o->inputs = (((long)chunk * a->batch + o->b) * a->steps * groups + group) * a->d_state;
}

kernel __attribute__((reqd_work_group_size(WORK_GROUP, 1, 1))) void selective_state_update_backward(
    const update_args a, const update_gradient_args g, global const STORAGE(S_TYPE) *restrict state, UPDATE_BUFFERS,
    global const x_t *restrict dout, global const STORAGE(A_TYPE) *restrict dnew, global x_t *restrict du,
    global delta_t *restrict ddelta, global z_t *restrict dz, global STORAGE(A_TYPE) *restrict dstate,
    global number_t *restrict parts) {
  local float scratch[WORK_GROUP];
  owned o = {.in = {u, delta, A, B, C, z}, .state = state, .dnew = dnew, .dout = dout, .parts = parts};
  place(&a, &g, index, &o);
  o.D = o.there && a.flags & UPDATE_HAS_D ? weight_of(&a.D, &o.c, D) : 0.0f;
  o.bias = o.there && a.flags & UPDATE_HAS_BIAS ? weight_of(&a.bias, &o.c, bias) : 0.0f;
  const int blocks = (a.steps + UPDATE_STEPS - 1) / UPDATE_STEPS;
  block now;
  number_t h[UPDATE_STEPS + 1];
  float dD = 0.0f, dbias = 0.0f;
  leave_starts(&o, blocks, &now);
  for (int k = blocks - 1; k >= 0; k--) {
    const bool last = k + 1 == blocks;
    block_load(&o, k * UPDATE_STEPS, &now);
    for (int n = 0; n < a.d_state; n++) {
      const long start = g.starts + (k - 1) * o.block_size + o.matrix + n, to = g.A + o.matrix + n;
      h[0] = ZERO;
      if (o.there) h[0] = k > 0 ? parts[start] : state_of(&o, n);
      number_t dh = ZERO;
      if (o.there && !last) dh = parts[start + o.block_size];
      else if (o.there && dnew) dh = LOAD(A_TYPE, dnew, view_at(&g.dnew, o.b, o.c.head, o.c.dim, n));
      const number_t da = walk_back(&o, n, &now, h, &dh, scratch);
      if (o.c.own && a.flags & UPDATE_PARTS_A) parts[to] = last ? da : parts[to] + da;
      if (o.there && k > 0) parts[start] = dh;
      if (o.c.own && dstate && k == 0) STORE(A_TYPE, dstate, view_at(&g.dstate, o.b, o.c.head, o.c.dim, n), dh);
    }
    block_store(&o, &now, du, ddelta, dz, &dD, &dbias);
  }
  if (o.c.own) {
    const long at = (long)o.b * a.channels + o.c.number;
    if (a.flags & UPDATE_PARTS_D) parts[g.D + at] = NUMBER(dD);
    if (a.flags & UPDATE_PARTS_DT) parts[g.dt + at] = NUMBER(dbias);
  }
}
#else
/* G_TYPE: f32, f16, bf16, or c64. */
kernel void state_update_sum(const update_sum_args a, global const number_t *restrict parts,
                             global STORAGE(G_TYPE) *restrict out) {
  const long at = (long)get_global_id(0);
  number_t sum = ZERO;
  for (int p = 0; p < a.count; p++) sum += parts[a.parts + p * a.stride + at];
  const long l = at % a.size[3], k = at / a.size[3] % a.size[2], j = at / a.size[3] / a.size[2] % a.size[1],
             i = at / a.size[3] / a.size[2] / a.size[1];
#if SUM_REAL_PART
  STORE(G_TYPE, out, view_at(&a.out, i, j, k, l), real_part(sum));
#else
  STORE(G_TYPE, out, view_at(&a.out, i, j, k, l), sum);
#endif
}
#endif

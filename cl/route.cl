/* The router of a mixture of experts: a work-group for each token, its experts' scores in local memory.
 *
 * Experts are chosen one after another, each by a reduction of (choice, number) in which equal choices go to the
 * lower number, so the result never depends on timing. */
#include "common.h"
#include "inline.h"
#include "moe_args.h"
#include "storage.h"
#include "view.h"

#ifndef X_TYPE /* of logits and dlogits */
#define X_TYPE f32
#endif
typedef STORAGE(X_TYPE) x_t;

/* Local memory of a work-group. */
typedef struct route_memory {
  local float *scores, *choice; /* of each expert                                                 */
  local int *state;             /* of each expert: OPEN, CLOSED, or CHOSEN + its place            */
  local float *most;            /* of each work-item, as the next                                 */
  local int *at;
} route_memory;

#define OPEN   0
#define CLOSED 1
#define CHOSEN 2

INLINE void lay_out(route_memory *m, local float *memory, int experts) {
  m->scores = memory;
  m->choice = memory + experts;
  m->state = (local int *)(memory + 2 * experts);
  m->most = memory + 3 * experts;
  m->at = (local int *)(m->most + get_local_size(0));
}

INLINE void score(const route_args *g, global const x_t *logits, long token, const route_memory *m) {
  const int lid = (int)get_local_id(0), items = (int)get_local_size(0);
  float largest = -INFINITY, sum = 0.0f;
  for (int e = lid; e < g->experts; e += items) {
    m->scores[e] = LOAD(X_TYPE, logits, view_at(&g->logits, token, e, 0, 0));
    largest = fmax(largest, m->scores[e]);
  }
  m->most[lid] = largest;
  for (int step = items / 2; step > 0; step /= 2) {
    local_barrier();
    if (lid < step) m->most[lid] = fmax(m->most[lid], m->most[lid + step]);
  }
  local_barrier();
  largest = m->most[0];
  for (int e = lid; e < g->experts; e += items) {
    m->scores[e] = g->flags & ROUTE_SIGMOID ? sigmoid(m->scores[e]) : exp(m->scores[e] - largest);
    sum += m->scores[e];
  }
  sum = work_group_sum(sum, m->most);
  if (!(g->flags & ROUTE_SIGMOID))
    for (int e = lid; e < g->experts; e += items) m->scores[e] /= sum;
}

/* The open one with the largest value, of equal ones the first. */
INLINE int best_of(local const float *values, local const int *state, int count, const route_memory *m) {
  const int lid = (int)get_local_id(0), items = (int)get_local_size(0);
  int best = -1;
  float most = 0.0f;
  local_barrier(); /* what the others have written */
  for (int i = lid; i < count; i += items)
    if (state[i] == OPEN && (best < 0 || values[i] > most)) {
      best = i;
      most = values[i];
    }
  m->most[lid] = most;
  m->at[lid] = best;
  for (int step = items / 2; step > 0; step /= 2) {
    local_barrier();
    if (lid < step) {
      const int other = m->at[lid + step], own = m->at[lid];
      const float value = m->most[lid + step];
      if (other >= 0 && (own < 0 || value > m->most[lid] || (value == m->most[lid] && other < own))) {
        m->at[lid] = other;
        m->most[lid] = value;
      }
    }
  }
  local_barrier();
  return m->at[0];
}

/* The two largest choices of a group together. */
INLINE float group_value(local const float *choice, int size) {
  float first = -INFINITY, second = -INFINITY;
  for (int i = 0; i < size; i++) {
    if (choice[i] > first) {
      second = first;
      first = choice[i];
    } else if (choice[i] > second)
      second = choice[i];
  }
  return size > 1 ? first + second : first;
}

/* Closes the experts of all groups but the best. `groups` has a value and a state for each group. */
INLINE void close_groups(const route_args *g, local float *groups, const route_memory *m) {
  const int lid = (int)get_local_id(0), items = (int)get_local_size(0), size = g->experts / g->groups;
  local int *state = (local int *)(groups + g->groups);
  local_barrier();
  for (int i = lid; i < g->groups; i += items) {
    groups[i] = group_value(m->choice + i * size, size);
    state[i] = OPEN;
  }
  for (int left = g->top_groups; left > 0; left--) {
    const int best = best_of(groups, state, g->groups, m);
    if (lid == 0) state[best] = CHOSEN;
  }
  local_barrier();
  for (int e = lid; e < g->experts; e += items) m->state[e] = state[e / size] == CHOSEN ? OPEN : CLOSED;
}

/* memory: 3 floats for each expert, 2 for each work-item, 2 for each group. */
__kernel void route(const route_args g, __global const x_t *logits, __global const float *bias, __global int *ids,
                    __global float *weights, __local float *memory) {
  const int lid = (int)get_local_id(0), items = (int)get_local_size(0);
  const long token = (long)get_group_id(0);
  route_memory m;
  lay_out(&m, memory, g.experts);
  score(&g, logits, token, &m);
  for (int e = lid; e < g.experts; e += items) {
    float choice = m.scores[e];
    if (g.flags & ROUTE_HAS_BIAS) choice += bias[view_at(&g.bias, e, 0, 0, 0)];
    m.choice[e] = isnan(choice) ? -INFINITY : choice;
    m.state[e] = OPEN;
  }
  if (g.groups > g.top_groups) close_groups(&g, (local float *)(m.at + items), &m);
  float sum = 1e-20f;
  for (int j = 0; j < g.chosen; j++) {
    const int best = best_of(m.choice, m.state, g.experts, &m);
    sum += m.scores[best];
    if (lid == 0) m.state[best] = CHOSEN + j;
  }
  local_barrier();
  const float factor = g.flags & ROUTE_NORMALIZE ? g.scale / sum : g.scale;
  for (int e = lid; e < g.experts; e += items) {
    const int j = m.state[e] - CHOSEN;
    if (j >= 0) {
      ids[view_at(&g.ids, token, j, 0, 0)] = e;
      weights[view_at(&g.weights, token, j, 0, 0)] = factor * m.scores[e];
    }
  }
}

INLINE float score_at(const route_args *g, const route_memory *m, int id) {
  return id >= 0 && id < g->experts ? m->scores[id] : 0.0f;
}

/* memory as above, without groups. */
__kernel void route_backward(const route_args g, __global const x_t *logits, __global const int *ids,
                             __global const float *dweights, __global x_t *dlogits, __local float *memory) {
  const int lid = (int)get_local_id(0), items = (int)get_local_size(0);
  const long token = (long)get_group_id(0);
  const int normalize = g.flags & ROUTE_NORMALIZE, softmax = !(g.flags & ROUTE_SIGMOID);
  route_memory m;
  lay_out(&m, memory, g.experts);
  score(&g, logits, token, &m);
  local_barrier();
  float sum = 1e-20f, product = 0.0f;
  for (int j = 0; j < g.chosen; j++) {
    const float s = score_at(&g, &m, ids[view_at(&g.ids, token, j, 0, 0)]);
    sum += s;
    product += s * dweights[view_at(&g.dweights, token, j, 0, 0)];
  }
  float own = 0.0f; /* gradients of scores times scores */
  for (int e = lid; e < g.experts; e += items) {
    float ds = 0.0f;
    for (int j = 0; j < g.chosen; j++) {
      const float dw = dweights[view_at(&g.dweights, token, j, 0, 0)];
      if (ids[view_at(&g.ids, token, j, 0, 0)] == e) ds += g.scale * (normalize ? (dw - product / sum) / sum : dw);
    }
    m.choice[e] = ds;
    own += ds * m.scores[e];
  }
  own = work_group_sum(own, m.most);
  for (int e = lid; e < g.experts; e += items) {
    const float s = m.scores[e], ds = m.choice[e];
    STORE(X_TYPE, dlogits, view_at(&g.dlogits, token, e, 0, 0), s * (softmax ? ds - own : ds * (1.0f - s)));
  }
}

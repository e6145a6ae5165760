#include "reference.h"
#include <stdlib.h>

/* One token at work. */
typedef struct route_memory {
  double *scores, *choice; /* of each expert */
  bool *closed;            /* experts that cannot be chosen (any more) */
} route_memory;

static clm_status allocate(clm_context *ctx, const char *op, const route_shape *s, route_memory *m) {
  m->scores = ref_alloc(ctx, op, s->experts, 2 * sizeof *m->scores + sizeof *m->closed);
  if (!m->scores) return CLM_OUT_OF_MEMORY;
  m->choice = m->scores + s->experts;
  m->closed = (bool *)(m->choice + s->experts);
  return CLM_OK;
}

static void score(const route_shape *s, const clm_route_args *a, int64_t token, double *scores) {
  double largest = -INFINITY, sum = 0;
  for (int64_t e = 0; e < s->experts; e++) largest = fmax(largest, GET(a->logits, token, e));
  for (int64_t e = 0; e < s->experts; e++) {
    const double logit = GET(a->logits, token, e);
    scores[e] = a->scores == CLM_ROUTE_SIGMOID ? ref_sigmoid(logit) : exp(logit - largest);
    sum += scores[e];
  }
  for (int64_t e = 0; e < s->experts && a->scores == CLM_ROUTE_SOFTMAX; e++) scores[e] /= sum;
}

/* The first of the largest that are not closed. */
static int64_t best_of(const double *values, const bool *closed, int64_t count) {
  int64_t best = -1;
  for (int64_t i = 0; i < count; i++)
    if (!closed[i] && (best < 0 || values[i] > values[best])) best = i;
  return best;
}

/* The two largest choices of a group together. */
static double group_value(const double *choice, int64_t size) {
  double first = -INFINITY, second = -INFINITY;
  for (int64_t i = 0; i < size; i++) {
    if (choice[i] > first) {
      second = first;
      first = choice[i];
    } else if (choice[i] > second) second = choice[i];
  }
  return size > 1 ? first + second : first;
}

/* Closes the experts of all groups but the best, by the rule that chooses experts. */
static void close_groups(const route_shape *s, const route_memory *m) {
  const int64_t size = s->experts / s->n_groups;
  for (int64_t e = 0; e < s->experts; e++) m->closed[e] = s->n_groups > s->top_groups;
  if (s->n_groups == s->top_groups) return;
  for (int64_t left = s->top_groups; left > 0; left--) {
    int64_t best = -1;
    double most = 0;
    for (int64_t g = 0; g < s->n_groups; g++) {
      const double value = group_value(m->choice + g * size, size);
      if (!m->closed[g * size] || (best >= 0 && !(value > most))) continue;
      best = g;
      most = value;
    }
    for (int64_t i = 0; i < size; i++) m->closed[best * size + i] = false;
  }
}

static void choose(const route_shape *s, const clm_route_args *a, int64_t token, const route_memory *m) {
  double sum = 1e-20;
  for (int64_t e = 0; e < s->experts; e++) {
    m->choice[e] = m->scores[e] + GET(a->bias, e);
    if (isnan(m->choice[e])) m->choice[e] = -INFINITY;
  }
  close_groups(s, m);
  for (int64_t j = 0; j < s->chosen; j++) {
    const int64_t e = best_of(m->choice, m->closed, s->experts);
    m->closed[e] = true;
    sum += m->scores[e];
    SET(a->ids, (double)e, token, j);
  }
  for (int64_t j = 0; j < s->chosen; j++) {
    const double weight = s->scale * m->scores[(int64_t)GET(a->ids, token, j)];
    SET(a->weights, a->normalize ? weight / sum : weight, token, j);
  }
}

clm_status ref_route(clm_context *ctx, const route_shape *s, const clm_route_args *a) {
  route_memory m;
  if (allocate(ctx, "route", s, &m)) return CLM_OUT_OF_MEMORY;
  for (int64_t t = 0; t < s->tokens; t++) {
    score(s, a, t, m.scores);
    choose(s, a, t, &m);
  }
  free(m.scores);
  context_explain(ctx, "route: cpu reference, in double");
  return CLM_OK;
}

static bool is_expert(const route_shape *s, double id) { return id >= 0 && id < (double)s->experts; }

/* weight = scale score / sum, where scores are normalized; ds is the gradient of the scores. */
static void score_gradient(const route_shape *s, const clm_route_backward_args *b, int64_t token,
                           const double *scores, double *ds) {
  const clm_route_args *a = &b->forward;
  double sum = 1e-20, product = 0;
  for (int64_t e = 0; e < s->experts; e++) ds[e] = 0;
  for (int64_t j = 0; j < s->chosen; j++) {
    const double id = GET(a->ids, token, j);
    if (!is_expert(s, id)) continue;
    sum += scores[(int64_t)id];
    product += scores[(int64_t)id] * GET(b->dweights, token, j);
  }
  for (int64_t j = 0; j < s->chosen; j++) {
    const double id = GET(a->ids, token, j), dw = GET(b->dweights, token, j);
    if (is_expert(s, id)) ds[(int64_t)id] += s->scale * (a->normalize ? (dw - product / sum) / sum : dw);
  }
}

clm_status ref_route_backward(clm_context *ctx, const route_shape *s, const clm_route_backward_args *b) {
  const bool softmax = b->forward.scores == CLM_ROUTE_SOFTMAX;
  route_memory m;
  if (allocate(ctx, "route_backward", s, &m)) return CLM_OUT_OF_MEMORY;
  double *ds = m.choice;
  for (int64_t t = 0; t < s->tokens; t++) {
    double product = 0;
    score(s, &b->forward, t, m.scores);
    score_gradient(s, b, t, m.scores, ds);
    for (int64_t e = 0; e < s->experts && softmax; e++) product += ds[e] * m.scores[e];
    for (int64_t e = 0; e < s->experts; e++)
      SET(b->dlogits, m.scores[e] * (softmax ? ds[e] - product : ds[e] * (1 - m.scores[e])), t, e);
  }
  free(m.scores);
  context_explain(ctx, "route_backward: cpu reference, in double");
  return CLM_OK;
}

/* Adds up what the experts of each token gave, times their weights: a work-item for each number of the output, which
 * adds in the order of the token's choices. The gradient of the weights is a work-group for each. */
#include "common.h"
#include "moe_args.h"
#include "storage.h"
#include "view.h"

#ifndef Y_TYPE /* of y and dy */
#define Y_TYPE f32
#endif
#ifndef OUT_TYPE /* of residual, out and dout */
#define OUT_TYPE f32
#endif
#ifndef DY_TYPE
#define DY_TYPE f32
#endif
typedef STORAGE(Y_TYPE) y_t;
typedef STORAGE(OUT_TYPE) out_t;
typedef STORAGE(DY_TYPE) dy_t;

static inline float weight_at(const combine_args *g, __global const float *weights, long token, int j) {
  return g->flags & COMBINE_HAS_WEIGHTS ? weights[view_at(&g->weights, token, j, 0, 0)] : 1.0f;
}

__kernel void combine(const combine_args g, __global const y_t *y, __global const int *places,
                      __global const float *weights, __global const out_t *residual, __global out_t *out) {
  const long number = (long)get_global_id(0), token = number / g.dim, d = number % g.dim;
  if (token >= g.tokens) return;
  float sum = 0.0f;
  for (int j = 0; j < g.chosen; j++) {
    const int row = places[view_at(&g.places, token, j, 0, 0)];
    if (row >= 0 && row < g.rows)
      sum = fma(weight_at(&g, weights, token, j), LOAD(Y_TYPE, y, view_at(&g.y, row, d, 0, 0)), sum);
  }
  if (g.flags & COMBINE_HAS_RESIDUAL) sum += LOAD(OUT_TYPE, residual, view_at(&g.residual, token, d, 0, 0));
  STORE(OUT_TYPE, out, view_at(&g.out, token, d, 0, 0), sum);
}

__kernel void combine_rows(const combine_args g, __global const int *order, __global const float *weights,
                           __global const out_t *dout, __global dy_t *dy) {
  const long number = (long)get_global_id(0), row = number / g.dim, d = number % g.dim;
  if (row >= g.rows) return;
  const long pair = order[view_at(&g.order, row, 0, 0, 0)], token = pair / g.chosen;
  float value = 0.0f;
  if (pair >= 0 && token < g.tokens)
    value = weight_at(&g, weights, token, (int)(pair % g.chosen)) *
            LOAD(OUT_TYPE, dout, view_at(&g.dout, token, d, 0, 0));
  STORE(DY_TYPE, dy, view_at(&g.dy, row, d, 0, 0), value);
}

/* Work-groups: a pair of token and place each. */
__kernel void combine_weights(const combine_args g, __global const y_t *y, __global const int *places,
                              __global const out_t *dout, __global float *dweights, __local float *scratch) {
  const long pair = (long)get_group_id(0), token = pair / g.chosen;
  const int j = (int)(pair % g.chosen), lid = (int)get_local_id(0), items = (int)get_local_size(0);
  const int row = places[view_at(&g.places, token, j, 0, 0)];
  float sum = 0.0f;
  if (row >= 0 && row < g.rows)
    for (int d = lid; d < g.dim; d += items)
      sum = fma(LOAD(Y_TYPE, y, view_at(&g.y, row, d, 0, 0)), LOAD(OUT_TYPE, dout, view_at(&g.dout, token, d, 0, 0)),
                sum);
  sum = work_group_sum(sum, scratch);
  if (lid == 0) dweights[view_at(&g.dweights, token, j, 0, 0)] = sum;
}

/* RMSNorm with a gate, of groups of columns, forward and backward: one work-group for each group of each row.
 * -DNORM_BEFORE_GATE: the gate comes after the norm.
 *
 *   out = before s^ weight after, one of before and after is silu(z), the other 1
 *   s = before x, s^ = s scale, scale = 1 / sqrt(mean(s^2) + epsilon)
 *   ds = scale (g - s^ mean(g s^)) with g = dout weight after
 *
 * A group is read from memory once; later passes over it find it in the cache. The gradient of the weight is a sum over
 * rows: columns.h. */
#include "columns.h"
#include "common.h"
#include "gated_norm_args.h"
#include "storage.h"

#ifndef X_TYPE /* of all matrices; weight and sums are f32 */
#define X_TYPE f32
#endif
typedef STORAGE(X_TYPE) x_t;

static inline long place(const gated_norm_view v, long row, long column) {
  return v.offset + row * v.row + column * v.column;
}

#ifdef NORM_BEFORE_GATE
#define BEFORE(gate) 1.0f
#define AFTER(gate)  (gate)
#else
#define BEFORE(gate) (gate)
#define AFTER(gate)  1.0f
#endif

/* The scale of the work-group's group, the same in every work-item. */
static inline float group_scale(__global const x_t *x, __global const x_t *z, const gated_norm_args *g, long row,
                                long first, __local float *scratch) {
  float squares = 0.0f;
  for (int j = (int)get_local_id(0); j < g->width; j += (int)get_local_size(0)) {
    const float s =
        LOAD(X_TYPE, x, place(g->x, row, first + j)) * BEFORE(silu(LOAD(X_TYPE, z, place(g->z, row, first + j))));
    squares += s * s;
  }
  return 1.0f / sqrt(work_group_sum(squares, scratch) / (float)g->width + g->epsilon);
}

__kernel void gated_norm(__global const x_t *x, __global const x_t *z, __global const float *weight,
                         __global x_t *out, const gated_norm_args args, __local float *scratch) {
  const gated_norm_args *g = &args;
  const long row = (long)get_group_id(1), first = (long)get_group_id(0) * g->width;
  const float scale = group_scale(x, z, g, row, first, scratch);
  for (int j = (int)get_local_id(0); j < g->width; j += (int)get_local_size(0)) {
    const long at = first + j;
    const float gate = silu(LOAD(X_TYPE, z, place(g->z, row, at)));
    float value = LOAD(X_TYPE, x, place(g->x, row, at)) * BEFORE(gate) * scale;
    if (g->has_weight) value *= weight[place(g->weight, 0, at)];
    STORE(X_TYPE, out, place(g->out, row, at), value * AFTER(gate));
  }
}

/* dx and dz, the output again, and the group's scale for the second kernel. */
__kernel void gated_norm_backward(__global const x_t *x, __global const x_t *z, __global const float *weight,
                                  __global const x_t *dout, __global x_t *dx, __global x_t *dz, __global x_t *out,
                                  __global float *scales, const gated_norm_args args, __local float *scratch) {
  const gated_norm_args *g = &args;
  const long row = (long)get_group_id(1), first = (long)get_group_id(0) * g->width;
  const int lid = (int)get_local_id(0), items = (int)get_local_size(0);
  const float scale = group_scale(x, z, g, row, first, scratch);
  if (lid == 0) scales[g->scales_offset + row * (long)get_num_groups(0) + (long)get_group_id(0)] = scale;
  float along = 0.0f;
  for (int j = lid; j < g->width; j += items) {
    const long at = first + j;
    const float gate = silu(LOAD(X_TYPE, z, place(g->z, row, at)));
    float into = LOAD(X_TYPE, dout, place(g->dout, row, at)) * AFTER(gate);
    if (g->has_weight) into *= weight[place(g->weight, 0, at)];
    along += into * LOAD(X_TYPE, x, place(g->x, row, at)) * BEFORE(gate) * scale;
  }
  along = work_group_sum(along, scratch) / (float)g->width;
  for (int j = lid; j < g->width; j += items) {
    const long at = first + j;
    const float input = LOAD(X_TYPE, x, place(g->x, row, at)), z_here = LOAD(X_TYPE, z, place(g->z, row, at)),
                gate = silu(z_here), normed = input * BEFORE(gate) * scale,
                w = g->has_weight ? weight[place(g->weight, 0, at)] : 1.0f,
                weighted = LOAD(X_TYPE, dout, place(g->dout, row, at)) * w,
                ds = scale * (weighted * AFTER(gate) - normed * along);
#ifdef NORM_BEFORE_GATE
    const float dgate = weighted * normed;
#else
    const float dgate = ds * input;
#endif
    if (g->has_dx) STORE(X_TYPE, dx, place(g->dx, row, at), ds * BEFORE(gate));
    if (g->has_dz) STORE(X_TYPE, dz, place(g->dz, row, at), dgate * silu_gradient(z_here));
    if (g->has_out) STORE(X_TYPE, out, place(g->out, row, at), normed * w * AFTER(gate));
  }
}

/* partial[chunk][column] of dweight. Groups: (column tiles, chunks). */
__kernel void gated_norm_columns(__global const x_t *x, __global const x_t *z, __global const x_t *dout,
                                 __global const float *scales, __global float *partial, const gated_norm_args args,
                                 __local float *scratch) {
  const gated_norm_args *g = &args;
  const int column = (int)get_global_id(0), chunk = (int)get_group_id(1), groups = g->dim / g->width;
  const int begin = chunk * g->chunk_rows + (int)get_local_id(1), end = min((chunk + 1) * g->chunk_rows, g->rows);
  float dweight = 0.0f;
  if (column < g->dim)
    for (int i = begin; i < end; i += (int)get_local_size(1))
      dweight += LOAD(X_TYPE, dout, place(g->dout, i, column)) * LOAD(X_TYPE, x, place(g->x, i, column)) *
                 silu(LOAD(X_TYPE, z, place(g->z, i, column))) *
                 scales[g->scales_offset + (long)i * groups + column / g->width];
  dweight = lane_sum(dweight, scratch);
  if (get_local_id(1) == 0 && column < g->dim) partial[g->partial_offset + (long)chunk * g->dim + column] = dweight;
}

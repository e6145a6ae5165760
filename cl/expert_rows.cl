/* What follows from pairs of token and expert sorted by expert (sort.cl). */
#include "moe_args.h"
#include "sorted.h"
#include "view.h"

/* Where each expert's rows begin, and how many they are. */
__kernel void expert_offsets(const expert_rows_args g, __global const int *keys, long keys_offset,
                             __global int *offsets, __global int *counts) {
  const int e = (int)get_global_id(0);
  if (e > g.experts) return;
  const int begin = sorted_below(keys + keys_offset, g.rows, e);
  offsets[view_at(&g.offsets, e, 0, 0, 0)] = begin;
  if (e < g.experts && g.has_counts)
    counts[view_at(&g.counts, e, 0, 0, 0)] = sorted_below(keys + keys_offset, g.rows, e + 1) - begin;
}

__kernel void expert_places(const expert_rows_args g, __global const int *sorted, long sorted_offset,
                            __global int *order, __global int *tokens, __global int *places) {
  const int row = (int)get_global_id(0);
  if (row >= g.rows) return;
  const int pair = sorted[sorted_offset + row], token = pair / g.chosen;
  order[view_at(&g.order, row, 0, 0, 0)] = pair;
  tokens[view_at(&g.tokens, row, 0, 0, 0)] = token;
  places[view_at(&g.places, token, pair % g.chosen, 0, 0)] = row;
}

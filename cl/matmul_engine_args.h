/* What cl/pack.cl and cl/matmul_engine.cl are told besides their buffers: one struct each, read by host and kernel.
 */
#ifndef CLM_MATMUL_ENGINE_ARGS_H
#define CLM_MATMUL_ENGINE_ARGS_H

#include "kernel_args.h"

/* A matrix of any strides, in elements, and where its panels go. */
typedef struct pack_args {
  kernel_long from_offset, from_row, from_k;
  kernel_long to_offset, to_plane; /* bytes                                             */
  kernel_long from_next, to_next;  /* from one matrix of a batch to the next: elements, bytes */
  kernel_int rows, k, panels;      /* panels of 32 bytes of k: whole ones, padded by 0  */
  kernel_int planes;               /* parts that each number is split into              */
} pack_args;
KERNEL_ARGS(pack_args, 7, 4);

/* out (m, n) = epilogue(a b^T), a and b in panels, at most 2^31 - 1 of everything counted in int. */
typedef struct matmul_engine_args {
  kernel_long a_offset, a_plane, b_offset, b_plane; /* bytes                                          */
  kernel_long out_offset, out_row, out_column;      /* elements, as all that follow                   */
  kernel_long residual_offset, residual_row, residual_column;
  kernel_long bias_offset, bias_row, bias_column; /* one of the two strides is 0                      */
  kernel_long scale_offset, scale_row, scale_column;
  kernel_long partial_offset;
  kernel_long a_next, b_next;                        /* from one product of a batch to the next: bytes, ... */
  kernel_long out_next, residual_next, partial_next; /* ... elements; 0: shared                             */
  kernel_int m, n;
  kernel_int panels;             /* of each plane                                                     */
  kernel_int products;           /* of planes: 1, or as many as a split number needs                  */
  kernel_int a_planes, b_planes; /* 4 bits for each product: which plane it takes                     */
  kernel_int tiles_m, tiles_n;
  kernel_int band;         /* tile rows that are walked together, column by column              */
  kernel_int whole, parts; /* the first `whole` tiles are units; each other tile is `parts` units */
  kernel_int units;
  kernel_float scale;
  kernel_int unused;
} matmul_engine_args;
KERNEL_ARGS(matmul_engine_args, 22, 14);

#endif

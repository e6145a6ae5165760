/* What an operation's arguments come to once they have been checked: the sizes that backends and scheduler work with.
 */
#ifndef CLM_OPS_SHAPES_H
#define CLM_OPS_SHAPES_H

#include <clmamba/tensor.h>

typedef struct selective_scan_shape {
  int64_t batch, length, d_inner, d_state, n_groups;
  bool B_varies, C_varies; /* per time step, else (d_inner, d_state) */
  bool complex;            /* A is c64 */
  clm_dtype dtype;         /* of u     */
  int64_t sequences;       /* rows of the states: batch, or with cu_seqlens the sequences of the one row */
  bool packed;             /* cu_seqlens is given                                                        */
  bool reversed;           /* the views run backwards (negative strides): cu_seqlens counts from the end */
} selective_scan_shape;

typedef struct causal_conv1d_shape {
  int64_t batch, length, channels, width;
  clm_dtype dtype;   /* of x                                              */
  int64_t sequences; /* these three as in selective_scan_shape            */
  bool packed, reversed;
} causal_conv1d_shape;

typedef struct conv_update_shape { /* x and out come as (batch, steps, channels) */
  int64_t batch, steps, channels, width;
  int64_t pool, size; /* states there are, and places in each: width - 1 or more, 0 without a state */
  clm_dtype dtype;
} conv_update_shape;

typedef struct state_update_shape { /* tensors come as (batch, steps, n_heads, head_dim), a channel as a head of one
                                     */
  int64_t batch, steps, n_heads, head_dim, d_state, n_groups;
  int64_t pool; /* states there are */
  bool complex; /* A is c64         */
  clm_dtype dtype;
} state_update_shape;

typedef struct ssd_shape {
  int64_t batch, length, n_heads, head_dim, n_groups, d_state;
  clm_dtype dtype;   /* of x                                                */
  int64_t sequences; /* these three as in selective_scan_shape              */
  bool packed, reversed;
  bool limited; /* d has limits                                        */
} ssd_shape;

typedef struct attention_shape {
  int64_t batch, length, keys, n_heads, kv_heads, head_dim;
  clm_dtype dtype;   /* of q                                              */
  int64_t sequences; /* batch, or the packed sequences of the one row     */
  bool packed;
  double scale;
  int64_t window; /* INT64_MAX: none */
  bool cached;    /* packed queries, and a batch row of k and v for each sequence */
} attention_shape;

typedef struct rope_shape {
  int64_t batch, length, n_heads, head_dim, rotary;
  int64_t sequences; /* batch, or the packed sequences of the one row */
  bool packed;
  double theta;
} rope_shape;

typedef struct kv_shape {
  int64_t batch, length, keys, kv_heads, head_dim;
  int64_t sequences; /* as in rope_shape */
  bool packed;
} kv_shape;

typedef struct kv_advance_shape {
  int64_t sequences;
} kv_advance_shape;

typedef struct mamba_inner_shape {
  int64_t batch, length, d_inner, d_state, dt_rank, n_groups, d_model;
  int64_t features;      /* dt_rank, and n_groups d_state numbers for each of B and C that varies */
  bool B_fixed, C_fixed; /* given, the same for all steps                                         */
  bool complex;          /* A is c64: a number of B or C is two of the features                   */
  clm_dtype dtype;       /* of xz                                                                 */
} mamba_inner_shape;

typedef struct discretize_shape {
  int64_t batch, length, d_inner, d_state;
  bool B_varies, complex;
} discretize_shape;

typedef struct assoc_scan_shape {
  int64_t batch, length, channels;
  bool complex;
} assoc_scan_shape;

/* Of `batch` products; the operation's arguments are those of the first, and the others lie a stride apart. */
typedef struct matmul_shape {
  int64_t m, n, k;
  int64_t batch;
  int64_t a_next, b_next, out_next, residual_next; /* in elements; 0: shared */
} matmul_shape;

typedef struct matrix_shape { /* norm, column sum, cross-entropy */
  int64_t rows, dim;
} matrix_shape;

typedef struct gated_norm_shape {
  int64_t rows, dim, width; /* width: columns of a group */
} gated_norm_shape;

typedef struct embedding_shape {
  int64_t count, vocab, dim;
} embedding_shape;

typedef struct route_shape {
  int64_t tokens, experts, chosen;
  int64_t n_groups, top_groups; /* one of one, where there are no groups */
  double scale;
} route_shape;

typedef struct expert_rows_shape {
  int64_t tokens, chosen, experts;
} expert_rows_shape;

typedef struct grouped_shape { /* out is (rows, n) */
  int64_t rows, experts, n, k;
} grouped_shape;

typedef struct combine_shape {
  int64_t rows, tokens, chosen, dim;
} combine_shape;

typedef struct elementwise_shape {
  int64_t count;
} elementwise_shape;

#endif

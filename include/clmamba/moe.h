/* Mixture of experts (Shazeer et al. 2017): a router chooses a few of many MLPs for each token.
 *
 *   clm_route           logits of the router -> for each token the numbers of its experts, and their weights
 *   clm_expert_rows     sorts pairs of token and expert by expert, so that each expert's rows lie together
 *   clm_embedding       gathers the tokens in that order: table = x, ids = tokens of clm_expert_rows
 *   clm_grouped_matmul  every expert's rows times its weight, once for each matrix of the experts
 *   clm_combine         adds up the results of each token, times its weights
 *
 * Optional members are left zeroed. Nothing is written when the status is not CLM_OK. Bitwise deterministic on a
 * device. Thread safety: one call at a time per context. */
#ifndef CLMAMBA_MOE_H
#define CLMAMBA_MOE_H

#include <clmamba/tensor.h>

CLM_BEGIN_DECLS

/* How logits become scores. */
typedef enum clm_route_scores {
  CLM_ROUTE_SOFTMAX, /* softmax over all experts */
  CLM_ROUTE_SIGMOID  /* of each expert alone     */
} clm_route_scores;

/* Chooses experts for each token.
 *
 *   score[e]  = softmax(logits)[e], or 1 / (1 + exp(-logits[e]))
 *   choice[e] = score[e] + bias[e]
 *   ids       = the `chosen` experts with the largest choice, largest first; of equal ones the lowest number
 *   weight[j] = scale score[ids[j]]      normalize: divided by (1e-20 + the sum of the token's chosen scores)
 *
 * With n_groups, experts are that many groups of equal size one after another, and only those of the top_groups best
 * groups are chosen from: a group counts as much as its two largest choices together (DeepSeek-AI 2024).
 * A softmax over the chosen experts alone, as Granite has it, is CLM_ROUTE_SOFTMAX with normalize. A choice that is
 * not a number comes last. All arithmetic is fp32 whatever the storage type. */
typedef struct clm_route_args {
  clm_tensor logits;  /* (tokens, experts)                                          */
  clm_tensor bias;    /* optional (experts)        f32: for the choice alone        */
  clm_tensor ids;     /* (tokens, chosen)          i32, written; chosen <= experts  */
  clm_tensor weights; /* (tokens, chosen)          f32, written                     */
  clm_route_scores scores;
  bool normalize;
  float scale;        /* 0 means 1                                                  */
  int64_t n_groups;   /* 0: no groups; divides experts                              */
  int64_t top_groups; /* with n_groups; together they have `chosen` experts or more */
} clm_route_args;

CLM_API clm_status clm_route(clm_context *context, const clm_route_args *args);

/* The gradient with respect to the logits; the choice itself has none. `forward` as in the forward call, with ids as
 * it wrote them; bias and weights are not read. */
typedef struct clm_route_backward_args {
  clm_route_args forward;
  clm_tensor dweights; /* (tokens, chosen)   f32                */
  clm_tensor dlogits;  /* (tokens, experts)  as logits, written */
} clm_route_backward_args;

CLM_API clm_status clm_route_backward(clm_context *context, const clm_route_backward_args *args);

/* Sorts the pairs of token and expert by expert, those of one expert in the order of the tokens. There is a row for
 * each pair, rows = tokens chosen. An id that is no expert's comes after all others, in rows of no expert. */
typedef struct clm_expert_rows_args {
  clm_tensor ids;           /* (tokens, chosen)  i32                                                           */
  clm_tensor group_offsets; /* (experts + 1)     i32, written: expert e has rows [offsets[e], offsets[e + 1])  */
  clm_tensor order;         /* (rows)            i32, written: the row's pair, token chosen + place in ids     */
  clm_tensor tokens;        /* (rows)            i32, written: the row's token                                 */
  clm_tensor places;        /* (tokens, chosen)  i32, written: the pair's row                                  */
  clm_tensor counts;        /* optional (experts) i32, written: rows of each expert, its load                  */
} clm_expert_rows_args;

CLM_API clm_status clm_expert_rows(clm_context *context, const clm_expert_rows_args *args);

/* out[row] = b[e] a[row] for each row of expert e, b[e] a weight as PyTorch keeps it; rows of no expert become 0.
 * Weights of experts without rows are not read. Rows of b[e] in i8 are their b_scale times the integers. Products
 * accumulate in fp32. Offsets that fall or leave the rows make out wrong, but touch no memory outside the tensors. */
typedef struct clm_grouped_matmul_args {
  clm_tensor a;             /* (rows, k)                                        */
  clm_tensor b;             /* (experts, n, k)   f32, 16-bit or i8              */
  clm_tensor group_offsets; /* (experts + 1)     i32, as of clm_expert_rows     */
  clm_tensor out;           /* (rows, n)         written                        */
  clm_tensor b_scale;       /* (experts, n)      f32; where b is i8, only there */
} clm_grouped_matmul_args;

CLM_API clm_status clm_grouped_matmul(clm_context *context, const clm_grouped_matmul_args *args);

/* Gradients; optional ones are zeroed tensors, those given are overwritten: of an expert without rows, by zeros. */
typedef struct clm_grouped_matmul_backward_args {
  clm_grouped_matmul_args forward; /* out is not read; b is not i8                    */
  clm_tensor dout;                 /* (rows, n)                                       */
  clm_tensor da;                   /* optional (rows, k)                              */
  clm_tensor db;                   /* optional (experts, n, k)                    f32 */
} clm_grouped_matmul_backward_args;

CLM_API clm_status clm_grouped_matmul_backward(clm_context *context, const clm_grouped_matmul_backward_args *args);

/* out[t] = sum_j weights[t][j] y[places[t][j]] + residual[t], in the order of j. Without weights each is 1: the
 * gradient of gathering tokens by clm_embedding. A place that is no row of y adds nothing. */
typedef struct clm_combine_args {
  clm_tensor y;        /* (rows, dim)                                                */
  clm_tensor places;   /* (tokens, chosen)           i32, as of clm_expert_rows      */
  clm_tensor weights;  /* optional (tokens, chosen)  f32                             */
  clm_tensor residual; /* optional (tokens, dim)     as out; may be out              */
  clm_tensor out;      /* (tokens, dim)              written                         */
} clm_combine_args;

CLM_API clm_status clm_combine(clm_context *context, const clm_combine_args *args);

/* dy[row] = weights[pair] dout[token], dweights[t][j] = y[places[t][j]] . dout[t]. Optional gradients are zeroed
 * tensors, those given are overwritten. */
typedef struct clm_combine_backward_args {
  clm_combine_args forward; /* out and residual are not read                                                    */
  clm_tensor order;         /* (rows)                     i32, as of clm_expert_rows; no pair: the row's dy is 0 */
  clm_tensor dout;          /* (tokens, dim)                                                                    */
  clm_tensor dy;            /* optional (rows, dim)                                                             */
  clm_tensor dweights;      /* optional (tokens, chosen)  f32; only with weights                                */
} clm_combine_backward_args;

CLM_API clm_status clm_combine_backward(clm_context *context, const clm_combine_backward_args *args);

CLM_END_DECLS

#endif

/* Attention: softmax of products of queries and keys, causal, as in the hybrids of Mamba with attention; rotary
 * position embedding; caches of keys and values. */
#ifndef CLMAMBA_ATTENTION_H
#define CLMAMBA_ATTENTION_H

#include <clmamba/tensor.h>

CLM_BEGIN_DECLS

/* Causal attention (Vaswani et al. 2017; the semantics of torch's scaled_dot_product_attention). For each query i of
 * head h, with the head g = h / (n_heads / kv_heads) of keys and values:
 *
 *   score[j] = scale q[i] . k[j]                     of the keys j that the query sees
 *   lse      = log(sum_j exp(score[j]))
 *   out[i]   = sum_j exp(score[j] - lse) v[j]
 *
 * Query i stands at position p = keys - length + i among the keys, or at p = offsets[b] + i in batch row b, and sees
 * the keys from 0 to p, with a window those from p - window + 1 to p. More keys than queries are a cache with the
 * keys of earlier steps: a prompt in chunks, or one step of generation. With offsets, rows of different lengths share
 * a cache of the longest: what lies in it past a row's last query is not read. A query that sees no key has out 0 and
 * lse -infinity.
 *
 *   cu_seqlens  packed sequences: batch is 1, sequence i has the queries and the keys cu_seqlens[i] to
 *               cu_seqlens[i + 1] - 1 (it may be empty), the first number is 0, the last is length, which is then
 *               also the number of keys. Other numbers make out wrong, but touch no memory outside the tensors. With
 *               offsets, which have a number for each sequence then, k and v are caches: sequence i has the keys of
 *               their batch row i. There is no gradient of that.
 *
 * Memory grows with the length, not with its square. All arithmetic is fp32 whatever the storage type. Optional
 * members are left zeroed. Nothing is written when the status is not CLM_OK. Outputs may not overlap inputs. Bitwise
 * deterministic on a device. Thread safety: one call at a time per context. */
typedef struct clm_attention_args {
  clm_tensor q;          /* (batch, length, n_heads, head_dim)                                            */
  clm_tensor k, v;       /* (batch, keys, kv_heads, head_dim)  as q; kv_heads divides n_heads; batch is the number of
                            sequences with both of the next                                               */
  clm_tensor offsets;    /* optional (batch, or sequences)     i32: position of each row's first query    */
  clm_tensor cu_seqlens; /* optional (sequences + 1)           i32: packed sequences                      */
  clm_tensor out;        /* (batch, length, n_heads, head_dim) as q, written                              */
  clm_tensor lse;        /* optional (batch, length, n_heads)  f32, written: what the gradient needs      */
  float scale;           /* 0: 1 / sqrt(head_dim)                                                         */
  int64_t window;        /* keys that a query sees; 0: all up to its own                                  */
} clm_attention_args;

CLM_API clm_status clm_attention(clm_context *context, const clm_attention_args *args);

/* Gradients of the above. `forward` as in the forward call, with out and lse as it wrote them: both are read here.
 * Every gradient is optional (zeroed: not computed), has the shape of what it is the gradient of, and is overwritten.
 * Bitwise deterministic on a device. */
typedef struct clm_attention_backward_args {
  clm_attention_args forward;
  clm_tensor dout;   /* (batch, length, n_heads, head_dim) as q */
  clm_tensor dq;     /* (batch, length, n_heads, head_dim) as q */
  clm_tensor dk, dv; /* (batch, keys, kv_heads, head_dim)  as q */
} clm_attention_backward_args;

CLM_API clm_status clm_attention_backward(clm_context *context, const clm_attention_backward_args *args);

/* Rotary position embedding (Su et al. 2021). Of every head the first `rotary` numbers are pairs, pair i the numbers
 * i and i + rotary / 2, or 2 i and 2 i + 1 with `interleaved`; the others are copied. At position p
 *
 *   angle = p theta^(-2 i / rotary)
 *   (a, b) becomes (a cos(angle) - b sin(angle), b cos(angle) + a sin(angle))
 *
 * Step j of batch row b, or of a packed sequence, has position offsets[b] + j, or j without offsets. With `inverse`
 * the angle is -angle: dx of the gradient is the inverse of dout, and the inverse of out is x. Angles are exact at
 * any position (as fractions of a turn in 64 bits, or in double); all else is fp32. cu_seqlens as in
 * clm_attention_args. */
typedef struct clm_rope_args {
  clm_tensor x;          /* (batch, length, n_heads, head_dim)                                           */
  clm_tensor offsets;    /* optional (batch, or sequences)     i32: position of each row's first step    */
  clm_tensor cu_seqlens; /* optional (sequences + 1)           i32: packed sequences                     */
  clm_tensor out;        /* (batch, length, n_heads, head_dim) as x, written; may be x                   */
  int64_t rotary;        /* even, at most head_dim; 0: all of head_dim                                   */
  float theta;           /* at least 1; 0: 10000                                                         */
  bool interleaved;
  bool inverse;
} clm_rope_args;

CLM_API clm_status clm_rope(clm_context *context, const clm_rope_args *args);

/* Writes new keys and values into caches, as clm_attention reads them: step j of batch row b, or of packed sequence
 * b, to place offsets[b] + j of row b. What has its place outside of the cache is not written. */
typedef struct clm_kv_append_args {
  clm_tensor k, v;             /* (batch, length, kv_heads, head_dim)                                    */
  clm_tensor offsets;          /* (batch, or sequences)              i32                                 */
  clm_tensor cu_seqlens;       /* optional (sequences + 1)           i32: packed sequences               */
  clm_tensor k_cache, v_cache; /* (batch or sequences, keys, kv_heads, head_dim), of any precision; written in part */
} clm_kv_append_args;

CLM_API clm_status clm_kv_append(clm_context *context, const clm_kv_append_args *args);

/* offsets[i] += steps, or the length of sequence i with cu_seqlens: after a step, in the device's memory, so that a
 * recorded step can be repeated as it is. */
typedef struct clm_kv_advance_args {
  clm_tensor offsets;    /* (sequences)              i32, read and written        */
  clm_tensor cu_seqlens; /* optional (sequences + 1) i32                          */
  int64_t steps;         /* without cu_seqlens: at least 0                        */
} clm_kv_advance_args;

CLM_API clm_status clm_kv_advance(clm_context *context, const clm_kv_advance_args *args);

CLM_END_DECLS

#endif

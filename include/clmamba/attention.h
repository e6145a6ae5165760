/* Attention: softmax of products of queries and keys, causal, as in the hybrids of Mamba with attention. */
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
 *               also the number of keys. Other numbers make out wrong, but touch no memory outside the tensors.
 *
 * Memory grows with the length, not with its square. All arithmetic is fp32 whatever the storage type. Optional
 * members are left zeroed. Nothing is written when the status is not CLM_OK. Outputs may not overlap inputs. Bitwise
 * deterministic on a device. Thread safety: one call at a time per context. */
typedef struct clm_attention_args {
  clm_tensor q;          /* (batch, length, n_heads, head_dim)                                            */
  clm_tensor k, v;       /* (batch, keys, kv_heads, head_dim)  as q; kv_heads divides n_heads             */
  clm_tensor offsets;    /* optional (batch)                   i32: position of each row's first query    */
  clm_tensor cu_seqlens; /* optional (sequences + 1)           i32: packed sequences; without offsets     */
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

CLM_END_DECLS

#endif

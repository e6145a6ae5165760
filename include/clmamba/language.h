/* What a language model needs around its blocks: embedding and softmax cross-entropy.
 * Bitwise deterministic on a device. Thread safety: one call at a time per context. */
#ifndef CLMAMBA_LANGUAGE_H
#define CLMAMBA_LANGUAGE_H

#include <clmamba/tensor.h>

CLM_BEGIN_DECLS

/* out[i] = table[ids[i]], times table_scale[ids[i]] where the table is i8. An id outside [0, vocab) gives a row of
 * zeros. */
typedef struct clm_embedding_args {
  clm_tensor ids;         /* (count)        i32     */
  clm_tensor table;       /* (vocab, dim)   f32, 16-bit or i8 */
  clm_tensor out;         /* (count, dim)   written */
  clm_tensor table_scale; /* (vocab) f32; where the table is i8, and only there */
} clm_embedding_args;

CLM_API clm_status clm_embedding(clm_context *context, const clm_embedding_args *args);

/* dtable[v] = sum of dout[i] over ids[i] == v, in order of i. */
typedef struct clm_embedding_backward_args {
  clm_tensor ids;    /* (count)        i32                                                            */
  clm_tensor dout;   /* (count, dim)                                                                  */
  clm_tensor dtable; /* (vocab, dim)   f32, written                                                   */
  bool accumulate;   /* add to dtable (a tied head has already written its part)                      */
} clm_embedding_backward_args;

CLM_API clm_status clm_embedding_backward(clm_context *context, const clm_embedding_backward_args *args);

/* losses[i] = log(sum_v exp(logits[i][v])) - logits[i][targets[i]];  dlogits = scale (softmax(logits) -
 * onehot(target)). A target of -1 ignores the row: loss 0, gradient 0. */
typedef struct clm_cross_entropy_args {
  clm_tensor logits;  /* (rows, vocab)                              */
  clm_tensor targets; /* (rows)            i32                      */
  clm_tensor losses;  /* optional (rows)   f32, written             */
  clm_tensor dlogits; /* optional (rows, vocab)  as logits, written; may be logits */
  float scale;        /* of dlogits: 1/rows for the gradient of the mean */
} clm_cross_entropy_args;

CLM_API clm_status clm_cross_entropy(clm_context *context, const clm_cross_entropy_args *args);

CLM_END_DECLS

#endif

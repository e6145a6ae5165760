/* Geometry of strided views: how far they reach, whether they repeat elements, whether two of them meet. */
#ifndef CLM_OPS_VIEW_H
#define CLM_OPS_VIEW_H

#include <clmamba/tensor.h>

/* Bytes from element 0 to the end of the last element; false if that does not fit an int64_t. Shape and strides must
 * be positive and not negative. */
bool view_extent(const clm_tensor *, int64_t *bytes);

/* Whether two index tuples may name the same element. Exact for views made by slicing and transposing. */
bool view_repeats(const clm_tensor *);

/* Whether two views with known extents share a byte. Exact unless the search grows too long, then true. */
bool view_overlap(const clm_tensor *, const clm_tensor *);

/* The very same elements in the same order. */
bool view_same(const clm_tensor *, const clm_tensor *);

/* The same elements with dimension `dim` from its end to its beginning (a negative stride). Nothing for an absent
 * one. */
void view_reverse(clm_tensor *, int dim);

/* Element `index` of dimension `dim`, which goes. */
void view_take(clm_tensor *, int dim, int64_t index);

/* Columns [begin, begin + count) of the last dimension; an absent tensor stays absent. */
clm_tensor view_columns(clm_tensor, int64_t begin, int64_t count);

/* The last dimension in parts of `size`: (..., d_inner) as (..., heads, head_dim). */
clm_tensor view_parts(clm_tensor, int64_t size);

/* A new dimension `dim` of size 1. Nothing for an absent tensor. */
void view_insert(clm_tensor *, int dim);

#endif

/* What a backend provides: memory, a stream, and one function for each operation.
 *
 * The functions of `backend_ops` get arguments that src/ops has checked: every required tensor present, shapes and
 * dtypes as the public header says, views inside their buffers. They enqueue work and return; a slot that is NULL, or
 * that returns CLM_UNSUPPORTED, means that this backend does not have the operation (or not for these arguments). */
#ifndef CLM_BACKEND_H
#define CLM_BACKEND_H

#include "core/op_plan.h"
#include "ops/shapes.h"
#include <clmamba/adamw.h>
#include <clmamba/attention.h>
#include <clmamba/causal_conv1d.h>
#include <clmamba/elementwise.h>
#include <clmamba/language.h>
#include <clmamba/mamba_inner.h>
#include <clmamba/matmul.h>
#include <clmamba/moe.h>
#include <clmamba/norm.h>
#include <clmamba/scan.h>
#include <clmamba/selective_scan.h>
#include <clmamba/ssd.h>

/* name, shape */
#define BACKEND_OPS(X)                                                                                               \
  X(discretize, discretize_shape)                                                                                    \
  X(discretize_backward, discretize_shape)                                                                           \
  X(assoc_scan, assoc_scan_shape)                                                                                    \
  X(assoc_scan_backward, assoc_scan_shape)                                                                           \
  X(causal_conv1d, causal_conv1d_shape)                                                                              \
  X(causal_conv1d_backward, causal_conv1d_shape)                                                                     \
  X(causal_conv1d_update, conv_update_shape)                                                                         \
  X(selective_scan, selective_scan_shape)                                                                            \
  X(selective_scan_backward, selective_scan_shape)                                                                   \
  X(selective_state_update, state_update_shape)                                                                      \
  X(selective_state_update_backward, state_update_shape)                                                             \
  X(ssd, ssd_shape)                                                                                                  \
  X(ssd_backward, ssd_shape)                                                                                         \
  X(attention, attention_shape)                                                                                      \
  X(attention_backward, attention_shape)                                                                             \
  X(rope, rope_shape)                                                                                                \
  X(kv_append, kv_shape)                                                                                             \
  X(kv_advance, kv_advance_shape)                                                                                    \
  X(matmul, matmul_shape)                                                                                            \
  X(norm, matrix_shape)                                                                                              \
  X(norm_backward, matrix_shape)                                                                                     \
  X(gated_norm, gated_norm_shape)                                                                                    \
  X(gated_norm_backward, gated_norm_shape)                                                                           \
  X(axpby, elementwise_shape)                                                                                        \
  X(cast, elementwise_shape)                                                                                         \
  X(dropout, elementwise_shape)                                                                                      \
  X(swiglu, matrix_shape)                                                                                            \
  X(swiglu_backward, matrix_shape)                                                                                   \
  X(column_sum, matrix_shape)                                                                                        \
  X(sum_squares, elementwise_shape)                                                                                  \
  X(embedding, embedding_shape)                                                                                      \
  X(embedding_backward, embedding_shape)                                                                             \
  X(route, route_shape)                                                                                              \
  X(route_backward, route_shape)                                                                                     \
  X(expert_rows, expert_rows_shape)                                                                                  \
  X(grouped_matmul, grouped_shape)                                                                                   \
  X(grouped_matmul_backward, grouped_shape)                                                                          \
  X(combine, combine_shape)                                                                                          \
  X(combine_backward, combine_shape)                                                                                 \
  X(cross_entropy, matrix_shape)                                                                                     \
  X(adamw, elementwise_shape)

typedef struct backend_ops {
#define X(name, shape) clm_status (*name)(clm_context *, const shape *, const clm_##name##_args *);
  BACKEND_OPS(X)
#undef X
  /* Operations that src/ops can put together from the others: NULL, or CLM_UNSUPPORTED, and it does. `matmul` makes
   * the first product of a batch; this slot all of them. */
  clm_status (*matmul_batch)(clm_context *, const matmul_shape *, const clm_matmul_args *);
  clm_status (*mamba_inner)(clm_context *, const mamba_inner_shape *, const clm_mamba_inner_args *);
  clm_status (*mamba_inner_backward)(clm_context *, const mamba_inner_shape *, const clm_mamba_inner_backward_args *);
  /* Bytes of workspace; NULL slots mean 0. */
  size_t (*selective_scan_workspace)(clm_context *, const selective_scan_shape *, const clm_selective_scan_args *);
  size_t (*selective_scan_backward_workspace)(clm_context *, const selective_scan_shape *,
                                              const clm_selective_scan_backward_args *);
  size_t (*ssd_workspace)(clm_context *, const ssd_shape *, const clm_ssd_args *);
  size_t (*ssd_backward_workspace)(clm_context *, const ssd_shape *, const clm_ssd_backward_args *);
} backend_ops;

/* What a device can do, each per second; 0: not known. */
typedef struct backend_limits {
  double copy_bytes; /* read and written */
  double read_bytes;
  double exponentials;
} backend_limits;

typedef struct backend {
  const char *name;
  void (*destroy)(clm_context *); /* frees context->state */
  clm_status (*finish)(clm_context *);
  clm_status (*device)(const clm_context *, clm_device_info *);

  /* buffer->bytes is set; fills buffer->host or buffer->device. */
  clm_status (*buffer_create)(clm_buffer *);
  clm_status (*buffer_wrap_host)(clm_buffer *, void *memory);
  void (*buffer_destroy)(clm_buffer *);
  clm_status (*buffer_write)(clm_buffer *, size_t offset, size_t bytes, const void *source);
  clm_status (*buffer_read)(clm_buffer *, size_t offset, size_t bytes, void *destination);
  clm_status (*buffer_map)(clm_buffer *, void **memory);
  clm_status (*buffer_unmap)(clm_buffer *);
  void (*buffer_forget)(clm_buffer *); /* frees buffer->kept; NULL where nothing is kept */

  /* Plans of operations, as core/op_plan.h says; NULL: it has none. plan_create sets plan->state;
   * plan_end comes after the last operation (NULL: nothing to do) and may say CLM_UNSUPPORTED, too. */
  clm_status (*plan_create)(op_plan *);
  clm_status (*plan_end)(op_plan *);
  clm_status (*plan_run)(const op_plan *);
  void (*plan_destroy)(op_plan *);

  clm_status (*profile_begin)(clm_context *);
  clm_status (*profile_end)(clm_context *, double *milliseconds);

  clm_status (*limits)(clm_context *, int runs, backend_limits *); /* the best of some runs; for tools */
} backend;

/* Each makes context->backend, its tables of operations and ->state, or fails with a message in the context. */
clm_status backend_cpu_create(clm_context *, const clm_context_options *);
clm_status backend_opencl_create(clm_context *, const clm_context_options *, int index); /* or OPENCL_FIRST, ... */

#endif

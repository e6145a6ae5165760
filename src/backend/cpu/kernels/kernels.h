/* The vectorised operations of one instruction set: cpu_<op>_<set>. What one does not take (f64, c128, some strides
 * of the scans and convolutions) it hands to the reference. */
#ifndef CLM_CPU_KERNELS_H
#define CLM_CPU_KERNELS_H

#include "../reference/reference.h"
#include "../state.h"
#include "core/arith.h"
#include "simd.h"

#define KERNEL(name) SIMD_PASTE(cpu_##name, SIMD_SUFFIX)

#define CPU_KERNELS(X)                                                                                               \
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
  X(discretize, discretize_shape)                                                                                    \
  X(discretize_backward, discretize_shape)                                                                           \
  X(assoc_scan, assoc_scan_shape)                                                                                    \
  X(assoc_scan_backward, assoc_scan_shape)                                                                           \
  X(causal_conv1d, causal_conv1d_shape)                                                                              \
  X(causal_conv1d_backward, causal_conv1d_shape)                                                                     \
  X(causal_conv1d_update, conv_update_shape)                                                                         \
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
  X(grouped_matmul, grouped_shape)                                                                                   \
  X(grouped_matmul_backward, grouped_shape)                                                                          \
  X(combine, combine_shape)                                                                                          \
  X(combine_backward, combine_shape)                                                                                 \
  X(column_sum, matrix_shape)                                                                                        \
  X(sum_squares, elementwise_shape)                                                                                  \
  X(embedding, embedding_shape)                                                                                      \
  X(embedding_backward, embedding_shape)                                                                             \
  X(cross_entropy, matrix_shape)                                                                                     \
  X(adamw, elementwise_shape)

#define X(name, shape) clm_status KERNEL(name)(clm_context *, const shape *, const clm_##name##_args *);
CPU_KERNELS(X)
#undef X

size_t KERNEL(selective_scan_backward_workspace)(clm_context *, const selective_scan_shape *,
                                                 const clm_selective_scan_backward_args *);
size_t KERNEL(selective_scan_workspace)(clm_context *, const selective_scan_shape *, const clm_selective_scan_args *);
size_t KERNEL(ssd_workspace)(clm_context *, const ssd_shape *, const clm_ssd_args *);
size_t KERNEL(ssd_backward_workspace)(clm_context *, const ssd_shape *, const clm_ssd_backward_args *);

void KERNEL(kernels_init)(backend_ops *);

/* For clm's measure of what the processor can do: computes exponentials and says how many; reads, and returns some
 * sum. */
double KERNEL(limits_exponentials)(int64_t steps, double *sum);
double KERNEL(limits_read)(const char *from, size_t bytes);

/* Whether every tensor that is present holds fp32: ALL_F32(a->x, a->out). */
#define ALL_F32(...)                                                                                                 \
  kernel_all_f32((const clm_tensor[]){__VA_ARGS__}, sizeof((const clm_tensor[]){__VA_ARGS__}) / sizeof(clm_tensor))
static inline bool kernel_all_f32(const clm_tensor *t, size_t count) {
  for (size_t i = 0; i < count; i++)
    if (t[i].buffer && t[i].dtype != CLM_F32) return false;
  return true;
}

/* Element 0, or NULL if the tensor is absent. */
static inline float *kernel_data(clm_tensor t) { return t.buffer ? (float *)(void *)element_data(&t) : NULL; }

/* Memory is laid out once with NULL, to learn the size, and once for real. */
#define SCRATCH_AT(memory, offset) ((vec *)((uintptr_t)(memory) + (offset)))

/* out[j] = sum of part[i][j] in the order of i. */
static inline void kernel_sum_parts(const float *parts, int64_t count, int64_t dim, float *out, int64_t stride) {
  for (int64_t j = 0; j < dim; j += LANES) {
    vec sum = vec_load_part(parts + j, dim - j);
    for (int64_t i = 1; i < count; i++) sum += vec_load_part(parts + i * dim + j, dim - j);
    if (stride == 1) vec_store_part(out + j, sum, dim - j);
    else
      for (int64_t k = 0; k < min_of(LANES, dim - j); k++) out[(j + k) * stride] = sum[k];
  }
}

#endif

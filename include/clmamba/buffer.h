/* Memory that operations read and write: owned by a context, or the caller's host memory.
 * (The caller's own cl_mem: clm_buffer_wrap_cl_mem in <clmamba/opencl.h>.)
 *
 * Thread safety: as the context that the buffer belongs to. */
#ifndef CLMAMBA_BUFFER_H
#define CLMAMBA_BUFFER_H

#include <clmamba/context.h>

CLM_BEGIN_DECLS

typedef struct clm_buffer clm_buffer;

/* Allocates `bytes` (at least 1) of device memory, 64-byte aligned, contents undefined. */
CLM_API clm_status clm_buffer_create(clm_context *context, size_t bytes, clm_buffer **buffer);

/* Wraps host memory, which must outlive the buffer. On a device that has memory of its own the bytes are visible
 * to the host only between clm_buffer_map and clm_buffer_unmap. Tensors in it must lie at multiples of the size of
 * their numbers (f32 and c64: 4 bytes); memory aligned to 64 bytes is fastest. */
CLM_API clm_status clm_buffer_wrap_host(clm_context *context, void *memory, size_t bytes, clm_buffer **buffer);

/* Frees the buffer once the work that uses it has run; sets *buffer to NULL. Accepts NULL. */
CLM_API void clm_buffer_destroy(clm_buffer **buffer);

/* Copies in stream order and waits; `offset` and `bytes` must lie inside the buffer. */
CLM_API clm_status clm_buffer_write(clm_buffer *buffer, size_t offset, size_t bytes, const void *source);
CLM_API clm_status clm_buffer_read(clm_buffer *buffer, size_t offset, size_t bytes, void *destination);

/* Maps the whole buffer for reading and writing by the host; waits for the stream. No operation may use the buffer
 * until it is unmapped. A buffer that is mapped cannot be mapped again. */
CLM_API clm_status clm_buffer_map(clm_buffer *buffer, void **memory);
CLM_API clm_status clm_buffer_unmap(clm_buffer *buffer);

/* Says that the buffer holds weights: matrices that are multiplied again and again and seldom written. A backend may
 * then keep those it multiplies in the layout of the device's matrix engine, until an operation or a call of this
 * header writes the buffer. That takes the memory of the matrices once more (f32: one and a half times, and twice
 * that where gradients are computed). Without memory it does without. What writes the buffer past clmamba must not be
 * used with this. `keep` false frees what is kept. NULL: CLM_INVALID_ARGUMENT. */
CLM_API clm_status clm_buffer_keep_packed(clm_buffer *buffer, bool keep);

CLM_API size_t clm_buffer_size(const clm_buffer *buffer);
CLM_API clm_context *clm_buffer_context(const clm_buffer *buffer);

CLM_END_DECLS

#endif

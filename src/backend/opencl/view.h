/* Tensors that kernels take in two arguments: the buffer, and in a struct where its elements lie. */
#ifndef CLM_OPENCL_VIEW_H
#define CLM_OPENCL_VIEW_H

#include "backend/opencl/launch.h"
#include "cl/kernel_args.h"

#define ARG_DATA(t) ARG_BUFFER((t).buffer)

/* Of up to four dimensions; zeros if the tensor is absent. */
static inline kernel_view opencl_view_of(const clm_tensor *t) {
  kernel_view v = {.offset = 0};
  if (!t->buffer) return v;
  v.offset = opencl_offset(t);
  for (int i = 0; i < t->rank && i < 4; i++) v.stride[i] = t->stride[i];
  return v;
}

#endif

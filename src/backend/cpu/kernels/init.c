#include "kernels.h"

void KERNEL(kernels_init)(backend_ops *ops) {
#define X(name, shape) ops->name = KERNEL(name);
  CPU_KERNELS(X)
#undef X
  ops->selective_scan_workspace = KERNEL(selective_scan_workspace);
  ops->selective_scan_backward_workspace = KERNEL(selective_scan_backward_workspace);
  ops->ssd_workspace = KERNEL(ssd_workspace);
  ops->ssd_backward_workspace = KERNEL(ssd_backward_workspace);
}

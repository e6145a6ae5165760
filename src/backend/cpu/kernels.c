#include "reference/reference.h"
#include "state.h"

void cpu_kernels_init(backend_ops *ops, cpu_level level) {
  *ops = (backend_ops){
#define X(name, shape) .name = ref_##name,
      BACKEND_OPS(X)
#undef X
  };
  (void)level;
}

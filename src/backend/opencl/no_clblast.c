/* Stands in for clblast.c in a build without CLBlast. */
#include "backend/opencl/matmul.h"

bool opencl_clblast_fits(clm_context *ctx, const matmul_shape *s, const clm_matmul_args *a) {
  (void)ctx, (void)s, (void)a;
  return false;
}

clm_status opencl_matmul_clblast(clm_context *ctx, const matmul_shape *s, const clm_matmul_args *a) {
  return opencl_matmul_tiled(ctx, s, a);
}

void opencl_clblast_forget(clm_context *ctx) { (void)ctx; }

/* Launches of cl/matmul_few.cl: few rows times a weight, on a matrix engine and without panels. */
#include "backend/opencl/engine.h"
#include "backend/opencl/matmul.h"
#include "backend/opencl/opencl.h"
#include "core/arith.h"
#include "core/try.h"
#include <stdio.h>

enum { FEWEST_ROWS = 2, MANY_ROWS = 32, MOST_ROWS = 64, BLOCK_ROWS = 8, BLOCK_COLUMNS = 16, TILE_COLUMNS = 128 };

/* Splitting f32 again in every work-group costs more than reading panels, or than products without an engine. */
static bool in_16_bits(const clm_matmul_args *args) {
  const bool own = args->b.dtype == args->a.dtype || args->b.dtype == CLM_I8;
  return own && (args->a.dtype == CLM_BF16 || args->a.dtype == CLM_F16);
}

bool opencl_matmul_few_fits(clm_context *ctx, const matmul_shape *s, const clm_matmul_args *args) {
  if (s->m < FEWEST_ROWS || s->m > MOST_ROWS || args->b.stride[0] != 1 || !in_16_bits(args)) return false;
  const matmul_engine *e = opencl_fragment_engine(ctx);
  if (!e || !e->direct) return false;
  /* Every work-group reads all of a: where tiles of panels keep half the device busy, they read less. */
  const int64_t units = opencl_schedule_device(ctx)->compute_units;
  return e->emulated || s->m <= MANY_ROWS || 2 * div_up(s->n, TILE_COLUMNS) < units;
}

clm_status opencl_matmul_few(clm_context *ctx, const matmul_shape *s, const clm_matmul_args *args) {
  const matmul_engine *e = opencl_fragment_engine(ctx);
  /* Wider pieces of b are fewer reads of a, as long as there is one for every unit of the device. */
  const int64_t units = opencl_schedule_device(ctx)->compute_units;
  const int column_blocks = div_up(s->n, 2 * BLOCK_COLUMNS) >= units ? 2 : 1;
  const int64_t columns = column_blocks * BLOCK_COLUMNS;
  char defines[192];
  snprintf(defines, sizeof defines, "-DCOLUMN_BLOCKS=%d -DROW_BLOCKS=%d%s%s%s%s%s", column_blocks,
           (int)power_of_two(div_up(s->m, BLOCK_ROWS)), args->b.dtype == CLM_I8 ? " -DINTEGERS" : "",
           opencl_pieces_aligned(&args->a, 1) ? " -DALIGNED_A" : "",
           opencl_pieces_aligned(&args->b, 0) ? " -DALIGNED_B" : "", args->a.dtype == CLM_F16 ? " -DENGINE_F16" : "",
           e->defines);
  opencl_kernel *k;
  TRY(opencl_kernel_get(ctx, "matmul_few", "matmul_few", MATMUL_DEFINES(defines, args).text, &k));
  context_explain(ctx, "matmul: opencl, %s (%s) without panels, %d columns of b for %d rows", e->name,
                  clm_dtype_name(args->a.dtype), (int)columns, (int)s->m);
  const size_t items = (size_t)e->items, global = items * (size_t)div_up(s->n, columns);
  return OPENCL_RUN(ctx, k, 1, &global, &items, ARG_MATRIX(args->a), ARG_TENSOR(args->b), ARG_I64(args->b.stride[1]),
                    ARG_I32(s->m), ARG_I32(s->n), ARG_I32(s->k), ARG_EPILOGUE(args, matmul_scale(args)));
}

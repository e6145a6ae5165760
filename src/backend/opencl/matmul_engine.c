/* Launches of cl/pack.cl and cl/matmul_engine.cl: operands into panels, tiles on the engine, pieces of k together. */
#include "backend/opencl/engine.h"
#include "backend/opencl/matmul.h"
#include "backend/opencl/opencl.h"
#include "cl/matmul_engine_args.h"
#include "core/arith.h"
#include "core/try.h"
#include <stdio.h>

enum { PANEL_BYTES = 32, TILE_RESULTS = 128 * 128, SUM_EVERY = 4, MAX_PLANES = 3 };
#define MIN_PRODUCTS 3e7 /* below, packing costs more than the engine gains */

static const struct {
  const char *type, *defines;
  int bytes;
} formats[ENGINE_FORMATS] = {[ENGINE_BF16] = {"bf16", "", 2},
                             [ENGINE_F16] = {"f16", " -DENGINE_F16", 2},
                             [ENGINE_TF32] = {"tf32", " -DENGINE_TF32", 4}};

/* ---- Formats and planes ---- */

/* Into how many bf16 numbers one of this type splits without loss. */
static int planes_of(clm_dtype dtype) { return dtype == CLM_F32 ? 3 : dtype == CLM_F16 ? 2 : 1; }

typedef struct engine_operand {
  const clm_tensor *matrix;
  int row, k; /* which dimension is which */
  int planes;
  int64_t rows;
  int64_t matrices, next; /* of a batch, and the elements from one to the next */
  int64_t plane_bytes;
  clm_buffer *panels; /* where they lie: the workspace, or where a buffer of weights keeps them */
  int64_t offset;     /* in it                                                                  */
  uint64_t *version;  /* kept ones: of the buffer whose numbers they hold                       */
} engine_operand;

typedef struct engine_product {
  engine_format format;
  engine_operand a, b; /* b's rows are columns of the product */
  int products;
  int32_t a_planes, b_planes; /* 4 bits for each product of planes */
  int64_t panels;
} engine_product;

/* What an operand is multiplied as: f32 where it may be rounded as what it is rounded to. */
static clm_dtype multiplied_as(clm_dtype dtype, clm_math math) {
  if (dtype != CLM_F32) return dtype;
  return math == CLM_MATH_BF16 ? CLM_BF16 : math == CLM_MATH_F16 ? CLM_F16 : CLM_F32;
}

static engine_format format_of(const clm_matmul_args *args) {
  const clm_dtype a = multiplied_as(args->a.dtype, args->math), own = multiplied_as(args->b.dtype, args->math),
                  b = own == CLM_I8 && a != CLM_F32 ? a : own;
  if (args->math == CLM_MATH_TF32 && (a == CLM_F32 || b == CLM_F32)) return ENGINE_TF32;
  return a == CLM_F16 && b == CLM_F16 ? ENGINE_F16 : ENGINE_BF16;
}

/* All products of planes that count in fp32, the smallest first. */
static void list_products(engine_product *p) {
  for (int below = MAX_PLANES - 1; below >= 0; below--)
    for (int i = 0; i <= below; i++) {
      const int j = below - i;
      if (i >= p->a.planes || j >= p->b.planes) continue;
      p->a_planes |= i << 4 * p->products;
      p->b_planes |= j << 4 * p->products++;
    }
}

static engine_product product_of(const matmul_shape *s, const clm_matmul_args *args) {
  engine_product p = {.format = format_of(args),
                      .a = {.matrix = &args->a, .row = 0, .k = 1, .planes = 1, .rows = s->m, .next = s->a_next},
                      .b = {.matrix = &args->b, .row = 1, .k = 0, .planes = 1, .rows = s->n, .next = s->b_next}};
  p.a.matrices = p.a.next ? s->batch : 1;
  p.b.matrices = p.b.next ? s->batch : 1;
  if (p.format == ENGINE_BF16) {
    p.a.planes = planes_of(multiplied_as(args->a.dtype, args->math));
    p.b.planes = planes_of(multiplied_as(args->b.dtype, args->math));
  }
  p.panels = div_up(s->k * formats[p.format].bytes, PANEL_BYTES);
  p.a.plane_bytes = p.panels * p.a.rows * PANEL_BYTES;
  p.b.plane_bytes = p.panels * p.b.rows * PANEL_BYTES;
  list_products(&p);
  return p;
}

/* ---- Packing ---- */

static int64_t matrix_bytes(const engine_operand *o) { return o->planes * o->plane_bytes; }

static bool copies(const engine_product *p, const engine_operand *o, int64_t k) {
  const clm_dtype same = p->format == ENGINE_BF16 ? CLM_BF16 : CLM_F16;
  const clm_tensor *t = o->matrix;
  return p->format != ENGINE_TF32 && t->dtype == same && t->stride[o->k] == 1 && t->stride[o->row] % 8 == 0 &&
         k % 8 == 0 && t->offset % 16 == 0 && o->next % 8 == 0;
}

static clm_status write_panels(clm_context *ctx, const engine_product *p, const engine_operand *o, int64_t k) {
  const clm_tensor *t = o->matrix;
  const bool copy = copies(p, o, k);
  const pack_args g = {.from_offset = opencl_offset(t),
                       .from_row = t->stride[o->row],
                       .from_k = t->stride[o->k],
                       .to_offset = o->offset,
                       .to_plane = o->plane_bytes,
                       .from_next = o->next,
                       .to_next = matrix_bytes(o),
                       .rows = (int32_t)o->rows,
                       .k = (int32_t)k,
                       .panels = (int32_t)p->panels,
                       .planes = o->planes};
  char defines[96];
  snprintf(defines, sizeof defines, "-DFROM_TYPE=%s -DTO_TYPE=%s%s", clm_dtype_name(t->dtype),
           formats[p->format].type, p->format == ENGINE_TF32 ? " -DCHUNK=4" : "");
  opencl_kernel *kernel;
  clm_status status = opencl_kernel_get(ctx, "pack", copy ? "pack_copy" : "pack", defines, &kernel);
  if (status) return status;
  if (copy) {
    const size_t local[3] = {8, opencl_kernel_work_group(kernel, 256) / 8, 1};
    const size_t global[3] = {2 * (size_t)p->panels, (size_t)o->rows, (size_t)o->matrices};
    return OPENCL_RUN(ctx, kernel, 3, global, local, ARG_BUFFER(t->buffer), ARG_BUFFER(o->panels), ARG_STRUCT(g));
  }
  enum { ROWS = 64, DEPTH = 32, ITEMS = 128 }; /* as in cl/pack.cl */
  const int64_t depth = p->panels * PANEL_BYTES / formats[p->format].bytes;
  const size_t local[3] = {ITEMS, 1, 1};
  const size_t global[3] = {(size_t)(div_up(depth, DEPTH) * ITEMS), (size_t)div_up(o->rows, ROWS),
                            (size_t)o->matrices};
  return OPENCL_RUN(ctx, kernel, 3, global, local, ARG_BUFFER(t->buffer), ARG_BUFFER(o->panels), ARG_STRUCT(g));
}

static clm_status pack(clm_context *ctx, const engine_product *p, const engine_operand *o, int64_t k) {
  const uint64_t version = o->matrix->buffer->version;
  if (o->version && *o->version == version) return CLM_OK;
  TRY(write_panels(ctx, p, o, k));
  if (o->version && !opencl_state_of(ctx)->dry_run) *o->version = version;
  return CLM_OK;
}

/* Finds a place for an operand's panels; those of weights are kept, others take `*bytes` of the workspace. */
static void place(const engine_product *p, engine_operand *o, int64_t *bytes) {
  const int64_t size = matrix_bytes(o) * o->matrices;
  o->panels = o->matrices == 1 ? opencl_kept_panels(o->matrix, o->row, p->format, (size_t)size, &o->version) : NULL;
  o->offset = o->panels ? 0 : *bytes;
  if (!o->panels) *bytes += round_up(size, 256);
}

/* ---- The product ---- */

/* Tiles want out's lines along their columns: a result that lies the other way is b^T a^T. */
static bool is_turned(const clm_matmul_args *args) { return args->out.stride[1] != 1 && args->out.stride[0] == 1; }

static matmul_engine_args arguments(const matmul_shape *s, const clm_matmul_args *args, const engine_product *p,
                                    const matmul_plan *plan, bool together, int64_t partial) {
  const clm_tensor *out = &args->out, *residual = &args->residual;
  const bool turned = is_turned(args);
  const int row = turned, column = !turned;
  const matmul_engine_args g = {
      .a_offset = p->a.offset,
      .a_plane = p->a.plane_bytes,
      .b_offset = p->b.offset,
      .b_plane = p->b.plane_bytes,
      .out_offset = opencl_offset(out),
      .out_row = out->stride[row],
      .out_column = out->stride[column],
      .residual_offset = opencl_offset(residual),
      .residual_row = residual->stride[row],
      .residual_column = residual->stride[column],
      .bias_offset = opencl_offset(&args->bias),
      .bias_row = turned ? args->bias.stride[0] : 0,
      .bias_column = turned ? 0 : args->bias.stride[0],
      .scale_offset = opencl_offset(&args->b_scale),
      .scale_row = turned ? args->b_scale.stride[0] : 0,
      .scale_column = turned ? 0 : args->b_scale.stride[0],
      .partial_offset = partial / (int64_t)sizeof(float),
      .a_next = p->a.next ? matrix_bytes(&p->a) : 0,
      .b_next = p->b.next ? matrix_bytes(&p->b) : 0,
      .out_next = s->out_next,
      .residual_next = s->residual_next,
      .partial_next = (plan->units - plan->whole) * TILE_RESULTS,
      .m = (int32_t)(turned ? s->n : s->m),
      .n = (int32_t)(turned ? s->m : s->n),
      .panels = (int32_t)p->panels,
      .products = together ? 1 : p->products,
      .a_planes = together ? 0 : p->a_planes,
      .b_planes = together ? 0 : p->b_planes,
      .tiles_m = plan->tiles_m,
      .tiles_n = plan->tiles_n,
      .band = plan->band,
      .whole = plan->whole,
      .parts = plan->parts,
      .units = plan->units,
      .scale = matmul_scale(args),
  };
  return g;
}

/* Whether every line of a matrix of `out`'s type is whole pieces of eight. */
static bool in_pieces(const clm_tensor *t, int row, int column) {
  return t->stride[column] == 1 && t->stride[row] % 8 == 0 && t->shape[column] % 8 == 0 && opencl_offset(t) % 8 == 0;
}

static bool stores_pieces(const matmul_engine *e, const matmul_shape *s, const clm_matmul_args *args) {
  const int row = is_turned(args), column = !row;
  return e->quads && s->out_next % 8 == 0 && s->residual_next % 8 == 0 && in_pieces(&args->out, row, column) &&
         (!args->residual.buffer || in_pieces(&args->residual, row, column));
}

static void kernel_defines(char *text, size_t size, const matmul_engine *e, const engine_product *p,
                           const matmul_shape *s, const clm_matmul_args *args, const char *more) {
  const bool f32 = args->out.dtype == CLM_F32;
  char sums[64] = "";
  if (p->products > 1 && e->planes_together)
    snprintf(sums, sizeof sums, " -DSUM_EVERY=%d -DPLANES_A=%d -DPLANES_B=%d", SUM_EVERY, p->a.planes, p->b.planes);
  else if (p->products > 1) snprintf(sums, sizeof sums, " -DSUM_EVERY=%d", SUM_EVERY);
  snprintf(text, size, "-DOUT_TYPE=%s%s -DACTIVATION=%d%s%s%s%s%s%s%s%s%s", clm_dtype_name(args->out.dtype),
           f32 ? " -DOUT_IS_F32" : "", (int)args->activation, stores_pieces(e, s, args) ? " -DOUT_VECTORS" : "",
           args->bias.buffer ? " -DHAS_BIAS" : "", args->b_scale.buffer ? " -DHAS_SCALE" : "",
           args->residual.buffer ? " -DHAS_RESIDUAL" : "", args->accumulate ? " -DACCUMULATE" : "", e->defines,
           formats[p->format].defines, sums, more);
}

clm_status opencl_engine_matmul(clm_context *ctx, const matmul_engine *e, const matmul_shape *s,
                                const clm_matmul_args *args, const char *more) {
  engine_product p = product_of(s, args);
  if (!e->formats[p.format])
    return context_fail(ctx, CLM_UNSUPPORTED, "matmul: engine %s has no %s", e->name, formats[p.format].type);
  if (is_turned(args)) {
    const engine_operand a = p.a;
    p.a = p.b;
    p.b = a;
    const int32_t planes = p.a_planes;
    p.a_planes = p.b_planes;
    p.b_planes = planes;
  }
  matmul_tile tile = e->tile;
  if (p.products > 1) tile.groups_per_unit = e->split_groups;
  const bool together = e->planes_together && p.products > 1;
  const matmul_work work = {.m = p.a.rows,
                            .n = p.b.rows,
                            .steps = p.panels * (together ? 1 : p.products),
                            .products = together ? p.products : 1,
                            .batch = s->batch};
  const matmul_plan plan = schedule_matmul(opencl_schedule_device(ctx), &tile, &work);
  int64_t partial = 0;
  place(&p, &p.a, &partial);
  place(&p, &p.b, &partial);
  const int64_t pieces = plan.units - plan.whole;
  const int64_t bytes = partial + s->batch * pieces * TILE_RESULTS * (int64_t)sizeof(float);
  clm_buffer *workspace = NULL;
  clm_status status = bytes ? context_workspace(ctx, (size_t)bytes, &workspace) : CLM_OK;
  if (!p.a.panels) p.a.panels = workspace;
  if (!p.b.panels) p.b.panels = workspace;
  if (!status) status = pack(ctx, &p, &p.a, s->k);
  if (!status) status = pack(ctx, &p, &p.b, s->k);
  if (status) { /* what is kept may not have been packed */
    opencl_forget_panels(args->a.buffer);
    opencl_forget_panels(args->b.buffer);
    return status;
  }

  char defines[320];
  kernel_defines(defines, sizeof defines, e, &p, s, args, more);
  opencl_kernel *kernel, *finish = NULL;
  status = opencl_kernel_get(ctx, "matmul_engine", "matmul_engine", defines, &kernel);
  if (!status && pieces) status = opencl_kernel_get(ctx, "matmul_engine", "matmul_engine_finish", defines, &finish);
  if (status) return status;
  const matmul_engine_args g = arguments(s, args, &p, &plan, together, partial);
  const size_t items[2] = {(size_t)e->items, 1}, consumers[2] = {(size_t)e->consumers, 1};
  const size_t global[2] = {items[0] * (size_t)plan.groups, (size_t)s->batch};
  const size_t cut = (size_t)(plan.tiles_m * plan.tiles_n - plan.whole); /* tiles, each of four quarters */
  const size_t rest[2] = {4 * consumers[0] * cut, (size_t)s->batch};
  context_explain(ctx, "matmul: opencl, %s (%s, %d product%s), %d x %d tiles, %d in %d parts, %d work-groups",
                  e->name, formats[p.format].type, p.products, p.products == 1 ? "" : "s", plan.tiles_m, plan.tiles_n,
                  plan.tiles_m * plan.tiles_n - plan.whole, plan.parts, plan.groups);
  status =
      OPENCL_RUN(ctx, kernel, 2, global, items, ARG_BUFFER(p.a.panels), ARG_BUFFER(p.b.panels),
                 ARG_BUFFER(args->bias.buffer), ARG_BUFFER(args->b_scale.buffer), ARG_BUFFER(args->residual.buffer),
                 ARG_BUFFER(args->out.buffer), ARG_BUFFER(workspace), ARG_STRUCT(g));
  if (status || !pieces) return status;
  return OPENCL_RUN(ctx, finish, 2, rest, consumers, ARG_BUFFER(args->bias.buffer), ARG_BUFFER(args->b_scale.buffer),
                    ARG_BUFFER(args->residual.buffer), ARG_BUFFER(args->out.buffer), ARG_BUFFER(workspace),
                    ARG_STRUCT(g));
}

bool opencl_engine_fits(clm_context *ctx, const matmul_shape *s, const clm_matmul_args *args) {
  const matmul_engine *e = opencl_engine(ctx);
  if (!e || !e->formats[format_of(args)]) return false;
  return e->emulated || (double)s->batch * (double)s->m * (double)s->n * (double)s->k >= MIN_PRODUCTS;
}

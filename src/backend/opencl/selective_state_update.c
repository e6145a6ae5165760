/* Steps of the selective scan in place, and their gradients. */
#include "backend/opencl/operands.h"
#include "backend/opencl/ops.h"
#include "backend/opencl/scan_family.h"
#include "cl/state_update_args.h"
#include "schedule/arith.h"
#include <stdio.h>

enum { FEW_FLOATS = 16, BUSY_GPU = 1024, BLOCK_STEPS = 64 };

static int32_t flags_of(const clm_selective_state_update_args *a) {
  return (a->D.buffer ? UPDATE_HAS_D : 0) | (a->z.buffer ? UPDATE_HAS_Z : 0) |
         (a->delta_bias.buffer ? UPDATE_HAS_BIAS : 0) | (a->delta_softplus ? UPDATE_SOFTPLUS : 0) |
         (a->A_is_log ? UPDATE_A_LOG : 0);
}

/* " -D<name>=<type>" for each input that is stored otherwise than u; what is not named is as u in the kernels. */
typedef struct input_types {
  char text[96];
} input_types;

static input_types input_types_of(const state_update_shape *s, const clm_selective_state_update_args *a) {
  const operand inputs[] = {OPERAND_TYPE(DELTA_TYPE, a->delta), OPERAND_TYPE(Z_TYPE, a->z),
                            OPERAND_TYPE(B_TYPE, a->B), OPERAND_TYPE(C_TYPE, a->C)};
  input_types types = {""};
  size_t used = 0;
  for (size_t i = 0; i < (s->complex ? 2 : 4); i++)
    if (inputs[i].tensor->buffer && inputs[i].tensor->dtype != s->dtype)
      used += (size_t)snprintf(types.text + used, sizeof types.text - used, " -D%s=%s", inputs[i].name,
                               clm_dtype_name(inputs[i].tensor->dtype));
  return types;
}

static clm_status check_call(clm_context *ctx, const char *op, const state_update_shape *s) {
  const int64_t sizes[] = {s->batch, s->steps, s->n_heads * s->head_dim, s->d_state};
  if (s->dtype == CLM_F64)
    return context_fail(ctx, CLM_UNSUPPORTED, "%s: the OpenCL backend does not compute on f64 tensors", op);
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
    if (sizes[i] > INT32_MAX - 65536)
      return context_fail(ctx, CLM_UNSUPPORTED, "%s: a size is %lld, the OpenCL backend counts with 32 bits", op,
                          (long long)sizes[i]);
  return CLM_OK;
}

/* Blocks of four numbers of the last dimension are one aligned access each. */
static bool in_fours(const clm_tensor *t) {
  const int last = t->rank - 1;
  bool aligned = t->dtype == CLM_F32 && t->stride[last] == 1 && t->shape[last] % 4 == 0 && t->offset % 16 == 0;
  for (int i = 0; i < last && aligned; i++) aligned = t->shape[i] == 1 || t->stride[i] % 4 == 0;
  return aligned;
}

typedef struct update_tile {
  int32_t work_group, lanes, states, rows;
} update_tile;

/* CLM_UPDATE_LANES and CLM_UPDATE_ROWS are for kernel development: with lanes, CPU devices run what GPUs run. */
static update_tile tile_of(const schedule_device *d, const state_update_shape *s) {
  update_tile t = {.rows = 1};
  t.work_group = power_of_two_at_most(d->max_work_group < 128 ? d->max_work_group : 128);
  int32_t most = s->d_state > 256 ? 32 : 16; /* so that a lane's states fit registers */
  if (d->shuffle != SHUFFLE_NONE && d->subgroup < most) most = d->subgroup > 1 ? d->subgroup : 1;
  t.lanes = power_of_two_at_most(d->is_cpu || s->d_state < 8 ? 1 : s->d_state / 8 < most ? s->d_state / 8 : most);
  if (scan_env("CLM_UPDATE_LANES") > 0) t.lanes = power_of_two_at_most(scan_env("CLM_UPDATE_LANES"));
  if (t.lanes > t.work_group) t.lanes = t.work_group;
  t.states = 1;
  while ((int64_t)t.states * t.lanes < s->d_state) t.states *= 2;
  const int64_t items = s->n_heads * s->head_dim * t.lanes, busy = (int64_t)d->compute_units * BUSY_GPU;
  if (scan_env("CLM_UPDATE_ROWS") > 0) t.rows = scan_env("CLM_UPDATE_ROWS");
  else if (!d->is_cpu && t.lanes <= 4 && t.states * (s->complex ? 2 : 1) <= FEW_FLOATS &&
           items * (s->batch / 2) >= busy)
    t.rows = 2;
  return t;
}

#define ARG_UPDATE_INPUTS(a, s, flags)                                                                               \
  ARG_TENSOR4((a)->u), ARG_TENSOR4((a)->delta), ARG_TENSOR3((a)->A), ARG_TENSOR4((a)->B), ARG_TENSOR4((a)->C),       \
      ARG_TENSOR2((a)->D), ARG_TENSOR4((a)->z), ARG_TENSOR2((a)->delta_bias), ARG_TENSOR1((a)->state_indices),       \
      ARG_I32(flags), ARG_I32((s)->n_heads *(s)->head_dim), ARG_I32((s)->head_dim), ARG_I32((s)->d_state),           \
      ARG_I32((s)->n_heads / (s)->n_groups), ARG_I32((s)->steps), ARG_I64((s)->pool)

clm_status opencl_selective_state_update(clm_context *ctx, const state_update_shape *s,
                                         const clm_selective_state_update_args *a) {
  clm_status status = check_call(ctx, "selective_state_update", s);
  if (status) return status;
  const schedule_device *d = opencl_schedule_device(ctx);
  update_tile t = tile_of(d, s);
  const bool gpu_form = !d->is_cpu || t.lanes > 1;
  const bool fours = gpu_form && t.states % 4 == 0 && !s->complex;
  char defines[640], fixed[160] = "";
  if (!d->is_cpu)
    snprintf(fixed, sizeof fixed,
             " -DUPDATE_D_STATE=%d -DUPDATE_FIXED=%d -DUPDATE_HEAD_DIM=%d -DUPDATE_GROUP_HEADS=%d%s", (int)s->d_state,
             (int)flags_of(a), (int)s->head_dim, (int)(s->n_heads / s->n_groups),
             s->steps == 1 ? " -DUPDATE_ONE_STEP" : "");
  snprintf(defines, sizeof defines,
           "%s%s -DWORK_GROUP=%d -DUPDATE_LANES=%d -DUPDATE_STATES=%d -DUPDATE_ROWS=%d -DUPDATE_ALIGNED=%d"
           " -DUPDATE_ALIGNED_INPUTS=%d -DNUMBER_COMPLEX=%d -DX_TYPE=%s -DS_TYPE=%s%s",
           scan_device_defines(d), fixed, t.work_group, t.lanes, t.states, t.rows, fours && in_fours(&a->state),
           fours && in_fours(&a->B) && in_fours(&a->C), s->complex, clm_dtype_name(s->dtype),
           clm_dtype_name(a->state.dtype), input_types_of(s, a).text);
  opencl_kernel *kernel;
  status = opencl_kernel_get(ctx, "selective_state_update", "selective_state_update", defines, &kernel);
  if (status) return status;
  const int64_t channels = s->n_heads * s->head_dim;
  size_t global[2] = {(size_t)(div_up(channels, t.work_group / t.lanes) * t.work_group),
                      (size_t)div_up(s->batch, t.rows)};
  size_t local[2] = {(size_t)t.work_group, 1};
  status = OPENCL_RUN(ctx, kernel, 2, global, local, ARG_TENSOR4(a->state), ARG_UPDATE_INPUTS(a, s, flags_of(a)),
                      ARG_TENSOR4(a->out), ARG_I32(s->batch));
  if (!status)
    context_explain(ctx, "selective_state_update: %d lanes a channel, %d states each, %d work-items, %d rows each",
                    t.lanes, t.states, t.work_group, t.rows);
  return status;
}

/* ---- Gradients ---- */

static update_args args_of(const state_update_shape *s, const clm_selective_state_update_args *a, int32_t flags) {
  return (update_args){.state = opencl_view_of(&a->state),
                       .u = opencl_view_of(&a->u),
                       .delta = opencl_view_of(&a->delta),
                       .A = opencl_view_of(&a->A),
                       .B = opencl_view_of(&a->B),
                       .C = opencl_view_of(&a->C),
                       .D = opencl_view_of(&a->D),
                       .z = opencl_view_of(&a->z),
                       .bias = opencl_view_of(&a->delta_bias),
                       .index = opencl_view_of(&a->state_indices),
                       .pool = s->pool,
                       .batch = (int32_t)s->batch,
                       .steps = (int32_t)s->steps,
                       .channels = (int32_t)(s->n_heads * s->head_dim),
                       .head_dim = (int32_t)s->head_dim,
                       .d_state = (int32_t)s->d_state,
                       .group_heads = (int32_t)(s->n_heads / s->n_groups),
                       .flags = flags};
}

#define UPDATE_DATA(a)                                                                                               \
  ARG_DATA((a)->u), ARG_DATA((a)->delta), ARG_DATA((a)->A), ARG_DATA((a)->B), ARG_DATA((a)->C), ARG_DATA((a)->D),    \
      ARG_DATA((a)->z), ARG_DATA((a)->delta_bias), ARG_DATA((a)->state_indices)

/* A place in the workspace for so many numbers, if they are wanted. */
static int64_t reserve(int64_t *count, bool wanted, int64_t numbers) {
  int64_t at = *count;
  if (wanted) *count += numbers;
  return at;
}

/* `out` of rank 2 to 4 = the sums of `count` parts. */
static clm_status sum(clm_context *ctx, const state_update_shape *s, const clm_buffer *parts, int64_t at,
                      int64_t count, int64_t stride, const clm_tensor *out) {
  if (!out->buffer) return CLM_OK;
  clm_tensor t = *out;
  while (t.rank < 4) { /* leading dimensions of size 1 */
    for (int i = t.rank++; i > 0; i--) {
      t.shape[i] = t.shape[i - 1];
      t.stride[i] = t.stride[i - 1];
    }
    t.shape[0] = 1;
    t.stride[0] = 0;
  }
  char defines[128];
  snprintf(defines, sizeof defines, "-DNUMBER_COMPLEX=%d -DX_TYPE=f32 -DG_TYPE=%s -DSUM_REAL_PART=%d", s->complex,
           clm_dtype_name(t.dtype), s->complex && t.dtype != CLM_C64);
  opencl_kernel *kernel;
  clm_status status = opencl_kernel_get(ctx, "selective_state_update_backward", "state_update_sum", defines, &kernel);
  if (status) return status;
  size_t elements = (size_t)clm_tensor_count(t);
  const update_sum_args args = {.out = opencl_view_of(&t),
                                .size = {t.shape[0], t.shape[1], t.shape[2], t.shape[3]},
                                .parts = at,
                                .stride = stride,
                                .count = (int32_t)count};
  return OPENCL_RUN(ctx, kernel, 1, &elements, NULL, ARG_STRUCT(args), ARG_BUFFER(parts), ARG_DATA(t));
}

clm_status opencl_selective_state_update_backward(clm_context *ctx, const state_update_shape *s,
                                                  const clm_selective_state_update_backward_args *b) {
  static const char op[] = "selective_state_update_backward";
  const clm_selective_state_update_args *a = &b->forward;
  clm_status status = check_call(ctx, op, s);
  if (status) return status;
  const schedule_device *d = opencl_schedule_device(ctx);
  const int64_t channels = s->n_heads * s->head_dim, of_group = channels / s->n_groups;
  int32_t size = power_of_two_at_most(d->max_work_group < 64 ? d->max_work_group : 64), steps = 1;
  if (d->is_cpu) size = size < 16 ? size : 16; /* one program for all: compilers for CPUs are slow */
  else
    while (size > 1 && size / 2 >= of_group) size /= 2;
  while (steps < s->steps && steps < BLOCK_STEPS) steps *= 8;
  const int64_t chunks = div_up(of_group, size), inputs = s->batch * s->steps * s->n_groups * s->d_state;
  update_gradient_args g = {.dout = opencl_view_of(&b->dout),
                            .dnew = opencl_view_of(&b->dnew_state),
                            .du = opencl_view_of(&b->du),
                            .ddelta = opencl_view_of(&b->ddelta),
                            .dz = opencl_view_of(&b->dz),
                            .dstate = opencl_view_of(&b->dstate)};
  int64_t numbers = 0;
  g.A = reserve(&numbers, b->dA.buffer, s->batch * channels * s->d_state);
  g.B = reserve(&numbers, b->dB.buffer, chunks * inputs);
  g.C = reserve(&numbers, b->dC.buffer, chunks * inputs);
  g.D = reserve(&numbers, b->dD.buffer, s->batch * channels);
  g.dt = reserve(&numbers, b->ddelta_bias.buffer, s->batch * channels);
  g.starts = reserve(&numbers, s->steps > steps, (div_up(s->steps, steps) - 1) * s->batch * channels * s->d_state);
  char defines[384];
  snprintf(defines, sizeof defines,
           "%s -DUPDATE_BACKWARD -DWORK_GROUP=%d -DUPDATE_STEPS=%d -DNUMBER_COMPLEX=%d -DX_TYPE=%s -DS_TYPE=%s%s",
           scan_device_defines(d), size, steps, s->complex, clm_dtype_name(s->dtype), clm_dtype_name(a->state.dtype),
           input_types_of(s, a).text);
  opencl_kernel *kernel;
  status = opencl_kernel_get(ctx, "selective_state_update_backward", op, defines, &kernel);
  clm_buffer *workspace = NULL;
  if (!status && numbers) status = context_workspace(ctx, (size_t)numbers * (s->complex ? 8 : 4), &workspace);
  if (status) return status;
  const int32_t flags = flags_of(a) | (b->dA.buffer ? UPDATE_PARTS_A : 0) | (b->dB.buffer ? UPDATE_PARTS_B : 0) |
                        (b->dC.buffer ? UPDATE_PARTS_C : 0) | (b->dD.buffer ? UPDATE_PARTS_D : 0) |
                        (b->ddelta_bias.buffer ? UPDATE_PARTS_DT : 0);
  const update_args args = args_of(s, a, flags);
  size_t global[3] = {(size_t)(chunks * size), (size_t)s->n_groups, (size_t)s->batch},
         local[3] = {(size_t)size, 1, 1};
  status = OPENCL_RUN(ctx, kernel, 3, global, local, ARG_STRUCT(args), ARG_STRUCT(g), ARG_DATA(a->state),
                      UPDATE_DATA(a), ARG_DATA(b->dout), ARG_DATA(b->dnew_state), ARG_DATA(b->du),
                      ARG_DATA(b->ddelta), ARG_DATA(b->dz), ARG_DATA(b->dstate), ARG_BUFFER(workspace));
  if (!status) status = sum(ctx, s, workspace, g.A, s->batch, channels * s->d_state, &b->dA);
  if (!status) status = sum(ctx, s, workspace, g.B, chunks, inputs, &b->dB);
  if (!status) status = sum(ctx, s, workspace, g.C, chunks, inputs, &b->dC);
  if (!status) status = sum(ctx, s, workspace, g.D, s->batch, channels, &b->dD);
  if (!status) status = sum(ctx, s, workspace, g.dt, s->batch, channels, &b->ddelta_bias);
  if (!status)
    context_explain(ctx, "%s: %d channels a work-group, %lld of a group; sums over the batch in order", op, size,
                    (long long)chunks);
  return status;
}

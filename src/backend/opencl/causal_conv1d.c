/* Causal convolution: forward (and its final state), backward with staged sums of dweight and dbias, the update. */
#include "schedule/causal_conv1d.h"
#include "backend/opencl/ops.h"
#include "backend/opencl/scan_family.h"
#include "cl/causal_conv1d_args.h"
#include "core/arith.h"
#include <stdio.h>
#include <string.h>

enum { CONV_X, CONV_OUT, CONV_DOUT, CONV_DX_STEP, CONV_STEPPED };

typedef struct conv_key {
  char op[16];
  causal_conv1d_request request;
  clm_dtype x, weight, bias, dweight, dbias;
  clm_dtype initial, final, dinitial; /* of the states: before, after or the gradient of those, the gradient */
  int32_t flags;
  bool marked, states;
  int64_t step[CONV_STEPPED]; /* elements between neighbouring steps of x, out, dout, dx */
} conv_key;

typedef struct conv_plan {
  causal_conv1d_plan tile;
  opencl_kernel *main, *sum, *states, *marks;
} conv_plan;

/* ---- Plans ---- */

static clm_dtype dtype_or_f32(const clm_tensor *t) { return t->buffer ? t->dtype : CLM_F32; }

/* Channels c and c + 1 of an even c are one aligned access. */
static bool has_pairs(const clm_tensor *t) {
  size_t pair = 2 * clm_dtype_size(t->dtype);
  return !t->buffer || (t->stride[2] == 1 && t->shape[2] % 2 == 0 && t->stride[0] % 2 == 0 && t->stride[1] % 2 == 0 &&
                        t->offset % pair == 0);
}

static void key_of(conv_key *key, const char *op, const causal_conv1d_shape *s, const clm_causal_conv1d_args *a) {
  memset(key, 0, sizeof *key); /* padding too: it is compared byte by byte */
  snprintf(key->op, sizeof key->op, "%s", op);
  key->request.batch = s->batch;
  key->request.length = s->length;
  key->request.channels = s->channels;
  key->request.width = s->width;
  key->request.length_fast = length_is_fast(&a->x);
  key->request.is_16bit = s->dtype != CLM_F32;
  key->step[CONV_X] = step_of(&a->x);
  key->x = s->dtype;
  key->weight = a->weight.dtype;
  key->bias = dtype_or_f32(&a->bias);
  key->initial = dtype_or_f32(&a->initial_state);
  key->marked = s->packed || a->seq_idx.buffer;
  key->flags = (a->silu ? CONV_SILU : 0) | (a->bias.buffer ? CONV_BIAS : 0) |
               (a->initial_state.buffer ? CONV_INITIAL : 0) | (s->packed ? CONV_PACKED : 0);
}

static clm_status get(clm_context *ctx, const conv_key *key, const causal_conv1d_plan *tile, const char *family,
                      const char *name, opencl_kernel **kernel) {
  const schedule_device *d = opencl_schedule_device(ctx);
  static const char *const stepped[CONV_STEPPED] = {"x", "out", "dout", "dx"};
  const bool worth = !key->request.length_fast && key->request.channels >= SCAN_MANY_CHANNELS;
  const size_t steps = worth ? CONV_STEPPED : 0;
  char defines[768], fixed[32] = "";
  if (!d->is_cpu) snprintf(fixed, sizeof fixed, " -DCONV_FIXED=%d", (int)key->flags);
  snprintf(defines, sizeof defines,
           "%s%s -DWORK_GROUP=%d -DCONV_WIDTH=%d -DCONV_STEPS=%d -DCONV_VECTOR=%d -DCONV_LENGTH_FAST=%d"
           " -DCONV_MARKED=%d -DX_TYPE=%s -DW_TYPE=%s -DB_TYPE=%s -DDW_TYPE=%s -DDB_TYPE=%s"
           " -DINITIAL_TYPE=%s -DFINAL_TYPE=%s -DDINITIAL_TYPE=%s%s",
           scan_device_defines(d), fixed, tile->work_group, (int)key->request.width, tile->steps, tile->vector,
           key->request.length_fast, key->marked, clm_dtype_name(key->x), clm_dtype_name(key->weight),
           clm_dtype_name(key->bias), clm_dtype_name(key->dweight), clm_dtype_name(key->dbias),
           clm_dtype_name(key->initial), clm_dtype_name(key->final), clm_dtype_name(key->dinitial),
           scan_fix_steps(ctx, "CONV", stepped, key->step, steps).define);
  return opencl_kernel_get(ctx, family, name, defines, kernel);
}

/* For kernel development: CLM_CONV_VECTOR=1 or 2, CLM_CONV_STEPS (unrolled), CLM_CONV_RUN (steps of a run). */
static void vary(const causal_conv1d_request *r, causal_conv1d_plan *p) {
  const int32_t vector = scan_env("CLM_CONV_VECTOR"), steps = scan_env("CLM_CONV_STEPS"),
                run = scan_env("CLM_CONV_RUN");
  if (vector == 1 || (vector == 2 && r->pairs && !r->length_fast)) p->vector = vector;
  if (steps > 0) p->steps = steps;
  const int64_t block = r->length_fast ? (int64_t)p->steps * p->work_group : p->steps;
  if (run > 0 && r->backward) p->run = run;
  if (steps > 0 || run > 0) p->run = r->backward ? round_up(p->run, block) : block;
  p->runs = div_up(r->length, p->run);
}

static clm_status find_plan(clm_context *ctx, const conv_key *key, conv_plan **plan) {
  bool found;
  const bool backward = key->request.backward;
  conv_plan *p = plan_cache_get(opencl_plans(ctx), key, sizeof *key, &found);
  *plan = p;
  if (found) return CLM_OK;
  schedule_causal_conv1d(opencl_schedule_device(ctx), &key->request, &p->tile);
  vary(&key->request, &p->tile);
  clm_status status = CLM_OK;
  if (!backward) status = get(ctx, key, &p->tile, "causal_conv1d", "causal_conv1d", &p->main);
  if (!status && key->flags & (CONV_DX | CONV_PARTS))
    status = get(ctx, key, &p->tile, "causal_conv1d_backward", "causal_conv1d_backward", &p->main);
  if (!status && key->flags & CONV_PARTS)
    status = get(ctx, key, &p->tile, "causal_conv1d_backward", "causal_conv1d_sum", &p->sum);
  if (!status && key->states) { /* any layout, and one channel at a time */
    conv_key general = *key;
    causal_conv1d_plan one = {.work_group = 1, .steps = 1, .vector = 1};
    general.request.length_fast = false;
    general.dweight = general.dbias = CLM_F32;
    status = get(ctx, &general, &one, "causal_conv1d_states",
                 backward ? "causal_conv1d_dinitial" : "causal_conv1d_final", &p->states);
  }
  if (!status && key->marked)
    status = opencl_kernel_get(ctx, "causal_conv1d_marks", "causal_conv1d_marks", "", &p->marks);
  if (status) plan_cache_forget(opencl_plans(ctx));
  return status;
}

static clm_status check_dtypes(clm_context *ctx, const char *op, const clm_tensor *const *tensors, size_t count) {
  for (size_t i = 0; i < count; i++) {
    clm_dtype dtype = dtype_or_f32(tensors[i]);
    if (dtype != CLM_F32 && dtype != CLM_F16 && dtype != CLM_BF16)
      return context_fail(ctx, CLM_UNSUPPORTED, "%s: the OpenCL backend does not compute on %s tensors", op,
                          clm_dtype_name(dtype));
  }
  return CLM_OK;
}

/* ---- Running ---- */

static void grid(const causal_conv1d_shape *s, const conv_key *key, const causal_conv1d_plan *t, size_t global[3],
                 size_t local[3]) {
  size_t size = (size_t)t->work_group, channels = (size_t)(s->channels / t->vector), runs = (size_t)t->runs;
  global[0] = key->request.length_fast ? runs * size : channels;
  global[1] = key->request.length_fast ? channels : runs;
  global[2] = (size_t)s->batch;
  local[0] = size;
  local[1] = local[2] = 1;
}

static size_t marks_bytes(const causal_conv1d_shape *s, const conv_key *key) {
  return key->marked ? (size_t)(s->batch * (s->length + 1)) * 16 : 0;
}

static conv_args args_of(const causal_conv1d_shape *s, const clm_causal_conv1d_args *a, const conv_key *key) {
  return (conv_args){.x = opencl_view_of(&a->x),
                     .weight = opencl_view_of(&a->weight),
                     .bias = opencl_view_of(&a->bias),
                     .out = opencl_view_of(&a->out),
                     .initial = opencl_view_of(&a->initial_state),
                     .final = opencl_view_of(&a->final_state),
                     .numbers = opencl_view_of(s->packed ? &a->cu_seqlens : &a->seq_idx),
                     .length = s->length,
                     .sequences = s->packed ? (int32_t)s->sequences : 0,
                     .reversed = s->reversed,
                     .before = (int32_t)s->width - 1,
                     .channels = (int32_t)s->channels,
                     .flags = key->flags};
}

/* Marks at the start of the workspace. */
static clm_status run_marks(clm_context *ctx, const conv_plan *p, const causal_conv1d_shape *s,
                            const clm_causal_conv1d_args *a, const conv_args *args, const clm_buffer *workspace) {
  if (!p->marks) return CLM_OK;
  size_t global[2] = {(size_t)s->length + 1, (size_t)s->batch};
  return OPENCL_RUN(ctx, p->marks, 2, global, NULL, ARG_STRUCT(*args),
                    ARG_DATA(s->packed ? a->cu_seqlens : a->seq_idx), ARG_BUFFER(workspace));
}

#define FILTER_DATA(a) ARG_DATA((a)->weight), ARG_DATA((a)->bias)

clm_status opencl_causal_conv1d(clm_context *ctx, const causal_conv1d_shape *s, const clm_causal_conv1d_args *a) {
  const clm_tensor *tensors[] = {&a->x, &a->weight, &a->bias, &a->out, &a->initial_state, &a->final_state};
  conv_key key;
  conv_plan *p;
  key_of(&key, "causal_conv1d", s, a);
  key.request.pairs = has_pairs(&a->x) && has_pairs(&a->out);
  key.step[CONV_OUT] = step_of(&a->out);
  key.states = a->final_state.buffer && s->width > 1;
  key.final = dtype_or_f32(&a->final_state);
  clm_status status = check_dtypes(ctx, "causal_conv1d", tensors, sizeof tensors / sizeof *tensors);
  if (!status) status = find_plan(ctx, &key, &p);
  clm_buffer *workspace = NULL;
  if (!status && key.marked) status = context_workspace(ctx, marks_bytes(s, &key), &workspace);
  const conv_args args = args_of(s, a, &key);
  if (!status) status = run_marks(ctx, p, s, a, &args, workspace);
  if (status) return status;
  size_t global[3], local[3];
  grid(s, &key, &p->tile, global, local);
  status = OPENCL_RUN(ctx, p->main, 3, global, local, ARG_STRUCT(args), ARG_DATA(a->x), FILTER_DATA(a),
                      ARG_DATA(a->initial_state), ARG_BUFFER(workspace), ARG_DATA(a->out));
  if (!status && key.states) {
    size_t rows[2] = {(size_t)s->channels, (size_t)s->sequences};
    status = OPENCL_RUN(ctx, p->states, 2, rows, NULL, ARG_STRUCT(args), ARG_DATA(a->x), ARG_DATA(a->initial_state),
                        ARG_BUFFER(workspace), ARG_DATA(a->cu_seqlens), ARG_DATA(a->final_state));
  }
  if (!status)
    context_explain(ctx, "causal_conv1d: %d steps unrolled, %d channels each, %d work-items; %s", p->tile.steps,
                    p->tile.vector, p->tile.work_group, p->tile.why);
  return status;
}

clm_status opencl_causal_conv1d_backward(clm_context *ctx, const causal_conv1d_shape *s,
                                         const clm_causal_conv1d_backward_args *b) {
  const clm_causal_conv1d_args *a = &b->forward;
  const clm_tensor *tensors[] = {&a->x, &a->weight, &a->bias, &b->dweight, &b->dbias, &a->initial_state};
  conv_key key;
  conv_plan *p;
  key_of(&key, "conv_backward", s, a);
  key.request.backward = true;
  key.request.pairs = has_pairs(&a->x) && has_pairs(&b->dout) && has_pairs(&b->dx);
  key.step[CONV_DOUT] = step_of(&b->dout);
  key.step[CONV_DX_STEP] = step_of(&b->dx);
  key.dweight = dtype_or_f32(&b->dweight);
  key.dbias = dtype_or_f32(&b->dbias);
  key.states = b->dinitial_state.buffer;
  key.final = dtype_or_f32(&b->dfinal_state);
  key.dinitial = dtype_or_f32(&b->dinitial_state);
  const bool parts = b->dweight.buffer || b->dbias.buffer;
  key.flags |= (b->dfinal_state.buffer ? CONV_DFINAL : 0) | (b->dx.buffer ? CONV_DX : 0) | (parts ? CONV_PARTS : 0);
  clm_status status = check_dtypes(ctx, "causal_conv1d_backward", tensors, sizeof tensors / sizeof *tensors);
  if (!status) status = find_plan(ctx, &key, &p);
  if (status) return status;
  int64_t count = s->batch * p->tile.runs, numbers = s->channels * (s->width + 1);
  size_t offset = marks_bytes(s, &key), bytes = offset + (parts ? sizeof(float) * (size_t)(count * numbers) : 0);
  clm_buffer *workspace = NULL;
  if (bytes) status = context_workspace(ctx, bytes, &workspace);
  conv_args args = args_of(s, a, &key);
  args.final = opencl_view_of(&b->dfinal_state);
  args.dout = opencl_view_of(&b->dout);
  args.dx = opencl_view_of(&b->dx);
  args.dweight = opencl_view_of(&b->dweight);
  args.dbias = opencl_view_of(&b->dbias);
  args.dinitial = opencl_view_of(&b->dinitial_state);
  args.run = p->tile.run;
  args.runs = (int32_t)p->tile.runs;
  args.parts = (int64_t)(offset / sizeof(float));
  const kernel_arg marks = ARG_BUFFER(key.marked ? workspace : NULL), sums = ARG_BUFFER(parts ? workspace : NULL);
  if (!status) status = run_marks(ctx, p, s, a, &args, workspace);
  size_t global[3], local[3], each[2] = {(size_t)s->channels, (size_t)s->width + 1},
                              rows[2] = {(size_t)s->channels, (size_t)s->sequences};
  grid(s, &key, &p->tile, global, local);
  if (!status && p->main)
    status = OPENCL_RUN(ctx, p->main, 3, global, local, ARG_STRUCT(args), ARG_DATA(a->x), FILTER_DATA(a),
                        ARG_DATA(a->initial_state), marks, ARG_DATA(b->dout), ARG_DATA(b->dfinal_state),
                        ARG_DATA(b->dx), sums);
  if (!status && parts)
    status = OPENCL_RUN(ctx, p->sum, 2, each, NULL, ARG_STRUCT(args), sums, ARG_I64(count), ARG_DATA(b->dweight),
                        ARG_DATA(b->dbias));
  if (!status && key.states)
    status = OPENCL_RUN(ctx, p->states, 2, rows, NULL, ARG_STRUCT(args), ARG_DATA(a->x), FILTER_DATA(a),
                        ARG_DATA(a->initial_state), marks, ARG_DATA(a->cu_seqlens), ARG_DATA(b->dout),
                        ARG_DATA(b->dfinal_state), ARG_DATA(b->dinitial_state));
  if (!status)
    context_explain(ctx, "causal_conv1d_backward: %d steps unrolled, %d channels each, %d work-items; %s",
                    p->tile.steps, p->tile.vector, p->tile.work_group, p->tile.why);
  return status;
}

clm_status opencl_causal_conv1d_update(clm_context *ctx, const conv_update_shape *s,
                                       const clm_causal_conv1d_update_args *a) {
  const clm_tensor *tensors[] = {&a->x, &a->weight, &a->bias};
  clm_status status = check_dtypes(ctx, "causal_conv1d_update", tensors, sizeof tensors / sizeof *tensors);
  if (status) return status;
  const schedule_device *d = opencl_schedule_device(ctx);
  const int32_t flags = (a->silu ? CONV_SILU : 0) | (a->bias.buffer ? CONV_BIAS : 0);
  const bool circular = a->cache_seqlens.buffer && a->state.buffer;
  char defines[256];
  snprintf(defines, sizeof defines, "%s -DCONV_WIDTH=%d -DX_TYPE=%s -DW_TYPE=%s -DB_TYPE=%s -DINITIAL_TYPE=%s",
           scan_device_defines(d), (int)s->width, clm_dtype_name(s->dtype), clm_dtype_name(a->weight.dtype),
           clm_dtype_name(dtype_or_f32(&a->bias)), clm_dtype_name(dtype_or_f32(&a->state)));
  opencl_kernel *kernel;
  status = opencl_kernel_get(ctx, "causal_conv1d_update", "causal_conv1d_update", defines, &kernel);
  if (status) return status;
  const conv_args args = {.x = opencl_view_of(&a->x),
                          .weight = opencl_view_of(&a->weight),
                          .bias = opencl_view_of(&a->bias),
                          .out = opencl_view_of(&a->out),
                          .initial = opencl_view_of(&a->state),
                          .position = opencl_view_of(&a->cache_seqlens),
                          .index = opencl_view_of(&a->state_indices),
                          .length = s->steps,
                          .pool = s->pool,
                          .size = circular ? (int32_t)s->size : 0,
                          .places = circular ? 0 : (int32_t)s->size,
                          .channels = (int32_t)s->channels,
                          .flags = flags};
  size_t global[2] = {(size_t)s->channels, (size_t)s->batch};
  status = OPENCL_RUN(ctx, kernel, 2, global, NULL, ARG_STRUCT(args), ARG_DATA(a->state), ARG_DATA(a->x),
                      FILTER_DATA(a), ARG_DATA(a->cache_seqlens), ARG_DATA(a->state_indices), ARG_DATA(a->out));
  if (!status) context_explain(ctx, "causal_conv1d_update: one work-item for each channel and batch row");
  return status;
}

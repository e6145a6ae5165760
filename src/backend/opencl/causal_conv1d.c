/* Causal convolution: forward (and its final state), backward with staged sums of dweight and dbias, one step. */
#include "schedule/causal_conv1d.h"
#include "backend/opencl/ops.h"
#include "backend/opencl/scan_family.h"
#include <stdio.h>
#include <string.h>

typedef struct conv_key {
  char op[16];
  causal_conv1d_request request;
  bool silu, has_bias, has_initial, has_dfinal, dx, dinitial, parts;
} conv_key;

typedef struct conv_plan {
  causal_conv1d_plan tile;
  opencl_kernel *kernel, *final;
} conv_plan;

static const char *key_for(conv_key *key, const char *op, const causal_conv1d_shape *s,
                           const clm_causal_conv1d_args *a) {
  memset(key, 0, sizeof *key); /* padding too: it is compared byte by byte */
  snprintf(key->op, sizeof key->op, "%s", op);
  key->request.batch = s->batch;
  key->request.length = s->length;
  key->request.channels = s->channels;
  key->request.width = s->width;
  key->request.length_fast = length_is_fast(&a->x);
  key->silu = a->silu;
  key->has_bias = a->bias.buffer;
  key->has_initial = a->initial_state.buffer;
  return key->op;
}

static clm_status find_plan(clm_context *ctx, const conv_key *key, const char *form, const char *name,
                            conv_plan **plan) {
  bool found;
  conv_plan *p = plan_cache_get(opencl_plans(ctx), key, sizeof *key, &found);
  *plan = p;
  if (found) return CLM_OK;
  schedule_causal_conv1d(opencl_schedule_device(ctx), &key->request, &p->tile);
  char defines[512];
  snprintf(defines, sizeof defines,
           "%s -D%s -DWORK_GROUP=%d -DCONV_WIDTH=%d -DCONV_STEPS=%d -DCONV_LENGTH_FAST=%d -DCONV_SILU=%d"
           " -DCONV_HAS_BIAS=%d -DCONV_HAS_INITIAL=%d -DCONV_HAS_DFINAL=%d -DCONV_DX=%d -DCONV_DINITIAL=%d"
           " -DCONV_PARTS=%d",
           scan_device_defines(opencl_schedule_device(ctx)), form, p->tile.work_group, (int)key->request.width,
           p->tile.steps, key->request.length_fast, key->silu, key->has_bias, key->has_initial, key->has_dfinal,
           key->dx, key->dinitial, key->parts);
  clm_status status = opencl_kernel_get(ctx, "causal_conv1d", name, defines, &p->kernel);
  if (!status && strcmp(form, "CONV_FORWARD") == 0)
    status = opencl_kernel_get(ctx, "causal_conv1d", "causal_conv1d_final", defines, &p->final);
  if (status) plan_cache_forget(opencl_plans(ctx));
  return status;
}

static void grid(const causal_conv1d_shape *s, const conv_key *key, const causal_conv1d_plan *t, size_t global[3],
                 size_t local[3]) {
  size_t size = (size_t)t->work_group, channels = (size_t)s->channels, runs = (size_t)t->runs;
  global[0] = key->request.length_fast ? runs * size : channels;
  global[1] = key->request.length_fast ? channels : runs;
  global[2] = (size_t)s->batch;
  local[0] = size;
  local[1] = local[2] = 1;
}

#define INPUT_ARGS(a)                                                                                                \
  ARG_TENSOR3((a)->x), ARG_TENSOR2((a)->weight), ARG_TENSOR1((a)->bias), ARG_TENSOR3((a)->initial_state)

clm_status opencl_causal_conv1d(clm_context *ctx, const causal_conv1d_shape *s, const clm_causal_conv1d_args *a) {
  const clm_tensor *tensors[] = {&a->x, &a->weight, &a->bias, &a->initial_state, &a->out, &a->final_state};
  conv_key key;
  conv_plan *p;
  clm_status status = scan_check_dtypes(ctx, key_for(&key, "causal_conv1d", s, a), CLM_F32, tensors, 6);
  if (!status) status = find_plan(ctx, &key, "CONV_FORWARD", "causal_conv1d", &p);
  if (status) return status;
  size_t global[3], local[3];
  grid(s, &key, &p->tile, global, local);
  status = OPENCL_RUN(ctx, p->kernel, 3, global, local, INPUT_ARGS(a), ARG_TENSOR3(a->out), ARG_I64(s->length),
                      ARG_I32(s->channels));
  if (!status && a->final_state.buffer && s->width > 1) {
    size_t rows[2] = {(size_t)s->channels, (size_t)s->batch};
    status = OPENCL_RUN(ctx, p->final, 2, rows, NULL, ARG_TENSOR3(a->x), ARG_TENSOR3(a->initial_state),
                        ARG_TENSOR3(a->final_state), ARG_I64(s->length), ARG_I32(s->channels));
  }
  if (!status)
    context_explain(ctx, "causal_conv1d: %d steps unrolled, %d work-items; %s", p->tile.steps, p->tile.work_group,
                    p->tile.why);
  return status;
}

clm_status opencl_causal_conv1d_backward(clm_context *ctx, const causal_conv1d_shape *s,
                                         const clm_causal_conv1d_backward_args *b) {
  const clm_causal_conv1d_args *a = &b->forward;
  const clm_tensor *tensors[] = {&a->x,  &a->weight,  &a->bias,  &a->initial_state, &b->dout,
                                 &b->dx, &b->dweight, &b->dbias, &b->dfinal_state,  &b->dinitial_state};
  conv_key key;
  conv_plan *p;
  key_for(&key, "conv_backward", s, a);
  key.request.backward = true;
  key.has_dfinal = b->dfinal_state.buffer;
  key.dx = b->dx.buffer;
  key.dinitial = b->dinitial_state.buffer;
  key.parts = b->dweight.buffer || b->dbias.buffer;
  clm_status status = scan_check_dtypes(ctx, "causal_conv1d_backward", CLM_F32, tensors, 10);
  if (!status) status = find_plan(ctx, &key, "CONV_BACKWARD", "causal_conv1d_backward", &p);
  if (status) return status;
  int64_t parts = s->batch * p->tile.runs, weights = s->channels * s->width;
  clm_buffer *workspace = NULL;
  if (key.parts)
    status = context_workspace(ctx, sizeof(float) * (size_t)(parts * (weights + s->channels)), &workspace);
  size_t global[3], local[3];
  grid(s, &key, &p->tile, global, local);
  if (!status)
    status = OPENCL_RUN(ctx, p->kernel, 3, global, local, INPUT_ARGS(a), ARG_TENSOR3(b->dout),
                        ARG_TENSOR3(b->dfinal_state), ARG_TENSOR3(b->dx), ARG_TENSOR3(b->dinitial_state),
                        ARG_BUFFER(workspace), ARG_I64(parts * weights), ARG_I64(s->length), ARG_I32(s->channels),
                        ARG_I64(p->tile.run), ARG_I32(p->tile.runs));
  if (!status && b->dweight.buffer) status = scan_reduce(ctx, workspace, 0, parts, weights, &b->dweight);
  if (!status && b->dbias.buffer)
    status = scan_reduce(ctx, workspace, parts * weights, parts, s->channels, &b->dbias);
  if (!status)
    context_explain(ctx, "causal_conv1d_backward: %d steps unrolled, %d work-items; %s", p->tile.steps,
                    p->tile.work_group, p->tile.why);
  return status;
}

clm_status opencl_causal_conv1d_update(clm_context *ctx, const causal_conv1d_shape *s,
                                       const clm_causal_conv1d_update_args *a) {
  const clm_tensor *tensors[] = {&a->x, &a->weight, &a->bias, &a->state, &a->out};
  clm_status status = scan_check_dtypes(ctx, "causal_conv1d_update", CLM_F32, tensors, 5);
  if (status) return status;
  char defines[256];
  snprintf(defines, sizeof defines, "%s -DCONV_UPDATE -DCONV_WIDTH=%d -DCONV_HAS_BIAS=%d -DCONV_SILU=%d",
           scan_device_defines(opencl_schedule_device(ctx)), (int)s->width, a->bias.buffer != NULL, a->silu);
  opencl_kernel *kernel;
  status = opencl_kernel_get(ctx, "causal_conv1d", "causal_conv1d_update", defines, &kernel);
  if (status) return status;
  size_t global[2] = {(size_t)s->channels, (size_t)s->batch};
  status = OPENCL_RUN(ctx, kernel, 2, global, NULL, ARG_TENSOR3(a->state), ARG_TENSOR2(a->x), ARG_TENSOR2(a->weight),
                      ARG_TENSOR1(a->bias), ARG_TENSOR2(a->out));
  if (!status) context_explain(ctx, "causal_conv1d_update: one work-item for each channel and batch row");
  return status;
}

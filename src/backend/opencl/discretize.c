/* Discretization and its gradients: sums over batch and length in parts, added up in a fixed order. */
#include "backend/opencl/operands.h"
#include "backend/opencl/ops.h"
#include "backend/opencl/scan_family.h"
#include "schedule/arith.h"
#include <stdio.h>

enum { PARTS = 64 }; /* runs of rows that are summed side by side */

typedef struct stored { /* what a direction reads or writes besides the inputs */
  const char *define;
  clm_tensor A_bar, B_bar; /* backward: their gradients */
  clm_tensor dB;           /* backward only             */
} stored;

static clm_status get_kernel(clm_context *ctx, const discretize_shape *s, const clm_discretize_args *a,
                             const stored *d, const char *name, opencl_kernel **kernel) {
  char base[128];
  snprintf(base, sizeof base, "%s -D%s -DNUMBER_COMPLEX=%d -DDISCRETIZE_METHOD=%d",
           scan_device_defines(opencl_schedule_device(ctx)), d->define, s->complex, (int)a->method);
  opencl_defines defines = OPENCL_DEFINES(base, OPERAND_TYPE(DELTA_TYPE, a->delta), OPERAND_TYPE(B_TYPE, a->B),
                                          OPERAND_TYPE(A_BAR_TYPE, d->A_bar), OPERAND_TYPE(B_BAR_TYPE, d->B_bar),
                                          OPERAND_TYPE(DB_TYPE, d->dB));
  return opencl_kernel_get(ctx, "discretize", name, defines.text, kernel);
}

static clm_status get_gradient_kernel(clm_context *ctx, const discretize_shape *s,
                                      const clm_discretize_backward_args *b, const char *name,
                                      opencl_kernel **kernel) {
  const stored gradients = {"DISCRETIZE_BACKWARD", b->dA_bar, b->dB_bar, b->dB};
  return get_kernel(ctx, s, &b->forward, &gradients, name, kernel);
}

/* (batch, step, channel, state), with 0 for the dimensions that B does not have. */
#define ARG_B(s, t)                                                                                                  \
  ARG_TENSOR(t), ARG_I64((s)->B_varies ? (t).stride[0] : 0), ARG_I64((s)->B_varies ? (t).stride[1] : 0),             \
      ARG_I64((s)->B_varies ? 0 : (t).stride[0]), ARG_I64((t).stride[(s)->B_varies ? 2 : 1])
#define ARG_INPUTS(s, a) ARG_TENSOR3((a)->delta), ARG_TENSOR2((a)->A), ARG_B(s, (a)->B)
#define ARG_GRADIENTS(s, b)                                                                                          \
  ARG_INPUTS(s, &(b)->forward), ARG_TENSOR4((b)->dA_bar), ARG_TENSOR4((b)->dB_bar),                                  \
      ARG_I32((b)->dA_bar.buffer != NULL), ARG_I32((b)->dB_bar.buffer != NULL)

clm_status opencl_discretize(clm_context *ctx, const discretize_shape *s, const clm_discretize_args *a) {
  opencl_kernel *kernel;
  clm_status status = OPENCL_ONLY_STORAGE(ctx, "discretize", OPERAND(a, delta));
  const stored results = {.define = "DISCRETIZE_FORWARD", .A_bar = a->A_bar, .B_bar = a->B_bar};
  if (!status) status = get_kernel(ctx, s, a, &results, "discretize", &kernel);
  if (status) return status;
  size_t global[3] = {(size_t)(s->d_inner * s->d_state), (size_t)s->length, (size_t)s->batch};
  status = OPENCL_RUN(ctx, kernel, 3, global, NULL, ARG_INPUTS(s, a), ARG_TENSOR4(a->A_bar), ARG_TENSOR4(a->B_bar),
                      ARG_I64(s->length), ARG_I32(s->d_inner), ARG_I32(s->d_state));
  if (!status) context_explain(ctx, "discretize: one work-item for each channel, state, step and batch row");
  return status;
}

static clm_status run_delta(clm_context *ctx, const discretize_shape *s, const clm_discretize_backward_args *b) {
  opencl_kernel *kernel;
  clm_status status = get_gradient_kernel(ctx, s, b, "discretize_delta", &kernel);
  size_t global[3] = {(size_t)s->d_inner, (size_t)s->length, (size_t)s->batch};
  return status ? status
                : OPENCL_RUN(ctx, kernel, 3, global, NULL, ARG_GRADIENTS(s, b), ARG_TENSOR3(b->ddelta),
                             ARG_I32(s->d_state));
}

static clm_status run_input(clm_context *ctx, const discretize_shape *s, const clm_discretize_backward_args *b) {
  opencl_kernel *kernel;
  clm_status status = get_gradient_kernel(ctx, s, b, "discretize_input", &kernel);
  size_t global[3] = {(size_t)s->d_state, (size_t)s->length, (size_t)s->batch};
  return status
             ? status
             : OPENCL_RUN(ctx, kernel, 3, global, NULL, ARG_GRADIENTS(s, b), ARG_TENSOR3(b->dB), ARG_I32(s->d_inner));
}

/* The same elements as floats: a complex tensor gets a last dimension of two. */
static clm_tensor as_floats(clm_tensor t, bool complex) {
  if (!complex) return t;
  for (int i = 0; i < t.rank; i++) t.stride[i] *= 2;
  t.shape[t.rank] = 2;
  t.stride[t.rank++] = 1;
  t.dtype = CLM_F32;
  return t;
}

static clm_status run_parts(clm_context *ctx, const discretize_shape *s, const clm_discretize_backward_args *b) {
  const int64_t rows = s->batch * s->length, run = div_up(rows, PARTS), parts = div_up(rows, run);
  const int64_t elements = s->d_inner * s->d_state, floats = elements * (s->complex ? 2 : 1);
  opencl_kernel *kernel;
  clm_buffer *workspace;
  clm_status status = get_gradient_kernel(ctx, s, b, "discretize_parts", &kernel);
  if (!status) status = context_workspace(ctx, sizeof(float) * (size_t)(2 * parts * floats), &workspace);
  if (status) return status;
  size_t global[2] = {(size_t)elements, (size_t)parts};
  status = OPENCL_RUN(ctx, kernel, 2, global, NULL, ARG_GRADIENTS(s, b), ARG_BUFFER(workspace), ARG_I64(rows),
                      ARG_I64(s->length), ARG_I64(run), ARG_I32(s->d_inner), ARG_I32(s->d_state));
  const clm_tensor dA = as_floats(b->dA, s->complex), dB = as_floats(b->dB, s->complex);
  if (!status && b->dA.buffer) status = scan_reduce(ctx, workspace, 0, parts, 2 * floats, &dA);
  if (!status && b->dB.buffer && !s->B_varies) status = scan_reduce(ctx, workspace, floats, parts, 2 * floats, &dB);
  return status;
}

clm_status opencl_discretize_backward(clm_context *ctx, const discretize_shape *s,
                                      const clm_discretize_backward_args *b) {
  clm_status status = OPENCL_ONLY_STORAGE(ctx, "discretize_backward", OPERAND(&b->forward, delta));
  if (!status && b->ddelta.buffer) status = run_delta(ctx, s, b);
  if (!status && b->dB.buffer && s->B_varies) status = run_input(ctx, s, b);
  if (!status && (b->dA.buffer || (b->dB.buffer && !s->B_varies))) status = run_parts(ctx, s, b);
  if (!status) context_explain(ctx, "discretize_backward: one kernel for each gradient, sums in %d parts", PARTS);
  return status;
}

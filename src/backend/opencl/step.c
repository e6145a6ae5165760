/* Step programs: whether the device can run them, their kernel, launches. */
#include "backend/opencl/step.h"
#include "backend/opencl/scan_family.h"
#include "core/try.h"
#include "schedule/arith.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
  LANES = 32,
  WORK_GROUP = 512,
  CPU_WORK_GROUP = 1,
  PROBE_STAGES = 64,
  PATIENCE = 1 << 22, /* looks: seconds */
};

/* ---- What the device can do ---- */

static bool is_cpu(const clm_context *ctx) { return opencl_state_of(ctx)->device.info.type == CLM_DEVICE_CPU; }

/* Work-groups of a step: one for each compute unit, so that all run at once. On a CPU the operations one by one are
 * as fast, and work-groups may run one after another: none, or, for tests (CLM_STEP_PROGRAM=1), one. CLM_STEP_GROUPS
 * and CLM_STEP_WORK_GROUP are for development. */
static size_t groups_of(const clm_context *ctx) {
  const char *wanted = getenv("CLM_STEP_PROGRAM");
  const int32_t forced = scan_env("CLM_STEP_GROUPS");
  if (wanted && strcmp(wanted, "0") == 0) return 0;
  if (forced > 0) return (size_t)forced;
  if (is_cpu(ctx)) return wanted && strcmp(wanted, "1") == 0;
  return (size_t)opencl_schedule_device(ctx)->compute_units;
}

static int32_t work_group_of(const clm_context *ctx) {
  const schedule_device *d = opencl_schedule_device(ctx);
  const int32_t forced = scan_env("CLM_STEP_WORK_GROUP");
  if (forced > 0) return power_of_two_at_most(forced);
  const int32_t most = is_cpu(ctx) || d->shuffle == SHUFFLE_LOCAL ? CPU_WORK_GROUP : WORK_GROUP;
  return power_of_two_at_most(min_of(d->max_work_group, most));
}

int opencl_step_lanes(const clm_context *ctx) {
  const schedule_device *d = opencl_schedule_device(ctx);
  const int32_t lanes = d->shuffle == SHUFFLE_NONE ? 1 : (int32_t)min_of(d->subgroup, LANES);
  return power_of_two_at_most(min_of(lanes < 1 ? 1 : lanes, work_group_of(ctx)));
}

/* ---- A plan ---- */

clm_status opencl_plan_create(op_plan *plan) {
  clm_context *ctx = plan->context;
  const opencl_state *s = opencl_state_of(ctx);
  if (!groups_of(ctx) || s->step_lost || s->quirks.no_step_program) return CLM_UNSUPPORTED;
  plan->state = calloc(1, sizeof(step_plan));
  return plan->state ? CLM_OK : context_fail(ctx, CLM_OUT_OF_MEMORY, "opencl: no host memory for a plan");
}

void opencl_plan_destroy(op_plan *plan) {
  step_plan *p = plan->state;
  opencl_state *s = opencl_state_of(plan->context);
  if (p->memory && s->step_memory == p->memory) s->step_memory = NULL;
  clm_buffer_destroy(&p->memory);
  free(p->stages);
  free(p);
}

static clm_status find_kernel(clm_context *ctx, step_plan *p) {
  const schedule_device *d = opencl_schedule_device(ctx);
  char defines[320];
  snprintf(defines, sizeof defines,
           "%s -DWORK_GROUP=%d -DSTEP_LANES=%d -DSTEP_ROWS=%d -DSTEP_WIDTH=%d -DSTEP_PATIENCE=%d -DB_TYPE=%s%s",
           scan_device_defines(d), (int)p->work_group, opencl_step_lanes(ctx), (int)p->rows, (int)p->width, PATIENCE,
           clm_dtype_name(p->weights), p->aligned ? " -DALIGNED_B" : "");
  return opencl_kernel_get(ctx, "step", "step_program", defines, &p->kernel);
}

static size_t local_bytes(const step_plan *p) {
  return sizeof(void *) * (STEP_BUFFERS + 1) + 2 * sizeof(step_stage) +
         sizeof(float) * (size_t)(p->rows * (p->width + STEP_PARTS) + 1);
}

static clm_status launch(clm_context *ctx, step_plan *p, int32_t count) {
  const size_t global = p->groups * p->work_group;
  const clm_buffer *const *b = p->buffers;
  TRY(OPENCL_RUN(ctx, p->kernel, 1, &global, &p->work_group, ARG_BUFFER(p->memory), ARG_I32(count), ARG_I32(p->met),
                 ARG_BUFFER(b[0]), ARG_BUFFER(b[1]), ARG_BUFFER(b[2]), ARG_BUFFER(b[3]), ARG_BUFFER(b[4]),
                 ARG_BUFFER(b[5])));
  p->met += (uint32_t)count;
  opencl_state_of(ctx)->step_memory = p->memory;
  return CLM_OK;
}

/* Whether the kernel runs, its work-groups meet, and each sees what others wrote: stages that try just that. (What a
 * driver says of a kernel's largest work-group is not asked: NVIDIA's says 256 of one that requires 1024, and runs
 * it.) */
static bool groups_meet(clm_context *ctx, step_plan *p) {
  const bool met = launch(ctx, p, PROBE_STAGES) == CLM_OK && opencl_finish(ctx) == CLM_OK;
  if (!met) ctx->error[0] = '\0'; /* a probe that failed is no failure of the caller's */
  return met;
}

clm_status opencl_plan_end(op_plan *plan) {
  clm_context *ctx = plan->context;
  step_plan *p = plan->state;
  const schedule_device *d = opencl_schedule_device(ctx);
  p->groups = groups_of(ctx);
  p->work_group = (size_t)work_group_of(ctx);
  if (p->count == 0 || (int64_t)local_bytes(p) > d->local_memory_bytes) return CLM_UNSUPPORTED;
  TRY(find_kernel(ctx, p));
  const size_t bytes = (size_t)p->count * sizeof *p->stages, probe = PROBE_STAGES * sizeof *p->stages;
  const size_t slots = 2 * p->groups * sizeof(float); /* behind the probe's stages */
  const size_t all = STEP_TABLE + (bytes > probe + slots ? bytes : probe + slots);
  void *zeros = calloc(1, all);
  if (!zeros) return context_fail(ctx, CLM_OUT_OF_MEMORY, "opencl: no host memory for a plan");
  clm_status status = clm_buffer_create(ctx, all, &p->memory);
  if (!status) status = clm_buffer_write(p->memory, 0, all, zeros);
  free(zeros);
  if (!status && !groups_meet(ctx, p)) status = CLM_UNSUPPORTED;
  return status ? status : clm_buffer_write(p->memory, STEP_TABLE, bytes, p->stages);
}

clm_status opencl_plan_run(const op_plan *plan) {
  step_plan *p = plan->state;
  context_explain(plan->context, "step: opencl, %d stages in a kernel, %zu work-groups of %zu", (int)p->count,
                  p->groups, p->work_group);
  return launch(plan->context, p, (int32_t)p->count);
}

/* ---- Whether they met ---- */

clm_status opencl_step_ask(clm_context *ctx) {
  opencl_state *s = opencl_state_of(ctx);
  s->step_missed = 0;
  if (!s->step_memory) return CLM_OK;
  return opencl_check(ctx,
                      clEnqueueReadBuffer(s->queue, s->step_memory->device, CL_FALSE, sizeof(cl_int), sizeof(cl_int),
                                          &s->step_missed, 0, NULL, NULL),
                      "reading whether a step's work-groups met");
}

clm_status opencl_step_answer(clm_context *ctx) {
  opencl_state *s = opencl_state_of(ctx);
  s->step_memory = NULL;
  if (!s->step_missed) return CLM_OK;
  s->step_lost = true;
  return context_fail(ctx, CLM_DEVICE_ERROR,
                      "opencl: the work-groups of a step did not meet in time, so its results are lost; from now on "
                      "its operations run one by one (CLM_STEP_PROGRAM=0: from the beginning)");
}

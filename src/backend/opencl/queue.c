/* The in-order stream of a context: waiting, timing, and the host's own events. */
#include "backend/opencl/opencl.h"
#include "core/clock.h"
#include "core/try.h"

clm_status opencl_finish(clm_context *ctx) {
  TRY(opencl_step_ask(ctx));
  TRY(opencl_check(ctx, clFinish(opencl_state_of(ctx)->queue), "waiting for the device"));
  return opencl_step_answer(ctx);
}

static void forget(cl_event *event) {
  if (*event) clReleaseEvent(*event);
  *event = NULL;
}

/* Only the first command has one: with an event each, a launch takes three times as long on NVIDIA's driver, and what
 * is timed would be the timing. */
cl_event *opencl_event_slot(opencl_state *s, cl_event *event) {
  if (!s->profile_open) return NULL;
  s->several = s->first != NULL;
  return !s->first || s->trace ? event : NULL;
}

void opencl_event_keep(opencl_state *s, cl_event event) {
  if (!s->first) s->first = event;
  else clReleaseEvent(event);
}

clm_status opencl_event_mark(clm_context *ctx) {
  opencl_state *s = opencl_state_of(ctx);
  if (!s->profile_open || s->first) return CLM_OK;
  return opencl_check(ctx, clEnqueueMarkerWithWaitList(s->queue, 0, NULL, &s->first), "clEnqueueMarkerWithWaitList");
}

static clm_status event_time(clm_context *ctx, cl_event event, cl_profiling_info what, cl_ulong *nanoseconds) {
  cl_int execution = CL_COMPLETE;
  cl_int error = clGetEventInfo(event, CL_EVENT_COMMAND_EXECUTION_STATUS, sizeof execution, &execution, NULL);
  if (error == CL_SUCCESS && execution < 0) error = execution; /* the command itself failed */
  if (error == CL_SUCCESS) error = clGetEventProfilingInfo(event, what, sizeof *nanoseconds, nanoseconds, NULL);
  return opencl_check(ctx, error, "timing a kernel");
}

clm_status opencl_event_trace(clm_context *ctx, const char *name, cl_event event) {
  cl_ulong begin = 0, end = 0;
  clm_status status = opencl_check(ctx, clWaitForEvents(1, &event), name);
  if (!status) status = event_time(ctx, event, CL_PROFILING_COMMAND_START, &begin);
  if (!status) status = event_time(ctx, event, CL_PROFILING_COMMAND_END, &end);
  if (!status) context_log(ctx, CLM_LOG_WARNING, "%9.4f ms  %s", (double)(end - begin) * 1e-6, name);
  return status;
}

clm_status opencl_profile_begin(clm_context *ctx) {
  opencl_state *s = opencl_state_of(ctx);
  forget(&s->first);
  s->several = false;
  s->profile_open = true;
  s->profile_begun = clock_seconds();
  return CLM_OK;
}

/* Some drivers give events no times worth the name (rusticl 22.3: every end is one nanosecond after its start). No
 * kernel runs in a nanosecond: then the host's clock has to do. */
static double believable(const opencl_state *s, cl_ulong begin, cl_ulong end) {
  if (end > begin + 1) return (double)(end - begin) * 1e-6;
  return (clock_seconds() - s->profile_begun) * 1e3;
}

clm_status opencl_profile_end(clm_context *ctx, double *milliseconds) {
  opencl_state *s = opencl_state_of(ctx);
  *milliseconds = 0;
  s->profile_open = false;
  clm_status status = CLM_OK;
  cl_event last = NULL; /* a marker: it ends with the last command */
  if (s->several)
    status = opencl_check(ctx, clEnqueueMarkerWithWaitList(s->queue, 0, NULL, &last), "clEnqueueMarkerWithWaitList");
  if (status == CLM_OK) status = opencl_finish(ctx);
  cl_ulong begin = 0, end = 0;
  if (status == CLM_OK && s->first) {
    status = event_time(ctx, s->first, CL_PROFILING_COMMAND_START, &begin);
    if (status == CLM_OK) status = event_time(ctx, last ? last : s->first, CL_PROFILING_COMMAND_END, &end);
    if (status == CLM_OK) *milliseconds = believable(s, begin, end);
  }
  forget(&s->first);
  forget(&last);
  return status;
}

/* The backend of the context is OpenCL: only then has it a queue. */
static clm_status check_backend(clm_context *ctx, const char *call) {
  if (ctx->backend->finish == opencl_finish) return CLM_OK;
  return context_fail(ctx, CLM_INVALID_ARGUMENT, "%s: the context runs on the CPU, not on an OpenCL device", call);
}

clm_status clm_opencl_wait_for_events(clm_context *ctx, cl_uint count, const cl_event *events) {
  if (!ctx) return CLM_INVALID_ARGUMENT;
  if (count) TRY(CONTEXT_NEED(ctx, "opencl_wait_for_events", events));
  clm_status status = check_backend(ctx, "opencl_wait_for_events");
  if (status || count == 0) return status;
  if (!events) return context_fail(ctx, CLM_INVALID_ARGUMENT, "opencl_wait_for_events: events is NULL");
  return opencl_check(ctx, clEnqueueBarrierWithWaitList(opencl_state_of(ctx)->queue, count, events, NULL),
                      "clEnqueueBarrierWithWaitList");
}

clm_status clm_opencl_signal_event(clm_context *ctx, cl_event *event) {
  TRY(CONTEXT_NEED(ctx, "opencl_signal_event", event));
  clm_status status = check_backend(ctx, "opencl_signal_event");
  if (status) return status;
  if (!event) return context_fail(ctx, CLM_INVALID_ARGUMENT, "opencl_signal_event: event is NULL");
  *event = NULL;
  cl_command_queue queue = opencl_state_of(ctx)->queue;
  status = opencl_check(ctx, clEnqueueMarkerWithWaitList(queue, 0, NULL, event), "clEnqueueMarkerWithWaitList");
  /* Without a flush, another queue of the host could wait for work that was never submitted. */
  return status ? status : opencl_check(ctx, clFlush(queue), "clFlush");
}

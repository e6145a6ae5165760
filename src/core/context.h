/* The inside of a context and of a buffer, for src/ only. */
#ifndef CLM_CORE_CONTEXT_H
#define CLM_CORE_CONTEXT_H

#include "backend/backend.h"
#include "core/op_plan.h"

enum { CONTEXT_NESTING = 4 };

/* What a call of an operation does once its arguments have been checked. */
typedef enum context_calls {
  CALLS_RUN,
  CALLS_CHECK, /* finds out whether it could run: nothing is written */
  CALLS_RECORD /* adds it to clm_context.plan */
} context_calls;

struct clm_context {
  const backend *backend;
  backend_ops ops;      /* CALLS_RUN: run it                                                                     */
  backend_ops supports; /* CALLS_CHECK: prepare it, or say why not; a NULL slot takes all that has been checked */
  backend_ops record;   /* CALLS_RECORD: add it to `plan`; a NULL slot cannot */
  context_calls calls;
  op_plan *plan; /* that is being recorded, or NULL */
  void *state;   /* the backend's own */
  bool profiling;
  clm_log_fn log;
  void *log_user;
  uint64_t memory_now, memory_peak;
  clm_buffer *workspace[CONTEXT_NESTING]; /* one block for each depth, used by one operation at a time in stream
                                             order; they grow, never shrink */
  int depth;                              /* operations that are calling others */
  int process;                            /* that created the context                      */
  char error[512];
  char explain[1024];
};

struct clm_buffer {
  clm_context *context;
  size_t bytes;
  void *host;   /* memory the host can address now: the CPU backend's, or NULL */
  void *device; /* cl_mem of the OpenCL backend, or NULL                       */
  bool owned;   /* counted in memory_now; freed with the buffer                */
  bool mapped;
  void *outside;     /* the caller's memory that `device` is a copy of, or NULL      */
  bool keeps_packed; /* of weights: a backend may keep forms of their matrices, `kept`, made at a version */
  uint64_t version;  /* rises with every write                                                            */
  void *kept;
};

/* Keeps the message, with what could disturb a terminal escaped (core/escape.h), and returns `status`:
 * return context_fail(ctx, CLM_INVALID_ARGUMENT, "norm: x has ..."). */
clm_status context_fail(clm_context *context, clm_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* CLM_INVALID_ARGUMENT, "call: name is NULL", for the first of the pointers that is; their names have commas between
 * them. Without a context there is no message. TRY(CONTEXT_NEED(ctx, "buffer_map", memory)); */
clm_status context_need(clm_context *, const char *call, const char *names, const void *const *pointers,
                        size_t count);
#define CONTEXT_NEED(context, call, ...)                                                                             \
  context_need(context, call, #__VA_ARGS__, (const void *const[]){__VA_ARGS__},                                      \
               sizeof((const void *const[]){__VA_ARGS__}) / sizeof(void *))

/* Likewise of the context that a handle, which may be NULL too, belongs to. */
#define HANDLE_NEED(handle, call, ...) CONTEXT_NEED((handle) ? (handle)->context : NULL, call, __VA_ARGS__)

/* Whether the context was created by another process, of which this one is a fork. */
bool context_is_inherited(const clm_context *);

void context_log(clm_context *context, clm_log_level level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The same of what a compiler says: its lines stay lines. */
void context_log_lines(clm_context *context, clm_log_level level, const char *title, const char *lines);

/* Sets what clm_context_explain returns (a backend calls it once for each operation that it runs). Nothing while a
 * plan is recorded. */
void context_explain(clm_context *context, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* A block of at least `bytes`, contents undefined, valid until the next call of this: for the current operation only.
 */
clm_status context_workspace(clm_context *context, size_t bytes, clm_buffer **workspace);

/* The same for an operation that calls others, whose workspace lies elsewhere until it leaves: valid until then.
 * context_leave only after context_enter gave CLM_OK. */
clm_status context_enter(clm_context *context, size_t bytes, clm_buffer **workspace);
void context_leave(clm_context *context);

#endif

/* The inside of a context and of a buffer, for src/ only. */
#ifndef CLM_CORE_CONTEXT_H
#define CLM_CORE_CONTEXT_H

#include "backend/backend.h"

enum { CONTEXT_NESTING = 4 };

struct clm_context {
  const backend *backend;
  backend_ops ops;
  void *state; /* the backend's own */
  bool profiling;
  clm_log_fn log;
  void *log_user;
  uint64_t memory_now, memory_peak;
  clm_buffer *workspace[CONTEXT_NESTING]; /* one block for each depth, used by one operation at a time in stream
                                             order; they grow, never shrink */
  int depth;                              /* operations that are calling others */
  int process;                            /* that created the context                      */
  bool batching;                          /* between context_batch_begin and _end */
  bool rehearsing;                        /* calls check and prepare everything, and enqueue nothing */
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

/* Sets what clm_context_explain returns (a backend calls it once for each operation that it runs). */
void context_explain(clm_context *context, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* A block of at least `bytes`, contents undefined, valid until the next call of this: for the operation in hand only.
 */
clm_status context_workspace(clm_context *context, size_t bytes, clm_buffer **workspace);

/* The same for an operation that calls others, whose workspace lies elsewhere until it leaves: valid until then.
 * context_leave only after context_enter gave CLM_OK. */
clm_status context_enter(clm_context *context, size_t bytes, clm_buffer **workspace);
void context_leave(clm_context *context);

/* Small operations that follow each other; when batch_end returns they are as far as they would be without, but for
 * clm_context_explain, which tells nothing of them. The key
 * says all that their arguments depend on: while every buffer that there was is still there, batch_again may do the
 * same once more, and says whether it did. NULL: not to be repeated. */
bool context_batch_again(clm_context *context, const batch_key *key);
void context_batch_begin(clm_context *context);
void context_batch_end(clm_context *context, const batch_key *key);

#endif

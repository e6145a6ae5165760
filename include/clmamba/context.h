/* A context: one device, one in-order stream of work on it, one workspace, one error message.
 *
 * Thread safety: one call at a time per context; two contexts share nothing mutable and may run side by side.
 *
 * fork(): a context and what was made from it belong to the process that created them, since their threads and their
 * device's driver do not follow into a child. A child may only destroy them, which returns at once and leaves what
 * they held to the end of the process, and may create contexts of its own. (A driver may refuse that after a fork:
 * fork before the first context, or exec.) */
#ifndef CLMAMBA_CONTEXT_H
#define CLMAMBA_CONTEXT_H

#include <clmamba/status.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

CLM_BEGIN_DECLS

typedef struct clm_context clm_context;

typedef enum clm_log_level { CLM_LOG_ERROR, CLM_LOG_WARNING, CLM_LOG_INFO, CLM_LOG_DEBUG } clm_log_level;

/* Receives compiler logs and warnings; `message` is one text without a trailing newline, valid during the call. */
typedef void (*clm_log_fn)(void *user, clm_log_level level, const char *message);

/* Zeroed members mean the default. */
typedef struct clm_context_options {
  const char *device;    /* "auto" (default): the best OpenCL GPU or accelerator, else the CPU backend.
                            "cpu": the CPU backend. "opencl": the first OpenCL GPU or accelerator, else the first
                            usable OpenCL device. "opencl:N": entry N of clm_devices(). */
  int threads;           /* CPU backend: worker threads, 0 = one per available processor                       */
  const char *cpu_level; /* CPU backend: "reference", "baseline", "avx2", "avx512", "avx512vnni" or "neon"; default:
                            the best this processor has, or the CLM_CPU_LEVEL given */
  const char *cache_dir; /* compiled programs, its owner's only; [$XDG_CACHE_HOME/clmamba or ~/.cache/clmamba] */
  bool no_program_cache; /* keep no compiled programs on disk (also CLM_PROGRAM_CACHE=0)                       */
  bool profiling;        /* make clm_profile_begin/_end available                                              */
  clm_log_fn log;        /* default: warnings and errors to stderr                                             */
  void *log_user;
  char *error; /* optional buffer for the message when creation itself fails                         */
  size_t error_size;
} clm_context_options;

/* Creates a context; `options` may be NULL. On failure *context is NULL.
 * In every call of the library a NULL in place of a handle, or of a pointer that is not said to be optional, is
 * CLM_INVALID_ARGUMENT; a call without a status then gives NULL, "", 0 or, in place of a token, -1. */
CLM_API clm_status clm_context_create(const clm_context_options *options, clm_context **context);

/* Waits for the stream, frees everything the context owns and sets *context to NULL. Accepts NULL.
 * Buffers of the context must have been destroyed before. */
CLM_API void clm_context_destroy(clm_context **context);

/* Waits until everything enqueued so far has run; reports errors of asynchronous work. */
CLM_API clm_status clm_context_finish(clm_context *context);

/* The message of the last failed call on this context, "" if none failed. Valid until the next call. */
CLM_API const char *clm_context_error(const clm_context *context);

/* How the last operation was run: kernel variant, tile, chunks, and why; one line for each step. Valid until the next
 * call. */
CLM_API const char *clm_context_explain(const clm_context *context);

/* Device time between begin and end in milliseconds: end of the last kernel minus start of the first (the CPU
 * backend: wall clock). Needs options.profiling. _end waits for the stream. */
CLM_API clm_status clm_profile_begin(clm_context *context);
CLM_API clm_status clm_profile_end(clm_context *context, double *milliseconds);

typedef enum clm_device_type { CLM_DEVICE_CPU, CLM_DEVICE_GPU, CLM_DEVICE_ACCELERATOR } clm_device_type;

typedef struct clm_device_info {
  char name[128];
  char platform[128]; /* "clmamba" for the CPU backend                                        */
  char version[64];   /* "OpenCL 3.0 ...", or the CPU level                                   */
  char driver[64];
  char unusable[128]; /* why the device cannot be used, "" if it can                          */
  bool opencl;        /* false: the native CPU backend                                        */
  clm_device_type type;
  uint64_t memory_bytes;
  uint64_t max_allocation_bytes;
  uint64_t local_memory_bytes;
  uint32_t compute_units;
  uint32_t max_work_group;
  bool fp16, fp64, subgroups;
} clm_device_info;

/* Lists the OpenCL devices of all platforms in loader order (so that entry N is "opencl:N"); platforms below
 * OpenCL 1.2 are listed with `unusable` set. Writes at most `capacity` entries; *count is how many there are. */
CLM_API clm_status clm_devices(clm_device_info *devices, size_t capacity, size_t *count);

/* The device of this context. */
CLM_API clm_status clm_context_device(const clm_context *context, clm_device_info *info);

/* Bytes of device memory that this context's buffers and workspace hold now, and their maximum so far. */
CLM_API void clm_context_memory(const clm_context *context, uint64_t *now, uint64_t *peak);

/* The library's version, "major.minor.patch". */
CLM_API const char *clm_version(void);

CLM_END_DECLS

#endif

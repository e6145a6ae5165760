/* The inside of the OpenCL backend: what its files share. Launchers need only launch.h. */
#ifndef CLM_OPENCL_INTERNAL_H
#define CLM_OPENCL_INTERNAL_H

#include "backend/opencl/launch.h"
#include "core/device.h"
#include "schedule/plan_cache.h"

/* ---- errors (error.c) ---- */

const char *opencl_error_name(cl_int error);

/* "opencl: <what>: <error name>"; out of memory is told from other failures. CL_SUCCESS gives CLM_OK. */
clm_status opencl_check(clm_context *, cl_int error, const char *what);

/* ---- devices (platform.c) ---- */

typedef struct opencl_device {
  cl_platform_id platform;
  cl_device_id id;
  clm_device_info info;
  char platform_version[128];
  size_t widest[3];    /* a work-group in each dimension                                       */
  uint32_t extensions; /* a bit for each opencl_extension                                      */
  cl_int unanswered;   /* how a question failed; what a driver does not know (CL_INVALID_VALUE) is no failure */
} opencl_device;

typedef enum opencl_extension {
  EXTENSION_FP16,
  EXTENSION_FP64,
  EXTENSION_SUBGROUPS,
  EXTENSION_INTEL_SUBGROUPS,
  EXTENSION_SUBGROUP_SHUFFLE,
  EXTENSION_INTEL_MATRICES,
  EXTENSION_NVIDIA_ATTRIBUTES,
  EXTENSION_AMD_ATTRIBUTES,
} opencl_extension;

/* Every device of every platform in loader order; free(*devices) afterwards. No loader, no platform: none. */
clm_status opencl_devices(opencl_device **devices, size_t *count);
void opencl_describe(cl_platform_id platform, cl_device_id id, opencl_device *device);

static inline bool opencl_has_extension(const opencl_device *d, opencl_extension e) { return d->extensions >> e & 1; }

/* ---- what the drivers do not say, or say wrongly (quirks.c: the only file that knows a vendor) ---- */

typedef struct opencl_quirks {
  bool may_have_ptx;           /* worth a probe: other compilers can abort on PTX */
  bool may_have_amdgcn;        /* the same of AMD's builtin functions             */
  bool no_step_program;        /* the operations of a step run one by one         */
  int32_t subgroup;            /* 0: not known                                    */
  int32_t resident_work_items; /* per compute unit; 0: not known                  */
  const char *defines;         /* of every program                                */
} opencl_quirks;

opencl_quirks opencl_quirks_of(const opencl_device *);

/* ---- programs on disk (program_cache.c) ---- */

typedef struct program_cache {
  clm_context *context; /* whose log gets a warning; NULL: nobody's */
  bool warned;          /* it has                                   */
  char folder[4096];    /* "": switched off                         */
} program_cache;

typedef struct program_key {
  unsigned char bytes[16];
} program_key;

/* Where compiled programs are kept, from options and environment. */
void program_cache_open(program_cache *, clm_context *, const clm_context_options *);
program_key program_cache_key(const char *const *texts, size_t count);

/* The stored bytes (free them), or NULL if there are none, they are damaged, or others could have written them: of
 * that the log gets a warning. */
unsigned char *program_cache_load(program_cache *, const program_key *, size_t *size);

/* Failures are silent: the next process compiles again. */
void program_cache_store(program_cache *, const program_key *, const unsigned char *data, size_t size);

/* ---- programs (source.c, program.c) ---- */

/* The text of cl/<family>.cl with its includes pasted in, from the folder CLM_CL_DIR if the file is there, else as
 * embedded. free() it. */
clm_status opencl_source(clm_context *, const char *family, char **text);

/* Late assembly (late_assembly.c), for programs with this among their defines: whether a built program's text has
 * late instructions, and that text with them in place, for the architecture's own target; free() it, NULL without
 * memory. */
#define OPENCL_LATE "-DLATE_ASSEMBLY"
bool opencl_is_late(const char *text, size_t size);
char *opencl_late_text(const char *text, size_t size);

/* Compiles, or loads from the cache on disk. A `quiet` failure leaves neither log nor message (probes). */
clm_status opencl_program_build(clm_context *, const char *family, const char *defines, bool quiet, cl_program *);

/* ---- the state of a context ---- */

typedef struct kernel_table kernel_table;

typedef struct opencl_state {
  opencl_device device;
  opencl_quirks quirks;
  cl_context context;
  cl_command_queue queue;
  schedule_device schedule;
  bool scheduled;       /* `schedule` is filled (the first question runs the probes)       */
  bool profile_open;    /* between clm_profile_begin and _end                             */
  bool dry_run;         /* launches prepare everything and enqueue nothing                */
  bool trace;           /* CLM_OPENCL_TRACE: the log tells each kernel's time while a profile is open */
  double profile_begun; /* clock_seconds */
  cl_event first;       /* of the first command since clm_profile_begin                    */
  bool several;         /* others came after it                                           */
  program_cache cache;
  kernel_table *kernels;
  plan_cache *plans;
  int sgemm;                          /* what the self-check of CLBlast found: 0 not yet run, 1 right, -1 wrong */
  bool uses_clblast;                  /* it may keep programs for this context                                  */
  clm_buffer *sgemm_memory;           /* for its padded copies; grows, never shrinks                            */
  const struct matmul_engine *engine; /* what the probes found; NULL: none, or not yet asked             */
  const struct matmul_engine *fragment_engine; /* the same, for kernels that hold fragments themselves    */
  bool engine_asked, fragment_engine_asked;
  const clm_buffer *step_memory; /* of the last step program since the host has waited, or NULL */
  cl_int step_missed;            /* what opencl_step_ask was told                                */
  bool step_lost;                /* a step's work-groups did not meet                            */
} opencl_state;

static inline opencl_state *opencl_state_of(const clm_context *ctx) { return ctx->state; }

/* ---- kernels (launch.c) ---- */

void opencl_kernels_destroy(kernel_table *);

/* ---- the stream (queue.c) ---- */

/* Where an enqueued command shall leave its event: NULL unless a profile is open. opencl_event_keep takes it over. */
cl_event *opencl_event_slot(opencl_state *, cl_event *event);
void opencl_event_keep(opencl_state *, cl_event event);

/* Waits for the kernel `name` and logs its time. */
clm_status opencl_event_trace(clm_context *, const char *name, cl_event event);

/* Opens the interval for commands whose first kernel gives no event (CLBlast). */
clm_status opencl_event_mark(clm_context *);

clm_status opencl_finish(clm_context *);
clm_status opencl_profile_begin(clm_context *);
clm_status opencl_profile_end(clm_context *, double *milliseconds);

/* ---- step programs (step.c) ---- */

/* Whether the work-groups of the steps so far have met: asked before the host waits for the stream (the answer comes
 * with it), answered after. */
clm_status opencl_step_ask(clm_context *);
clm_status opencl_step_answer(clm_context *);

/* ---- memory (buffer.c) ---- */

clm_status opencl_buffer_create(clm_buffer *);
clm_status opencl_buffer_wrap_host(clm_buffer *, void *memory);
void opencl_buffer_destroy(clm_buffer *);
clm_status opencl_buffer_write(clm_buffer *, size_t offset, size_t bytes, const void *source);
clm_status opencl_buffer_read(clm_buffer *, size_t offset, size_t bytes, void *destination);
clm_status opencl_buffer_map(clm_buffer *, void **memory);
clm_status opencl_buffer_unmap(clm_buffer *);
void opencl_forget_panels(clm_buffer *); /* kept_panels.c */

/* ---- features (probe.c) ---- */

/* Fills state->schedule. */
void opencl_probe(clm_context *);

/* ---- operations (ops.c) ---- */

extern const backend_ops opencl_ops, opencl_supports;

/* ---- what the device can do (limits.c) ---- */

clm_status opencl_limits(clm_context *, int runs, backend_limits *);

#endif

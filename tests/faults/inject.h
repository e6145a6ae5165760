/* Faults on demand: the n-th allocation, file call, OpenCL call or new thread of clmamba's own code fails.
 *
 * Allocations are taken at malloc itself, so that those of jansson, PCRE2, libzip and the C library count, too, when
 * clmamba calls them. The other calls are taken by the linker (--wrap), which sees clmamba's own objects only. What
 * happens inside an OpenCL driver neither fails nor counts. */
#ifndef FAULTS_INJECT_H
#define FAULTS_INJECT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum fault_kind { FAULT_MEMORY, FAULT_FILES, FAULT_OPENCL, FAULT_THREADS, FAULT_KINDS } fault_kind;
extern const char *const fault_kind_names[FAULT_KINDS];

enum { FAULT_STACKS = 20000, FAULT_LEAKS = 16 };

/* A call that can fail, as the counting run saw it. */
typedef struct fault_point {
  uint64_t stack; /* the same for calls that come about in the same way */
  uint32_t number;
} fault_point;

/* Memory that nobody freed, counted by the code that asked for it. */
typedef struct fault_leak {
  void *caller;
  uint32_t count, number; /* of the last one */
} fault_leak;

/* What a run tells its parent (shared memory). */
typedef struct fault_report {
  uint32_t seen[FAULT_KINDS]; /* calls that could have failed                            */
  uint32_t failed;            /* that did                                                */
  bool leaks_allowed;         /* in a library that does not free what it has when it fails */
  bool ended;                 /* main returned: what follows is filled                   */
  int64_t opencl_objects;     /* made and not released                                   */
  int open_files;
  uint32_t leak_count, point_count[FAULT_KINDS];
  fault_leak leaks[FAULT_LEAKS];
  fault_point points[FAULT_KINDS][FAULT_STACKS]; /* of a counting run */
} fault_report;

typedef struct fault_plan {
  fault_kind kind;
  uint32_t number; /* this call fails (1: the first; 0: none does) */
  bool lasting;    /* and all later ones of its kind               */
  bool record;     /* fill report->points                          */
  bool explain;    /* print where it happens                       */
} fault_plan;

/* Calls of this thread, and of threads that clmamba makes, count and fail from here on. */
void fault_begin(const fault_plan *plan, fault_report *report);
void fault_end(void);

/* For the wrapped calls (calls.c): whether this one is to fail. */
bool fault_here(fault_kind kind);

/* Around a driver's code. */
void fault_enter_driver(void);
void fault_leave_driver(void);
void fault_opencl_objects(int64_t change);
void fault_watch_thread(void); /* this thread is clmamba's */

#endif

/* Operations kept as stages of one run of the thread pool. Called one by one, each ends with all threads waiting for
 * the caller, who checks the next and writes what it is about where the others' caches do not have it: microseconds,
 * of which a step of generation would have hundreds. */
#ifndef CLM_CPU_BATCH_H
#define CLM_CPU_BATCH_H

#include "backend/backend.h"
#include "pool.h"

typedef struct cpu_batch {
  bool open;
  bool whole;        /* what is kept is all that has been called since it was opened, and once closed all that `key`
                        stands for */
  cpu_stage *stages; /* in the order of the calls   */
  char *args;        /* copies of what they work on */
  int64_t count;
  size_t args_used;
  batch_key key;
  char *single;       /* the last stage that ran by itself, and after it what it worked on */
  backend_ops direct; /* the context's, while a batch has others in their place */
} cpu_batch;

/* Between begin and end, operations that know cpu_submit may be kept; any other, and whatever reads or writes a
 * buffer, runs those first. Without memory for it, and by the reference, nothing is kept. */
void cpu_batch_begin(clm_context *);
void cpu_batch_end(clm_context *, const batch_key *);
bool cpu_batch_again(clm_context *, const batch_key *);

/* Runs a stage, or keeps it; with a copy of arg_bytes at its arg. */
void cpu_submit(clm_context *, const cpu_stage *);

/* Runs what has been kept. An operation that knows cpu_submit calls it before it does anything else. */
void cpu_settle(clm_context *);

/* A buffer goes: nothing can be repeated. */
void cpu_batch_forget(clm_context *);
void cpu_batch_free(cpu_batch *);

#endif

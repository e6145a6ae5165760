#define _GNU_SOURCE
#include "inject.h"
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <link.h>
#include <malloc.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char *const fault_kind_names[FAULT_KINDS] = {"memory", "files", "opencl", "threads"};

/* glibc's own, below the names that this file takes. */
extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t), __libc_free(void *);

static fault_plan plan;
static fault_report *report;
static atomic_bool active;
static atomic_uint seen[FAULT_KINDS], failed;
static atomic_llong opencl_objects;
static _Thread_local bool watched;  /* a thread of clmamba's            */
static _Thread_local int in_driver; /* or in this file                  */

void fault_enter_driver(void) { in_driver++; }
void fault_leave_driver(void) { in_driver--; }
void fault_watch_thread(void) { watched = true; }
void fault_opencl_objects(int64_t change) { atomic_fetch_add(&opencl_objects, change); }

static bool counts(void) { return watched && in_driver == 0 && atomic_load_explicit(&active, memory_order_relaxed); }

/* ---- Libraries that end the process themselves when memory is short, or keep what they got ---- */

enum { FOREIGN = 8 };
static struct {
  uintptr_t begin, end;
  bool leaks; /* calls in it fail, but it does not free what it has then (libzip 1.7: zip_open, zip_fopen_index) */
} foreign[FOREIGN];
static int foreign_count;

static int note_foreign(struct dl_phdr_info *info, size_t size, void *unused) {
  static const char *const names[] = {"libpopt", "ld-linux", "libOpenCL", "libzip"};
  (void)size, (void)unused;
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    if (!strstr(info->dlpi_name, names[i]) || foreign_count == FOREIGN) continue;
    uintptr_t end = 0;
    for (int k = 0; k < info->dlpi_phnum; k++)
      if (info->dlpi_phdr[k].p_type == PT_LOAD && info->dlpi_phdr[k].p_vaddr + info->dlpi_phdr[k].p_memsz > end)
        end = info->dlpi_phdr[k].p_vaddr + info->dlpi_phdr[k].p_memsz;
    foreign[foreign_count].begin = info->dlpi_addr;
    foreign[foreign_count].leaks = strcmp(names[i], "libzip") == 0;
    foreign[foreign_count++].end = info->dlpi_addr + end;
  }
  return 0;
}

static bool is_within(const void *caller, bool leaks) {
  for (int i = 0; i < foreign_count; i++)
    if (foreign[i].leaks == leaks && (uintptr_t)caller >= foreign[i].begin && (uintptr_t)caller < foreign[i].end)
      return true;
  return false;
}

static bool is_foreign(const void *caller) { return is_within(caller, false); }

/* ---- Counting and failing ---- */

static uint64_t stack_hash(void) {
  void *frames[24];
  int depth = backtrace(frames, 24);
  uint64_t hash = 14695981039346656037u;
  for (int i = 2; i < depth; i++) hash = (hash ^ (uintptr_t)frames[i]) * 1099511628211u;
  return hash;
}

static void record(fault_kind kind, uint32_t number) {
  uint32_t at = report->point_count[kind];
  if (at < FAULT_STACKS) {
    report->points[kind][at] = (fault_point){stack_hash(), number};
    report->point_count[kind]++;
  }
}

static void note_leaks(void) {
  void *frames[40];
  int depth = backtrace(frames, 40);
  for (int i = 0; i < depth; i++) report->leaks_allowed = report->leaks_allowed || is_within(frames[i], true);
}

static void explain(fault_kind kind, uint32_t number) {
  void *frames[40];
  int depth = backtrace(frames, 40);
  dprintf(STDERR_FILENO, "-- %s %u fails here:\n", fault_kind_names[kind], number);
  backtrace_symbols_fd(frames + 2, depth - 2, STDERR_FILENO);
}

bool fault_here(fault_kind kind) {
  if (!counts()) return false;
  uint32_t number = atomic_fetch_add(&seen[kind], 1) + 1;
  bool fails = plan.number && kind == plan.kind && (number == plan.number || (plan.lasting && number > plan.number));
  in_driver++;
  if (plan.record) record(kind, number);
  if (fails && plan.explain && atomic_load(&failed) == 0) explain(kind, number);
  if (fails) note_leaks();
  in_driver--;
  if (fails) atomic_fetch_add(&failed, 1);
  return fails;
}

/* ---- Memory: what is alive ---- */

enum { SLOTS = 1 << 18 };
typedef struct block {
  void *memory, *caller;
  uint32_t number;
} block;
static block blocks[SLOTS]; /* open addressing; a freed one leaves GONE */
#define GONE ((void *)1)
static size_t block_count;
static atomic_flag lock = ATOMIC_FLAG_INIT;

static void lock_blocks(void) {
  while (atomic_flag_test_and_set_explicit(&lock, memory_order_acquire)) {
  }
}
static void unlock_blocks(void) { atomic_flag_clear_explicit(&lock, memory_order_release); }
static size_t slot_of(const void *memory) { return (size_t)((uintptr_t)memory * 0x9E3779B97F4A7C15u >> 46); }

static void remember(void *memory, void *caller) {
  if (!memory) return;
  lock_blocks();
  size_t i = slot_of(memory);
  while (blocks[i].memory && blocks[i].memory != GONE) i = (i + 1) % SLOTS;
  if (block_count < SLOTS / 2) {
    blocks[i] = (block){memory, caller, atomic_load(&seen[FAULT_MEMORY])};
    block_count++;
  }
  unlock_blocks();
}

static void forget(void *memory) {
  if (!memory || !atomic_load_explicit(&active, memory_order_relaxed)) return;
  lock_blocks();
  for (size_t i = slot_of(memory); blocks[i].memory; i = (i + 1) % SLOTS)
    if (blocks[i].memory == memory) {
      blocks[i].memory = GONE;
      block_count--;
      break;
    }
  unlock_blocks();
}

static void report_leaks(void) {
  for (size_t i = 0; i < SLOTS; i++) {
    if (!blocks[i].memory || blocks[i].memory == GONE) continue;
    uint32_t k = 0;
    while (k < report->leak_count && report->leaks[k].caller != blocks[i].caller) k++;
    if (k == FAULT_LEAKS) continue;
    if (k == report->leak_count) report->leaks[report->leak_count++] = (fault_leak){.caller = blocks[i].caller};
    report->leaks[k].count++;
    report->leaks[k].number = blocks[i].number;
  }
}

static int count_open_files(void) {
  DIR *folder = opendir("/proc/self/fd");
  int count = 0;
  if (!folder) return 0;
  while (readdir(folder)) count++;
  closedir(folder);
  return count;
}

void fault_begin(const fault_plan *wanted, fault_report *to) {
  void *warm[4];
  plan = *wanted;
  report = to;
  backtrace(warm, 4); /* loads libgcc now */
  foreign_count = 0;
  dl_iterate_phdr(note_foreign, NULL);
  report->open_files = -count_open_files();
  watched = true;
  atomic_store(&active, true);
}

void fault_end(void) {
  atomic_store(&active, false);
  for (int k = 0; k < FAULT_KINDS; k++) report->seen[k] = atomic_load(&seen[k]);
  report->failed = atomic_load(&failed);
  report->opencl_objects = atomic_load(&opencl_objects);
  report->open_files += count_open_files();
  report_leaks();
  report->ended = true;
}

/* ---- malloc and its kin ---- */

static bool memory_fails(void *caller) {
  if (!counts() || is_foreign(caller) || !fault_here(FAULT_MEMORY)) return false;
  errno = ENOMEM;
  return true;
}

static void *keep(void *memory, void *caller) {
  if (counts() && !is_foreign(caller)) remember(memory, caller);
  return memory;
}

#define CALLER __builtin_return_address(0)

void *malloc(size_t bytes) { return memory_fails(CALLER) ? NULL : keep(__libc_malloc(bytes), CALLER); }

void *calloc(size_t count, size_t size) {
  return memory_fails(CALLER) ? NULL : keep(__libc_calloc(count, size), CALLER);
}

void *realloc(void *old, size_t bytes) {
  if (memory_fails(CALLER)) return NULL;
  forget(old);
  void *memory = __libc_realloc(old, bytes);
  return keep(memory ? memory : bytes ? old : NULL, CALLER) == memory ? memory : NULL;
}

void *memalign(size_t alignment, size_t bytes) {
  return memory_fails(CALLER) ? NULL : keep(__libc_memalign(alignment, bytes), CALLER);
}

void *aligned_alloc(size_t alignment, size_t bytes) {
  return memory_fails(CALLER) ? NULL : keep(__libc_memalign(alignment, bytes), CALLER);
}

int posix_memalign(void **memory, size_t alignment, size_t bytes) {
  if (memory_fails(CALLER)) return ENOMEM;
  void *got = keep(__libc_memalign(alignment, bytes), CALLER);
  if (!got) return ENOMEM;
  *memory = got;
  return 0;
}

void free(void *memory) {
  forget(memory);
  __libc_free(memory);
}

#define _GNU_SOURCE
#include "openblas.h"
#include <dlfcn.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/mman.h>

#ifdef __APPLE__
#define LIBRARY "libopenblas.0.dylib"
#else
#define LIBRARY "libopenblas.so.0"
#endif

/* Each thread inside OpenBLAS needs a buffer of 32 MiB to 128 MiB, by version and processor. It asks for one until it
 * gets it, without end: whether there is room has to be known before. */
#define BUFFER_BYTES ((size_t)129 << 20)

static bool has_room(int threads) {
  size_t bytes = (size_t)threads * BUFFER_BYTES;
  void *room = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (room == MAP_FAILED) return false;
  munmap(room, bytes);
  return true;
}

/* OpenBLAS starts as many threads as there are processors that the loading thread may run on. Work is divided over
 * the context's own threads, so that is to be one. (OPENBLAS_NUM_THREADS would say the same, but setenv is not safe
 * while other threads of the program read the environment.) */
static void *load_on_one_processor(void) {
#ifdef CPU_SET
  cpu_set_t all, one;
  bool bound = sched_getaffinity(0, sizeof all, &all) == 0;
  if (bound) {
    size_t processor = 0;
    while (processor < CPU_SETSIZE - 1 && !CPU_ISSET(processor, &all)) processor++;
    CPU_ZERO(&one);
    CPU_SET(processor, &one);
    bound = sched_setaffinity(0, sizeof one, &one) == 0;
  }
#endif
  void *library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
#ifdef CPU_SET
  if (bound) sched_setaffinity(0, sizeof all, &all);
#endif
  return library;
}

static openblas_calls load(int threads) {
  openblas_calls found = {0};
  if (!has_room(threads)) return found;
  void *library = load_on_one_processor();
  if (!library) return found;
  void (*set_threads)(int) = NULL;
  *(void **)&set_threads = dlsym(library, "openblas_set_num_threads"); /* POSIX: a void * holds any function */
  *(void **)&found.sgemm = dlsym(library, "cblas_sgemm");
  *(void **)&found.sgemv = dlsym(library, "cblas_sgemv");
  if (set_threads && found.sgemm && found.sgemv && has_room(threads)) {
    set_threads(1); /* where the program had it loaded before, with more */
    return found;
  }
  dlclose(library);
  return (openblas_calls){0};
}

const openblas_calls *cpu_openblas(int threads) {
  static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
  static openblas_calls calls;
  static bool loaded;
  pthread_mutex_lock(&mutex);
  if (!loaded) calls = load(threads);
  loaded = true;
  pthread_mutex_unlock(&mutex);
  return calls.sgemm ? &calls : NULL;
}

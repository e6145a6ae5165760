/* OpenBLAS, loaded with the first product and not before: its constructor starts a thread for each processor. */
#ifndef CLM_CPU_OPENBLAS_H
#define CLM_CPU_OPENBLAS_H

#include <cblas.h>

typedef struct openblas_calls {
  __typeof__(cblas_sgemm) *sgemm;
  __typeof__(cblas_sgemv) *sgemv;
} openblas_calls;

/* The same answer in the whole process, for up to `threads` threads that call it at once (as the first caller said).
 * NULL: it is not installed, or there is no room for its buffers. */
const openblas_calls *cpu_openblas(int threads);

#endif

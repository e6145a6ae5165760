#include "gemm.h"
#include <cblas.h>
#include <pthread.h>

const char *gemm_name(void) { return "OpenBLAS"; }

static void one_thread(void) { openblas_set_num_threads(1); }

void gemm_init(void) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, one_thread);
}

/* The distance of rows (or of columns, where these are contiguous); of a single one it means nothing, but BLAS wants
 * it to hold that one. */
static int leading(int64_t rows, int64_t columns, matrix x) {
  if (x.column == 1) return (int)(rows == 1 ? columns : x.row);
  return (int)(columns == 1 ? rows : x.column);
}

void gemm(int64_t m, int64_t n, int64_t k, float alpha, matrix a, matrix b, float beta, matrix out, float *scratch) {
  (void)scratch;
  bool a_rows = a.column == 1, b_rows = b.column == 1;
  int lda = leading(m, k, a), ldb = leading(k, n, b);
  if (m == 1) /* a column of b^T for each output */
    cblas_sgemv(CblasRowMajor, b_rows ? CblasTrans : CblasNoTrans, (int)(b_rows ? k : n), (int)(b_rows ? n : k),
                alpha, b.data, ldb, a.data, (int)a.column, beta, out.data, 1);
  else
    cblas_sgemm(CblasRowMajor, a_rows ? CblasNoTrans : CblasTrans, b_rows ? CblasNoTrans : CblasTrans, (int)m, (int)n,
                (int)k, alpha, a.data, lda, b.data, ldb, beta, out.data, leading(m, n, out));
}

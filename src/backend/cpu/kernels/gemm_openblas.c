/* The product by OpenBLAS, where it can be loaded. */
#include "../openblas.h"
#include "gemm.h"
#include <stdatomic.h>

static _Atomic(const openblas_calls *) loaded; /* the same for every context */

/* The distance of rows (or of columns, where these are contiguous); of a single one it means nothing, but BLAS wants
 * it to hold that one. */
static int leading(int64_t rows, int64_t columns, matrix x) {
  if (x.column == 1) return (int)(rows == 1 ? columns : x.row);
  return (int)(columns == 1 ? rows : x.column);
}

static void gemm_openblas(gemm_size size, float alpha, matrix a, matrix b, float beta, matrix out, float *scratch) {
  const int64_t m = size.m, n = size.n, k = size.k;
  (void)scratch;
  const openblas_calls *blas = atomic_load_explicit(&loaded, memory_order_relaxed);
  bool a_rows = a.column == 1, b_rows = b.column == 1;
  int lda = leading(m, k, a), ldb = leading(k, n, b);
  if (m == 1) /* a column of b^T for each output */
    blas->sgemv(CblasRowMajor, b_rows ? CblasTrans : CblasNoTrans, (int)(b_rows ? k : n), (int)(b_rows ? n : k),
                alpha, b.data, ldb, a.data, (int)a.column, beta, out.data, 1);
  else
    blas->sgemm(CblasRowMajor, a_rows ? CblasNoTrans : CblasTrans, b_rows ? CblasNoTrans : CblasTrans, (int)m, (int)n,
                (int)k, alpha, a.data, lda, b.data, ldb, beta, out.data, leading(m, n, out));
}

gemm_choice gemm_choose(int threads) {
  const openblas_calls *blas = cpu_openblas(threads);
  atomic_store_explicit(&loaded, blas, memory_order_relaxed);
  return blas ? (gemm_choice){gemm_openblas, "OpenBLAS"} : (gemm_choice){gemm_own, "own product"};
}

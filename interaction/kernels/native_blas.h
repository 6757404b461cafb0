// Matrix products of training: the BLAS that scipy brings, called by the pointer `native.py` hands
// over (https://docs.scipy.org/doc/scipy/reference/linalg.cython_blas.html).

#ifndef INTERACTION_KERNELS_NATIVE_BLAS_H_
#define INTERACTION_KERNELS_NATIVE_BLAS_H_

#include <cstdint>

using Sgemm = void(char*, char*, int*, int*, int*, float*, float*, int*, float*, int*, float*,
                   float*, int*);
extern Sgemm* interaction_sgemm;

namespace {

// A matrix by rows, `stride` numbers apart; turned: its transpose is meant.
struct Matrix {
  const float* at;
  int64_t stride;
  bool turned = false;
};

// c [m, n] = alpha a b + beta c, c by rows `stride` apart.
inline void Multiply(int64_t m, int64_t n, int64_t k, float alpha, Matrix a, Matrix b, float beta,
                     float* c, int64_t stride) {
  char of_a = a.turned ? 'T' : 'N', of_b = b.turned ? 'T' : 'N';
  int rows = static_cast<int>(m), columns = static_cast<int>(n), depth = static_cast<int>(k);
  int lda = static_cast<int>(a.stride), ldb = static_cast<int>(b.stride);
  int ldc = static_cast<int>(stride);
  // BLAS goes by columns: it is given the transposed product.
  interaction_sgemm(&of_b, &of_a, &columns, &rows, &depth, &alpha, const_cast<float*>(b.at), &ldb,
                    const_cast<float*>(a.at), &lda, &beta, c, &ldc);
}

}  // namespace

#endif  // INTERACTION_KERNELS_NATIVE_BLAS_H_

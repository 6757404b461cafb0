// Products of a few rows with matrices that are read once, where they lie.
//
// What a row gets is summed in one order whatever other rows are there: it is the same to the bit.

#ifndef INTERACTION_KERNELS_NATIVE_PRODUCTS_H_
#define INTERACTION_KERNELS_NATIVE_PRODUCTS_H_

#include <type_traits>
#include <vector>

#include "native_vectors.h"
#include "xla/ffi/api/ffi.h"

namespace {

namespace ffi = xla::ffi;

#ifdef __AVX512F__
constexpr int kRows = 8, kVectors = 2;  // 16 of 32 registers accumulate
#else
constexpr int kRows = 4, kVectors = 1;  // 8 of 16 registers of half the width
#endif
constexpr int kStep = kVectors * kLanes;
constexpr int64_t kDepth = 8;        // rows of a matrix read side by side
constexpr int64_t kColumns = 8192;   // columns of a matrix before the next rows: sums stay in L1
constexpr int64_t kAhead = 8;        // rows of a matrix fetched ahead

// y[m][o] += sum_i x[m][i] w[i][o] for `depth` rows of w, `stride` numbers apart, and the columns
// from `first` to `last`; AHEAD: w comes from memory and is fetched ahead.
template <bool AHEAD, int M, typename T>
inline void AddRows(const float* const* x, int64_t from, int64_t depth, const T* w, int64_t stride,
                    int64_t first, int64_t last, float* const* y) {
  int64_t o = first;
  for (; o + kStep <= last; o += kStep) {
    Floats sum[M][kVectors];
    for (int m = 0; m < M; ++m)
      for (int v = 0; v < kVectors; ++v) sum[m][v] = Load(y[m] + o + v * kLanes);
    for (int64_t d = 0; d < depth; ++d) {
      const T* row = w + (from + d) * stride + o;
      if constexpr (AHEAD)
        for (size_t byte = 0; byte < sizeof(T) * kStep; byte += 64)
          __builtin_prefetch(reinterpret_cast<const char*>(row + kAhead * stride) + byte);
      Floats weight[kVectors];
      for (int v = 0; v < kVectors; ++v) weight[v] = Load(row + v * kLanes);
      for (int m = 0; m < M; ++m)
        for (int v = 0; v < kVectors; ++v) sum[m][v] += x[m][from + d] * weight[v];
    }
    for (int m = 0; m < M; ++m)
      for (int v = 0; v < kVectors; ++v) Store(y[m] + o + v * kLanes, sum[m][v]);
  }
  for (; o < last; ++o)
    for (int m = 0; m < M; ++m) {
      float sum = y[m][o];
      for (int64_t d = 0; d < depth; ++d)
        sum = std::fma(x[m][from + d], Number(w[(from + d) * stride + o]), sum);
      y[m][o] = sum;
    }
}

template <bool AHEAD, typename T>
void AddSomeRows(int64_t rows, const float* const* x, int64_t from, int64_t depth, const T* w,
                 int64_t stride, int64_t first, int64_t last, float* const* y) {
  const int64_t groups = (rows + kRows - 1) / kRows;
  for (int64_t group = 0, m = 0, some; group < groups; ++group, m += some) {
    some = (rows - m + groups - group - 1) / (groups - group);  // 10 rows: 5 and 5, not 8 and 2
    auto run = [&](auto count) {
      AddRows<AHEAD, decltype(count)::value>(x + m, from, depth, w, stride, first, last, y + m);
    };
    switch (some) {
      case 1: run(std::integral_constant<int, 1>()); break;
      case 2: run(std::integral_constant<int, 2>()); break;
      case 3: run(std::integral_constant<int, 3>()); break;
      case 4: run(std::integral_constant<int, 4>()); break;
#ifdef __AVX512F__
      case 5: run(std::integral_constant<int, 5>()); break;
      case 6: run(std::integral_constant<int, 6>()); break;
      case 7: run(std::integral_constant<int, 7>()); break;
      case 8: run(std::integral_constant<int, 8>()); break;
#endif
    }
  }
}

// y = x w for row pointers x [rows][inputs] and y [rows][outputs]; w [inputs, outputs] is read
// once from memory, the rows of y from the first-level cache.
template <typename T>
void Product(int64_t rows, const float* const* x, const T* w, int64_t inputs, int64_t outputs,
             const float* scale, float* const* y) {
  for (int64_t m = 0; m < rows; ++m) std::fill(y[m], y[m] + outputs, 0.0f);
  for (int64_t first = 0; first < outputs; first += kColumns) {
    const int64_t last = std::min(first + kColumns, outputs);
    for (int64_t i = 0; i < inputs; i += kDepth)
      AddSomeRows<true>(rows, x, i, std::min(kDepth, inputs - i), w, outputs, first, last, y);
  }
  if (scale != nullptr)
    for (int64_t m = 0; m < rows; ++m)
      for (int64_t o = 0; o < outputs; ++o) y[m][o] *= scale[o];
}

// Calls `run` with a pointer of the buffer's own type.
template <typename Run>
ffi::Error ByType(const ffi::AnyBuffer& buffer, Run run) {
  switch (buffer.element_type()) {
    case ffi::DataType::F32:
      run(reinterpret_cast<const float*>(buffer.untyped_data()));
      return ffi::Error::Success();
    case ffi::DataType::BF16:
      run(reinterpret_cast<const BFloat16*>(buffer.untyped_data()));
      return ffi::Error::Success();
    case ffi::DataType::S8:
      run(reinterpret_cast<const int8_t*>(buffer.untyped_data()));
      return ffi::Error::Success();
    default:
      return ffi::Error::InvalidArgument("a matrix must be float32, bfloat16 or int8");
  }
}

struct RowPointers {
  std::vector<float*> at;
  RowPointers(float* first, int64_t rows, int64_t width) : at(rows) {
    for (int64_t m = 0; m < rows; ++m) at[m] = first + m * width;
  }
};

}  // namespace

#endif  // INTERACTION_KERNELS_NATIVE_PRODUCTS_H_

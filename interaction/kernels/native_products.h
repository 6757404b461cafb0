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
constexpr int kRows = 8;  // 16 of 32 registers accumulate
constexpr int Vectors(int rows) { return rows > 4 ? 2 : 4; }
#else
constexpr int kRows = 4;  // 8 of 16 registers of half the width
constexpr int Vectors(int rows) { return rows > 2 ? 1 : 2; }
#endif
constexpr int64_t kDepth = 8;        // rows of a matrix read side by side
constexpr int64_t kColumns = 8192;   // columns of a matrix before the next rows: sums stay in L1
constexpr int64_t kAhead = 8;        // rows of a matrix fetched ahead

// Fetches the same columns of a matrix some rows ahead: it comes from memory.
struct RowsAhead {
  int64_t stride;
  template <typename T>
  void operator()(const T* row, int columns) const {
    const char* ahead = reinterpret_cast<const char*>(row + kAhead * stride);
    for (size_t byte = 0; byte < sizeof(T) * columns; byte += 64) __builtin_prefetch(ahead + byte);
  }
};

// y[m][o] += sum_i x[m][i] w[i][o] for `depth` rows of w, `stride` numbers apart, and 16 V columns
// from `o` on.
template <int M, int V, typename T, typename Fetch>
inline void AddStrip(Fetch& fetch, const float* const* x, int64_t from, int64_t depth, const T* w,
                     int64_t stride, int64_t o, float* const* y) {
  Floats sum[M][V];
  for (int m = 0; m < M; ++m)
    for (int v = 0; v < V; ++v) sum[m][v] = Load(y[m] + o + v * kLanes);
  for (int64_t d = 0; d < depth; ++d) {
    const T* row = w + (from + d) * stride + o;
    fetch(row, V * kLanes);
    Floats weight[V];
    for (int v = 0; v < V; ++v) weight[v] = Load(row + v * kLanes);
    for (int m = 0; m < M; ++m)
      for (int v = 0; v < V; ++v) sum[m][v] += x[m][from + d] * weight[v];
  }
  for (int m = 0; m < M; ++m)
    for (int v = 0; v < V; ++v) Store(y[m] + o + v * kLanes, sum[m][v]);
}

// The same for the columns from `first` to `last`; `fetch` is called with every place in w and how
// many numbers are read there. Which columns are summed as vectors does not depend on M.
template <int M, typename T, typename Fetch>
inline void AddRows(Fetch& fetch, const float* const* x, int64_t from, int64_t depth, const T* w,
                    int64_t stride, int64_t first, int64_t last, float* const* y) {
  constexpr int V = Vectors(M);
  int64_t o = first;
  for (; o + V * kLanes <= last; o += V * kLanes)
    AddStrip<M, V>(fetch, x, from, depth, w, stride, o, y);
  for (; o + kLanes <= last; o += kLanes)
    AddStrip<M, 1>(fetch, x, from, depth, w, stride, o, y);
  for (; o < last; ++o)
    for (int m = 0; m < M; ++m) {
      float sum = y[m][o];
      for (int64_t d = 0; d < depth; ++d)
        sum = std::fma(x[m][from + d], Number(w[(from + d) * stride + o]), sum);
      y[m][o] = sum;
    }
}

template <typename T, typename Fetch>
void AddSomeRows(Fetch& fetch, int64_t rows, const float* const* x, int64_t from, int64_t depth,
                 const T* w, int64_t stride, int64_t first, int64_t last, float* const* y) {
  const int64_t groups = (rows + kRows - 1) / kRows;
  for (int64_t group = 0, m = 0, some; group < groups; ++group, m += some) {
    some = (rows - m + groups - group - 1) / (groups - group);  // 10 rows: 5 and 5, not 8 and 2
    auto run = [&](auto count) {
      constexpr int M = decltype(count)::value;
      AddRows<M>(fetch, x + m, from, depth, w, stride, first, last, y + m);
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
  const RowsAhead fetch = {outputs};
  for (int64_t m = 0; m < rows; ++m) std::fill(y[m], y[m] + outputs, 0.0f);
  for (int64_t first = 0; first < outputs; first += kColumns) {
    const int64_t last = std::min(first + kColumns, outputs);
    for (int64_t i = 0; i < inputs; i += kDepth)
      AddSomeRows(fetch, rows, x, i, std::min(kDepth, inputs - i), w, outputs, first, last, y);
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

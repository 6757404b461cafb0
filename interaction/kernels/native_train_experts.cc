// Experts of training on one CPU core: pairs of rows and experts sorted, each computed once.
//
// Matrices are read, and their gradients written, where they lie; none is copied.

#include <vector>

#include "native_blas.h"
#include "native_vectors.h"
#include "xla/ffi/api/ffi.h"

Sgemm* interaction_sgemm = nullptr;

extern "C" void interaction_use_sgemm(void* sgemm) {
  interaction_sgemm = reinterpret_cast<Sgemm*>(sgemm);
}

namespace {

namespace ffi = xla::ffi;
using Numbers = ffi::Buffer<ffi::F32>;
using Integers = ffi::Buffer<ffi::S32>;

constexpr int64_t kChunk = 512;  // rows that share an expert, multiplied at once

// The pairs (row, choice) of every expert, in the order of rows.
struct Pairs {
  std::vector<int64_t> first;  // [E + 1]
  std::vector<int64_t> pair;   // row * A + choice, by expert
};

Pairs Sorted(const Integers& chosen, int64_t experts) {
  const int64_t count = chosen.element_count();
  const int32_t* of = chosen.typed_data();
  Pairs pairs{std::vector<int64_t>(experts + 1, 0), std::vector<int64_t>(count)};
  for (int64_t i = 0; i < count; ++i)
    if (of[i] >= 0 && of[i] < experts) ++pairs.first[of[i] + 1];
  for (int64_t e = 0; e < experts; ++e) pairs.first[e + 1] += pairs.first[e];
  std::vector<int64_t> next(pairs.first.begin(), pairs.first.end() - 1);
  for (int64_t i = 0; i < count; ++i)
    if (of[i] >= 0 && of[i] < experts) pairs.pair[next[of[i]]++] = i;
  return pairs;
}

void Gather(const float* from, const int64_t* pair, int64_t rows, int64_t per_row, int64_t width,
            float* to) {
  for (int64_t i = 0; i < rows; ++i)
    std::memcpy(to + i * width, from + pair[i] / per_row * width, width * sizeof(float));
}

void ScatterAdd(const float* from, const int64_t* pair, int64_t rows, int64_t per_row,
                int64_t width, float* to) {
  for (int64_t i = 0; i < rows; ++i) {
    float* into = to + pair[i] / per_row * width;
    for (int64_t d = 0; d < width; ++d) into[d] += from[i * width + d];
  }
}

inline Floats Sigmoid(Floats x) { return 1.0f / (1.0f + Exp(-x)); }

// x [M, D], chosen and weights [M, A], gate and up [E, D, F], down [E, F, D] -> y [M, D], and
// what gate and up gave, [2, M A, F], by sorted pair.
ffi::Error Forward(Numbers x, Integers chosen, Numbers weights, Numbers gate, Numbers up,
                   Numbers down, ffi::Result<Numbers> y, ffi::Result<Numbers> kept) {
  const int64_t D = x.dimensions()[1], A = chosen.dimensions()[1], E = gate.dimensions()[0];
  const int64_t F = gate.dimensions()[2], half = chosen.element_count() * F;
  const Pairs pairs = Sorted(chosen, E);
  std::fill(y->typed_data(), y->typed_data() + y->element_count(), 0.0f);
  std::vector<float> rows(kChunk * D), hidden(kChunk * F), mixed(kChunk * D);
  for (int64_t e = 0; e < E; ++e) {
    const float *of_gate = gate.typed_data() + e * D * F, *of_up = up.typed_data() + e * D * F;
    const float* of_down = down.typed_data() + e * D * F;
    for (int64_t from = pairs.first[e]; from < pairs.first[e + 1]; from += kChunk) {
      const int64_t n = std::min(kChunk, pairs.first[e + 1] - from);
      const int64_t* pair = pairs.pair.data() + from;
      float *g = kept->typed_data() + from * F, *u = g + half;
      Gather(x.typed_data(), pair, n, A, D, rows.data());
      Multiply(n, F, D, 1.0f, {rows.data(), D}, {of_gate, F}, 0.0f, g, F);
      Multiply(n, F, D, 1.0f, {rows.data(), D}, {of_up, F}, 0.0f, u, F);
      for (int64_t i = 0; i < n; ++i) {
        const float weight = weights.typed_data()[pair[i]];
        ForEach(F, [&](int64_t f, int64_t some) {
          const Floats inner = LoadPart(g + i * F + f, some);
          StorePart(hidden.data() + i * F + f, some,
                    inner * Sigmoid(inner) * LoadPart(u + i * F + f, some) * weight);
        });
      }
      Multiply(n, D, F, 1.0f, {hidden.data(), F}, {of_down, D}, 0.0f, mixed.data(), D);
      ScatterAdd(mixed.data(), pair, n, A, D, y->typed_data());
    }
  }
  return ffi::Error::Success();
}

// Gradients of x, weights, gate, up and down, from that of y and what `Forward` kept.
ffi::Error Backward(Numbers gradient, Numbers x, Integers chosen, Numbers weights, Numbers kept,
                    Numbers gate, Numbers up, Numbers down, ffi::Result<Numbers> into_x,
                    ffi::Result<Numbers> into_weights, ffi::Result<Numbers> into_gate,
                    ffi::Result<Numbers> into_up, ffi::Result<Numbers> into_down) {
  const int64_t D = x.dimensions()[1], A = chosen.dimensions()[1], E = gate.dimensions()[0];
  const int64_t F = gate.dimensions()[2], half = chosen.element_count() * F;
  const Pairs pairs = Sorted(chosen, E);
  for (auto* each : {&into_x, &into_weights})
    std::fill((*each)->typed_data(), (*each)->typed_data() + (*each)->element_count(), 0.0f);
  std::vector<float> rows(kChunk * D), come(kChunk * D), moved(kChunk * D);
  std::vector<float> hidden(kChunk * F), into_hidden(kChunk * F), to_gate(kChunk * F);
  for (int64_t e = 0; e < E; ++e) {
    const int64_t matrix = e * D * F;
    if (pairs.first[e] == pairs.first[e + 1])
      for (auto* each : {&into_gate, &into_up, &into_down})
        std::fill_n((*each)->typed_data() + matrix, D * F, 0.0f);
    for (int64_t from = pairs.first[e]; from < pairs.first[e + 1]; from += kChunk) {
      const int64_t n = std::min(kChunk, pairs.first[e + 1] - from);
      const int64_t* pair = pairs.pair.data() + from;
      const float *g = kept.typed_data() + from * F, *u = g + half;
      float* to_up = into_hidden.data();
      const float before = from == pairs.first[e] ? 0.0f : 1.0f;  // what earlier chunks gave
      Gather(x.typed_data(), pair, n, A, D, rows.data());
      Gather(gradient.typed_data(), pair, n, A, D, come.data());
      Multiply(n, F, D, 1.0f, {come.data(), D}, {down.typed_data() + matrix, D, true}, 0.0f,
               into_hidden.data(), F);
      for (int64_t i = 0; i < n; ++i) {
        const float weight = weights.typed_data()[pair[i]];
        Floats sum = {};
        ForEach(F, [&](int64_t f, int64_t some) {
          const int64_t at = i * F + f;
          const Floats inner = LoadPart(g + at, some), outer = LoadPart(u + at, some);
          const Floats back = LoadPart(into_hidden.data() + at, some);
          const Floats slope = Sigmoid(inner), open = inner * slope, both = open * outer;
          sum += back * both;
          StorePart(hidden.data() + at, some, both * weight);
          StorePart(to_gate.data() + at, some,
                    back * weight * outer * (slope + open * (1.0f - slope)));
          StorePart(to_up + at, some, back * weight * open);
        });
        into_weights->typed_data()[pair[i]] = Sum(sum);
      }
      Multiply(n, D, F, 1.0f, {to_gate.data(), F}, {gate.typed_data() + matrix, F, true}, 0.0f,
               moved.data(), D);
      Multiply(n, D, F, 1.0f, {to_up, F}, {up.typed_data() + matrix, F, true}, 1.0f, moved.data(),
               D);
      ScatterAdd(moved.data(), pair, n, A, D, into_x->typed_data());
      Multiply(D, F, n, 1.0f, {rows.data(), D, true}, {to_gate.data(), F}, before,
               into_gate->typed_data() + matrix, F);
      Multiply(D, F, n, 1.0f, {rows.data(), D, true}, {to_up, F}, before,
               into_up->typed_data() + matrix, F);
      Multiply(F, D, n, 1.0f, {hidden.data(), F, true}, {come.data(), D}, before,
               into_down->typed_data() + matrix, D);
    }
  }
  return ffi::Error::Success();
}

// a [m, k] b [k, n], either given as its transpose -> [m, n].
ffi::Error Product(Numbers a, Numbers b, bool a_turned, bool b_turned, ffi::Result<Numbers> c) {
  const int64_t m = c->dimensions()[0], n = c->dimensions()[1];
  const int64_t k = a.dimensions()[a_turned ? 0 : 1];
  Multiply(m, n, k, 1.0f, {a.typed_data(), a.dimensions()[1], a_turned},
           {b.typed_data(), b.dimensions()[1], b_turned}, 0.0f, c->typed_data(), n);
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(interaction_train_product, Product,
                              ffi::Ffi::Bind()
                                  .Arg<Numbers>()
                                  .Arg<Numbers>()
                                  .Attr<bool>("a_turned")
                                  .Attr<bool>("b_turned")
                                  .Ret<Numbers>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(interaction_train_experts, Forward,
                              ffi::Ffi::Bind()
                                  .Arg<Numbers>()
                                  .Arg<Integers>()
                                  .Arg<Numbers>()
                                  .Arg<Numbers>()
                                  .Arg<Numbers>()
                                  .Arg<Numbers>()
                                  .Ret<Numbers>()
                                  .Ret<Numbers>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(interaction_train_experts_gradient, Backward,
                              ffi::Ffi::Bind()
                                  .Arg<Numbers>()
                                  .Arg<Numbers>()
                                  .Arg<Integers>()
                                  .Arg<Numbers>()
                                  .Arg<Numbers>()
                                  .Arg<Numbers>()
                                  .Arg<Numbers>()
                                  .Arg<Numbers>()
                                  .Ret<Numbers>()
                                  .Ret<Numbers>()
                                  .Ret<Numbers>()
                                  .Ret<Numbers>()
                                  .Ret<Numbers>());

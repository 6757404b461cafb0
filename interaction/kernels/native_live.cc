// Products and experts of live calls on one CPU core, for XLA's foreign function interface
// (https://docs.jax.dev/en/latest/ffi.html). `native.py` builds, registers and calls it.
//
// A live call has few slots, so its time is that of reading weights once: stacked arrays are read
// where they lie, in the order of their addresses.

#include "native_products.h"

namespace {

// x [M, I], stack [R, I, O], row [], scale [R, O] or [0] -> [M, O].
ffi::Error Project(ffi::Buffer<ffi::F32> x, ffi::AnyBuffer stack, ffi::Buffer<ffi::S32> row,
                   ffi::Buffer<ffi::F32> scale, ffi::ResultBuffer<ffi::F32> y) {
  const int64_t rows = x.dimensions()[0], inputs = x.dimensions()[1];
  const int64_t outputs = y->dimensions()[1], stacked = stack.dimensions()[0];
  const int64_t index = std::clamp<int64_t>(row.typed_data()[0], 0, stacked - 1);
  RowPointers in(const_cast<float*>(x.typed_data()), rows, inputs);
  RowPointers out(y->typed_data(), rows, outputs);
  const float* scales = scale.element_count() ? scale.typed_data() + index * outputs : nullptr;
  return ByType(stack, [&](auto* w) {
    Product(rows, in.at.data(), w + index * inputs * outputs, inputs, outputs, scales,
            out.at.data());
  });
}

// hidden = silu(gate) * up * weight, in place of gate.
void Gate(float* gate, const float* up, float weight, int64_t width) {
  int64_t f = 0;
  for (; f + kLanes <= width; f += kLanes) {
    const Floats g = Load(gate + f);
    Store(gate + f, g / (1.0f + Exp(-g)) * Load(up + f) * weight);
  }
  for (; f < width; ++f) gate[f] = gate[f] / (1.0f + std::exp(-gate[f])) * up[f] * weight;
}

// x [M, D], chosen [M, A], weights [M, A], gate and up [L, E, D, F], down [L, E, F, D], scales of
// int8 [L, E, F], [L, E, F], [L, E, D] or [0] each, layer [] -> [M, D].
ffi::Error Experts(ffi::Buffer<ffi::F32> x, ffi::Buffer<ffi::S32> chosen,
                   ffi::Buffer<ffi::F32> weights, ffi::AnyBuffer gate, ffi::AnyBuffer up,
                   ffi::AnyBuffer down, ffi::Buffer<ffi::F32> gate_scale,
                   ffi::Buffer<ffi::F32> up_scale, ffi::Buffer<ffi::F32> down_scale,
                   ffi::Buffer<ffi::S32> layer, ffi::ResultBuffer<ffi::F32> y) {
  const int64_t rows = x.dimensions()[0], width = x.dimensions()[1];
  const int64_t per_row = chosen.dimensions()[1];
  const int64_t experts = gate.dimensions()[1], inner = gate.dimensions()[3];
  const int64_t layers = gate.dimensions()[0], asked = layer.typed_data()[0];
  const int64_t first = std::clamp<int64_t>(asked, 0, layers - 1) * experts;
  float* total = y->typed_data();
  std::fill(total, total + rows * width, 0.0f);
  thread_local std::vector<float> room;
  room.resize(rows * (2 * inner + width));
  RowPointers gates(room.data(), rows, inner), ups(room.data() + rows * inner, rows, inner);
  RowPointers outs(room.data() + 2 * rows * inner, rows, width);
  std::vector<const float*> taken(rows);
  std::vector<std::pair<int64_t, float>> who(rows);
  auto scale_of = [](const ffi::Buffer<ffi::F32>& scale, int64_t expert, int64_t outputs) {
    return scale.element_count() ? scale.typed_data() + expert * outputs : nullptr;
  };
  return ByType(gate, [&](auto* gate_at) {
    using T = std::remove_reference_t<decltype(*gate_at)>;
    const T* up_at = reinterpret_cast<const T*>(up.untyped_data());
    const T* down_at = reinterpret_cast<const T*>(down.untyped_data());
    for (int64_t e = 0; e < experts; ++e) {
      int64_t n = 0;
      for (int64_t m = 0; m < rows; ++m)
        for (int64_t a = 0; a < per_row; ++a)
          if (chosen.typed_data()[m * per_row + a] == e) {
            taken[n] = x.typed_data() + m * width;
            who[n++] = {m, weights.typed_data()[m * per_row + a]};
            break;  // the experts of a row are distinct
          }
      if (n == 0) continue;
      const int64_t expert = first + e, size = expert * width * inner;
      Product(n, taken.data(), gate_at + size, width, inner, scale_of(gate_scale, expert, inner),
              gates.at.data());
      Product(n, taken.data(), up_at + size, width, inner, scale_of(up_scale, expert, inner),
              ups.at.data());
      for (int64_t m = 0; m < n; ++m) Gate(gates.at[m], ups.at[m], who[m].second, inner);
      Product(n, gates.at.data(), down_at + size, inner, width,
              scale_of(down_scale, expert, width), outs.at.data());
      for (int64_t m = 0; m < n; ++m) {
        float* into = total + who[m].first * width;
        for (int64_t d = 0; d < width; ++d) into[d] += outs.at[m][d];
      }
    }
  });
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(interaction_project, Project,
                              ffi::Ffi::Bind()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::Buffer<ffi::S32>>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Ret<ffi::Buffer<ffi::F32>>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(interaction_experts, Experts,
                              ffi::Ffi::Bind()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::S32>>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::S32>>()
                                  .Ret<ffi::Buffer<ffi::F32>>());

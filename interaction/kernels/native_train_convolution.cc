// The short causal convolution of training on one CPU core, with its gradient: one pass over slots.

#include <vector>

#include "native_vectors.h"
#include "xla/ffi/api/ffi.h"

namespace {

namespace ffi = xla::ffi;
using Numbers = ffi::Buffer<ffi::F32>;

// Taps [C, J] as [J][C].
std::vector<float> ByTap(const Numbers& weight) {
  const int64_t C = weight.dimensions()[0], J = weight.dimensions()[1];
  std::vector<float> taps(J * C);
  for (int64_t c = 0; c < C; ++c)
    for (int64_t j = 0; j < J; ++j) taps[j * C + c] = weight.typed_data()[c * J + j];
  return taps;
}

// x [B, T, C], weight [C, J], the last tap on the slot itself -> x + convolution(x).
ffi::Error Forward(Numbers x, Numbers weight, ffi::Result<Numbers> y) {
  const int64_t B = x.dimensions()[0], T = x.dimensions()[1], C = x.dimensions()[2];
  const int64_t J = weight.dimensions()[1];
  const std::vector<float> taps = ByTap(weight);
  for (int64_t b = 0; b < B; ++b)
    for (int64_t t = 0; t < T; ++t) {
      const float* at = x.typed_data() + (b * T + t) * C;
      float* to = y->typed_data() + (b * T + t) * C;
      const int64_t back = std::min(t, J - 1);
      ForEach(C, [&](int64_t c, int64_t some) {
        Floats sum = LoadPart(at + c, some);
        for (int64_t d = back; d >= 0; --d)
          sum += LoadPart(at - d * C + c, some) * LoadPart(&taps[(J - 1 - d) * C + c], some);
        StorePart(to + c, some, sum);
      });
    }
  return ffi::Error::Success();
}

// Gradients of x and weight from that of y.
ffi::Error Backward(Numbers gradient, Numbers x, Numbers weight, ffi::Result<Numbers> into_x,
                    ffi::Result<Numbers> into_weight) {
  const int64_t B = x.dimensions()[0], T = x.dimensions()[1], C = x.dimensions()[2];
  const int64_t J = weight.dimensions()[1];
  const std::vector<float> taps = ByTap(weight);
  std::vector<float> sums(J * C, 0.0f);
  for (int64_t b = 0; b < B; ++b)
    for (int64_t t = 0; t < T; ++t) {
      const float* come = gradient.typed_data() + (b * T + t) * C;
      const float* at = x.typed_data() + (b * T + t) * C;
      float* to = into_x->typed_data() + (b * T + t) * C;
      const int64_t on = std::min(T - 1 - t, J - 1), back = std::min(t, J - 1);
      ForEach(C, [&](int64_t c, int64_t some) {
        const Floats here = LoadPart(come + c, some);
        Floats sum = here;
        for (int64_t d = 0; d <= on; ++d)
          sum += LoadPart(come + d * C + c, some) * LoadPart(&taps[(J - 1 - d) * C + c], some);
        StorePart(to + c, some, sum);
        for (int64_t d = 0; d <= back; ++d) {
          float* tap = &sums[(J - 1 - d) * C + c];
          StorePart(tap, some, LoadPart(tap, some) + here * LoadPart(at - d * C + c, some));
        }
      });
    }
  for (int64_t c = 0; c < C; ++c)
    for (int64_t j = 0; j < J; ++j) into_weight->typed_data()[c * J + j] = sums[j * C + c];
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(
    interaction_train_convolution, Forward,
    ffi::Ffi::Bind().Arg<Numbers>().Arg<Numbers>().Ret<Numbers>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(interaction_train_convolution_gradient, Backward,
                              ffi::Ffi::Bind()
                                  .Arg<Numbers>()
                                  .Arg<Numbers>()
                                  .Arg<Numbers>()
                                  .Ret<Numbers>()
                                  .Ret<Numbers>());

// Vectors of 16 numbers for the native kernels, in the extension that GCC and Clang share: any
// processor. Built and run with GCC 12 on x86-64 with and without AVX-512, AVX2; nothing else was.

#ifndef INTERACTION_KERNELS_NATIVE_VECTORS_H_
#define INTERACTION_KERNELS_NATIVE_VECTORS_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>

namespace {

constexpr int kLanes = 16;
typedef float Floats __attribute__((vector_size(4 * kLanes)));
typedef int32_t Ints __attribute__((vector_size(4 * kLanes)));

struct BFloat16 {
  uint16_t bits;
};

inline Floats Load(const float* at) {
  Floats found;
  std::memcpy(&found, at, sizeof found);
  return found;
}

inline Floats Load(const BFloat16* at) {
  typedef uint16_t Halves __attribute__((vector_size(2 * kLanes)));
  Halves halves;
  std::memcpy(&halves, at, sizeof halves);
  return reinterpret_cast<Floats>(__builtin_convertvector(halves, Ints) << 16);
}

inline Floats Load(const int8_t* at) {
  typedef int8_t Bytes __attribute__((vector_size(kLanes)));
  Bytes bytes;
  std::memcpy(&bytes, at, sizeof bytes);
  return __builtin_convertvector(bytes, Floats);
}

inline float Number(float x) { return x; }
inline float Number(int8_t x) { return x; }
inline float Number(BFloat16 x) {
  const uint32_t bits = uint32_t{x.bits} << 16;
  float found;
  std::memcpy(&found, &bits, sizeof found);
  return found;
}

inline void Store(float* at, Floats x) { std::memcpy(at, &x, sizeof x); }

inline Floats All(float x) { return x - Floats{}; }

inline Floats Larger(Floats a, Floats b) { return a > b ? a : b; }

// exp by Cephes' polynomial (expf.c); relative error below 2e-7; 0 below -87.3, exp(88) above 88.
inline Floats Exp(Floats x) {
  Floats held = x < -87.3f ? All(-87.3f) : x;  // what is no number stays none
  held = held > 88.0f ? All(88.0f) : held;
  const Floats magic = All(12582912.0f);  // 1.5 * 2**23: adding it rounds to whole numbers
  const Floats power = (held * 1.44269504088896341f + magic) - magic;
  const Floats r = (held - power * 0.693359375f) + power * 2.12194440e-4f;
  Floats p = All(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const Ints exponent = (__builtin_convertvector(power, Ints) + 127) << 23;
  return x < -87.3f ? All(0.0f) : p * reinterpret_cast<Floats>(exponent);
}

// Every number beside the one B places from it.
template <int B, int... J>
inline Floats Apart(Floats x, std::integer_sequence<int, J...>) {
  return __builtin_shufflevector(x, x, (J ^ B)...);
}

template <int B>
inline Floats Apart(Floats x) {
  return Apart<B>(x, std::make_integer_sequence<int, kLanes>());
}

inline float Largest(Floats x) {
  x = Larger(x, Apart<8>(x)), x = Larger(x, Apart<4>(x));
  x = Larger(x, Apart<2>(x)), x = Larger(x, Apart<1>(x));
  return x[0];
}

inline float Sum(Floats x) {
  x += Apart<8>(x), x += Apart<4>(x), x += Apart<2>(x), x += Apart<1>(x);
  return x[0];
}

// The first `some` numbers at `at`, `fill` behind them.
inline Floats LoadPart(const float* at, int64_t some, float fill = 0.0f) {
  if (some >= kLanes) return Load(at);
  Floats found = All(fill);
  std::memcpy(&found, at, some * sizeof(float));
  return found;
}

inline void StorePart(float* at, int64_t some, Floats x) {
  std::memcpy(at, &x, std::min<int64_t>(some, kLanes) * sizeof(float));
}

// The first `some` numbers of x, zero behind them.
inline Floats First(Floats x, int64_t some) {
  if (some >= kLanes) return x;
  return LoadPart(reinterpret_cast<float*>(&x), some);
}

// Calls run(place, how many of 16 there are) along a row.
template <typename Run>
inline void ForEach(int64_t width, Run run) {
  int64_t at = 0;
  for (; at + kLanes <= width; at += kLanes) run(at, int64_t{kLanes});
  if (at < width) run(at, width - at);
}

}  // namespace

#endif  // INTERACTION_KERNELS_NATIVE_VECTORS_H_

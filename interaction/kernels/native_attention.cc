// Attention of live calls over long caches on one CPU core, for XLA's foreign function interface.
//
// A lane's cache is read once, in blocks of keys; what a lane gets depends on no other lane.

#include <limits>
#include <utility>

#include "native_products.h"

namespace {

constexpr int64_t kSlots = 64;       // keys of a block
constexpr float kFar = -1e30f;       // score of a key that is not seen
constexpr float kLow = -1e20f;       // below every score; exp(kFar - kLow) is exactly 0

struct Sizes {
  int64_t lanes, slots, heads, width, stored, kv_heads, extent, window;
};

// One stage of turning 16 x 16 numbers: blocks of B numbers change places between rows B apart.
template <int B, int... J>
inline void Swap(Floats* rows, std::integer_sequence<int, J...>) {
  for (int i = 0; i < kLanes; ++i)
    if (!(i & B)) {
      const Floats a = rows[i], b = rows[i + B];
      rows[i] = __builtin_shufflevector(a, b, (J & B ? J - B + kLanes : J)...);
      rows[i + B] = __builtin_shufflevector(a, b, (J & B ? J + kLanes : J + B)...);
    }
}

template <int B>
inline void Swap(Floats* rows) {
  Swap<B>(rows, std::make_integer_sequence<int, kLanes>());
}

// Fetches the next block of keys and of values little by little, while this one is computed: a line
// of each a call, most or all of them in the calls of a block (arguments are for `AddRows` alone).
struct BlockAhead {
  const char *key, *value, *end;
  template <typename T>
  BlockAhead(const T* key, const T* value, int64_t numbers)
      : key(reinterpret_cast<const char*>(key)),
        value(reinterpret_cast<const char*>(value)),
        end(reinterpret_cast<const char*>(key + numbers)) {}
  void operator()(const void* = nullptr, int = 0) {
    if (key >= end) return;
    __builtin_prefetch(key, 0, 2);
    __builtin_prefetch(value, 0, 2);
    key += 64, value += 64;
  }
};

// The keys of one head [keys][width], `stride` numbers apart, as [width][kSlots]; zero behind them.
template <typename T>
void Turn(BlockAhead& fetch, const T* key, int64_t stride, int64_t keys, int64_t width,
          float* turned) {
  if (keys == kSlots && width % kLanes == 0) {
    for (int64_t s = 0; s < kSlots; s += kLanes)
      for (int64_t h = 0; h < width; h += kLanes) {
        Floats rows[kLanes];
        for (int i = 0; i < kLanes; ++i) {
          const T* row = key + (s + i) * stride + h;
          if (i % 4 == 0) fetch();
          rows[i] = Load(row);
        }
        Swap<1>(rows), Swap<2>(rows), Swap<4>(rows), Swap<8>(rows);
        for (int i = 0; i < kLanes; ++i) Store(turned + (h + i) * kSlots + s, rows[i]);
      }
    return;
  }
  for (int64_t h = 0; h < width; ++h)
    for (int64_t s = 0; s < kSlots; ++s)
      turned[h * kSlots + s] = s < keys ? Number(key[s * stride + h]) : 0.0f;
}

// One stage of summing 16 rows of 16 numbers each: half as many rows, twice the rows in each.
template <int B>
inline void Halve(Floats* rows) {
  Swap<B>(rows);
  for (int i = 0; i < B; ++i) rows[i] += rows[i + B];
}

// Products of R queries with the keys of a block, key by key.
template <int R, typename T>
void Dots(BlockAhead& fetch, const float* const* query, const T* key, int64_t stride, int64_t width,
          float* const* scores) {
  for (int64_t s = 0; s < kSlots; s += kLanes) {
    Floats sums[R][kLanes];
    for (int i = 0; i < kLanes; ++i) {
      const T* row = key + (s + i) * stride;
      Floats sum[R] = {};
      for (size_t byte = 0; byte < sizeof(T); byte += 2) fetch();  // bfloat16 has half as many lines
      for (int64_t h = 0; h < width; h += kLanes) {
        const Floats numbers = Load(row + h);
        for (int r = 0; r < R; ++r) sum[r] += numbers * Load(query[r] + h);
      }
      for (int r = 0; r < R; ++r) sums[r][i] = sum[r];
    }
    for (int r = 0; r < R; ++r) {
      Halve<8>(sums[r]), Halve<4>(sums[r]), Halve<2>(sums[r]), Halve<1>(sums[r]);
      Store(scores[r] + s, sums[r][0]);
    }
  }
}

// scores[r][s] = query[r] . key[s] of a block: key by key for few queries, else by turned keys.
template <typename T>
void Scores(BlockAhead& fetch, const Sizes& n, int64_t rows, const float* const* query,
            const T* key, int64_t keys, float* turned, float* const* scores) {
  const int64_t stride = n.kv_heads * n.width;
  if (keys == kSlots && n.width % kLanes == 0) switch (rows) {
      case 1: return Dots<1>(fetch, query, key, stride, n.width, scores);
      case 2: return Dots<2>(fetch, query, key, stride, n.width, scores);
      case 3: return Dots<3>(fetch, query, key, stride, n.width, scores);
      case 4: return Dots<4>(fetch, query, key, stride, n.width, scores);
    }
  Turn(fetch, key, stride, keys, n.width, turned);
  for (int64_t r = 0; r < rows; ++r) std::fill(scores[r], scores[r] + kSlots, 0.0f);
  AddSomeRows(fetch, rows, query, 0, n.width, turned, kSlots, 0, kSlots, scores);
}

// What a query sees of a block of keys.
struct View {
  alignas(Ints) int32_t distance[kSlots];
  Ints seen[kSlots / kLanes];  // -1 or 0
  bool any, near;              // some key is seen; some key is near enough for a bias
};

inline Ints LoadSome(const int32_t* at, int64_t some, int32_t fill) {
  Ints found = fill - Ints{};
  if (some >= kLanes)
    std::memcpy(&found, at, sizeof found);
  else if (some > 0)
    std::memcpy(&found, at, some * sizeof(int32_t));
  return found;
}

inline bool Any(Ints mask) {
  uint64_t parts[kLanes / 2], found = 0;
  std::memcpy(parts, &mask, sizeof parts);
  for (uint64_t part : parts) found |= part;
  return found != 0;
}

void Look(int32_t position, int32_t order, const int32_t* positions, const int32_t* orders,
          int64_t keys, int64_t window, int64_t extent, View& view) {
  const int32_t within = window == 0 ? std::numeric_limits<int32_t>::max() : window;
  Ints any = {}, near = {};
  for (int64_t s = 0; s < kSlots; s += kLanes) {
    const Ints distance = position - LoadSome(positions + s, keys - s, 0);
    const Ints at = LoadSome(orders + s, keys - s, -1);
    const Ints seen = (at >= 0) & (at <= order) & (distance < within);
    any |= seen;
    near |= seen & (distance >= 0) & (distance < static_cast<int32_t>(extent));
    view.seen[s / kLanes] = seen;
    std::memcpy(view.distance + s, &distance, sizeof distance);
  }
  view.any = Any(any);
  view.near = Any(near);
}

// Scores become weights; the running softmax and its sums follow (arXiv 1805.02867).
void Weigh(const View& view, const float* bias, float bias_scale, int64_t extent, int64_t width,
           float* scores, float* top, float* total, float* out) {
  constexpr int kParts = kSlots / kLanes;
  if (bias != nullptr && view.near)
    for (int64_t s = 0; s < kSlots; ++s)
      if (view.distance[s] >= 0 && view.distance[s] < extent)
        scores[s] += bias_scale * bias[view.distance[s]];
  Floats score[kParts], best = All(*top), sum = All(0.0f);
  for (int p = 0; p < kParts; ++p) {
    score[p] = view.seen[p] ? Load(scores + p * kLanes) : All(kFar);
    best = Larger(best, score[p]);
  }
  const float higher = Largest(best);
  for (int p = 0; p < kParts; ++p) {
    const Floats weight = Exp(score[p] - higher);
    sum += weight;
    Store(scores + p * kLanes, weight);
  }
  if (higher != *top) {
    const float shrink = std::exp(*top - higher);
    for (int64_t h = 0; h < width; ++h) out[h] *= shrink;
    *total *= shrink;
    *top = higher;
  }
  *total += Sum(sum);
}

// One lane; `query` is scaled, the keys and values are those of the layer and lane.
template <typename T>
void AttendLane(const Sizes& n, const float* query, const T* key, const T* value,
                const float* bias, const float* bias_scale, const int32_t* position,
                const int32_t* order, const int32_t* positions, const int32_t* orders,
                float* out) {
  const int64_t group = n.heads / n.kv_heads, rows = n.slots * group;
  const int64_t stride = n.kv_heads * n.width;
  int64_t filled = n.stored;
  while (filled > 0 && orders[filled - 1] < 0) --filled;
  std::vector<float> turned(n.width * kSlots), scores(rows * kSlots);
  std::vector<float> top(n.slots * n.heads, kLow), total(n.slots * n.heads, 0.0f);
  std::vector<View> views(n.slots);
  std::vector<const float*> queries(rows);
  std::vector<float*> outs(rows);
  RowPointers score_rows(scores.data(), rows, kSlots);
  std::fill(out, out + n.slots * n.heads * n.width, 0.0f);
  for (int64_t start = 0; start < filled; start += kSlots) {
    const int64_t keys = std::min(kSlots, n.stored - start);
    bool any = false;
    for (int64_t t = 0; t < n.slots; ++t) {
      Look(position[t], order[t], positions + start, orders + start, keys, n.window,
           bias == nullptr ? 0 : n.extent, views[t]);
      any |= views[t].any;
    }
    if (!any) continue;
    const int64_t next = std::min(start + kSlots, filled);
    BlockAhead fetch(key + next * stride, value + next * stride,
                     std::min(kSlots, filled - next) * stride);
    for (int64_t k = 0; k < n.kv_heads; ++k) {
      for (int64_t r = 0; r < rows; ++r) {
        const int64_t at = (r / group * n.heads + k * group + r % group) * n.width;
        queries[r] = query + at;
        outs[r] = out + at;
      }
      const int64_t first = start * stride + k * n.width;
      Scores(fetch, n, rows, queries.data(), key + first, keys, turned.data(),
             score_rows.at.data());
      for (int64_t r = 0; r < rows; ++r) {
        const int64_t t = r / group, head = t * n.heads + k * group + r % group;
        Weigh(views[t], bias == nullptr ? nullptr : bias + head * n.extent, bias_scale[t],
              n.extent, n.width, score_rows.at[r], &top[head], &total[head], outs[r]);
      }
      AddSomeRows(fetch, rows, score_rows.at.data(), 0, keys, value + first, stride, 0, n.width,
                  outs.data());
    }
  }
  for (int64_t head = 0; head < n.slots * n.heads; ++head)
    for (int64_t h = 0; h < n.width; ++h)
      out[head * n.width + h] /= std::max(total[head], 1e-37f);
}

// query [B, T, N, H], key and value [L, B, S, K, H], bias [B, T, N, Q] or [0], position and order
// of queries [B, T] and of keys [B, S], length scale [B, T], layer [] -> [B, T, N, H].
ffi::Error Attention(ffi::Buffer<ffi::F32> query, ffi::AnyBuffer key, ffi::AnyBuffer value,
                     ffi::Buffer<ffi::F32> bias, ffi::Buffer<ffi::S32> position,
                     ffi::Buffer<ffi::S32> order, ffi::Buffer<ffi::S32> positions,
                     ffi::Buffer<ffi::S32> orders, ffi::Buffer<ffi::F32> length_scale,
                     ffi::Buffer<ffi::S32> layer, float scale, int64_t window,
                     ffi::ResultBuffer<ffi::F32> out) {
  const auto q = query.dimensions(), k = key.dimensions();
  const bool biased = bias.element_count() > 0;
  const Sizes n = {q[0], q[1], q[2], q[3], k[2], k[3], biased ? bias.dimensions()[3] : 0, window};
  const int64_t of_query = n.slots * n.heads * n.width;
  const int64_t of_keys = n.stored * n.kv_heads * n.width;
  const int64_t layers = k[0], asked = layer.typed_data()[0];
  const int64_t first = std::clamp<int64_t>(asked, 0, layers - 1) * n.lanes;
  std::vector<float> scaled(of_query);
  return ByType(key, [&](auto* key_at) {
    const auto* value_at = reinterpret_cast<decltype(key_at)>(value.untyped_data());
    for (int64_t b = 0; b < n.lanes; ++b) {
      const float* factor = length_scale.typed_data() + b * n.slots;
      for (int64_t i = 0; i < of_query; ++i)
        scaled[i] = query.typed_data()[b * of_query + i] * scale *
                    factor[i / (n.heads * n.width)];
      AttendLane(n, scaled.data(), key_at + (first + b) * of_keys, value_at + (first + b) * of_keys,
                 biased ? bias.typed_data() + b * n.slots * n.heads * n.extent : nullptr, factor,
                 position.typed_data() + b * n.slots, order.typed_data() + b * n.slots,
                 positions.typed_data() + b * n.stored, orders.typed_data() + b * n.stored,
                 out->typed_data() + b * of_query);
    }
  });
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(interaction_attention, Attention,
                              ffi::Ffi::Bind()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::S32>>()
                                  .Arg<ffi::Buffer<ffi::S32>>()
                                  .Arg<ffi::Buffer<ffi::S32>>()
                                  .Arg<ffi::Buffer<ffi::S32>>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::S32>>()
                                  .Attr<float>("scale")
                                  .Attr<int64_t>("window")
                                  .Ret<ffi::Buffer<ffi::F32>>());

// Attention of training on one CPU core, in tiles of queries, with its gradient.
//
// In: whole sequences at positions 0..T-1, the relative bias as the two factors that it is a
// product of. A tile of queries sees only the keys that it can reach; scores are made again in the
// backward pass from each row's logarithm of the softmax's sum (Dao et al. 2022, arXiv 2205.14135).

#include <limits>
#include <vector>

#include "native_blas.h"
#include "native_vectors.h"
#include "xla/ffi/api/ffi.h"

namespace {

namespace ffi = xla::ffi;
using Numbers = ffi::Buffer<ffi::F32>;
using Integers = ffi::Buffer<ffi::S32>;

constexpr int64_t kTile = 32;   // queries of a tile
constexpr float kFar = -1e30f;  // score of a key that is not seen

struct Sizes {
  int64_t B, T, N, H, K, r, Q, window;
  int64_t group() const { return N / K; }
  // Distances that have a bias and can be reached.
  int64_t near() const { return std::min(Q, window ? std::min(window, T) : T); }
};

Sizes SizesOf(const Numbers& query, const Numbers& key, const Numbers& table, int64_t window) {
  const auto q = query.dimensions();
  const bool biased = table.element_count() > 0;
  return {q[0], q[1], q[2], q[3], key.dimensions()[2], biased ? table.dimensions()[0] : 0,
          biased ? table.dimensions()[1] : 0, window};
}

// One tile: queries `first`.. of lane `b` and kv head `k`, over keys `lo`.. .
struct Tile {
  int64_t b, k, first, rows, lo, keys;
};

template <typename Run>
void EachTile(const Sizes& n, Run run) {
  for (int64_t b = 0; b < n.B; ++b)
    for (int64_t k = 0; k < n.K; ++k)
      for (int64_t first = 0; first < n.T; first += kTile) {
        const int64_t last = std::min(first + kTile, n.T);
        const int64_t lo = n.window ? std::max<int64_t>(0, first - n.window + 1) : 0;
        run(Tile{b, k, first, last - first, lo, last - lo});
      }
}

// Rows of a tile, (slot, head of the group), out of [B, T, N, width].
void Take(const Sizes& n, const Tile& at, int64_t width, const float* from, float* to) {
  const int64_t size = n.group() * width;
  for (int64_t i = 0; i < at.rows; ++i)
    std::memcpy(to + i * size, from + ((at.b * n.T + at.first + i) * n.N + at.k * n.group()) * width,
                size * sizeof(float));
}

void Put(const Sizes& n, const Tile& at, int64_t width, const float* from, float* to) {
  const int64_t size = n.group() * width;
  for (int64_t i = 0; i < at.rows; ++i)
    std::memcpy(to + ((at.b * n.T + at.first + i) * n.N + at.k * n.group()) * width, from + i * size,
                size * sizeof(float));
}

// The profiles [r, near], farthest first: a row of biases then lies as its keys do.
std::vector<float> Turned(const Sizes& n, const Numbers& table) {
  const int64_t near = n.near();
  std::vector<float> turned(n.r * near);
  for (int64_t c = 0; c < n.r; ++c)
    for (int64_t d = 0; d < near; ++d)
      turned[c * near + near - 1 - d] = table.typed_data()[c * n.Q + d];
  return turned;
}

// What keys a row sees, as places of the tile's keys: `from` to `to`; of them `biased`.. have one.
struct Reach {
  int64_t from, to, biased;
};

Reach ReachOf(const Sizes& n, const Tile& at, int64_t row) {
  const int64_t t = at.first + row / n.group();
  const int64_t from = n.window ? std::max(at.lo, t - n.window + 1) : 0;
  return {from - at.lo, t + 1 - at.lo, std::max(from, t + 1 - n.near()) - at.lo};
}

struct Inputs {
  const float *query, *key, *value, *state;
  const int32_t *order, *until;
  float scale;
};

// Room of one tile and its scores with their biases; keys that are not seen are far.
struct Scores {
  std::vector<float> query, state, bias, score;
  explicit Scores(const Sizes& n)
      : query(kTile * n.group() * n.H), state(kTile * n.group() * n.r),
        bias(kTile * n.group() * n.near()), score(kTile * n.group() * n.T) {}

  void Make(const Sizes& n, const Tile& at, const Inputs& in, const std::vector<float>& turned) {
    const int64_t rows = at.rows * n.group(), near = n.near(), stride = n.K * n.H;
    Take(n, at, n.H, in.query, query.data());
    const float* keys = in.key + ((at.b * n.T + at.lo) * n.K + at.k) * n.H;
    Multiply(rows, at.keys, n.H, in.scale, {query.data(), n.H}, {keys, stride, true}, 0.0f,
             score.data(), at.keys);
    if (n.r) {
      Take(n, at, n.r, in.state, state.data());
      Multiply(rows, near, n.r, 1.0f, {state.data(), n.r}, {turned.data(), near}, 0.0f,
               bias.data(), near);
    }
    const int32_t* order = in.order + at.b * n.T + at.lo;
    const int32_t* until = in.until + at.b * n.T + at.lo;
    bool all = true;  // every key of the tile is there, for all of its queries
    for (int64_t j = 0; j < at.keys; ++j)
      all &= order[j] >= 0 && until[j] >= at.first + at.rows;
    for (int64_t row = 0; row < rows; ++row) {
      const Reach reach = ReachOf(n, at, row);
      float* scores = score.data() + row * at.keys;
      if (n.r)
        for (int64_t j = reach.biased; j < reach.to; ++j)
          scores[j] += bias[(row + 1) * near - reach.to + j];
      if (!all)
        for (int64_t j = reach.from; j < reach.to; ++j)
          if (order[j] < 0 || at.first + row / n.group() >= until[j]) scores[j] = kFar;
    }
  }
};

// query [B, T, N, H], key and value [B, T, K, H], state [B, T, N, r], table [r, Q] or [0] both,
// order and until [B, T] -> out [B, T, N, H], logarithms of the sums [B, K, T, G].
ffi::Error Forward(Numbers query, Numbers key, Numbers value, Numbers state, Numbers table,
                   Integers order, Integers until, float scale, int64_t window,
                   ffi::Result<Numbers> out, ffi::Result<Numbers> sums) {
  const Sizes n = SizesOf(query, key, table, window);
  const Inputs in = {query.typed_data(), key.typed_data(), value.typed_data(), state.typed_data(),
                     order.typed_data(), until.typed_data(), scale};
  const std::vector<float> turned = Turned(n, table);
  Scores scores(n);
  std::vector<float> mixed(kTile * n.group() * n.H), totals(kTile * n.group());
  EachTile(n, [&](const Tile& at) {
    const int64_t rows = at.rows * n.group();
    scores.Make(n, at, in, turned);
    float* logarithms = sums->typed_data() + ((at.b * n.K + at.k) * n.T + at.first) * n.group();
    for (int64_t row = 0; row < rows; ++row) {
      const Reach reach = ReachOf(n, at, row);
      float* score = scores.score.data() + row * at.keys;
      Floats most = All(kFar), sum = {};
      ForEach(reach.to - reach.from, [&](int64_t j, int64_t some) {
        most = Larger(most, LoadPart(score + reach.from + j, some, kFar));
      });
      const float top = Largest(most);
      ForEach(reach.to - reach.from, [&](int64_t j, int64_t some) {
        const Floats weight = Exp(LoadPart(score + reach.from + j, some) - top);
        sum += First(weight, some);
        StorePart(score + reach.from + j, some, weight);
      });
      std::fill(score, score + reach.from, 0.0f);
      std::fill(score + reach.to, score + at.keys, 0.0f);
      totals[row] = Sum(sum);
      logarithms[row] = top + std::log(totals[row]);
    }
    const float* values = in.value + ((at.b * n.T + at.lo) * n.K + at.k) * n.H;
    Multiply(rows, n.H, at.keys, 1.0f, {scores.score.data(), at.keys}, {values, n.K * n.H}, 0.0f,
             mixed.data(), n.H);
    for (int64_t row = 0; row < rows; ++row)
      for (int64_t h = 0; h < n.H; ++h) mixed[row * n.H + h] /= totals[row];
    Put(n, at, n.H, mixed.data(), out->typed_data());
  });
  return ffi::Error::Success();
}

// Gradients of query, key, value, state and table from that of `Forward`'s out.
ffi::Error Backward(Numbers gradient, Numbers query, Numbers key, Numbers value, Numbers state,
                    Numbers table, Integers order, Integers until, Numbers out, Numbers sums,
                    float scale, int64_t window, ffi::Result<Numbers> into_query,
                    ffi::Result<Numbers> into_key, ffi::Result<Numbers> into_value,
                    ffi::Result<Numbers> into_state, ffi::Result<Numbers> into_table) {
  const Sizes n = SizesOf(query, key, table, window);
  const Inputs in = {query.typed_data(), key.typed_data(), value.typed_data(), state.typed_data(),
                     order.typed_data(), until.typed_data(), scale};
  const std::vector<float> turned = Turned(n, table);
  const int64_t most = kTile * n.group(), near = n.near(), stride = n.K * n.H;
  for (auto* each : {&into_key, &into_value, &into_table})
    std::fill((*each)->typed_data(), (*each)->typed_data() + (*each)->element_count(), 0.0f);
  Scores scores(n);
  std::vector<float> come(most * n.H), outs(most * n.H), moved(most * std::max(n.H, n.r));
  std::vector<float> back(most * n.T), biases(most * near), into_turned(n.r * near, 0.0f);
  EachTile(n, [&](const Tile& at) {
    const int64_t rows = at.rows * n.group();
    const int64_t keys = ((at.b * n.T + at.lo) * n.K + at.k) * n.H;
    scores.Make(n, at, in, turned);
    Take(n, at, n.H, gradient.typed_data(), come.data());
    Take(n, at, n.H, out.typed_data(), outs.data());
    Multiply(rows, at.keys, n.H, 1.0f, {come.data(), n.H}, {in.value + keys, stride, true}, 0.0f,
             back.data(), at.keys);
    const float* logarithms =
        sums.typed_data() + ((at.b * n.K + at.k) * n.T + at.first) * n.group();
    for (int64_t row = 0; row < rows; ++row) {
      const Reach reach = ReachOf(n, at, row);
      float *weight = scores.score.data() + row * at.keys, *change = back.data() + row * at.keys;
      float mean = 0.0f;  // of the weights' gradients, by weight
      for (int64_t h = 0; h < n.H; ++h) mean += come[row * n.H + h] * outs[row * n.H + h];
      ForEach(reach.to - reach.from, [&](int64_t j, int64_t some) {
        float *w = weight + reach.from + j, *c = change + reach.from + j;
        const Floats of = Exp(LoadPart(w, some) - logarithms[row]);
        StorePart(w, some, of);
        StorePart(c, some, of * (LoadPart(c, some) - mean));
      });
      for (float* each : {weight, change}) {
        std::fill(each, each + reach.from, 0.0f);
        std::fill(each + reach.to, each + at.keys, 0.0f);
      }
      if (n.r) {
        float* bias = biases.data() + row * near;
        const int64_t before = near - (reach.to - reach.biased);
        std::fill(bias, bias + before, 0.0f);
        std::memcpy(bias + before, change + reach.biased,
                    (reach.to - reach.biased) * sizeof(float));
      }
    }
    Multiply(rows, n.H, at.keys, scale, {back.data(), at.keys}, {in.key + keys, stride}, 0.0f,
             moved.data(), n.H);
    Put(n, at, n.H, moved.data(), into_query->typed_data());
    Multiply(at.keys, n.H, rows, scale, {back.data(), at.keys, true}, {scores.query.data(), n.H},
             1.0f, into_key->typed_data() + keys, stride);
    Multiply(at.keys, n.H, rows, 1.0f, {scores.score.data(), at.keys, true}, {come.data(), n.H},
             1.0f, into_value->typed_data() + keys, stride);
    if (n.r) {
      Multiply(rows, n.r, near, 1.0f, {biases.data(), near}, {turned.data(), near, true}, 0.0f,
               moved.data(), n.r);
      Put(n, at, n.r, moved.data(), into_state->typed_data());
      Multiply(n.r, near, rows, 1.0f, {scores.state.data(), n.r, true}, {biases.data(), near},
               1.0f, into_turned.data(), near);
    }
  });
  for (int64_t c = 0; c < n.r; ++c)
    for (int64_t d = 0; d < near; ++d)
      into_table->typed_data()[c * n.Q + d] = into_turned[c * near + near - 1 - d];
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(interaction_train_attention, Forward,
                              ffi::Ffi::Bind()
                                  .Arg<Numbers>()
                                  .Arg<Numbers>()
                                  .Arg<Numbers>()
                                  .Arg<Numbers>()
                                  .Arg<Numbers>()
                                  .Arg<Integers>()
                                  .Arg<Integers>()
                                  .Attr<float>("scale")
                                  .Attr<int64_t>("window")
                                  .Ret<Numbers>()
                                  .Ret<Numbers>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(interaction_train_attention_gradient, Backward,
                              ffi::Ffi::Bind()
                                  .Arg<Numbers>()
                                  .Arg<Numbers>()
                                  .Arg<Numbers>()
                                  .Arg<Numbers>()
                                  .Arg<Numbers>()
                                  .Arg<Numbers>()
                                  .Arg<Integers>()
                                  .Arg<Integers>()
                                  .Arg<Numbers>()
                                  .Arg<Numbers>()
                                  .Attr<float>("scale")
                                  .Attr<int64_t>("window")
                                  .Ret<Numbers>()
                                  .Ret<Numbers>()
                                  .Ret<Numbers>()
                                  .Ret<Numbers>()
                                  .Ret<Numbers>());

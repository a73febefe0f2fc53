// The problem that a CUDA kernel solves, the lanes that share an item, and where samples lie.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

#include <type_traits>

#include "deformable_attention_common/arguments.h"

namespace deformable_attention {

constexpr int kMaxLevels = 32;
constexpr int kMaxChannels = 256;
constexpr unsigned kWarp = 0xffffffffu;

template <typename scalar_t>
using Sum = std::conditional_t<std::is_same_v<scalar_t, double>, double, float>;

template <typename T>
struct alignas(2 * sizeof(T)) Pair {
  T x, y;
};

struct Problem {
  int items;  // images · queries · heads
  int queries, heads, channels, points, samples, rows;
  int reference_levels = 0;      // 1 or levels
  int reference_image_step = 0;  // queries, or 0 for one set of reference points
  int heights[kMaxLevels], widths[kMaxLevels], starts[kMaxLevels];

  explicit Problem(const Arguments& arguments) {
    const Shapes& shapes = arguments.shapes;
    TORCH_CHECK_VALUE(
        static_cast<int>(shapes.levels.size()) <= kMaxLevels, "spatial_shapes: at most ", kMaxLevels,
        " levels are supported on CUDA, got ", shapes.levels.size());
    TORCH_CHECK_VALUE(
        shapes.channels % 8 == 0 && shapes.channels <= kMaxChannels,
        "value: on CUDA a head's channels are a multiple of 8 up to ", kMaxChannels, ", got ", shapes.channels);
    items = static_cast<int>(shapes.batch * shapes.queries * shapes.heads);
    queries = static_cast<int>(shapes.queries);
    heads = static_cast<int>(shapes.heads);
    channels = static_cast<int>(shapes.channels);
    points = static_cast<int>(shapes.points);
    samples = static_cast<int>(shapes.samples());
    rows = static_cast<int>(shapes.length);
    for (size_t i = 0; i < shapes.levels.size(); ++i) {
      heights[i] = static_cast<int>(shapes.levels[i].height);
      widths[i] = static_cast<int>(shapes.levels[i].width);
      starts[i] = static_cast<int>(shapes.levels[i].start);
    }
    if (arguments.are_projections()) {
      reference_levels = static_cast<int>(arguments.reference_points.size(2));
      reference_image_step = arguments.reference_points.size(0) == 1 ? 0 : queries;
    }
  }
};

// The lanes of a warp that share an item.
struct Group {
  int size, lane;

  template <typename T>
  __device__ T from(T value, int lane_of_group) const {
    return __shfl_sync(kWarp, value, lane_of_group, size);
  }
  template <typename T>
  __device__ T sum(T value) const {
    for (int step = size / 2; step > 0; step /= 2) {
      value += __shfl_xor_sync(kWarp, value, step, size);
    }
    return value;
  }
  template <typename T>
  __device__ T max(T value) const {
    for (int step = size / 2; step > 0; step /= 2) {
      const T other = __shfl_xor_sync(kWarp, value, step, size);
      value = other > value ? other : value;
    }
    return value;
  }
};

// Where a sample lies in pixels (centers at integers) and how much it weighs.
template <typename T>
struct Position {
  T x, y, weight;
};

template <typename T>
__device__ T exponential(T x) {
  if constexpr (std::is_same_v<T, double>) {
    return ::exp(x);
  } else {
    return ::expf(x);
  }
}

// Both sources give the position of an item's samples and take the gradients. `start` and `finish` run once an item.
template <typename scalar_t>
struct Locations {
  using Scalar = scalar_t;
  using T = Sum<scalar_t>;
  const T *coordinates, *weights;
  T *grad_coordinates = nullptr, *grad_weights = nullptr;

  explicit Locations(const Arguments& arguments)
      : coordinates(arguments.coordinates.const_data_ptr<T>()), weights(arguments.weights.const_data_ptr<T>()) {}

  struct State {};

  __device__ State start(const Problem&, const Group&, int) const {
    return {};
  }

  __device__ Position<T> position(const Problem& p, const State&, int item, int sample, int level) const {
    const int index = item * p.samples + sample;
    const Pair<T> location = reinterpret_cast<const Pair<T>*>(coordinates)[index];
    return {
        location.x * p.widths[level] - T(0.5), location.y * p.heights[level] - T(0.5), weights[index]};
  }

  __device__ void write(const Problem& p, int item, int sample, int level, T grad_x, T grad_y, T grad_weight) const {
    const int index = item * p.samples + sample;
    reinterpret_cast<Pair<T>*>(grad_coordinates)[index] = {grad_x * p.widths[level], grad_y * p.heights[level]};
    grad_weights[index] = grad_weight;
  }

  __device__ void finish(const Problem&, const State&, const Group&, int, bool, T) const {}
};

template <typename scalar_t>
struct Projections {
  using Scalar = scalar_t;
  using T = Sum<scalar_t>;
  const T* reference_points;
  const scalar_t *coordinates, *weights;  // offsets and logits
  scalar_t* grad_coordinates = nullptr;
  T* grad_weights = nullptr;  // the softmax's gradients, from `finish` on the logits'

  explicit Projections(const Arguments& arguments)
      : reference_points(arguments.reference_points.const_data_ptr<T>()),
        coordinates(arguments.coordinates.const_data_ptr<scalar_t>()),
        weights(arguments.weights.const_data_ptr<scalar_t>()) {}

  struct State {
    T largest, scale;
  };

  __device__ T logit(const Problem& p, int item, int sample) const {
    return static_cast<T>(weights[item * p.samples + sample]);
  }

  __device__ T weight(const Problem& p, const State& state, int item, int sample) const {
    return exponential(logit(p, item, sample) - state.largest) * state.scale;
  }

  __device__ State start(const Problem& p, const Group& group, int item) const {
    T largest = logit(p, item, 0);
    for (int sample = group.lane; sample < p.samples; sample += group.size) {
      const T other = logit(p, item, sample);
      largest = other > largest ? other : largest;
    }
    largest = group.max(largest);
    T sum = 0;
    for (int sample = group.lane; sample < p.samples; sample += group.size) {
      sum += exponential(logit(p, item, sample) - largest);
    }
    return {largest, 1 / group.sum(sum)};
  }

  __device__ Position<T> position(const Problem& p, const State& state, int item, int sample, int level) const {
    const int query = item / p.heads % p.queries, image = item / p.heads / p.queries;
    const int point = (image * p.reference_image_step + query) * p.reference_levels;
    const Pair<T> center =
        reinterpret_cast<const Pair<T>*>(reference_points)[point + (p.reference_levels == 1 ? 0 : level)];
    const Pair<scalar_t> offset = reinterpret_cast<const Pair<scalar_t>*>(coordinates)[item * p.samples + sample];
    return {
        static_cast<T>(offset.x) + (center.x * p.widths[level] - T(0.5)),
        static_cast<T>(offset.y) + (center.y * p.heights[level] - T(0.5)),
        weight(p, state, item, sample)};
  }

  __device__ void write(const Problem& p, int item, int sample, int, T grad_x, T grad_y, T grad_weight) const {
    const int index = item * p.samples + sample;
    reinterpret_cast<Pair<scalar_t>*>(grad_coordinates)[index] = {
        static_cast<scalar_t>(grad_x), static_cast<scalar_t>(grad_y)};
    grad_weights[index] = grad_weight;
  }

  // The derivative of the softmax needs the weighted mean of all gradients. Each lane reads back what it wrote.
  __device__ void finish(
      const Problem& p, const State& state, const Group& group, int item, bool active, T lane_mean) const {
    const T mean = group.sum(lane_mean);
    if (active) {
      for (int sample = group.lane; sample < p.samples; sample += group.size) {
        T& grad = grad_weights[item * p.samples + sample];
        grad = weight(p, state, item, sample) * (grad - mean);
      }
    }
  }
};

}  // namespace deformable_attention

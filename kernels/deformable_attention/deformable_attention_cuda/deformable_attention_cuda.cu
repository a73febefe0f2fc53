// Multi-scale deformable attention on CUDA devices.
//
// A group of 1 to 32 neighbouring lanes works on one (image, query, head); each lane holds 16 bytes of the head's
// channels. Lanes first prepare one sample each (coordinates, softmax, validity, address), then the group takes the
// samples one after the other, handed round by shuffles: address arithmetic is done once, not in every lane.
// Coordinates and sums are float (double for double); indices fit in 32 bits, see shapes.h.

#include <ATen/Context.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <algorithm>
#include <type_traits>

#include "deformable_attention_common/shapes.h"
#include "torch-ext/torch_binding.h"

namespace deformable_attention {
namespace {

constexpr int kThreads = 256;
constexpr int kMaxLevels = 32;
constexpr int kMaxChannels = 256;
constexpr unsigned kWarp = 0xffffffffu;

template <typename scalar_t>
using Sum = std::conditional_t<std::is_same_v<scalar_t, double>, double, float>;

template <typename scalar_t>
constexpr int kVector = 16 / sizeof(scalar_t);  // channels a lane holds

// A lane's channels as one 16-byte access.
template <typename scalar_t>
struct alignas(16) Pack {
  scalar_t channels[kVector<scalar_t>];
};

template <typename T>
struct alignas(2 * sizeof(T)) Pair {
  T x, y;
};

struct Problem {
  int items;  // images · queries · heads
  int queries, heads, channels, points, samples, rows;
  int reference_levels;     // 1 or levels
  int reference_image_step; // queries, or 0 for one set of reference points
  int heights[kMaxLevels], widths[kMaxLevels], starts[kMaxLevels];
};

// One item's place in its warp.
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

// Where a sample lies in pixels (centres at integers) and what it weighs.
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

template <typename scalar_t>
struct Locations {
  using T = Sum<scalar_t>;
  const T *locations, *weights;
  T *grad_locations, *grad_weights;

  struct State {};

  __device__ State start(const Problem&, const Group&, int) const {
    return {};
  }

  __device__ Position<T> position(const Problem& p, const State&, int item, int sample, int level) const {
    const int index = item * p.samples + sample;
    const Pair<T> location = reinterpret_cast<const Pair<T>*>(locations)[index];
    return {
        location.x * p.widths[level] - T(0.5), location.y * p.heights[level] - T(0.5), weights[index]};
  }

  __device__ void write(const Problem& p, int item, int sample, int level, T grad_x, T grad_y, T grad_weight) const {
    const int index = item * p.samples + sample;
    reinterpret_cast<Pair<T>*>(grad_locations)[index] = {grad_x * p.widths[level], grad_y * p.heights[level]};
    grad_weights[index] = grad_weight;
  }

  __device__ void finish(const Problem&, const State&, const Group&, int, bool, T) const {}
};

template <typename scalar_t>
struct Projections {
  using T = Sum<scalar_t>;
  const T* reference_points;
  const scalar_t *offsets, *logits;
  scalar_t* grad_offsets;
  T* grad_logits;  // the weights' gradients until `finish`

  struct State {
    T largest, scale;
  };

  __device__ T logit(const Problem& p, int item, int sample) const {
    return static_cast<T>(logits[item * p.samples + sample]);
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
    const Pair<T> centre =
        reinterpret_cast<const Pair<T>*>(reference_points)[point + (p.reference_levels == 1 ? 0 : level)];
    const Pair<scalar_t> offset = reinterpret_cast<const Pair<scalar_t>*>(offsets)[item * p.samples + sample];
    return {
        static_cast<T>(offset.x) + (centre.x * p.widths[level] - T(0.5)),
        static_cast<T>(offset.y) + (centre.y * p.heights[level] - T(0.5)),
        weight(p, state, item, sample)};
  }

  __device__ void write(const Problem& p, int item, int sample, int, T grad_x, T grad_y, T grad_weight) const {
    const int index = item * p.samples + sample;
    reinterpret_cast<Pair<scalar_t>*>(grad_offsets)[index] = {
        static_cast<scalar_t>(grad_x), static_cast<scalar_t>(grad_y)};
    grad_logits[index] = grad_weight;
  }

  // The softmax's derivative needs the weighted mean of all weights' gradients. Each lane reads back what it wrote.
  __device__ void finish(
      const Problem& p, const State& state, const Group& group, int item, bool active, T lane_mean) const {
    const T mean = group.sum(lane_mean);
    if (active) {
      for (int sample = group.lane; sample < p.samples; sample += group.size) {
        T& grad = grad_logits[item * p.samples + sample];
        grad = weight(p, state, item, sample) * (grad - mean);
      }
    }
  }
};

enum Corner { kTopLeft = 1, kTopRight = 2, kBottomLeft = 4, kBottomRight = 8 };

template <typename T>
struct Sample {
  T right, bottom, weight;   // shares of the right column and the bottom row
  int offset, down, corners; // offset: top left, from the item's first row; corners: those on the map

  __device__ Sample from(const Group& group, int lane) const {
    return {group.from(right, lane),  group.from(bottom, lane), group.from(weight, lane),
            group.from(offset, lane), group.from(down, lane),   group.from(corners, lane)};
  }
};

// Samples a pixel or farther outside, nan and infinite ones have no corners.
template <typename T>
__device__ Sample<T> locate(const Problem& p, const Position<T>& position, int level, int row_stride) {
  const int width = p.widths[level], height = p.heights[level];
  Sample<T> s = {0, 0, position.weight, 0, width * row_stride, 0};
  const bool inside = position.x > -1 && position.x < width && position.y > -1 && position.y < height;
  if (inside) {
    const T left_x = floor(position.x), top_y = floor(position.y);
    const int left = static_cast<int>(left_x), top = static_cast<int>(top_y);
    s.right = position.x - left_x;
    s.bottom = position.y - top_y;
    // Negative where the top left corner is off the map; then it is not read.
    s.offset = (p.starts[level] + top * width + left) * row_stride;
    const int columns = (left >= 0 ? kTopLeft | kBottomLeft : 0) | (left + 1 < width ? kTopRight | kBottomRight : 0);
    const int rows = (top >= 0 ? kTopLeft | kTopRight : 0) | (top + 1 < height ? kBottomLeft | kBottomRight : 0);
    s.corners = columns & rows;
  }
  return s;
}

template <typename scalar_t>
__device__ Pack<scalar_t> load(const scalar_t* from, bool there) {
  const uint4 bits = there ? __ldg(reinterpret_cast<const uint4*>(from)) : uint4{0, 0, 0, 0};
  Pack<scalar_t> pack;
  static_assert(sizeof(pack) == sizeof(bits));
  memcpy(&pack, &bits, sizeof(bits));
  return pack;
}

// Adds a lane's channels to memory without waiting: one 128-bit reduction for four floats where the device has it.
template <int size>
__device__ void add(float* to, const float (&values)[size]) {
  static_assert(size % 4 == 0);
#pragma unroll
  for (int k = 0; k < size; k += 4) {
#if __CUDA_ARCH__ >= 900
    atomicAdd(reinterpret_cast<float4*>(to + k), make_float4(values[k], values[k + 1], values[k + 2], values[k + 3]));
#else
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      atomicAdd(to + k + j, values[k + j]);
    }
#endif
  }
}

template <int size>
__device__ void add(double* to, const double (&values)[size]) {
#pragma unroll
  for (int k = 0; k < size; ++k) {
    atomicAdd(to + k, values[k]);
  }
}

template <typename scalar_t>
__host__ __device__ constexpr int group_size(int channels) {
  int size = 1;
  while (size < 32 && size * kVector<scalar_t> < channels) {
    size *= 2;
  }
  return size;
}

// What both kernels start with. Every lane of a warp goes through every shuffle: groups past the end repeat the last
// item and write nothing.
template <typename scalar_t, int kChannels>
struct Item {
  Group group;
  int channels, item, row_stride, first;
  bool active;

  __device__ explicit Item(const Problem& p) {
    channels = kChannels > 0 ? kChannels : p.channels;
    group.size = group_size<scalar_t>(channels);
    group.lane = threadIdx.x % group.size;
    const int groups = kThreads / group.size;
    const int place = blockIdx.x * groups + threadIdx.x / group.size;
    active = place < p.items;
    item = active ? place : p.items - 1;
    row_stride = p.heads * channels;
    const int image = item / p.heads / p.queries;
    first = image * p.rows * row_stride + item % p.heads * channels;
  }
};

// kChannels: channels of a head where known when compiling, else 0.
template <typename scalar_t, template <typename> class Source, int kChannels>
__global__ void __launch_bounds__(kThreads) forward_kernel(
    const __grid_constant__ Problem p,
    const Source<scalar_t> source,
    const scalar_t* __restrict__ value,
    scalar_t* __restrict__ out) {
  using T = Sum<scalar_t>;
  constexpr int kSize = kVector<scalar_t>;
  const Item<scalar_t, kChannels> self(p);
  const Group group = self.group;
  const auto state = source.start(p, group, self.item);
  for (int chunk = 0; chunk < self.channels; chunk += group.size * kSize) {
    const int channel = chunk + group.lane * kSize;
    const bool has_channels = channel < self.channels;
    const scalar_t* lane_value = value + self.first + (has_channels ? channel : 0);
    T sums[kSize] = {};
    for (int base = 0; base < p.samples; base += group.size) {
      const int sample = min(base + group.lane, p.samples - 1), level = sample / p.points;
      const Sample<T> mine =
          locate(p, source.position(p, state, self.item, sample, level), level, self.row_stride);
      const int count = min(group.size, p.samples - base);
      for (int j = 0; j < count; ++j) {
        const Sample<T> s = mine.from(group, j);
        const int corners = has_channels ? s.corners : 0;
        const scalar_t* at = lane_value + s.offset;
        const auto top_left = load(at, corners & kTopLeft);
        const auto top_right = load(at + self.row_stride, corners & kTopRight);
        const auto bottom_left = load(at + s.down, corners & kBottomLeft);
        const auto bottom_right = load(at + s.down + self.row_stride, corners & kBottomRight);
        const T bottom = s.weight * s.bottom, top = s.weight - bottom;
        const T share_tr = top * s.right, share_tl = top - share_tr;
        const T share_br = bottom * s.right, share_bl = bottom - share_br;
#pragma unroll
        for (int k = 0; k < kSize; ++k) {
          // A sample off the map has weight zero times loaded zeros, unless its weight is not finite.
          sums[k] += share_tl * static_cast<T>(top_left.channels[k]) +
              share_tr * static_cast<T>(top_right.channels[k]) +
              share_bl * static_cast<T>(bottom_left.channels[k]) +
              share_br * static_cast<T>(bottom_right.channels[k]);
        }
      }
    }
    if (self.active && has_channels) {
      Pack<scalar_t> pack;
#pragma unroll
      for (int k = 0; k < kSize; ++k) {
        pack.channels[k] = static_cast<scalar_t>(sums[k]);
      }
      *reinterpret_cast<Pack<scalar_t>*>(out + self.item * self.channels + channel) = pack;
    }
  }
}

template <typename scalar_t, template <typename> class Source, int kChannels>
__global__ void __launch_bounds__(kThreads) backward_kernel(
    const __grid_constant__ Problem p,
    const Source<scalar_t> source,
    const scalar_t* __restrict__ grad_out,
    const scalar_t* __restrict__ value,
    Sum<scalar_t>* __restrict__ grad_value) {
  using T = Sum<scalar_t>;
  constexpr int kSize = kVector<scalar_t>;
  const Item<scalar_t, kChannels> self(p);
  const Group group = self.group;
  const auto state = source.start(p, group, self.item);
  T lane_mean = 0;
  for (int base = 0; base < p.samples; base += group.size) {
    const int sample = min(base + group.lane, p.samples - 1), level = sample / p.points;
    const Sample<T> mine =
        locate(p, source.position(p, state, self.item, sample, level), level, self.row_stride);
    T grad_x = 0, grad_y = 0, grad_weight = 0;
    const int count = min(group.size, p.samples - base);
    for (int j = 0; j < count; ++j) {
      const Sample<T> s = mine.from(group, j);
      const T bottom = s.weight * s.bottom, top = s.weight - bottom;
      const T shares[4] = {top - top * s.right, top * s.right, bottom - bottom * s.right, bottom * s.right};
      const int steps[4] = {0, self.row_stride, s.down, s.down + self.row_stride};
      T dots[4] = {};
      for (int channel = group.lane * kSize; channel < self.channels; channel += group.size * kSize) {
        const auto grads = load(grad_out + self.item * self.channels + channel, true);
        const int at = self.first + channel + s.offset;
        Pack<scalar_t> corner[4];
#pragma unroll
        for (int c = 0; c < 4; ++c) {
          corner[c] = load(value + at + steps[c], s.corners & (1 << c));
        }
#pragma unroll
        for (int c = 0; c < 4; ++c) {
          T update[kSize];
#pragma unroll
          for (int k = 0; k < kSize; ++k) {
            const T grad = static_cast<T>(grads.channels[k]);
            dots[c] += grad * static_cast<T>(corner[c].channels[k]);
            update[k] = shares[c] * grad;
          }
          if (self.active && (s.corners & (1 << c))) {
            add(grad_value + at + steps[c], update);
          }
        }
      }
      // Linear in the dots: three sums over the group instead of four.
      const T top_slope = dots[1] - dots[0], bottom_slope = dots[3] - dots[2];
      const T top_value = dots[0] + s.right * top_slope, bottom_value = dots[2] + s.right * bottom_slope;
      const T x = group.sum(top_slope + s.bottom * (bottom_slope - top_slope));
      const T y = group.sum(bottom_value - top_value);
      const T w = group.sum(top_value + s.bottom * (bottom_value - top_value));
      if (group.lane == j) {
        grad_x = s.weight * x;
        grad_y = s.weight * y;
        grad_weight = w;
      }
    }
    if (base + group.lane < p.samples) {
      lane_mean += mine.weight * grad_weight;
      if (self.active) {
        source.write(p, self.item, sample, level, grad_x, grad_y, grad_weight);
      }
    }
  }
  source.finish(p, state, group, self.item, self.active, lane_mean);
}

Problem make_problem(const Shapes& shapes) {
  TORCH_CHECK_VALUE(
      static_cast<int>(shapes.levels.size()) <= kMaxLevels, "spatial_shapes: at most ", kMaxLevels,
      " levels are supported on CUDA, got ", shapes.levels.size());
  TORCH_CHECK_VALUE(
      shapes.channels % 8 == 0 && shapes.channels <= kMaxChannels,
      "value: on CUDA a head's channels are a multiple of 8 up to ", kMaxChannels, ", got ", shapes.channels);
  Problem p{};
  p.items = static_cast<int>(shapes.batch * shapes.queries * shapes.heads);
  p.queries = static_cast<int>(shapes.queries);
  p.heads = static_cast<int>(shapes.heads);
  p.channels = static_cast<int>(shapes.channels);
  p.points = static_cast<int>(shapes.points);
  p.samples = static_cast<int>(shapes.samples());
  p.rows = static_cast<int>(shapes.length);
  for (size_t i = 0; i < shapes.levels.size(); ++i) {
    p.heights[i] = static_cast<int>(shapes.levels[i].height);
    p.widths[i] = static_cast<int>(shapes.levels[i].width);
    p.starts[i] = static_cast<int>(shapes.levels[i].start);
  }
  return p;
}

// Rows of 16 bytes are read at once: contiguous, and copied where a view starts in between.
at::Tensor aligned(const at::Tensor& tensor) {
  const at::Tensor contiguous = tensor.contiguous();
  const bool fits = reinterpret_cast<uintptr_t>(contiguous.const_data_ptr()) % 16 == 0;
  return fits ? contiguous : contiguous.clone();
}

template <typename F>
void with_type(at::ScalarType dtype, const F& run) {
  switch (dtype) {
    case at::kDouble:
      return run(double{});
    case at::kHalf:
      return run(c10::Half{});
    case at::kBFloat16:
      return run(c10::BFloat16{});
    default:
      return run(float{});
  }
}

template <typename scalar_t>
unsigned blocks(const Problem& p) {
  const int groups = kThreads / group_size<scalar_t>(p.channels);
  return static_cast<unsigned>((p.items + groups - 1) / groups);
}

template <typename scalar_t, template <typename> class Source>
void launch_forward(const Problem& p, const Source<scalar_t>& source, const at::Tensor& value, at::Tensor& out) {
  const auto kernel = p.channels == 32 ? forward_kernel<scalar_t, Source, 32> : forward_kernel<scalar_t, Source, 0>;
  kernel<<<blocks<scalar_t>(p), kThreads, 0, c10::cuda::getCurrentCUDAStream()>>>(
      p, source, value.const_data_ptr<scalar_t>(), out.mutable_data_ptr<scalar_t>());
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

template <typename scalar_t, template <typename> class Source>
void launch_backward(
    const Problem& p, const Source<scalar_t>& source, const at::Tensor& grad, const at::Tensor& value,
    at::Tensor& grad_value) {
  const auto kernel = p.channels == 32 ? backward_kernel<scalar_t, Source, 32> : backward_kernel<scalar_t, Source, 0>;
  kernel<<<blocks<scalar_t>(p), kThreads, 0, c10::cuda::getCurrentCUDAStream()>>>(
      p, source, grad.const_data_ptr<scalar_t>(), value.const_data_ptr<scalar_t>(),
      grad_value.mutable_data_ptr<Sum<scalar_t>>());
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

template <typename scalar_t>
Projections<scalar_t> make_projections(
    Problem& p, const at::Tensor& reference_points, const at::Tensor& offsets, const at::Tensor& logits) {
  p.reference_levels = static_cast<int>(reference_points.size(2));
  p.reference_image_step = reference_points.size(0) == 1 ? 0 : p.queries;
  return {
      reference_points.const_data_ptr<Sum<scalar_t>>(), offsets.const_data_ptr<scalar_t>(),
      logits.const_data_ptr<scalar_t>(), nullptr, nullptr};
}

at::Tensor empty_output(const Shapes& shapes, const at::Tensor& value) {
  return at::empty({shapes.batch, shapes.queries, shapes.heads * shapes.channels}, value.options());
}

// Half-precision gradients, too, are summed in float.
at::Tensor zero_grad_value(const at::Tensor& value) {
  return at::zeros(value.sizes(), value.options().dtype(sum_dtype(value)));
}

}  // namespace

at::Tensor forward(
    const at::Tensor& value,
    at::IntArrayRef spatial_shapes,
    const at::Tensor& sampling_locations,
    const at::Tensor& attention_weights) {
  const Shapes shapes = check_locations(value, spatial_shapes, sampling_locations, attention_weights);
  const Problem p = make_problem(shapes);
  const c10::cuda::CUDAGuard guard(value.device());
  at::Tensor out = empty_output(shapes, value);
  if (p.items == 0) {
    return out;
  }
  const at::Tensor rows = aligned(value), locations = aligned(sampling_locations);
  const at::Tensor weights = aligned(attention_weights);
  with_type(value.scalar_type(), [&](auto zero) {
    using scalar_t = decltype(zero);
    using T = Sum<scalar_t>;
    const Locations<scalar_t> source{locations.const_data_ptr<T>(), weights.const_data_ptr<T>(), nullptr, nullptr};
    launch_forward<scalar_t, Locations>(p, source, rows, out);
  });
  return out;
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> backward(
    const at::Tensor& grad,
    const at::Tensor& value,
    at::IntArrayRef spatial_shapes,
    const at::Tensor& sampling_locations,
    const at::Tensor& attention_weights) {
  const Shapes shapes = check_locations(value, spatial_shapes, sampling_locations, attention_weights);
  check_grad(grad, value, shapes);
  const Problem p = make_problem(shapes);
  // Sums of floats in whatever order the blocks arrive.
  at::globalContext().alertNotDeterministic("deformable_attention_backward_cuda");
  const c10::cuda::CUDAGuard guard(value.device());
  at::Tensor grad_value = zero_grad_value(value);
  const at::Tensor grad_locations = at::empty(sampling_locations.sizes(), sampling_locations.options());
  const at::Tensor grad_weights = at::empty(attention_weights.sizes(), attention_weights.options());
  if (p.items > 0) {
    const at::Tensor rows = aligned(value), grad_rows = aligned(grad), locations = aligned(sampling_locations);
    const at::Tensor weights = aligned(attention_weights);
    with_type(value.scalar_type(), [&](auto zero) {
      using scalar_t = decltype(zero);
      using T = Sum<scalar_t>;
      const Locations<scalar_t> source{
          locations.const_data_ptr<T>(), weights.const_data_ptr<T>(), grad_locations.mutable_data_ptr<T>(),
          grad_weights.mutable_data_ptr<T>()};
      launch_backward<scalar_t, Locations>(p, source, grad_rows, rows, grad_value);
    });
  }
  return {grad_value.to(value.scalar_type()), grad_locations, grad_weights};
}

at::Tensor forward_from_projections(
    const at::Tensor& value,
    at::IntArrayRef spatial_shapes,
    const at::Tensor& reference_points,
    const at::Tensor& offsets,
    const at::Tensor& logits) {
  const Shapes shapes = check_projections(value, spatial_shapes, reference_points, offsets, logits);
  Problem p = make_problem(shapes);
  const c10::cuda::CUDAGuard guard(value.device());
  at::Tensor out = empty_output(shapes, value);
  if (p.items == 0) {
    return out;
  }
  const at::Tensor rows = aligned(value), references = aligned(reference_points);
  const at::Tensor own_offsets = aligned(offsets), own_logits = aligned(logits);
  with_type(value.scalar_type(), [&](auto zero) {
    using scalar_t = decltype(zero);
    const auto source = make_projections<scalar_t>(p, references, own_offsets, own_logits);
    launch_forward<scalar_t, Projections>(p, source, rows, out);
  });
  return out;
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> backward_from_projections(
    const at::Tensor& grad,
    const at::Tensor& value,
    at::IntArrayRef spatial_shapes,
    const at::Tensor& reference_points,
    const at::Tensor& offsets,
    const at::Tensor& logits) {
  const Shapes shapes = check_projections(value, spatial_shapes, reference_points, offsets, logits);
  check_grad(grad, value, shapes);
  Problem p = make_problem(shapes);
  at::globalContext().alertNotDeterministic("deformable_attention_from_projections_backward_cuda");
  const c10::cuda::CUDAGuard guard(value.device());
  at::Tensor grad_value = zero_grad_value(value);
  const at::Tensor grad_offsets = at::empty(offsets.sizes(), offsets.options());
  const at::Tensor grad_logits = at::empty(logits.sizes(), logits.options().dtype(sum_dtype(value)));
  if (p.items > 0) {
    const at::Tensor rows = aligned(value), grad_rows = aligned(grad), references = aligned(reference_points);
    const at::Tensor own_offsets = aligned(offsets), own_logits = aligned(logits);
    with_type(value.scalar_type(), [&](auto zero) {
      using scalar_t = decltype(zero);
      auto source = make_projections<scalar_t>(p, references, own_offsets, own_logits);
      source.grad_offsets = grad_offsets.mutable_data_ptr<scalar_t>();
      source.grad_logits = grad_logits.mutable_data_ptr<Sum<scalar_t>>();
      launch_backward<scalar_t, Projections>(p, source, grad_rows, rows, grad_value);
    });
  }
  return {grad_value.to(value.scalar_type()), grad_offsets, grad_logits.to(value.scalar_type())};
}

}  // namespace deformable_attention

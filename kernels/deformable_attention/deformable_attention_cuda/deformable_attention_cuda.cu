// Multi-scale deformable attention on CUDA devices.
//
// A group of 1 to 32 neighboring lanes works on one item: an (image, query, head). Each lane holds 16 bytes of the
// head's channels. Each lane first prepares one sample (coordinates, softmax, validity, address). Then the group takes
// the samples one by one and shuffles hand them round, so that lanes do not repeat each other's address arithmetic.
// Coordinates and sums are float (double for double); indices fit in 32 bits, see arguments.h.

#include <ATen/Context.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <type_traits>

#include "deformable_attention_cuda/sources.cuh"
#include "torch-ext/torch_binding.h"

namespace deformable_attention {
namespace {

constexpr int kThreads = 256;

template <typename scalar_t>
constexpr int kVector = 16 / sizeof(scalar_t);  // channels a lane holds

// A lane's channels as one 16-byte access.
template <typename scalar_t>
struct alignas(16) Pack {
  scalar_t channels[kVector<scalar_t>];
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

// The item of a lane. Every lane of a warp takes part in every shuffle: groups past the end repeat the last item and
// write nothing.
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

// kChannels: channels of a head if known when compiling, else 0.
template <typename Source, int kChannels, typename scalar_t = typename Source::Scalar>
__global__ void __launch_bounds__(kThreads) forward_kernel(
    const __grid_constant__ Problem p,
    const Source source,
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

template <typename Source, int kChannels, typename scalar_t = typename Source::Scalar>
__global__ void __launch_bounds__(kThreads) backward_kernel(
    const __grid_constant__ Problem p,
    const Source source,
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

// Kernels read 16 bytes at once: make tensors contiguous, and copy views that start in between.
at::Tensor align(const at::Tensor& tensor) {
  const at::Tensor contiguous = tensor.contiguous();
  const bool fits = reinterpret_cast<uintptr_t>(contiguous.const_data_ptr()) % 16 == 0;
  return fits ? contiguous : contiguous.clone();
}

Arguments align(const Arguments& arguments) {
  Arguments aligned = arguments;
  for (at::Tensor* tensor : {&aligned.value, &aligned.reference_points, &aligned.coordinates, &aligned.weights}) {
    if (tensor->defined()) {
      *tensor = align(*tensor);
    }
  }
  return aligned;
}

template <typename F>
void with_source(const Arguments& aligned, const F& run) {
  const auto with_type = [&](auto zero) {
    using scalar_t = decltype(zero);
    if (aligned.are_projections()) {
      run(Projections<scalar_t>(aligned));
    } else {
      run(Locations<scalar_t>(aligned));
    }
  };
  switch (aligned.value.scalar_type()) {
    case at::kDouble:
      return with_type(double{});
    case at::kHalf:
      return with_type(c10::Half{});
    case at::kBFloat16:
      return with_type(c10::BFloat16{});
    default:
      return with_type(float{});
  }
}

template <typename scalar_t>
unsigned blocks(const Problem& p) {
  const int groups = kThreads / group_size<scalar_t>(p.channels);
  return static_cast<unsigned>((p.items + groups - 1) / groups);
}

}  // namespace

at::Tensor forward(const Arguments& arguments) {
  const Shapes& shapes = arguments.shapes;
  const Problem p(arguments);
  const c10::cuda::CUDAGuard guard(arguments.value.device());
  const at::Tensor out =
      at::empty({shapes.batch, shapes.queries, shapes.heads * shapes.channels}, arguments.value.options());
  if (p.items == 0) {
    return out;
  }
  const Arguments aligned = align(arguments);
  with_source(aligned, [&](const auto& source) {
    using Source = std::decay_t<decltype(source)>;
    using scalar_t = typename Source::Scalar;
    const auto kernel = p.channels == 32 ? forward_kernel<Source, 32> : forward_kernel<Source, 0>;
    kernel<<<blocks<scalar_t>(p), kThreads, 0, c10::cuda::getCurrentCUDAStream()>>>(
        p, source, aligned.value.const_data_ptr<scalar_t>(), out.mutable_data_ptr<scalar_t>());
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return out;
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> backward(const at::Tensor& grad, const Arguments& arguments) {
  const at::Tensor &value = arguments.value, &coordinates = arguments.coordinates, &weights = arguments.weights;
  const Problem p(arguments);
  // Sums of floats in the order in which blocks arrive.
  at::globalContext().alertNotDeterministic(
      arguments.are_projections() ? "deformable_attention_from_projections_backward_cuda"
                                  : "deformable_attention_backward_cuda");
  const c10::cuda::CUDAGuard guard(value.device());
  // Half-precision gradients, too, are summed in float.
  const at::Tensor grad_value = at::zeros(value.sizes(), value.options().dtype(sum_dtype(value)));
  const at::Tensor grad_coordinates = at::empty(coordinates.sizes(), coordinates.options());
  const at::Tensor grad_weights = at::empty(weights.sizes(), weights.options().dtype(sum_dtype(value)));
  if (p.items > 0) {
    const Arguments aligned = align(arguments);
    const at::Tensor aligned_grad = align(grad);
    with_source(aligned, [&](auto source) {
      using Source = decltype(source);
      using scalar_t = typename Source::Scalar;
      using T = Sum<scalar_t>;
      source.grad_coordinates =
          grad_coordinates.mutable_data_ptr<std::remove_pointer_t<decltype(source.grad_coordinates)>>();
      source.grad_weights = grad_weights.mutable_data_ptr<T>();
      const auto kernel = p.channels == 32 ? backward_kernel<Source, 32> : backward_kernel<Source, 0>;
      kernel<<<blocks<scalar_t>(p), kThreads, 0, c10::cuda::getCurrentCUDAStream()>>>(
          p, source, aligned_grad.const_data_ptr<scalar_t>(), aligned.value.const_data_ptr<scalar_t>(),
          grad_value.mutable_data_ptr<T>());
      C10_CUDA_KERNEL_LAUNCH_CHECK();
    });
  }
  return {grad_value.to(value.scalar_type()), grad_coordinates, grad_weights.to(weights.scalar_type())};
}

}  // namespace deformable_attention

// Multi-scale deformable attention on the CPU.
//
// Each (image, query, head) is a weighted sum of rows of `value`: up to 4 corners of levels·points samples. The corners
// that exist are listed first; summing, and in the backward also scattering, is then a loop without branches.

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "deformable_attention_common/exponential.h"
#include "deformable_attention_common/shapes.h"
#include "torch-ext/torch_binding.h"

namespace deformable_attention {
namespace {

// 32 bytes, anywhere in memory: a register with AVX2 and above, two with SSE or NEON.
template <typename T>
struct VectorOf {
  typedef T type __attribute__((vector_size(32), aligned(sizeof(T)), may_alias));
};
template <typename T>
using Vector = typename VectorOf<T>::type;
template <typename T>
constexpr int kLanes = 32 / sizeof(T);

template <typename T>
inline Vector<T> load(const T* from) {
  return *reinterpret_cast<const Vector<T>*>(from);
}

template <typename T>
inline void store(T* to, Vector<T> values) {
  *reinterpret_cast<Vector<T>*>(to) = values;
}

template <typename T>
inline T sum_lanes(Vector<T> values) {
  T sum = 0;
  for (int i = 0; i < kLanes<T>; ++i) {
    sum += values[i];
  }
  return sum;
}

// Where samples lie and what they weigh, from the two entry points. `read` gives pixel coordinates
// ((x, y) pairs, pixel centres at integers) and weights of one head; `write` takes their gradients.
template <typename T>
struct Locations {
  const T *locations, *weights;
  T *grad_locations, *grad_weights;

  struct Scratch {
    std::vector<T> scales;  // (width, height) of every sample's level
  };

  Scratch scratch(const Shapes& shapes) const {
    Scratch s;
    for (const Level& level : shapes.levels) {
      for (int64_t i = 0; i < shapes.points; ++i) {
        s.scales.push_back(static_cast<T>(level.width));
        s.scales.push_back(static_cast<T>(level.height));
      }
    }
    return s;
  }

  void start_query(Scratch&, const Shapes&, int64_t, int64_t) const {}

  void read(const Scratch& s, int64_t samples, int64_t head, T* pixels, T* sample_weights) const {
    const T* from = locations + 2 * head * samples;
    for (int64_t i = 0; i < 2 * samples; ++i) {
      pixels[i] = from[i] * s.scales[i] - T(0.5);
    }
    std::copy_n(weights + head * samples, samples, sample_weights);
  }

  void write(
      const Scratch& s, int64_t samples, int64_t head, const T* grad_pixels, const T* grad_sample_weights,
      const T*) const {
    T* to = grad_locations + 2 * head * samples;
    for (int64_t i = 0; i < 2 * samples; ++i) {
      to[i] = grad_pixels[i] * s.scales[i];
    }
    std::copy_n(grad_sample_weights, samples, grad_weights + head * samples);
  }
};

template <typename T>
struct Projections {
  const T *reference_points, *offsets, *logits;
  int64_t reference_image_stride, reference_query_stride, reference_level_stride;
  T *grad_offsets, *grad_logits;

  struct Scratch {
    std::vector<T> centres;  // the query's reference point in pixels, for every sample
  };

  Scratch scratch(const Shapes& shapes) const {
    return {std::vector<T>(2 * shapes.samples())};
  }

  void start_query(Scratch& s, const Shapes& shapes, int64_t image, int64_t query) const {
    const T* from = reference_points + image * reference_image_stride + query * reference_query_stride;
    T* to = s.centres.data();
    for (const Level& level : shapes.levels) {
      const T x = from[0] * level.width - T(0.5), y = from[1] * level.height - T(0.5);
      for (int64_t i = 0; i < shapes.points; ++i) {
        *to++ = x;
        *to++ = y;
      }
      from += reference_level_stride;
    }
  }

  void read(const Scratch& s, int64_t samples, int64_t head, T* pixels, T* sample_weights) const {
    const T* from = offsets + 2 * head * samples;
    for (int64_t i = 0; i < 2 * samples; ++i) {
      pixels[i] = from[i] + s.centres[i];
    }
    const T* head_logits = logits + head * samples;
    T largest = head_logits[0];
    for (int64_t i = 1; i < samples; ++i) {
      largest = head_logits[i] > largest ? head_logits[i] : largest;
    }
    for (int64_t i = 0; i < samples; ++i) {
      sample_weights[i] = exp_nonpositive(head_logits[i] - largest);
    }
    T sum = 0;
    for (int64_t i = 0; i < samples; ++i) {
      sum += sample_weights[i];
    }
    const T scale = 1 / sum;
    for (int64_t i = 0; i < samples; ++i) {
      sample_weights[i] *= scale;
    }
  }

  void write(
      const Scratch&, int64_t samples, int64_t head, const T* grad_pixels, const T* grad_sample_weights,
      const T* sample_weights) const {
    std::copy_n(grad_pixels, 2 * samples, grad_offsets + 2 * head * samples);
    T mean = 0;
    for (int64_t i = 0; i < samples; ++i) {
      mean += sample_weights[i] * grad_sample_weights[i];
    }
    T* to = grad_logits + head * samples;
    for (int64_t i = 0; i < samples; ++i) {
      to[i] = sample_weights[i] * (grad_sample_weights[i] - mean);
    }
  }
};

template <typename T>
struct Corner {
  int64_t offset;  // of the head's row, from the image's first element
  T weight;        // attention weight times bilinear share
  int32_t slot;    // 4·sample + corner
};

// Lists the corners that lie on their maps. Samples a pixel or farther outside, nan and infinite ones have none.
template <typename T>
int64_t list_corners(
    const Shapes& shapes, int64_t head, const T* pixels, const T* sample_weights, Corner<T>* corners) {
  const int64_t row_stride = shapes.heads * shapes.channels;
  int64_t count = 0;
  int32_t sample = 0;
  for (const Level& level : shapes.levels) {
    const T width = static_cast<T>(level.width), height = static_cast<T>(level.height);
    const int64_t down = level.width * row_stride;
    const int64_t first = level.start * row_stride + head * shapes.channels;
    for (int64_t point = 0; point < shapes.points; ++point, ++sample) {
      const T x = pixels[2 * sample], y = pixels[2 * sample + 1];
      if (!(x > -1 && x < width && y > -1 && y < height)) {
        continue;
      }
      const T left_x = std::floor(x), top_y = std::floor(y);
      const T right_share = x - left_x, bottom_share = y - top_y;
      const int64_t left = static_cast<int64_t>(left_x), top = static_cast<int64_t>(top_y);
      const T bottom = sample_weights[sample] * bottom_share, upper = sample_weights[sample] - bottom;
      const T upper_right = upper * right_share, bottom_right = bottom * right_share;
      const int64_t offset = first + top * down + left * row_stride;
      const bool has_left = left >= 0, has_right = left + 1 < level.width;
      const bool has_top = top >= 0, has_bottom = top + 1 < level.height;
      const int32_t slot = 4 * sample;
      corners[count] = {offset, upper - upper_right, slot};
      count += has_top && has_left;
      corners[count] = {offset + row_stride, upper_right, slot + 1};
      count += has_top && has_right;
      corners[count] = {offset + down, bottom - bottom_right, slot + 2};
      count += has_bottom && has_left;
      corners[count] = {offset + down + row_stride, bottom_right, slot + 3};
      count += has_bottom && has_right;
    }
  }
  return count;
}

// out[channels] = Σ weight · row, for K vectors of channels. Two sets of sums hide the latency of adding.
template <typename T, int K>
inline void sum_rows(const T* value, const Corner<T>* corners, int64_t count, T* out) {
  constexpr int lanes = kLanes<T>;
  Vector<T> even[K] = {}, odd[K] = {};
  int64_t i = 0;
  for (; i + 1 < count; i += 2) {
    const T *row0 = value + corners[i].offset, *row1 = value + corners[i + 1].offset;
    for (int k = 0; k < K; ++k) {
      even[k] += corners[i].weight * load(row0 + k * lanes);
      odd[k] += corners[i + 1].weight * load(row1 + k * lanes);
    }
  }
  if (i < count) {
    for (int k = 0; k < K; ++k) {
      even[k] += corners[i].weight * load(value + corners[i].offset + k * lanes);
    }
  }
  for (int k = 0; k < K; ++k) {
    store<T>(out + k * lanes, even[k] + odd[k]);
  }
}

template <typename T>
void sum_rows(const T* value, const Corner<T>* corners, int64_t count, int64_t channels, T* out) {
  constexpr int lanes = kLanes<T>;
  int64_t c = 0;
  for (; c + 4 * lanes <= channels; c += 4 * lanes) {
    sum_rows<T, 4>(value + c, corners, count, out + c);
  }
  for (; c + lanes <= channels; c += lanes) {
    sum_rows<T, 1>(value + c, corners, count, out + c);
  }
  for (; c < channels; ++c) {
    T sum = 0;
    for (int64_t i = 0; i < count; ++i) {
      sum += corners[i].weight * value[corners[i].offset + c];
    }
    out[c] = sum;
  }
}

// dots[slot] += grad · row, and grad_row += weight · grad, for K vectors of channels.
template <typename T, int K>
inline void scatter_rows(
    const T* value, const Corner<T>* corners, int64_t count, const T* grad, T* grad_value, T* dots) {
  constexpr int lanes = kLanes<T>;
  Vector<T> g[K];
  for (int k = 0; k < K; ++k) {
    g[k] = load(grad + k * lanes);
  }
  for (int64_t i = 0; i < count; ++i) {
    const T* row = value + corners[i].offset;
    T* grad_row = grad_value + corners[i].offset;
    Vector<T> dot = {};
    for (int k = 0; k < K; ++k) {
      dot += g[k] * load(row + k * lanes);
      store<T>(grad_row + k * lanes, load<T>(grad_row + k * lanes) + corners[i].weight * g[k]);
    }
    dots[corners[i].slot] += sum_lanes<T>(dot);
  }
}

template <typename T>
void scatter_rows(
    const T* value, const Corner<T>* corners, int64_t count, int64_t channels, const T* grad, T* grad_value,
    T* dots) {
  constexpr int lanes = kLanes<T>;
  int64_t c = 0;
  for (; c + 4 * lanes <= channels; c += 4 * lanes) {
    scatter_rows<T, 4>(value + c, corners, count, grad + c, grad_value + c, dots);
  }
  for (; c + lanes <= channels; c += lanes) {
    scatter_rows<T, 1>(value + c, corners, count, grad + c, grad_value + c, dots);
  }
  for (; c < channels; ++c) {
    for (int64_t i = 0; i < count; ++i) {
      dots[corners[i].slot] += grad[c] * value[corners[i].offset + c];
      grad_value[corners[i].offset + c] += corners[i].weight * grad[c];
    }
  }
}

template <typename T, template <typename> class Samples>
void run_forward(const Shapes& shapes, const Samples<T>& source, const T* value, T* out) {
  const int64_t samples = shapes.samples(), image_size = shapes.length * shapes.heads * shapes.channels;
  at::parallel_for(0, shapes.batch * shapes.queries, 16, [&](int64_t begin, int64_t end) {
    auto scratch = source.scratch(shapes);
    std::vector<T> pixels(2 * samples), weights(samples);
    std::vector<Corner<T>> corners(4 * samples + 1);
    for (int64_t query = begin; query < end; ++query) {
      const int64_t image = query / shapes.queries;
      source.start_query(scratch, shapes, image, query % shapes.queries);
      for (int64_t head = 0; head < shapes.heads; ++head) {
        const int64_t row = query * shapes.heads + head;
        source.read(scratch, samples, row, pixels.data(), weights.data());
        const int64_t count = list_corners(shapes, head, pixels.data(), weights.data(), corners.data());
        sum_rows(
            value + image * image_size, corners.data(), count, shapes.channels, out + row * shapes.channels);
      }
    }
  });
}

// Every (image, head) of `grad_value` belongs to one thread: no atomics, and the same sums with any number of threads.
template <typename T, template <typename> class Samples>
void run_backward(const Shapes& shapes, const Samples<T>& source, const T* grad, const T* value, T* grad_value) {
  const int64_t samples = shapes.samples(), image_size = shapes.length * shapes.heads * shapes.channels;
  at::parallel_for(0, shapes.batch * shapes.heads, 1, [&](int64_t begin, int64_t end) {
    auto scratch = source.scratch(shapes);
    std::vector<T> pixels(2 * samples), weights(samples), grad_pixels(2 * samples), grad_weights(samples);
    std::vector<T> dots(4 * samples);
    std::vector<Corner<T>> corners(4 * samples + 1);
    while (begin < end) {
      // All heads of the image that this thread owns go together: their rows are neighbours in memory.
      const int64_t image = begin / shapes.heads, first_head = begin % shapes.heads;
      const int64_t end_head = std::min(shapes.heads, first_head + (end - begin));
      begin += end_head - first_head;
      for (int64_t query = 0; query < shapes.queries; ++query) {
        source.start_query(scratch, shapes, image, query);
        for (int64_t head = first_head; head < end_head; ++head) {
          const int64_t row = (image * shapes.queries + query) * shapes.heads + head;
          source.read(scratch, samples, row, pixels.data(), weights.data());
          const int64_t count = list_corners(shapes, head, pixels.data(), weights.data(), corners.data());
          std::fill(dots.begin(), dots.end(), T(0));
          scatter_rows(
              value + image * image_size, corners.data(), count, shapes.channels, grad + row * shapes.channels,
              grad_value + image * image_size, dots.data());
          for (int64_t i = 0; i < samples; ++i) {
            const T* dot = dots.data() + 4 * i;
            const T x = pixels[2 * i], y = pixels[2 * i + 1];
            // Outside, dots are all zero and the shares are of no account, as long as they are finite.
            const bool listed = x > -2 && x < T(1e9) && y > -2 && y < T(1e9);
            const T right = listed ? x - std::floor(x) : T(0), bottom = listed ? y - std::floor(y) : T(0);
            const T upper_slope = dot[1] - dot[0], bottom_slope = dot[3] - dot[2];
            const T slope = upper_slope + bottom * (bottom_slope - upper_slope);
            const T upper = dot[0] + right * upper_slope, lower = dot[2] + right * bottom_slope;
            grad_pixels[2 * i] = weights[i] * slope;
            grad_pixels[2 * i + 1] = weights[i] * (lower - upper);
            grad_weights[i] = upper + bottom * (lower - upper);
          }
          source.write(scratch, samples, row, grad_pixels.data(), grad_weights.data(), weights.data());
        }
      }
    }
  });
}

// Half precision is widened once instead of at each of the 4·levels·points times that a row is read.
at::Tensor widen(const at::Tensor& tensor, at::ScalarType dtype) {
  return tensor.to(dtype).contiguous();
}

template <typename T>
Projections<T> make_projections(
    const Shapes& shapes, const at::Tensor& reference_points, const at::Tensor& offsets, const at::Tensor& logits) {
  Projections<T> source{};
  source.reference_points = reference_points.const_data_ptr<T>();
  source.offsets = offsets.const_data_ptr<T>();
  source.logits = logits.const_data_ptr<T>();
  const int64_t levels = reference_points.size(2);
  source.reference_level_stride = levels == 1 ? 0 : 2;
  source.reference_query_stride = 2 * levels;
  source.reference_image_stride = reference_points.size(0) == 1 ? 0 : 2 * levels * shapes.queries;
  return source;
}

template <typename F>
void with_sum_type(at::ScalarType dtype, const F& run) {
  if (dtype == at::kDouble) {
    run(double{});
  } else {
    run(float{});
  }
}

at::Tensor empty_output(const Shapes& shapes, const at::Tensor& like) {
  return at::empty({shapes.batch, shapes.queries, shapes.heads * shapes.channels}, like.options());
}

}  // namespace

at::Tensor forward(
    const at::Tensor& value,
    at::IntArrayRef spatial_shapes,
    const at::Tensor& sampling_locations,
    const at::Tensor& attention_weights) {
  const Shapes shapes = check_locations(value, spatial_shapes, sampling_locations, attention_weights);
  const auto dtype = sum_dtype(value);
  const at::Tensor rows = widen(value, dtype);
  const at::Tensor locations = sampling_locations.contiguous(), weights = attention_weights.contiguous();
  const at::Tensor out = empty_output(shapes, rows);
  with_sum_type(dtype, [&](auto zero) {
    using T = decltype(zero);
    const Locations<T> source{locations.const_data_ptr<T>(), weights.const_data_ptr<T>(), nullptr, nullptr};
    run_forward<T>(shapes, source, rows.const_data_ptr<T>(), out.mutable_data_ptr<T>());
  });
  return out.to(value.scalar_type());
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> backward(
    const at::Tensor& grad,
    const at::Tensor& value,
    at::IntArrayRef spatial_shapes,
    const at::Tensor& sampling_locations,
    const at::Tensor& attention_weights) {
  const Shapes shapes = check_locations(value, spatial_shapes, sampling_locations, attention_weights);
  check_grad(grad, value, shapes);
  const auto dtype = sum_dtype(value);
  const at::Tensor rows = widen(value, dtype), grad_rows = widen(grad, dtype);
  const at::Tensor locations = sampling_locations.contiguous(), weights = attention_weights.contiguous();
  const at::Tensor grad_value = at::zeros_like(rows);
  const at::Tensor grad_locations = at::empty(locations.sizes(), locations.options());
  const at::Tensor grad_weights = at::empty(weights.sizes(), weights.options());
  with_sum_type(dtype, [&](auto zero) {
    using T = decltype(zero);
    const Locations<T> source{
        locations.const_data_ptr<T>(), weights.const_data_ptr<T>(), grad_locations.mutable_data_ptr<T>(),
        grad_weights.mutable_data_ptr<T>()};
    run_backward<T>(
        shapes, source, grad_rows.const_data_ptr<T>(), rows.const_data_ptr<T>(), grad_value.mutable_data_ptr<T>());
  });
  return {grad_value.to(value.scalar_type()), grad_locations, grad_weights};
}

at::Tensor forward_from_projections(
    const at::Tensor& value,
    at::IntArrayRef spatial_shapes,
    const at::Tensor& reference_points,
    const at::Tensor& offsets,
    const at::Tensor& logits) {
  const Shapes shapes = check_projections(value, spatial_shapes, reference_points, offsets, logits);
  const auto dtype = sum_dtype(value);
  const at::Tensor rows = widen(value, dtype), references = reference_points.contiguous();
  const at::Tensor wide_offsets = widen(offsets, dtype), wide_logits = widen(logits, dtype);
  const at::Tensor out = empty_output(shapes, rows);
  with_sum_type(dtype, [&](auto zero) {
    using T = decltype(zero);
    const auto source = make_projections<T>(shapes, references, wide_offsets, wide_logits);
    run_forward<T>(shapes, source, rows.const_data_ptr<T>(), out.mutable_data_ptr<T>());
  });
  return out.to(value.scalar_type());
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
  const auto dtype = sum_dtype(value);
  const at::Tensor rows = widen(value, dtype), references = reference_points.contiguous();
  const at::Tensor grad_rows = widen(grad, dtype);
  const at::Tensor wide_offsets = widen(offsets, dtype), wide_logits = widen(logits, dtype);
  const at::Tensor grad_value = at::zeros_like(rows);
  const at::Tensor grad_offsets = at::empty(offsets.sizes(), wide_offsets.options());
  const at::Tensor grad_logits = at::empty(logits.sizes(), wide_logits.options());
  with_sum_type(dtype, [&](auto zero) {
    using T = decltype(zero);
    auto source = make_projections<T>(shapes, references, wide_offsets, wide_logits);
    source.grad_offsets = grad_offsets.mutable_data_ptr<T>();
    source.grad_logits = grad_logits.mutable_data_ptr<T>();
    run_backward<T>(
        shapes, source, grad_rows.const_data_ptr<T>(), rows.const_data_ptr<T>(), grad_value.mutable_data_ptr<T>());
  });
  const auto narrow = value.scalar_type();
  return {grad_value.to(narrow), grad_offsets.to(narrow), grad_logits.to(narrow)};
}

}  // namespace deformable_attention

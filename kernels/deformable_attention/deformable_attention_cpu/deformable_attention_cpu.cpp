// Multi-scale deformable attention on the CPU.
//
// Each (image, query, head) is a weighted sum of rows of `value`: up to 4 corners of levels·points samples. A first pass
// lists the corners that lie on their maps; the sums, and in the backward also the scattering, need no branches then.

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "deformable_attention_common/arguments.h"
#include "deformable_attention_common/exponential.h"
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

// Where samples lie and how much they weigh. `start_query` prepares a query. `read` gives the pixel coordinates of one
// head's samples, (x, y) pairs with pixel centers at integers, and their weights. `write` takes the gradients of both.
// `per_sample` has two numbers for each sample.
template <typename T>
struct Source {
  using Number = T;
  const T *coordinates, *weights;
  T *grad_coordinates = nullptr, *grad_weights = nullptr;
  std::vector<T> per_sample;

  explicit Source(const Arguments& arguments)
      : coordinates(arguments.coordinates.const_data_ptr<T>()),
        weights(arguments.weights.const_data_ptr<T>()),
        per_sample(2 * arguments.shapes.samples()) {}
};

template <typename T>
struct Locations : Source<T> {
  // `per_sample`: width and height of the sample's level
  explicit Locations(const Arguments& arguments) : Source<T>(arguments) {
    T* to = this->per_sample.data();
    for (const Level& level : arguments.shapes.levels) {
      for (int64_t i = 0; i < arguments.shapes.points; ++i) {
        *to++ = static_cast<T>(level.width);
        *to++ = static_cast<T>(level.height);
      }
    }
  }

  void start_query(const Shapes&, int64_t, int64_t) {}

  void read(int64_t samples, int64_t head, T* pixels, T* sample_weights) const {
    const T *from = this->coordinates + 2 * head * samples, *scales = this->per_sample.data();
    for (int64_t i = 0; i < 2 * samples; ++i) {
      pixels[i] = from[i] * scales[i] - T(0.5);
    }
    std::copy_n(this->weights + head * samples, samples, sample_weights);
  }

  void write(int64_t samples, int64_t head, const T* grad_pixels, const T* grad_sample_weights, const T*) const {
    const T* scales = this->per_sample.data();
    T* to = this->grad_coordinates + 2 * head * samples;
    for (int64_t i = 0; i < 2 * samples; ++i) {
      to[i] = grad_pixels[i] * scales[i];
    }
    std::copy_n(grad_sample_weights, samples, this->grad_weights + head * samples);
  }
};

template <typename T>
struct Projections : Source<T> {
  const T* reference_points;
  int64_t image_stride, query_stride, level_stride;  // of `reference_points`

  // `per_sample`: the query's reference point in pixels of the sample's level
  explicit Projections(const Arguments& arguments)
      : Source<T>(arguments), reference_points(arguments.reference_points.const_data_ptr<T>()) {
    const int64_t levels = arguments.reference_points.size(2);
    level_stride = levels == 1 ? 0 : 2;
    query_stride = 2 * levels;
    image_stride = arguments.reference_points.size(0) == 1 ? 0 : query_stride * arguments.shapes.queries;
  }

  void start_query(const Shapes& shapes, int64_t image, int64_t query) {
    const T* from = reference_points + image * image_stride + query * query_stride;
    T* to = this->per_sample.data();
    for (const Level& level : shapes.levels) {
      const T x = from[0] * level.width - T(0.5), y = from[1] * level.height - T(0.5);
      for (int64_t i = 0; i < shapes.points; ++i) {
        *to++ = x;
        *to++ = y;
      }
      from += level_stride;
    }
  }

  void read(int64_t samples, int64_t head, T* pixels, T* sample_weights) const {
    const T *from = this->coordinates + 2 * head * samples, *centers = this->per_sample.data();
    for (int64_t i = 0; i < 2 * samples; ++i) {
      pixels[i] = from[i] + centers[i];
    }
    const T* logits = this->weights + head * samples;
    T largest = logits[0];
    for (int64_t i = 1; i < samples; ++i) {
      largest = logits[i] > largest ? logits[i] : largest;
    }
    for (int64_t i = 0; i < samples; ++i) {
      sample_weights[i] = exp_nonpositive(logits[i] - largest);
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
      int64_t samples, int64_t head, const T* grad_pixels, const T* grad_sample_weights,
      const T* sample_weights) const {
    std::copy_n(grad_pixels, 2 * samples, this->grad_coordinates + 2 * head * samples);
    T mean = 0;
    for (int64_t i = 0; i < samples; ++i) {
      mean += sample_weights[i] * grad_sample_weights[i];
    }
    T* to = this->grad_weights + head * samples;
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

template <typename Samples, typename T = typename Samples::Number>
void run_forward(const Shapes& shapes, const Samples& shared_source, const T* value, T* out) {
  const int64_t samples = shapes.samples(), image_size = shapes.length * shapes.heads * shapes.channels;
  at::parallel_for(0, shapes.batch * shapes.queries, 16, [&](int64_t begin, int64_t end) {
    Samples source = shared_source;
    std::vector<T> pixels(2 * samples), weights(samples);
    std::vector<Corner<T>> corners(4 * samples + 1);
    for (int64_t query = begin; query < end; ++query) {
      const int64_t image = query / shapes.queries;
      source.start_query(shapes, image, query % shapes.queries);
      for (int64_t head = 0; head < shapes.heads; ++head) {
        const int64_t row = query * shapes.heads + head;
        source.read(samples, row, pixels.data(), weights.data());
        const int64_t count = list_corners(shapes, head, pixels.data(), weights.data(), corners.data());
        sum_rows(
            value + image * image_size, corners.data(), count, shapes.channels, out + row * shapes.channels);
      }
    }
  });
}

// Every (image, head) of `grad_value` belongs to one thread: no atomics, and the same sums with any number of threads.
template <typename Samples, typename T = typename Samples::Number>
void run_backward(
    const Shapes& shapes, const Samples& shared_source, const T* grad, const T* value, T* grad_value) {
  const int64_t samples = shapes.samples(), image_size = shapes.length * shapes.heads * shapes.channels;
  at::parallel_for(0, shapes.batch * shapes.heads, 1, [&](int64_t begin, int64_t end) {
    Samples source = shared_source;
    std::vector<T> pixels(2 * samples), weights(samples), grad_pixels(2 * samples), grad_weights(samples);
    std::vector<T> dots(4 * samples);
    std::vector<Corner<T>> corners(4 * samples + 1);
    while (begin < end) {
      // All heads of the image that this thread owns go together: their rows are neighbors in memory.
      const int64_t image = begin / shapes.heads, first_head = begin % shapes.heads;
      const int64_t end_head = std::min(shapes.heads, first_head + (end - begin));
      begin += end_head - first_head;
      for (int64_t query = 0; query < shapes.queries; ++query) {
        source.start_query(shapes, image, query);
        for (int64_t head = first_head; head < end_head; ++head) {
          const int64_t row = (image * shapes.queries + query) * shapes.heads + head;
          source.read(samples, row, pixels.data(), weights.data());
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
          source.write(samples, row, grad_pixels.data(), grad_weights.data(), weights.data());
        }
      }
    }
  });
}

// Half precision is widened once instead of at each of the 4·levels·points times that a row is read.
at::Tensor widen(const at::Tensor& tensor, at::ScalarType dtype) {
  return tensor.to(dtype).contiguous();
}

Arguments widen(const Arguments& arguments) {
  const auto dtype = sum_dtype(arguments.value);
  Arguments wide = arguments;
  for (at::Tensor* tensor : {&wide.value, &wide.coordinates, &wide.weights}) {
    *tensor = widen(*tensor, dtype);
  }
  if (wide.are_projections()) {
    wide.reference_points = wide.reference_points.contiguous();
  }
  return wide;
}

template <typename F>
void with_source(const Arguments& wide, const F& run) {
  const auto with_type = [&](auto zero) {
    using T = decltype(zero);
    if (wide.are_projections()) {
      run(Projections<T>(wide));
    } else {
      run(Locations<T>(wide));
    }
  };
  if (wide.value.scalar_type() == at::kDouble) {
    with_type(double{});
  } else {
    with_type(float{});
  }
}

}  // namespace

at::Tensor forward(const Arguments& arguments) {
  const Arguments wide = widen(arguments);
  const Shapes& shapes = arguments.shapes;
  const at::Tensor out =
      at::empty({shapes.batch, shapes.queries, shapes.heads * shapes.channels}, wide.value.options());
  with_source(wide, [&](const auto& source) {
    using T = typename std::decay_t<decltype(source)>::Number;
    run_forward(shapes, source, wide.value.const_data_ptr<T>(), out.mutable_data_ptr<T>());
  });
  return out.to(arguments.value.scalar_type());
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> backward(const at::Tensor& grad, const Arguments& arguments) {
  const Arguments wide = widen(arguments);
  const at::Tensor wide_grad = widen(grad, wide.value.scalar_type());
  const at::Tensor grad_value = at::zeros_like(wide.value);
  const at::Tensor grad_coordinates = at::empty(wide.coordinates.sizes(), wide.coordinates.options());
  const at::Tensor grad_weights = at::empty(wide.weights.sizes(), wide.weights.options());
  with_source(wide, [&](auto source) {
    using T = typename decltype(source)::Number;
    source.grad_coordinates = grad_coordinates.mutable_data_ptr<T>();
    source.grad_weights = grad_weights.mutable_data_ptr<T>();
    run_backward(
        arguments.shapes, source, wide_grad.const_data_ptr<T>(), wide.value.const_data_ptr<T>(),
        grad_value.mutable_data_ptr<T>());
  });
  return {
      grad_value.to(arguments.value.scalar_type()), grad_coordinates.to(arguments.coordinates.scalar_type()),
      grad_weights.to(arguments.weights.scalar_type())};
}

}  // namespace deformable_attention

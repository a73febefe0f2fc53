// Sizes of one call, checked before any kernel starts.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

#include <cstdint>
#include <limits>
#include <vector>

namespace deformable_attention {

struct Level {
  int64_t height, width, start;  // start: the level's first row of `value`
};

struct Shapes {
  int64_t batch, length, heads, channels, queries, points;
  std::vector<Level> levels;

  int64_t samples() const { return static_cast<int64_t>(levels.size()) * points; }
};

// Offsets inside a tensor are 32-bit on the GPU; the same limit everywhere keeps backends interchangeable.
inline void check_size(const at::Tensor& tensor, const char* name) {
  TORCH_CHECK_VALUE(
      tensor.numel() <= std::numeric_limits<int32_t>::max(),
      name, ": ", tensor.numel(), " elements, at most ", std::numeric_limits<int32_t>::max(),
      " are supported; split the batch");
}

inline void check_alike(const at::Tensor& tensor, const char* name, at::ScalarType dtype, const at::Tensor& value) {
  TORCH_CHECK_TYPE(tensor.scalar_type() == dtype, name, ": expected ", dtype, ", got ", tensor.scalar_type());
  TORCH_CHECK_VALUE(
      tensor.device() == value.device(), name, ": expected it on ", value.device(), " like value, got ",
      tensor.device());
  check_size(tensor, name);
}

inline void check_sizes(const at::Tensor& tensor, const char* name, at::IntArrayRef expected) {
  TORCH_CHECK_VALUE(tensor.sizes() == expected, name, ": expected shape ", expected, ", got ", tensor.sizes());
}

// Coordinates and sums are kept in this type.
inline at::ScalarType sum_dtype(const at::Tensor& value) {
  return value.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

// `coordinates` is (N, Q, heads, levels, points, 2), `weights` the same without the 2.
inline Shapes check_shapes(
    const at::Tensor& value,
    at::IntArrayRef spatial_shapes,
    const at::Tensor& coordinates,
    const char* coordinates_name,
    const at::Tensor& weights,
    const char* weights_name,
    at::ScalarType dtype) {
  const auto value_dtype = value.scalar_type();
  TORCH_CHECK_TYPE(
      value_dtype == at::kFloat || value_dtype == at::kDouble || value_dtype == at::kHalf ||
          value_dtype == at::kBFloat16,
      "value: expected float32, float64, float16 or bfloat16, got ", value_dtype);
  TORCH_CHECK_VALUE(value.dim() == 4, "value: expected (N, S, heads, dim), got shape ", value.sizes());
  TORCH_CHECK_VALUE(
      coordinates.dim() == 6, coordinates_name, ": expected (N, Q, heads, levels, points, 2), got shape ",
      coordinates.sizes());
  TORCH_CHECK_VALUE(
      value.size(2) > 0 && value.size(3) > 0, "value: expected at least one head and channel, got shape ",
      value.sizes());
  TORCH_CHECK_VALUE(
      coordinates.size(4) > 0, coordinates_name, ": expected at least one point, got shape ", coordinates.sizes());
  check_size(value, "value");
  check_alike(coordinates, coordinates_name, dtype, value);
  check_alike(weights, weights_name, dtype, value);
  check_sizes(
      coordinates, coordinates_name,
      {value.size(0), coordinates.size(1), value.size(2), coordinates.size(3), coordinates.size(4), 2});
  check_sizes(weights, weights_name, coordinates.sizes().slice(0, 5));

  Shapes shapes{
      value.size(0), value.size(1), value.size(2), value.size(3), coordinates.size(1), coordinates.size(4), {}};
  TORCH_CHECK_VALUE(
      static_cast<int64_t>(spatial_shapes.size()) == 2 * coordinates.size(3) && !spatial_shapes.empty(),
      "spatial_shapes: expected height and width of each of ", coordinates.size(3), " levels (at least one), got ",
      spatial_shapes);
  int64_t start = 0;
  for (size_t i = 0; i < spatial_shapes.size(); i += 2) {
    const int64_t height = spatial_shapes[i], width = spatial_shapes[i + 1];
    // Bounded before they are multiplied: S is below 2³¹ or value is empty.
    constexpr int64_t most = std::numeric_limits<int32_t>::max();
    TORCH_CHECK_VALUE(
        height > 0 && width > 0 && height <= most && width <= most && height * width <= most - start,
        "spatial_shapes: expected positive sizes of at most ", most, " pixels together, got ", spatial_shapes);
    shapes.levels.push_back({height, width, start});
    start += height * width;
  }
  TORCH_CHECK_VALUE(
      shapes.batch * shapes.queries * shapes.heads * shapes.channels <= std::numeric_limits<int32_t>::max(),
      "the output would have more than ", std::numeric_limits<int32_t>::max(), " elements; split the batch");
  TORCH_CHECK_VALUE(
      start == value.size(1), "spatial_shapes: ", spatial_shapes, " are ", start, " pixels, value has ",
      value.size(1), " rows");
  return shapes;
}

inline Shapes check_locations(
    const at::Tensor& value,
    at::IntArrayRef spatial_shapes,
    const at::Tensor& locations,
    const at::Tensor& weights) {
  return check_shapes(
      value, spatial_shapes, locations, "sampling_locations", weights, "attention_weights", sum_dtype(value));
}

inline Shapes check_projections(
    const at::Tensor& value,
    at::IntArrayRef spatial_shapes,
    const at::Tensor& reference_points,
    const at::Tensor& offsets,
    const at::Tensor& logits) {
  const Shapes shapes =
      check_shapes(value, spatial_shapes, offsets, "offsets", logits, "logits", value.scalar_type());
  check_alike(reference_points, "reference_points", sum_dtype(value), value);
  const int64_t levels = static_cast<int64_t>(shapes.levels.size());
  TORCH_CHECK_VALUE(
      reference_points.dim() == 4 && (reference_points.size(0) == 1 || reference_points.size(0) == shapes.batch) &&
          reference_points.size(1) == shapes.queries &&
          (reference_points.size(2) == 1 || reference_points.size(2) == levels) && reference_points.size(3) == 2,
      "reference_points: expected (", shapes.batch, " or 1, ", shapes.queries, ", ", levels, " or 1, 2), got shape ",
      reference_points.sizes());
  return shapes;
}

inline void check_grad(const at::Tensor& grad, const at::Tensor& value, const Shapes& shapes) {
  check_alike(grad, "grad", value.scalar_type(), value);
  check_sizes(grad, "grad", {shapes.batch, shapes.queries, shapes.heads * shapes.channels});
}

}  // namespace deformable_attention

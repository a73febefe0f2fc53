// The arguments of one call, checked before any kernel starts.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

namespace deformable_attention {

struct Level {
  int64_t height, width, start;  // start: first row of the level in `value`
};

struct Shapes {
  int64_t batch, length, heads, channels, queries, points;
  std::vector<Level> levels;

  int64_t samples() const { return static_cast<int64_t>(levels.size()) * points; }
};

// Arguments of either operator.
struct Arguments {
  at::Tensor value;
  at::Tensor reference_points;  // undefined if `coordinates` are locations
  at::Tensor coordinates;       // (N, Q, heads, levels, points, 2): sampling locations, or offsets from reference points
  at::Tensor weights;           // (N, Q, heads, levels, points): attention weights, or their logits
  Shapes shapes;

  bool are_projections() const { return reference_points.defined(); }
};

constexpr int64_t kMaxElements = std::numeric_limits<int32_t>::max();

// GPUs index tensors with 32 bits. All backends have this limit, so that they are interchangeable.
inline void check_size(const at::Tensor& tensor, const char* name) {
  TORCH_CHECK_VALUE(
      tensor.numel() <= kMaxElements, name, ": ", tensor.numel(), " elements, at most ", kMaxElements,
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

// The type of coordinates and sums.
inline at::ScalarType sum_dtype(const at::Tensor& value) {
  return value.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

// Checks all arguments but the reference points. `dtype` is that of `coordinates` and `weights`.
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
    TORCH_CHECK_VALUE(
        height > 0 && width > 0 && height <= kMaxElements && width <= kMaxElements &&
            height * width <= kMaxElements - start,
        "spatial_shapes: expected positive sizes of at most ", kMaxElements, " pixels together, got ", spatial_shapes);
    shapes.levels.push_back({height, width, start});
    start += height * width;
  }
  TORCH_CHECK_VALUE(
      shapes.batch * shapes.queries * shapes.heads * shapes.channels <= kMaxElements,
      "the output would have more than ", kMaxElements, " elements; split the batch");
  TORCH_CHECK_VALUE(
      start == value.size(1), "spatial_shapes: ", spatial_shapes, " are ", start, " pixels, value has ",
      value.size(1), " rows");
  return shapes;
}

inline Arguments check_locations(
    const at::Tensor& value,
    at::IntArrayRef spatial_shapes,
    const at::Tensor& locations,
    const at::Tensor& weights) {
  Shapes shapes = check_shapes(
      value, spatial_shapes, locations, "sampling_locations", weights, "attention_weights", sum_dtype(value));
  return {value, {}, locations, weights, std::move(shapes)};
}

inline Arguments check_projections(
    const at::Tensor& value,
    at::IntArrayRef spatial_shapes,
    const at::Tensor& reference_points,
    const at::Tensor& offsets,
    const at::Tensor& logits) {
  Shapes shapes = check_shapes(value, spatial_shapes, offsets, "offsets", logits, "logits", value.scalar_type());
  check_alike(reference_points, "reference_points", sum_dtype(value), value);
  const int64_t levels = static_cast<int64_t>(shapes.levels.size());
  TORCH_CHECK_VALUE(
      reference_points.dim() == 4 && (reference_points.size(0) == 1 || reference_points.size(0) == shapes.batch) &&
          reference_points.size(1) == shapes.queries &&
          (reference_points.size(2) == 1 || reference_points.size(2) == levels) && reference_points.size(3) == 2,
      "reference_points: expected (", shapes.batch, " or 1, ", shapes.queries, ", ", levels, " or 1, 2), got shape ",
      reference_points.sizes());
  return {value, reference_points, offsets, logits, std::move(shapes)};
}

inline void check_grad(const at::Tensor& grad, const Arguments& arguments) {
  const Shapes& shapes = arguments.shapes;
  check_alike(grad, "grad", arguments.value.scalar_type(), arguments.value);
  check_sizes(grad, "grad", {shapes.batch, shapes.queries, shapes.heads * shapes.channels});
}

}  // namespace deformable_attention

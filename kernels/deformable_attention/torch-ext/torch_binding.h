#pragma once

#include <ATen/core/Tensor.h>

#include <tuple>

// One set of functions for each device; the build picks the file that defines them.
namespace deformable_attention {

at::Tensor forward(
    const at::Tensor& value,
    at::IntArrayRef spatial_shapes,
    const at::Tensor& sampling_locations,
    const at::Tensor& attention_weights);

std::tuple<at::Tensor, at::Tensor, at::Tensor> backward(
    const at::Tensor& grad,
    const at::Tensor& value,
    at::IntArrayRef spatial_shapes,
    const at::Tensor& sampling_locations,
    const at::Tensor& attention_weights);

at::Tensor forward_from_projections(
    const at::Tensor& value,
    at::IntArrayRef spatial_shapes,
    const at::Tensor& reference_points,
    const at::Tensor& offsets,
    const at::Tensor& logits);

std::tuple<at::Tensor, at::Tensor, at::Tensor> backward_from_projections(
    const at::Tensor& grad,
    const at::Tensor& value,
    at::IntArrayRef spatial_shapes,
    const at::Tensor& reference_points,
    const at::Tensor& offsets,
    const at::Tensor& logits);

}  // namespace deformable_attention

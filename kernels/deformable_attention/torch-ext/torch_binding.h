#pragma once

#include <ATen/core/Tensor.h>

#include <tuple>

#include "deformable_attention_common/arguments.h"

// Each device has a file that defines these functions; the build picks one. The operators check their arguments first.
namespace deformable_attention {

at::Tensor forward(const Arguments& arguments);

// Gradients of the value, the coordinates and the weights.
std::tuple<at::Tensor, at::Tensor, at::Tensor> backward(const at::Tensor& grad, const Arguments& arguments);

}  // namespace deformable_attention

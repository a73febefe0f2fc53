#include "torch_binding.h"

#include <torch/library.h>

#include "registration.h"

#if defined(CPU_KERNEL)
#define DEFORMABLE_ATTENTION_KEY CPU
#elif defined(CUDA_KERNEL)
#define DEFORMABLE_ATTENTION_KEY CUDA
#else
#error "define CPU_KERNEL or CUDA_KERNEL"
#endif

namespace deformable_attention {
namespace {

using at::Tensor;
using Gradients = std::tuple<Tensor, Tensor, Tensor>;

Tensor attention(const Tensor& value, at::IntArrayRef shapes, const Tensor& locations, const Tensor& weights) {
  return forward(check_locations(value, shapes, locations, weights));
}

Gradients attention_backward(
    const Tensor& grad, const Tensor& value, at::IntArrayRef shapes, const Tensor& locations, const Tensor& weights) {
  const Arguments arguments = check_locations(value, shapes, locations, weights);
  check_grad(grad, arguments);
  return backward(grad, arguments);
}

Tensor attention_from_projections(
    const Tensor& value, at::IntArrayRef shapes, const Tensor& reference_points, const Tensor& offsets,
    const Tensor& logits) {
  return forward(check_projections(value, shapes, reference_points, offsets, logits));
}

Gradients attention_from_projections_backward(
    const Tensor& grad, const Tensor& value, at::IntArrayRef shapes, const Tensor& reference_points,
    const Tensor& offsets, const Tensor& logits) {
  const Arguments arguments = check_projections(value, shapes, reference_points, offsets, logits);
  check_grad(grad, arguments);
  return backward(grad, arguments);
}

}  // namespace
}  // namespace deformable_attention

// Fake kernels, autograd and autocast: deformable_attention/registration.py.
TORCH_LIBRARY_EXPAND(TORCH_EXTENSION_NAME, m) {
  m.def(
      "deformable_attention(Tensor value, SymInt[] spatial_shapes, Tensor sampling_locations, "
      "Tensor attention_weights) -> Tensor");
  m.def(
      "deformable_attention_backward(Tensor grad, Tensor value, SymInt[] spatial_shapes, "
      "Tensor sampling_locations, Tensor attention_weights) -> (Tensor, Tensor, Tensor)");
  m.def(
      "deformable_attention_from_projections(Tensor value, SymInt[] spatial_shapes, Tensor reference_points, "
      "Tensor offsets, Tensor logits) -> Tensor");
  m.def(
      "deformable_attention_from_projections_backward(Tensor grad, Tensor value, SymInt[] spatial_shapes, "
      "Tensor reference_points, Tensor offsets, Tensor logits) -> (Tensor, Tensor, Tensor)");
}

TORCH_LIBRARY_IMPL_EXPAND(TORCH_EXTENSION_NAME, DEFORMABLE_ATTENTION_KEY, m) {
  using namespace deformable_attention;
  m.impl("deformable_attention", &attention);
  m.impl("deformable_attention_backward", &attention_backward);
  m.impl("deformable_attention_from_projections", &attention_from_projections);
  m.impl("deformable_attention_from_projections_backward", &attention_from_projections_backward);
}

REGISTER_EXTENSION(TORCH_EXTENSION_NAME)

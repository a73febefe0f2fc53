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

// Shapes, fake kernels, autograd and autocast: deformable_attention/registration.py.
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
  m.impl("deformable_attention", &deformable_attention::forward);
  m.impl("deformable_attention_backward", &deformable_attention::backward);
  m.impl("deformable_attention_from_projections", &deformable_attention::forward_from_projections);
  m.impl("deformable_attention_from_projections_backward", &deformable_attention::backward_from_projections);
}

REGISTER_EXTENSION(TORCH_EXTENSION_NAME)

// What matching sums over points of all queries' masks, on the CPU: see vita_hf/ops/mask_matching.py.
//
// In PyTorch's operations every step from samples to sums is an array of points × queries that is written to memory and
// read again. Here one point's samples stay in the nearest cache until they are summed.

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <tuple>
#include <vector>

#include "deformable_attention_common/exponential.h"
#include "torch-ext/registration.h"

namespace mask_matching {
namespace {

using deformable_attention::exp_nonpositive;

// An item's points are summed in this many parts, whatever the number of threads: it does not change the results.
constexpr int64_t kParts = 32;
// 1 + exp(−|x|) lies in [1, 2]: a product of this many of them fits a float.
constexpr int64_t kFactors = 64;

// The four pixels around a point and their shares. Those outside the map have none, pixels at its edge stand for them.
struct Corners {
  int64_t pixels[4];
  float shares[4];

  Corners(const float* point, int64_t height, int64_t width) {
    const float x = point[0] * width - 0.5f, y = point[1] * height - 0.5f;
    // Infinite coordinates and nan are nowhere near.
    const bool near = x > -1 && x < width && y > -1 && y < height;
    const float left = near ? std::floor(x) : 0, top = near ? std::floor(y) : 0;
    for (int corner = 0; corner < 4; ++corner) {
      const int64_t column = static_cast<int64_t>(left) + corner % 2, row = static_cast<int64_t>(top) + corner / 2;
      const bool inside = near && column >= 0 && column < width && row >= 0 && row < height;
      const float across = corner % 2 ? x - left : 1 - (x - left), down = corner / 2 ? y - top : 1 - (y - top);
      pixels[corner] = std::clamp<int64_t>(row, 0, height - 1) * width + std::clamp<int64_t>(column, 0, width - 1);
      shares[corner] = inside ? across * down : 0;
    }
  }
};

// One frame of an item: masks of its queries, which are the last dimension, and maps of its targets, `stride` apart.
struct Masks {
  const float* values;
  int64_t height, width, queries;
};
struct Targets {
  const bool* values;
  int64_t height, width, count, stride;
};

// Where sums are added to: rows of as many numbers as there are queries, `areas` one number for each target.
struct Sums {
  float *softplus, *sigmoid, *logits_inside, *sigmoid_inside, *areas;
};

void add_points(const Masks& masks, const Targets& targets, const float* points, int64_t count, const Sums& sums) {
  const int64_t queries = masks.queries;
  std::vector<float> scratch(3 * queries);
  float *logits = scratch.data(), *probabilities = logits + queries, *product = probabilities + queries;
  std::fill_n(product, queries, 1.0f);
  for (int64_t i = 0; i < count; ++i) {
    const Corners at(points + 2 * i, masks.height, masks.width);
    const float *row0 = masks.values + at.pixels[0] * queries, *row1 = masks.values + at.pixels[1] * queries,
                *row2 = masks.values + at.pixels[2] * queries, *row3 = masks.values + at.pixels[3] * queries;
    const float share0 = at.shares[0], share1 = at.shares[1], share2 = at.shares[2], share3 = at.shares[3];
    float *softplus = sums.softplus, *sigmoid = sums.sigmoid;
    // Nothing overlaps, which compilers can't know.
#pragma omp simd
    for (int64_t q = 0; q < queries; ++q) {
      const float x = share0 * row0[q] + share1 * row1[q] + share2 * row2[q] + share3 * row3[q];
      const float power = exp_nonpositive(-std::fabs(x)), larger = 1 / (1 + power);  // σ(|x|)
      const float probability = x < 0 ? power * larger : larger;
      logits[q] = x;
      probabilities[q] = probability;
      product[q] *= 1 + power;
      softplus[q] += x > 0 ? x : 0.0f;
      sigmoid[q] += probability;
    }
    if ((i + 1) % kFactors == 0 || i + 1 == count) {  // softplus(x) = max(x, 0) + log(1 + exp(−|x|))
      for (int64_t q = 0; q < queries; ++q) {
        softplus[q] += std::log(product[q]);
        product[q] = 1;
      }
    }
    const Corners on(points + 2 * i, targets.height, targets.width);
    for (int64_t n = 0; n < targets.count; ++n) {
      const bool* target = targets.values + n * targets.stride;
      float inside = 0;
      for (int corner = 0; corner < 4; ++corner) {
        inside += target[on.pixels[corner]] ? on.shares[corner] : 0.0f;
      }
      if (inside == 0) {  // most points are inside few targets
        continue;
      }
      sums.areas[n] += inside;
      float *logits_inside = sums.logits_inside + n * queries, *sigmoid_inside = sums.sigmoid_inside + n * queries;
#pragma omp simd
      for (int64_t q = 0; q < queries; ++q) {
        logits_inside[q] += inside * logits[q];
        sigmoid_inside[q] += inside * probabilities[q];
      }
    }
  }
}

// Points `(count, 2)` from top to bottom: neighbours share rows of pixels that are still in the cache.
void order_points(const float* points, int64_t count, int64_t height, float* ordered) {
  const auto row = [&](int64_t i) {  // nan counts as 0
    const float y = points[2 * i + 1] * height;
    return y > 0 ? static_cast<int64_t>(std::min(y, static_cast<float>(height))) : 0;
  };
  std::vector<int64_t> starts(height + 2);
  for (int64_t i = 0; i < count; ++i) {
    ++starts[row(i) + 1];
  }
  for (int64_t y = 0; y <= height; ++y) {
    starts[y + 1] += starts[y];
  }
  for (int64_t i = 0; i < count; ++i) {
    std::copy_n(points + 2 * i, 2, ordered + 2 * starts[row(i)]++);
  }
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor> mask_point_sums(
    const at::Tensor& masks,
    at::IntArrayRef size,
    const at::Tensor& points,
    const at::Tensor& targets,
    at::IntArrayRef counts) {
  TORCH_CHECK_TYPE(
      masks.scalar_type() == at::kFloat && points.scalar_type() == at::kFloat && targets.scalar_type() == at::kBool,
      "mask_point_sums: expected float32 masks and points and bool targets, got ", masks.scalar_type(), ", ",
      points.scalar_type(), " and ", targets.scalar_type());
  const auto items = static_cast<int64_t>(counts.size());
  TORCH_CHECK_VALUE(
      masks.dim() == 4 && masks.size(0) == items && size.size() == 2 && size[0] > 0 && size[1] > 0 &&
          masks.size(2) == size[0] * size[1],
      "mask_point_sums: expected masks (", items, ", frames, ", size, ", queries), got ", masks.sizes());
  TORCH_CHECK_VALUE(
      points.dim() == 3 && points.size(0) == items && points.size(2) == 2,
      "mask_point_sums: expected points (", items, ", count, 2), got ", points.sizes());
  int64_t instances = 0;
  for (const int64_t count : counts) {
    TORCH_CHECK_VALUE(count >= 0, "mask_point_sums: negative count of targets in ", counts);
    instances += count;
  }
  const int64_t frames = masks.size(1);
  TORCH_CHECK_VALUE(
      targets.dim() == 4 && targets.size(0) == instances && targets.size(1) == frames && targets.size(2) > 0 &&
          targets.size(3) > 0,
      "mask_point_sums: expected targets (", instances, ", ", frames, ", height, width), got ", targets.sizes());

  const at::Tensor values = masks.contiguous(), places = points.contiguous(), wanted = targets.contiguous();
  const float *maps = values.const_data_ptr<float>(), *unordered = places.const_data_ptr<float>();
  const bool* marks = wanted.const_data_ptr<bool>();
  const int64_t queries = masks.size(3), count = points.size(1), height = targets.size(2), width = targets.size(3);
  std::vector<float> ordered(points.numel());
  std::vector<int64_t> first_target(items + 1);
  for (int64_t item = 0; item < items; ++item) {
    order_points(unordered + 2 * item * count, count, size[0], ordered.data() + 2 * item * count);
    first_target[item + 1] = first_target[item] + counts[item];
  }

  // Each part has all five results, one after another.
  const int64_t of_items = items * queries, of_targets = instances * queries;
  const int64_t numbers = 2 * of_items + 2 * of_targets + instances;
  std::vector<float> parts(kParts * numbers);
  at::parallel_for(0, items * kParts, 1, [&](int64_t begin, int64_t end) {
    for (int64_t job = begin; job < end; ++job) {
      const int64_t item = job / kParts, part = job % kParts, target = first_target[item];
      const int64_t first = count * part / kParts, last = count * (part + 1) / kParts;
      float *softplus = parts.data() + part * numbers, *sigmoid = softplus + of_items;
      float *logits_inside = sigmoid + of_items, *sigmoid_inside = logits_inside + of_targets;
      const Sums sums{
          softplus + item * queries, sigmoid + item * queries, logits_inside + target * queries,
          sigmoid_inside + target * queries, sigmoid_inside + of_targets + target};
      for (int64_t frame = 0; frame < frames; ++frame) {
        add_points(
            {maps + (item * frames + frame) * masks.size(2) * queries, size[0], size[1], queries},
            {marks + (target * frames + frame) * height * width, height, width, counts[item], frames * height * width},
            ordered.data() + 2 * (item * count + first), last - first, sums);
      }
    }
  });
  const at::Tensor results = at::zeros({numbers}, values.options());
  float* total = results.mutable_data_ptr<float>();
  for (int64_t part = 0; part < kParts; ++part) {
    for (int64_t i = 0; i < numbers; ++i) {
      total[i] += parts[part * numbers + i];
    }
  }
  const auto pieces = results.split_with_sizes({of_items, of_items, of_targets, of_targets, instances});
  return {
      pieces[0].view({items, queries}), pieces[1].view({items, queries}), pieces[2].view({instances, queries}),
      pieces[3].view({instances, queries}), pieces[4]};
}

}  // namespace
}  // namespace mask_matching

// Into the namespace that deformable attention defines; expanded first, as the other macros are.
#define ADD_TO_LIBRARY(NAME, MODULE) TORCH_LIBRARY_FRAGMENT(NAME, MODULE)

ADD_TO_LIBRARY(TORCH_EXTENSION_NAME, m) {
  m.def(
      "mask_point_sums(Tensor masks, int[] size, Tensor points, Tensor targets, int[] counts) -> "
      "(Tensor, Tensor, Tensor, Tensor, Tensor)");
}

TORCH_LIBRARY_IMPL_EXPAND(TORCH_EXTENSION_NAME, CPU, m) {
  m.impl("mask_point_sums", &mask_matching::mask_point_sums);
}

// COCO's run-length encoding on the CPU: decode many masks in one call and intersect whole tracks without their pixels.
//
// The same functions in numpy, with the same results: vita_hf/ops/rle_numpy.py.

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>
#include <torch/library.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <tuple>

namespace rle {
namespace {

constexpr int64_t kMaxPixels = 1 << 29;  // of a mask: sums of two lengths fit in 32 bits
constexpr int kMaxDigits = 6;

void check_vector(const at::Tensor& tensor, const char* name, at::ScalarType dtype) {
  TORCH_CHECK_VALUE(
      tensor.scalar_type() == dtype && tensor.dim() == 1 && tensor.is_contiguous(), name,
      ": expected a contiguous vector of ", dtype, ", got ", tensor.scalar_type(), " of shape ", tensor.sizes());
}

// The limit keeps positions, sums of 32-bit lengths, far from overflowing 64 bits.
void check_pairs(const at::Tensor& pairs, const char* name) {
  TORCH_CHECK_VALUE(
      pairs.scalar_type() == at::kInt && pairs.dim() == 2 && pairs.size(1) == 2 && pairs.is_contiguous() &&
          pairs.size(0) <= std::numeric_limits<int32_t>::max(),
      name, ": expected contiguous Int of shape (P, 2) with P < 2^31, got ", pairs.scalar_type(), " of shape ",
      pairs.sizes());
}

// `positions` must rise from at least 0 to at most `limit`.
void check_rising(const int64_t* positions, int64_t count, int64_t limit, const char* name) {
  int64_t last = 0;
  for (int64_t i = 0; i < count; ++i) {
    TORCH_CHECK_VALUE(
        positions[i] >= last && positions[i] <= limit, name, ": ", positions[i], " at ", i,
        " is not between the position before it and ", limit);
    last = positions[i];
  }
}

// Reads a signed number in base 32: low digits first, each as the character 48 + digit, plus 32 if more digits follow.
// Returns false if `at` does not begin a number that ends before `end`.
inline bool read_number(const uint8_t*& at, const uint8_t* end, int64_t& number) {
  unsigned digit = *at++ - 48u;
  number = digit & 31;
  int bits = 5;
  for (; digit & 32; bits += 5) {
    if (digit > 63 || at == end || bits == 5 * kMaxDigits) {
      return false;
    }
    digit = *at++ - 48u;
    number |= static_cast<int64_t>(digit & 31) << bits;
  }
  if (digit & 16) {
    number -= int64_t{1} << bits;
  }
  return digit < 32;
}

// Decodes one mask to (background, object) pairs at `out`. Returns false unless the text is an RLE of `pixels` pixels.
inline bool decode_mask(const uint8_t* at, const uint8_t* end, int64_t pixels, int32_t*& out, int64_t& area) {
  // From the fourth number on, each is a difference to the number two places before.
  const auto read_difference = [&](int64_t& run) {
    int64_t difference;
    const bool valid = read_number(at, end, difference);
    run += difference;
    *out++ = static_cast<int32_t>(run);
    return valid && run >= 0 && run <= pixels;
  };
  int64_t first = 0, background = 0, object = 0;
  if (at == end || !read_difference(first)) {
    return false;
  }
  int64_t total = first;
  area = 0;
  for (;;) {
    if (at == end) {
      *out++ = 0;
      break;
    }
    if (!read_difference(object)) {
      return false;
    }
    area += object;
    if (at == end) {
      break;
    }
    if (!read_difference(background)) {
      return false;
    }
    total += background;
  }
  return total + area == pixels;
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> decode(const at::Tensor& text, const at::Tensor& ends, int64_t pixels) {
  check_vector(text, "text", at::kByte);
  check_vector(ends, "ends", at::kLong);
  TORCH_CHECK_VALUE(pixels >= 0 && pixels <= kMaxPixels, "pixels: expected 0 to ", kMaxPixels, ", got ", pixels);
  const int64_t count = ends.numel();
  const int64_t* end = ends.const_data_ptr<int64_t>();
  check_rising(end, count, text.numel(), "ends");

  // A number has at least one character; each mask may need a zero to complete its last pair.
  const at::Tensor pairs = at::empty({(text.numel() + count) / 2 + 1, 2}, ends.options().dtype(at::kInt));
  const at::Tensor starts = at::empty({count + 1}, ends.options()), areas = at::empty({count}, ends.options());
  const uint8_t* characters = text.const_data_ptr<uint8_t>();
  int32_t* const first = pairs.mutable_data_ptr<int32_t>();
  int32_t* out = first;
  int64_t *start = starts.mutable_data_ptr<int64_t>(), *area = areas.mutable_data_ptr<int64_t>();
  start[0] = 0;
  for (int64_t i = 0; i < count; ++i) {
    const uint8_t* begin = characters + (i == 0 ? 0 : end[i - 1]);
    TORCH_CHECK_VALUE(
        decode_mask(begin, characters + end[i], pixels, out, area[i]), "mask ", i, " is not an RLE of ", pixels,
        " pixels");
    start[i + 1] = (out - first) / 2;
  }
  return {pairs.narrow(0, 0, start[count]), starts, areas};
}

// A track's object runs, one after the other.
struct Runs {
  const int32_t *next, *end;
  int64_t top = 0, bottom = 0;  // first pixel of the object, and the pixel after its last

  bool advance() {
    if (next == end) {
      return false;
    }
    top = bottom + next[0];
    bottom = top + next[1];
    next += 2;
    return true;
  }
};

// Moves `first`, which ends before `second`, to its next run; `second` too if it ends before that run begins.
inline bool advance(Runs& first, Runs& second) {
  return first.advance() && (first.top < second.bottom || second.advance());
}

int64_t shared_pixels(Runs a, Runs b) {
  int64_t shared = 0;
  if (!a.advance() || !b.advance()) {
    return 0;
  }
  for (;;) {
    shared += std::max<int64_t>(0, std::min(a.bottom, b.bottom) - std::max(a.top, b.top));
    if (!(a.bottom < b.bottom ? advance(a, b) : advance(b, a))) {
      return shared;
    }
  }
}

at::Tensor intersections(const at::Tensor& pairs, const at::Tensor& starts, at::TensorList others) {
  check_pairs(pairs, "pairs");
  check_vector(starts, "starts", at::kLong);
  TORCH_CHECK_VALUE(starts.numel() > 0, "starts: expected the tracks' first rows and the row after the last");
  const int64_t count = starts.numel() - 1, num_others = static_cast<int64_t>(others.size());
  const int64_t* start = starts.const_data_ptr<int64_t>();
  check_rising(start, count + 1, pairs.size(0), "starts");
  const at::Tensor result = at::empty({count, num_others}, starts.options());
  int64_t* shared = result.mutable_data_ptr<int64_t>();
  const int32_t* rows = pairs.const_data_ptr<int32_t>();
  for (int64_t j = 0; j < num_others; ++j) {
    check_pairs(others[j], "others");
    const int32_t* other = others[j].const_data_ptr<int32_t>();
    const Runs theirs{other, other + others[j].numel()};
    for (int64_t i = 0; i < count; ++i) {
      shared[i * num_others + j] = shared_pixels({rows + 2 * start[i], rows + 2 * start[i + 1]}, theirs);
    }
  }
  return result;
}

}  // namespace
}  // namespace rle

// Adds to the operators of deformable attention, which is compiled into the same library.
TORCH_LIBRARY_FRAGMENT(vita_hf_cpp, m) {
  m.def("rle_decode(Tensor text, Tensor ends, int pixels) -> (Tensor, Tensor, Tensor)");
  m.def("rle_intersections(Tensor pairs, Tensor starts, Tensor[] others) -> Tensor");
}

TORCH_LIBRARY_IMPL(vita_hf_cpp, CPU, m) {
  m.impl("rle_decode", &rle::decode);
  m.impl("rle_intersections", &rle::intersections);
}

// The exponential function on the CPU, in a form that compilers vectorize.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

namespace deformable_attention {

// Relative error 2e-7 for x <= 0; nan stays nan.
inline float exp_nonpositive(float x) {
  x = x < -87.0f ? -87.0f : x;
  constexpr float kRound = 12582912.0f;  // 1.5·2²³: adding it leaves the nearest integer in the low bits
  const float shifted = x * 1.44269504f + kRound;
  const float k = shifted - kRound;
  // ln 2 in two parts, the first exact in few bits.
  const float r = (x - k * 0.693359375f) + k * 2.12194440e-4f;
  float series = 1.0f / 5040;
  series = series * r + 1.0f / 720;
  series = series * r + 1.0f / 120;
  series = series * r + 1.0f / 24;
  series = series * r + 1.0f / 6;
  series = series * r + 0.5f;
  series = series * r + 1.0f;
  series = series * r + 1.0f;
  int32_t bits;
  std::memcpy(&bits, &shifted, sizeof(bits));
  bits = static_cast<int32_t>((static_cast<uint32_t>(bits) + 127u) << 23);
  float power;
  std::memcpy(&power, &bits, sizeof(power));
  return series * power;
}

inline double exp_nonpositive(double x) {
  return std::exp(x);
}

}  // namespace deformable_attention

// Enough of CUDA on the CPU to run the kernels' own source: a warp is 32 threads that meet at every shuffle.
#pragma once

#include <barrier>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <thread>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __launch_bounds__(threads)
#define __grid_constant__
#define EMULATED_ARCH 900

struct uint4 {
  unsigned x, y, z, w;
};
struct float4 {
  float x, y, z, w;
};
inline float4 make_float4(float x, float y, float z, float w) {
  return {x, y, z, w};
}

struct Index {
  unsigned x;
};
struct Warp {
  std::barrier<> barrier{32};
  double slots[32];
};
inline thread_local Index blockIdx, threadIdx;
inline thread_local int lane_of_warp;
inline thread_local Warp* warp;

template <typename T>
T exchange(T value, int source) {
  static_assert(sizeof(T) <= sizeof(double));
  std::memcpy(&warp->slots[lane_of_warp], &value, sizeof(T));
  warp->barrier.arrive_and_wait();
  T result;
  std::memcpy(&result, &warp->slots[source], sizeof(T));
  warp->barrier.arrive_and_wait();
  return result;
}

template <typename T>
T __shfl_sync(unsigned, T value, int source, int width) {
  return exchange(value, lane_of_warp / width * width + source % width);
}

template <typename T>
T __shfl_xor_sync(unsigned, T value, int mask, int width) {
  const int source = lane_of_warp ^ mask;
  return exchange(value, source / width == lane_of_warp / width ? source : lane_of_warp);
}

inline void check_alignment(const void* pointer) {
  if (reinterpret_cast<uintptr_t>(pointer) % 16 != 0) {
    std::abort();
  }
}

inline uint4 __ldg(const uint4* pointer) {
  check_alignment(pointer);
  return *pointer;
}

inline std::mutex atomic_mutex;

template <typename T>
void atomicAdd(T* to, T value) {
  const std::lock_guard<std::mutex> guard(atomic_mutex);
  *to += value;
}

inline void atomicAdd(float4* to, float4 value) {
  check_alignment(to);
  const std::lock_guard<std::mutex> guard(atomic_mutex);
  *to = {to->x + value.x, to->y + value.y, to->z + value.z, to->w + value.w};
}

inline int min(int a, int b) {
  return a < b ? a : b;
}
using std::floor;

template <typename Kernel, typename... Arguments>
void launch(Kernel kernel, unsigned blocks, int threads, Arguments... arguments) {
  for (unsigned block = 0; block < blocks; ++block) {
    for (int first = 0; first < threads; first += 32) {
      Warp shared;
      std::vector<std::thread> lanes;
      for (int lane = 0; lane < 32; ++lane) {
        lanes.emplace_back([&, lane] {
          blockIdx.x = block;
          threadIdx.x = first + lane;
          lane_of_warp = lane;
          warp = &shared;
          kernel(arguments...);
        });
      }
      for (std::thread& thread : lanes) {
        thread.join();
      }
    }
  }
}

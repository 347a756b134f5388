// What kernels use of CUDA, for a C++ compiler. `OWN` says where the threads' state is: in this program, or `extern`.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#ifndef OWN
#define OWN static
#endif

#define __global__
#define __device__
#define __constant__
#define __align__(n) alignas(n)
#define __shared__ static

constexpr unsigned THREADS = 256;

struct Place {
    unsigned x;
};
OWN Place threadIdx, blockIdx;

static inline float __int_as_float(int bits) {
    float x;
    std::memcpy(&x, &bits, 4);
    return x;
}
static inline float __uint_as_float(unsigned bits) {
    float x;
    std::memcpy(&x, &bits, 4);
    return x;
}
static inline unsigned __float_as_uint(float x) {
    unsigned bits;
    std::memcpy(&bits, &x, 4);
    return bits;
}
static inline double __longlong_as_double(long long bits) {
    double x;
    std::memcpy(&x, &bits, 8);
    return x;
}

// One value of each thread, for the others to read.
OWN unsigned long long exchanged[THREADS];
OWN void wait_for_others();

static inline void __syncthreads() { wait_for_others(); }

template <typename T>
static T __shfl_xor_sync(unsigned, T value, int step) {
    const unsigned me = threadIdx.x;
    std::memcpy(&exchanged[me], &value, sizeof value);
    wait_for_others();
    std::memcpy(&value, &exchanged[me ^ (unsigned)step], sizeof value);
    wait_for_others();
    return value;
}

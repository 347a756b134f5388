// The cells that are measured: layers, directions, precisions, layouts; and a reference to check results with.
#pragma once
#include <cuda_bf16.h>

#include "measure.h"

struct Layer {
    const char* name;
    int c, h, k, r, stride, pad;
};

// Typical layers of a resnet50 at 224 x 224, most telling first. A B-cos network's first layer takes 6 channels.
static const Layer LAYERS[] = {
    {"3x3 128-128 28", 128, 28, 128, 3, 1, 1},   {"1x1 64-256 56", 64, 56, 256, 1, 1, 0},
    {"1x1 1024-256 14", 1024, 14, 256, 1, 1, 0}, {"3x3 512-512 7", 512, 7, 512, 3, 1, 1},
    {"7x7/2 3-64 224", 3, 224, 64, 7, 2, 3},     {"3x3/2 128-128 56", 128, 56, 128, 3, 2, 1},
    {"7x7/2 6-64 224", 6, 224, 64, 7, 2, 3},
};

enum Direction { FORWARD, INPUT_GRADIENT, WEIGHT_GRADIENT };
static const char* const DIRECTIONS[] = {"forward", "input", "weight"};
enum Precision { FP32, TF32, BF16 };
static const char* const PRECISIONS[] = {"fp32", "tf32", "bf16"};
static const char* const LAYOUTS[] = {"nchw", "nhwc"};

struct Problem {
    Layer layer;
    int n;
    Precision precision;
    bool nhwc;
    Direction direction;

    int c() const { return layer.c; }
    int h() const { return layer.h; }
    int k() const { return layer.k; }
    int r() const { return layer.r; }
    int p() const { return (layer.h + 2 * layer.pad - layer.r) / layer.stride + 1; }
    size_t element() const { return precision == BF16 ? 2 : 4; }
    size_t x_count() const { return size_t(n) * c() * h() * h(); }
    size_t w_count() const { return size_t(k()) * c() * r() * r(); }
    size_t y_count() const { return size_t(n) * k() * p() * p(); }
    size_t bytes() const { return (x_count() + w_count() + y_count()) * element(); }
    double flops() const { return 2.0 * y_count() * c() * r() * r(); }
    // Relative error that the precision explains, with room to spare.
    double tolerance() const { return precision == FP32 ? 5e-5 : precision == TF32 ? 2e-3 : 1e-2; }
};

// Pointers to one set of input, weight and output; the direction says which of them is written.
struct Buffers {
    void *x, *w, *y;
};

struct Strides {
    int c, h;
    bool nhwc;
    __device__ size_t at(size_t n, int ci, int hi, int wi) const {
        return nhwc ? ((n * h + hi) * h + wi) * c + ci : ((n * c + ci) * h + hi) * h + wi;
    }
    __device__ void coordinates(size_t index, int& n, int& ci, int& hi, int& wi) const {
        if (nhwc) ci = index % c, index /= c;
        wi = index % h, index /= h;
        hi = index % h, index /= h;
        if (!nhwc) ci = index % c, index /= c;
        n = int(index);
    }
};

// Recomputes sampled elements in fp64, one block each, straight from the definition. sums: squared error, squared
// reference. A NaN in the result makes the error NaN.
template <typename T>
__global__ void sample_error(Problem problem, Buffers b, size_t out_count, double* sums) {
    const T* x = static_cast<const T*>(b.x);
    const T* w = static_cast<const T*>(b.w);
    const T* y = static_cast<const T*>(b.y);
    const Layer& l = problem.layer;
    const int p = (l.h + 2 * l.pad - l.r) / l.stride + 1;
    const Strides xs{l.c, l.h, problem.nhwc}, ws{l.c, l.r, problem.nhwc}, ys{l.k, p, problem.nhwc};
    const size_t index = (uint64_t(mixed(blockIdx.x * 77ull + 5)) << 20 ^ mixed(blockIdx.x * 13ull + 1)) % out_count;
    double sum = 0;
    double result;
    int i0, i1, i2, i3;
    if (problem.direction == FORWARD) {
        ys.coordinates(index, i0, i1, i2, i3);
        for (int t = threadIdx.x; t < l.c * l.r * l.r; t += blockDim.x) {
            int s = t % l.r, r = t / l.r % l.r, c = t / (l.r * l.r);
            int h = i2 * l.stride - l.pad + r, v = i3 * l.stride - l.pad + s;
            if (h >= 0 && h < l.h && v >= 0 && v < l.h)
                sum += double(float(x[xs.at(i0, c, h, v)])) * double(float(w[ws.at(i1, c, r, s)]));
        }
        result = float(y[index]);
    } else if (problem.direction == INPUT_GRADIENT) {
        xs.coordinates(index, i0, i1, i2, i3);
        for (int t = threadIdx.x; t < l.k * l.r * l.r; t += blockDim.x) {
            int s = t % l.r, r = t / l.r % l.r, k = t / (l.r * l.r);
            int h = i2 + l.pad - r, v = i3 + l.pad - s;
            if (h < 0 || v < 0 || h % l.stride || v % l.stride) continue;
            h /= l.stride, v /= l.stride;
            if (h < p && v < p) sum += double(float(y[ys.at(i0, k, h, v)])) * double(float(w[ws.at(k, i1, r, s)]));
        }
        result = float(x[index]);
    } else {
        ws.coordinates(index, i0, i1, i2, i3);
        for (size_t t = threadIdx.x; t < size_t(problem.n) * p * p; t += blockDim.x) {
            int v = t % p, h = t / p % p, n = t / (p * p);
            int hi = h * l.stride - l.pad + i2, vi = v * l.stride - l.pad + i3;
            if (hi >= 0 && hi < l.h && vi >= 0 && vi < l.h)
                sum += double(float(x[xs.at(n, i1, hi, vi)])) * double(float(y[ys.at(n, i0, h, v)]));
        }
        result = float(w[index]);
    }
    __shared__ double partial[256];
    partial[threadIdx.x] = sum;
    __syncthreads();
    for (int step = 128; step > 0; step /= 2) {
        if (threadIdx.x < step) partial[threadIdx.x] += partial[threadIdx.x + step];
        __syncthreads();
    }
    if (threadIdx.x == 0) {
        atomicAdd(&sums[0], (result - partial[0]) * (result - partial[0]));
        atomicAdd(&sums[1], partial[0] * partial[0]);
    }
}

template <typename T>
__global__ void count_nan(const T* data, size_t count, double* sum) {
    for (size_t i = blockIdx.x * size_t(blockDim.x) + threadIdx.x; i < count; i += size_t(gridDim.x) * blockDim.x)
        if (isnan(float(data[i]))) atomicAdd(sum, 1.0);
}

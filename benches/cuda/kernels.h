// Kernels as an engine would generate them: no includes, sizes written into the source, compiled by NVRTC.
#pragma once
#include <string>

// B-cos scaling, out = x |x| / norm with one norm a pixel, and what bounds it. C: channels; P: pixels of an image.
inline std::string kernel_source(unsigned channels, unsigned pixels) {
    return "#define C " + std::to_string(channels) + "u\n#define P " + std::to_string(pixels) + "u\n" + R"(
__device__ float up(unsigned short v) { return __uint_as_float((unsigned)v << 16); }
__device__ unsigned short down(float v) {
    unsigned b = __float_as_uint(v);
    return (unsigned short)((b + 0x7fffu + ((b >> 16) & 1u)) >> 16);
}
__device__ float bcos(float v, float norm) { return v * fabsf(v) / norm; }
#define INDEX (blockIdx.x * blockDim.x + threadIdx.x)

extern "C" __global__ void empty() {}
extern "C" __global__ void copy_scalar(const float* x, const float* norm, float* out, unsigned n) {
    unsigned i = INDEX;
    if (i < n) out[i] = x[i];
}
extern "C" __global__ void copy_vector(const float4* x, const float* norm, float4* out, unsigned n) {
    unsigned i = INDEX;
    if (i < n / 4) out[i] = x[i];
}
extern "C" __global__ void nhwc_scalar(const float* x, const float* norm, float* out, unsigned n) {
    unsigned i = INDEX;
    if (i < n) out[i] = bcos(x[i], norm[i / C]);
}
extern "C" __global__ void nhwc_stride(const float* x, const float* norm, float* out, unsigned n) {
    for (unsigned i = INDEX; i < n; i += gridDim.x * blockDim.x) out[i] = bcos(x[i], norm[i / C]);
}
extern "C" __global__ void nchw_scalar(const float* x, const float* norm, float* out, unsigned n) {
    unsigned i = INDEX;
    if (i < n) out[i] = bcos(x[i], norm[i / (C * P) * P + i % P]);
}
extern "C" __global__ void nhwc_vector(const float4* x, const float* norm, float4* out, unsigned n) {
    unsigned i = INDEX;
    if (i >= n / 4) return;
    float4 v = x[i];
    float s = norm[i / (C / 4)];
    out[i] = make_float4(bcos(v.x, s), bcos(v.y, s), bcos(v.z, s), bcos(v.w, s));
}
extern "C" __global__ void nchw_vector(const float4* x, const float4* norm, float4* out, unsigned n) {
    unsigned i = INDEX;
    if (i >= n / 4) return;
    float4 v = x[i], s = norm[i / (C * P / 4) * (P / 4) + i % (P / 4)];
    out[i] = make_float4(bcos(v.x, s.x), bcos(v.y, s.y), bcos(v.z, s.z), bcos(v.w, s.w));
}
extern "C" __global__ void bf16_scalar(const unsigned short* x, const float* norm, unsigned short* out, unsigned n) {
    unsigned i = INDEX;
    if (i < n) out[i] = down(bcos(up(x[i]), norm[i / C]));
}
extern "C" __global__ void bf16_vector(const uint4* x, const float* norm, uint4* out, unsigned n) {
    unsigned i = INDEX;
    if (i >= n / 8) return;
    uint4 v = x[i];
    float s = norm[i / (C / 8)];
    unsigned words[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int j = 0; j < 4; ++j) {
        unsigned low = down(bcos(up((unsigned short)words[j]), s));
        unsigned high = down(bcos(up((unsigned short)(words[j] >> 16)), s));
        words[j] = low | high << 16;
    }
    out[i] = make_uint4(words[0], words[1], words[2], words[3]);
}
// The same with one division a thread, by multiplying with the reciprocal.
extern "C" __global__ void bf16_reciprocal(const uint4* x, const float* norm, uint4* out, unsigned n) {
    unsigned i = INDEX;
    if (i >= n / 8) return;
    uint4 v = x[i];
    float s = 1.0f / norm[i / (C / 8)];
    unsigned words[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int j = 0; j < 4; ++j) {
        float low = __uint_as_float(words[j] << 16), high = __uint_as_float(words[j] & 0xffff0000u);
        low = low * fabsf(low) * s;
        high = high * fabsf(high) * s;
        asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(words[j]) : "f"(high), "f"(low));
    }
    out[i] = make_uint4(words[0], words[1], words[2], words[3]);
}
// Exact division, but the instruction that rounds two numbers to bf16.
extern "C" __global__ void bf16_convert(const uint4* x, const float* norm, uint4* out, unsigned n) {
    unsigned i = INDEX;
    if (i >= n / 8) return;
    uint4 v = x[i];
    float s = norm[i / (C / 8)];
    unsigned words[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int j = 0; j < 4; ++j) {
        float low = bcos(__uint_as_float(words[j] << 16), s), high = bcos(__uint_as_float(words[j] & 0xffff0000u), s);
        asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(words[j]) : "f"(high), "f"(low));
    }
    out[i] = make_uint4(words[0], words[1], words[2], words[3]);
}
// Copies of bf16 16 bytes at a time: what the arithmetic above adds to.
extern "C" __global__ void bf16_copy(const uint4* x, const float* norm, uint4* out, unsigned n) {
    unsigned i = INDEX;
    if (i < n / 8) out[i] = x[i];
}
// Two vectors a thread, a block's width apart.
extern "C" __global__ void nhwc_two(const float4* x, const float* norm, float4* out, unsigned n) {
    unsigned i = blockIdx.x * blockDim.x * 2 + threadIdx.x, j = i + blockDim.x;
    if (j >= n / 4) return;
    float4 v = x[i], w = x[j];
    float s = norm[i / (C / 4)], t = norm[j / (C / 4)];
    out[i] = make_float4(bcos(v.x, s), bcos(v.y, s), bcos(v.z, s), bcos(v.w, s));
    out[j] = make_float4(bcos(w.x, t), bcos(w.y, t), bcos(w.z, t), bcos(w.w, t));
}
// One warp a row: the squared norm of a pixel's channels.
extern "C" __global__ void row_scalar(const float* x, const float* norm, float* out, unsigned n) {
    unsigned row = INDEX / 32, lane = threadIdx.x % 32;
    if (row >= n / C) return;
    float sum = 0;
    for (unsigned c = lane; c < C; c += 32) { float v = x[row * C + c]; sum += v * v; }
    for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
    if (lane == 0) out[row] = sum;
}
extern "C" __global__ void row_vector(const float4* x, const float* norm, float* out, unsigned n) {
    unsigned row = INDEX / 32, lane = threadIdx.x % 32;
    if (row >= n / C) return;
    float sum = 0;
#pragma unroll
    for (unsigned c = lane; c < C / 4; c += 32) {
        float4 v = x[row * (C / 4) + c];
        sum += v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
    }
    for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
    if (lane == 0) out[row] = sum;
}
)";
}

// What every measurement here shares: checked calls, device memory, timing by CUDA graph replay, JSON lines.
#pragma once
#include <cuda_runtime.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#define CUDA_CHECK(call)                                                                              \
    do {                                                                                              \
        cudaError_t status_ = (call);                                                                 \
        if (status_ != cudaSuccess) {                                                                 \
            std::fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #call, cudaGetErrorString(status_)); \
            std::exit(1);                                                                             \
        }                                                                                             \
    } while (0)

inline double seconds() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// A launch of the same work on buffer set `set`; false if the library refused.
using Launch = std::function<bool(int set)>;

struct Timing {
    bool ok = false;
    bool captured = false;  // timed as graph replays; otherwise as plain launches
    double us = 0;          // median over repetitions, per launch
    double low = 0, high = 0;
    double host_us = 0;     // what one plain launch costs the CPU
};

struct Stopwatch {
    cudaStream_t stream;
    cudaEvent_t start, stop;
    explicit Stopwatch(cudaStream_t s) : stream(s) {
        CUDA_CHECK(cudaEventCreate(&start));
        CUDA_CHECK(cudaEventCreate(&stop));
    }
    // Device time of `work` in microseconds.
    double us(const std::function<void()>& work) {
        CUDA_CHECK(cudaEventRecord(start, stream));
        work();
        CUDA_CHECK(cudaEventRecord(stop, stream));
        CUDA_CHECK(cudaEventSynchronize(stop));
        float ms = 0;
        CUDA_CHECK(cudaEventElapsedTime(&ms, start, stop));
        return ms * 1e3;
    }
};

inline double median(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    return values[values.size() / 2];
}

// Captures `count` launches that take turns over `sets` buffer sets; null if something in them cannot be captured.
inline cudaGraphExec_t capture(cudaStream_t stream, const Launch& launch, int count, int sets) {
    if (cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal) != cudaSuccess) return nullptr;
    bool ok = true;
    for (int i = 0; i < count && ok; ++i) ok = launch(i % sets);
    cudaGraph_t graph = nullptr;
    cudaError_t status = cudaStreamEndCapture(stream, &graph);
    cudaGraphExec_t exec = nullptr;
    if (ok && status == cudaSuccess && graph) {
        if (cudaGraphInstantiate(&exec, graph, 0) != cudaSuccess) exec = nullptr;
    }
    if (graph) cudaGraphDestroy(graph);
    cudaGetLastError();  // a refused capture leaves an error behind
    return exec;
}

// One warm-up and a rough estimate, then replays of a graph that lasts about `target_us`.
inline Timing measure(Stopwatch& watch, const Launch& launch, int sets, double target_us = 3000, int repeats = 7) {
    Timing timing;
    if (!launch(0)) return timing;
    if (cudaStreamSynchronize(watch.stream) != cudaSuccess) {
        std::fprintf(stderr, "launch failed: %s\n", cudaGetErrorString(cudaGetLastError()));
        return timing;
    }
    double host = 0;
    double rough = watch.us([&] {
                       double begin = seconds();
                       for (int i = 0; i < 4; ++i) launch(i % sets);
                       host = (seconds() - begin) / 4 * 1e6;
                   }) / 4;
    int count = std::max(sets, std::min(200, int(target_us / std::max(rough, 1.0)) + 1));
    cudaGraphExec_t exec = capture(watch.stream, launch, count, sets);
    auto round = [&] {
        if (exec) {
            CUDA_CHECK(cudaGraphLaunch(exec, watch.stream));
        } else {
            for (int i = 0; i < count; ++i) launch(i % sets);
        }
    };
    watch.us(round);
    std::vector<double> times;
    for (int i = 0; i < repeats; ++i) times.push_back(watch.us(round) / count);
    if (exec) CUDA_CHECK(cudaGraphExecDestroy(exec));
    timing.ok = true;
    timing.captured = exec != nullptr;
    timing.us = median(times);
    timing.low = *std::min_element(times.begin(), times.end());
    timing.high = *std::max_element(times.begin(), times.end());
    timing.host_us = host;
    return timing;
}

// Uniform numbers in [-1, 1), the same for the same seed.
__host__ __device__ inline uint32_t mixed(uint64_t value) {
    value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9ull;
    value = (value ^ (value >> 27)) * 0x94d049bb133111ebull;
    return uint32_t(value >> 32);
}

template <typename T>
__global__ void fill_kernel(T* data, size_t count, uint64_t seed) {
    for (size_t i = blockIdx.x * size_t(blockDim.x) + threadIdx.x; i < count; i += size_t(gridDim.x) * blockDim.x)
        data[i] = T(mixed(i + seed * 0x9e3779b97f4a7c15ull) * (2.0f / 4294967296.0f) - 1.0f);
}

template <typename T>
void fill(void* data, size_t count, uint64_t seed, cudaStream_t stream) {
    fill_kernel<T><<<1024, 256, 0, stream>>>(static_cast<T*>(data), count, seed);
    CUDA_CHECK(cudaGetLastError());
}

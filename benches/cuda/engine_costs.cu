// What an engine pays besides convolutions: launches, generated pointwise kernels, copies, matrix products.
//
//     engine_costs OUTPUT
#include <nvrtc.h>

#include <cmath>
#include <cstring>

#include "kernels.h"
#include "products.h"

struct Bench {
    cudaStream_t stream;
    Stopwatch* watch;
    FILE* out;
};

static cudaLibrary_t compile(const Bench& bench, unsigned channels, unsigned pixels) {
    std::string source = kernel_source(channels, pixels);
    const char* options[] = {"--gpu-architecture=sm_90"};
    double begin = seconds();
    nvrtcProgram program;
    nvrtcCreateProgram(&program, source.c_str(), "kernels.cu", 0, nullptr, nullptr);
    if (nvrtcCompileProgram(program, 1, options) != NVRTC_SUCCESS) {
        size_t size = 0;
        nvrtcGetProgramLogSize(program, &size);
        std::string log(size, ' ');
        nvrtcGetProgramLog(program, &log[0]);
        std::fprintf(stderr, "%s\n", log.c_str());
        std::exit(1);
    }
    size_t size = 0;
    nvrtcGetCUBINSize(program, &size);
    std::vector<char> image(size);
    nvrtcGetCUBIN(program, image.data());
    nvrtcDestroyProgram(&program);
    double compiled = seconds();
    cudaLibrary_t library;
    CUDA_CHECK(cudaLibraryLoadData(&library, image.data(), nullptr, nullptr, 0, nullptr, nullptr, 0));
    std::fprintf(bench.out, "{\"what\":\"nvrtc\",\"kernels\":16,\"compile_ms\":%.1f,\"load_ms\":%.2f}\n",
                 (compiled - begin) * 1e3, (seconds() - compiled) * 1e3);
    return library;
}

static cudaKernel_t kernel(cudaLibrary_t library, const char* name) {
    cudaKernel_t result;
    CUDA_CHECK(cudaLibraryGetKernel(&result, library, name));
    return result;
}

static void launches(const Bench& bench, cudaLibrary_t library) {
    cudaKernel_t empty = kernel(library, "empty");
    const int count = 500;
    Launch launch = [&](int) {
        return cudaLaunchKernel((const void*)empty, dim3(1), dim3(32), nullptr, 0, bench.stream) == cudaSuccess;
    };
    launch(0);
    CUDA_CHECK(cudaStreamSynchronize(bench.stream));
    std::vector<double> host, device;
    for (int round = 0; round < 9; ++round) {
        device.push_back(bench.watch->us([&] {
            double begin = seconds();
            for (int i = 0; i < count; ++i) launch(0);
            host.push_back((seconds() - begin) * 1e6 / count);
        }) / count);
    }
    std::fprintf(bench.out, "{\"what\":\"launches\",\"kernels\":%d,\"host_us_each\":%.3f,\"device_us_each\":%.3f}\n",
                 count, median(host), median(device));
    for (int nodes : {1, 50, 500}) {
        double begin = seconds();
        cudaGraphExec_t exec = capture(bench.stream, launch, nodes, 1);
        double capture_us = (seconds() - begin) * 1e6;
        if (!exec) std::fprintf(stderr, "capture failed\n"), std::exit(1);
        std::vector<double> replay_host, replay;
        for (int round = 0; round < 9; ++round) {
            replay.push_back(bench.watch->us([&] {
                double start = seconds();
                CUDA_CHECK(cudaGraphLaunch(exec, bench.stream));
                replay_host.push_back((seconds() - start) * 1e6);
            }));
        }
        std::fprintf(bench.out,
                     "{\"what\":\"graph\",\"kernels\":%d,\"capture_us\":%.1f,\"host_us\":%.2f,\"device_us\":%.2f,"
                     "\"device_us_each\":%.3f}\n",
                     nodes, capture_us, median(replay_host), median(replay), median(replay) / nodes);
        CUDA_CHECK(cudaGraphExecDestroy(exec));
    }
}

static void pointwise(const Bench& bench, cudaLibrary_t library, unsigned channels, unsigned pixels) {
    const unsigned images = 64, n = images * channels * pixels;
    float *x, *norm, *out;
    CUDA_CHECK(cudaMalloc(&x, size_t(n) * 4));
    CUDA_CHECK(cudaMalloc(&out, size_t(n) * 4));
    CUDA_CHECK(cudaMalloc(&norm, size_t(images) * pixels * 4));
    fill<float>(x, n, 1, bench.stream);
    fill<float>(norm, images * pixels, 2, bench.stream);
    const double norms = double(images) * pixels * 4;
    struct Case { const char* name; unsigned per_thread; double bytes; };
    const Case cases[] = {
        {"copy_scalar", 1, 8.0 * n},          {"copy_vector", 4, 8.0 * n},          {"nhwc_scalar", 1, 8.0 * n + norms},
        {"nhwc_stride", 0, 8.0 * n + norms},  {"nhwc_vector", 4, 8.0 * n + norms},  {"nchw_scalar", 1, 8.0 * n + norms},
        {"nchw_vector", 4, 8.0 * n + norms},  {"bf16_scalar", 1, 4.0 * n + norms},  {"bf16_vector", 8, 4.0 * n + norms},
        {"bf16_convert", 8, 4.0 * n + norms}, {"bf16_reciprocal", 8, 4.0 * n + norms},
        {"bf16_copy", 8, 4.0 * n},            {"nhwc_two", 8, 8.0 * n + norms},
        {"row_scalar", channels / 32, 4.0 * n + norms}, {"row_vector", channels / 32, 4.0 * n + norms},
    };
    auto print = [&](const char* name, double bytes, const Timing& t) {
        std::fprintf(bench.out, "{\"what\":\"pointwise\",\"name\":\"%s\",\"mb\":%.1f,\"us\":%.2f,\"gb_s\":%.0f}\n",
                     name, bytes / 1e6, t.us, bytes / t.us / 1e3);
    };
    Launch copy = [&](int) {
        return cudaMemcpyAsync(out, x, size_t(n) * 4, cudaMemcpyDeviceToDevice, bench.stream) == cudaSuccess;
    };
    print("cudaMemcpy", 8.0 * n, measure(*bench.watch, copy, 1));
    for (const Case& c : cases) {
        cudaKernel_t f = kernel(library, c.name);
        const unsigned grid = c.per_thread ? (n / c.per_thread + 255) / 256 : 132 * 8;
        unsigned count = n;
        void* arguments[] = {&x, &norm, &out, &count};
        Launch launch = [&](int) {
            return cudaLaunchKernel((const void*)f, dim3(grid), dim3(256), arguments, 0, bench.stream) == cudaSuccess;
        };
        print(c.name, c.bytes, measure(*bench.watch, launch, 1));
    }
    CUDA_CHECK(cudaFree(x));
    CUDA_CHECK(cudaFree(out));
    CUDA_CHECK(cudaFree(norm));
}

static void uploads(const Bench& bench) {
    const size_t bytes = size_t(64) * 3 * 224 * 224 * 4;
    void *device, *pinned, *pageable = std::malloc(bytes);
    CUDA_CHECK(cudaMalloc(&device, bytes));
    CUDA_CHECK(cudaMallocHost(&pinned, bytes));
    std::memset(pinned, 1, bytes);
    std::memset(pageable, 1, bytes);
    for (void* source : {pinned, pageable}) {
        std::vector<double> times;
        for (int i = 0; i < 7; ++i)
            times.push_back(bench.watch->us(
                [&] { CUDA_CHECK(cudaMemcpyAsync(device, source, bytes, cudaMemcpyHostToDevice, bench.stream)); }));
        std::fprintf(bench.out, "{\"what\":\"upload\",\"from\":\"%s\",\"mb\":%.1f,\"us\":%.0f,\"gb_s\":%.1f}\n",
                     source == pinned ? "pinned" : "pageable", bytes / 1e6, median(times), bytes / median(times) / 1e3);
    }
    CUDA_CHECK(cudaFree(device));
    CUDA_CHECK(cudaFreeHost(pinned));
    std::free(pageable);
}

static void products(const Bench& bench) {
    Products p{};
    p.stream = bench.stream;
    p.watch = bench.watch;
    p.space_size = size_t(32) << 20;
    LT_CHECK(cublasLtCreate(&p.handle));
    CUDA_CHECK(cudaMalloc(&p.arena, size_t(1) << 30));
    CUDA_CHECK(cudaMalloc(&p.space, p.space_size));
    CUDA_CHECK(cudaMalloc(&p.sums, 2 * sizeof(double)));
    for (const Linear& l : LINEARS)
        for (int precision = FP32; precision <= BF16; ++precision)
            for (int product = 0; product < PRODUCT_KINDS; ++product) {
                if (product >= 5 && std::strncmp(l.name, "1x1", 3) != 0) continue;
                ProductTimes t = p.time(l, product, Precision(precision));
                std::fprintf(bench.out,
                             "{\"what\":\"product\",\"name\":\"%s\",\"rows\":%d,\"in\":%d,\"out\":%d,"
                             "\"precision\":\"%s\",\"direction\":\"%s\",\"offered\":%d,\"first_us\":%.2f,"
                             "\"us\":%.2f,\"error\":%.3g}\n",
                             l.name, l.rows, l.in, l.out, PRECISIONS[precision], PRODUCTS[product], t.offered,
                             t.first_us, t.best_us, std::isnan(t.error) ? -1.0 : t.error);
                std::fflush(bench.out);
            }
}

int main(int argc, char** argv) {
    if (argc < 2) return std::fprintf(stderr, "usage: engine_costs OUTPUT\n"), 2;
    Bench bench{};
    bench.out = std::fopen(argv[1], "w");
    if (!bench.out) return std::perror(argv[1]), 1;
    CUDA_CHECK(cudaStreamCreateWithFlags(&bench.stream, cudaStreamNonBlocking));
    Stopwatch watch(bench.stream);
    bench.watch = &watch;
    const unsigned channels = 256, pixels = 56 * 56;
    cudaLibrary_t library = compile(bench, channels, pixels);
    launches(bench, library);
    pointwise(bench, library, channels, pixels);
    uploads(bench);
    products(bench);
    std::fclose(bench.out);
    return 0;
}

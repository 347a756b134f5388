// Matrix products of linear layers and of 1x1 convolutions, by cuBLASLt.
#pragma once
#include <cublasLt.h>

#include "problem.h"

#define LT_CHECK(call)                                                                              \
    do {                                                                                            \
        cublasStatus_t status_ = (call);                                                            \
        if (status_ != CUBLAS_STATUS_SUCCESS) {                                                     \
            std::fprintf(stderr, "%s:%d: %s: status %d\n", __FILE__, __LINE__, #call, int(status_)); \
            std::exit(1);                                                                           \
        }                                                                                           \
    } while (0)

struct Linear {
    const char* name;
    int rows, in, out;
};

static const Linear LINEARS[] = {
    {"1x1 1024-256 14 b64", 64 * 196, 1024, 256}, {"1x1 64-256 56 b64", 64 * 3136, 64, 256},
    {"vit_s qkv b64", 64 * 197, 384, 1152},       {"vit_s mlp b64", 64 * 197, 384, 1536},
    {"classifier b64", 64, 2048, 1000},
};

static const char* const PRODUCTS[] = {"forward", "input", "weight", "forward bias", "forward bias gelu",
                                       "forward nchw", "input nchw"};
constexpr int PRODUCT_KINDS = 7;

// D (m x n) = op(A) op(B), column-major; A and D once per image, B shared by all of them.
struct Shape {
    int m, n, k;
    bool ta, tb;
    int images;

    // Of row-major matrices: forward y = x w^T, input dx = dy w, weight dw = dy^T x. Channels-first images are matrices
    // of channels x pixels each, and the same two products are batched over them.
    Shape(const Linear& l, int product) {
        const bool input = product == 1 || product == 6, weight = product == 2, nchw = product >= 5;
        if (nchw) {
            images = 64;
            m = l.rows / images, n = input ? l.in : l.out, k = input ? l.out : l.in;
            ta = false, tb = input;
        } else {
            images = 1;
            m = input || weight ? l.in : l.out, n = weight ? l.out : l.rows, k = input ? l.out : weight ? l.rows : l.in;
            ta = !input && !weight, tb = weight;
        }
    }
};

struct ProductTimes {
    int offered = 0;
    double first_us = 0, best_us = 0, error = 0;
};

// Compares sampled elements of D, of the first image, with fp64 sums.
template <typename T>
__global__ void product_error(const T* a, const T* b, const T* d, int m, int n, int k, bool ta, bool tb, double* sums) {
    int row = mixed(blockIdx.x * 3ull + 1) % m, column = mixed(blockIdx.x * 7ull + 2) % n;
    double sum = 0;
    for (int i = threadIdx.x; i < k; i += 32)
        sum += double(float(ta ? a[size_t(row) * k + i] : a[size_t(i) * m + row])) *
               double(float(tb ? b[size_t(i) * n + column] : b[size_t(column) * k + i]));
    for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
    if (threadIdx.x) return;
    double difference = double(float(d[size_t(column) * m + row])) - sum;
    atomicAdd(&sums[0], difference * difference);
    atomicAdd(&sums[1], sum * sum);
}

struct Products {
    cublasLtHandle_t handle;
    cudaStream_t stream;
    Stopwatch* watch;
    char* arena;  // operands of the buffer sets, one after another
    void* space;
    size_t space_size;
    double* sums;

    ProductTimes time(const Linear& l, int product, Precision precision) const {
        const Shape shape(l, product);
        const int m = shape.m, n = shape.n, k = shape.k, images = shape.images;
        const bool ta = shape.ta, tb = shape.tb, epilogue = product == 3 || product == 4;
        const size_t element = precision == BF16 ? 2 : 4;
        auto round = [](size_t bytes) { return (bytes + 511) / 512 * 512; };
        const size_t a_size = round(size_t(m) * k * images * element), b_size = round(size_t(n) * k * element);
        const size_t d_size = round(size_t(m) * n * images * element), bias_size = round(size_t(m) * element);
        const size_t set_size = a_size + b_size + d_size + bias_size;
        const int sets = int(std::max<size_t>(1, std::min<size_t>(16, (size_t(192) << 20) / set_size)));
        for (int i = 0; i < sets; ++i) {
            if (precision == BF16) fill<__nv_bfloat16>(arena + i * set_size, set_size / 2, i, stream);
            else fill<float>(arena + i * set_size, set_size / 4, i, stream);
        }

        auto type = precision == BF16 ? CUDA_R_16BF : CUDA_R_32F;
        auto compute = precision == TF32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
        cublasLtMatmulDesc_t operation;
        cublasLtMatrixLayout_t al, bl, dl;
        cublasLtMatmulPreference_t preference;
        LT_CHECK(cublasLtMatmulDescCreate(&operation, compute, CUDA_R_32F));
        cublasOperation_t opa = ta ? CUBLAS_OP_T : CUBLAS_OP_N, opb = tb ? CUBLAS_OP_T : CUBLAS_OP_N;
        LT_CHECK(cublasLtMatmulDescSetAttribute(operation, CUBLASLT_MATMUL_DESC_TRANSA, &opa, sizeof opa));
        LT_CHECK(cublasLtMatmulDescSetAttribute(operation, CUBLASLT_MATMUL_DESC_TRANSB, &opb, sizeof opb));
        if (epilogue) {
            cublasLtEpilogue_t kind = product == 3 ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_GELU_BIAS;
            const void* bias = arena + a_size + b_size + d_size;
            LT_CHECK(cublasLtMatmulDescSetAttribute(operation, CUBLASLT_MATMUL_DESC_EPILOGUE, &kind, sizeof kind));
            LT_CHECK(cublasLtMatmulDescSetAttribute(operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof bias));
        }
        LT_CHECK(cublasLtMatrixLayoutCreate(&al, type, ta ? k : m, ta ? m : k, ta ? k : m));
        LT_CHECK(cublasLtMatrixLayoutCreate(&bl, type, tb ? n : k, tb ? k : n, tb ? n : k));
        LT_CHECK(cublasLtMatrixLayoutCreate(&dl, type, m, n, m));
        if (images > 1) {
            const int64_t strides[] = {int64_t(m) * k, 0, int64_t(m) * n};
            cublasLtMatrixLayout_t layouts[] = {al, bl, dl};
            for (int i = 0; i < 3; ++i) {
                LT_CHECK(cublasLtMatrixLayoutSetAttribute(layouts[i], CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &images,
                                                          sizeof images));
                LT_CHECK(cublasLtMatrixLayoutSetAttribute(layouts[i], CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET,
                                                          &strides[i], sizeof strides[i]));
            }
        }
        LT_CHECK(cublasLtMatmulPreferenceCreate(&preference));
        LT_CHECK(cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &space_size,
                                                      sizeof space_size));
        cublasLtMatmulHeuristicResult_t results[8];
        int count = 0;
        ProductTimes times;
        if (cublasLtMatmulAlgoGetHeuristic(handle, operation, al, bl, dl, dl, preference, 8, results, &count) !=
            CUBLAS_STATUS_SUCCESS)
            count = 0;
        times.offered = count;
        const float one = 1, zero = 0;
        for (int i = 0; i < count; ++i) {
            Launch launch = [&](int set) {
                char* at = arena + set * set_size;
                return cublasLtMatmul(handle, operation, &one, at, al, at + a_size, bl, &zero, at + a_size + b_size, dl,
                                      at + a_size + b_size, dl, &results[i].algo, space, space_size,
                                      stream) == CUBLAS_STATUS_SUCCESS;
            };
            Timing t = measure(*watch, launch, sets, 1500, 5);
            if (!t.ok) continue;
            if (i == 0) times.first_us = t.us;
            if (times.best_us == 0 || t.us < times.best_us) times.best_us = t.us;
        }
        if (count > 0 && !epilogue) {
            CUDA_CHECK(cudaMemsetAsync(sums, 0, 2 * sizeof(double), stream));
            const char *a = arena, *b = arena + a_size, *d = arena + a_size + b_size;
            if (precision == BF16)
                product_error<<<256, 32, 0, stream>>>((const __nv_bfloat16*)a, (const __nv_bfloat16*)b,
                                                      (const __nv_bfloat16*)d, m, n, k, ta, tb, sums);
            else
                product_error<<<256, 32, 0, stream>>>((const float*)a, (const float*)b, (const float*)d, m, n, k, ta,
                                                      tb, sums);
            CUDA_CHECK(cudaGetLastError());
            double host[2];
            CUDA_CHECK(cudaMemcpyAsync(host, sums, sizeof host, cudaMemcpyDeviceToHost, stream));
            CUDA_CHECK(cudaStreamSynchronize(stream));
            times.error = std::sqrt(host[0] / host[1]);
        }
        cublasLtMatmulPreferenceDestroy(preference);
        cublasLtMatrixLayoutDestroy(al);
        cublasLtMatrixLayoutDestroy(bl);
        cublasLtMatrixLayoutDestroy(dl);
        cublasLtMatmulDescDestroy(operation);
        return times;
    }
};

// cudnnConvolution{Forward,BackwardData,BackwardFilter} with algorithms from cudnnFind*AlgorithmEx.
#pragma once
#include "candidates.h"

struct LegacyDescriptors {
    cudnnTensorDescriptor_t x = nullptr, y = nullptr;
    cudnnFilterDescriptor_t w = nullptr;
    cudnnConvolutionDescriptor_t conv = nullptr;

    explicit LegacyDescriptors(const Problem& p) {
        auto format = p.nhwc ? CUDNN_TENSOR_NHWC : CUDNN_TENSOR_NCHW;
        auto type = p.precision == BF16 ? CUDNN_DATA_BFLOAT16 : CUDNN_DATA_FLOAT;
        CUDNN_CHECK(cudnnCreateTensorDescriptor(&x));
        CUDNN_CHECK(cudnnCreateTensorDescriptor(&y));
        CUDNN_CHECK(cudnnCreateFilterDescriptor(&w));
        CUDNN_CHECK(cudnnCreateConvolutionDescriptor(&conv));
        CUDNN_CHECK(cudnnSetTensor4dDescriptor(x, format, type, p.n, p.c(), p.h(), p.h()));
        CUDNN_CHECK(cudnnSetTensor4dDescriptor(y, format, type, p.n, p.k(), p.p(), p.p()));
        CUDNN_CHECK(cudnnSetFilter4dDescriptor(w, type, format, p.k(), p.c(), p.r(), p.r()));
        const int pad = p.layer.pad, stride = p.layer.stride;
        CUDNN_CHECK(cudnnSetConvolution2dDescriptor(conv, pad, pad, stride, stride, 1, 1, CUDNN_CROSS_CORRELATION,
                                                    CUDNN_DATA_FLOAT));
        CUDNN_CHECK(cudnnSetConvolutionMathType(conv, p.precision == FP32 ? CUDNN_FMA_MATH : CUDNN_TENSOR_OP_MATH));
    }
    ~LegacyDescriptors() {
        cudnnDestroyTensorDescriptor(x);
        cudnnDestroyTensorDescriptor(y);
        cudnnDestroyFilterDescriptor(w);
        cudnnDestroyConvolutionDescriptor(conv);
    }
    LegacyDescriptors(const LegacyDescriptors&) = delete;
    LegacyDescriptors& operator=(const LegacyDescriptors&) = delete;
};

// Each candidate keeps descriptors of its own, with the math type that the search reports for it.
template <typename Perf, typename Run>
void add_legacy(Search& search, const Problem& problem, size_t limit, const Perf* perfs, int count, Run run) {
    search.offered = count;
    for (int i = 0; i < count; ++i) {
        const Perf& perf = perfs[i];
        if (perf.status != CUDNN_STATUS_SUCCESS || perf.memory > limit) continue;
        if (problem.precision == FP32 && perf.mathType != CUDNN_FMA_MATH) continue;
        auto own = std::make_shared<LegacyDescriptors>(problem);
        CUDNN_CHECK(cudnnSetConvolutionMathType(own->conv, perf.mathType));
        Candidate candidate;
        candidate.name = "algorithm " + std::to_string(int(perf.algo)) + " math " + std::to_string(int(perf.mathType));
        candidate.workspace = perf.memory;
        candidate.deterministic = perf.determinism == CUDNN_DETERMINISTIC;
        candidate.rough_us = perf.time * 1e3;
        auto algo = perf.algo;
        size_t memory = perf.memory;
        candidate.run = [own, algo, memory, run](const Buffers& b, void* space) {
            return run(*own, b, algo, space, memory);
        };
        search.candidates.push_back(candidate);
    }
    if (!search.candidates.empty()) search.first_us = search.candidates[0].rough_us;
}

inline Search search_legacy(cudnnHandle_t handle, const Problem& problem, const Buffers& b, void* space,
                            size_t limit) {
    static const float one = 1, zero = 0;
    constexpr int MOST = 16;
    Search search;
    LegacyDescriptors d(problem);
    int count = 0;
    const double begin = seconds();
    cudnnStatus_t status;
    if (problem.direction == FORWARD) {
        cudnnConvolutionFwdAlgoPerf_t perfs[MOST];
        status = cudnnFindConvolutionForwardAlgorithmEx(handle, d.x, b.x, d.w, b.w, d.conv, d.y, b.y, MOST, &count,
                                                        perfs, space, limit);
        if (status == CUDNN_STATUS_SUCCESS)
            add_legacy(search, problem, limit, perfs, count,
                       [handle](const LegacyDescriptors& d, const Buffers& b, cudnnConvolutionFwdAlgo_t algo,
                                void* space, size_t size) {
                           return cudnnConvolutionForward(handle, &one, d.x, b.x, d.w, b.w, d.conv, algo, space, size,
                                                          &zero, d.y, b.y);
                       });
    } else if (problem.direction == INPUT_GRADIENT) {
        cudnnConvolutionBwdDataAlgoPerf_t perfs[MOST];
        status = cudnnFindConvolutionBackwardDataAlgorithmEx(handle, d.w, b.w, d.y, b.y, d.conv, d.x, b.x, MOST, &count,
                                                             perfs, space, limit);
        if (status == CUDNN_STATUS_SUCCESS)
            add_legacy(search, problem, limit, perfs, count,
                       [handle](const LegacyDescriptors& d, const Buffers& b, cudnnConvolutionBwdDataAlgo_t algo,
                                void* space, size_t size) {
                           return cudnnConvolutionBackwardData(handle, &one, d.w, b.w, d.y, b.y, d.conv, algo, space,
                                                               size, &zero, d.x, b.x);
                       });
    } else {
        cudnnConvolutionBwdFilterAlgoPerf_t perfs[MOST];
        status = cudnnFindConvolutionBackwardFilterAlgorithmEx(handle, d.x, b.x, d.y, b.y, d.conv, d.w, b.w, MOST,
                                                               &count, perfs, space, limit);
        if (status == CUDNN_STATUS_SUCCESS)
            add_legacy(search, problem, limit, perfs, count,
                       [handle](const LegacyDescriptors& d, const Buffers& b, cudnnConvolutionBwdFilterAlgo_t algo,
                                void* space, size_t size) {
                           return cudnnConvolutionBackwardFilter(handle, &one, d.x, b.x, d.y, b.y, d.conv, algo, space,
                                                                 size, &zero, d.w, b.w);
                       });
    }
    search.ms = (seconds() - begin) * 1e3;
    if (status != CUDNN_STATUS_SUCCESS) std::fprintf(stderr, "search: %s\n", cudnnGetErrorString(status));
    return search;
}

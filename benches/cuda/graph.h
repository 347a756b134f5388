// The same convolutions through cuDNN's backend graph interface: engines from the heuristics, timed once each.
#pragma once
#include "candidates.h"

// A backend descriptor that is destroyed with its last owner.
struct Descriptor {
    cudnnBackendDescriptor_t raw = nullptr;
    explicit Descriptor(cudnnBackendDescriptorType_t type) { CUDNN_CHECK(cudnnBackendCreateDescriptor(type, &raw)); }
    ~Descriptor() { cudnnBackendDestroyDescriptor(raw); }
    Descriptor(const Descriptor&) = delete;
    Descriptor& operator=(const Descriptor&) = delete;

    void set(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, int64_t count, const void* values) {
        CUDNN_CHECK(cudnnBackendSetAttribute(raw, name, type, count, values));
    }
    template <typename T>
    void set(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, const T& value) {
        set(name, type, 1, &value);
    }
    cudnnStatus_t finalize() { return cudnnBackendFinalize(raw); }
};
using Shared = std::shared_ptr<Descriptor>;

inline Shared tensor(int64_t id, cudnnDataType_t type, int64_t n, int64_t c, int64_t h, bool nhwc) {
    auto d = std::make_shared<Descriptor>(CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    const int64_t dims[] = {n, c, h, h}, alignment = 16;
    const int64_t channels_last[] = {h * h * c, 1, h * c, c}, channels_first[] = {c * h * h, h * h, h, 1};
    d->set(CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, type);
    d->set(CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, dims);
    d->set(CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, nhwc ? channels_last : channels_first);
    d->set(CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, id);
    d->set(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, alignment);
    CUDNN_CHECK(d->finalize());
    return d;
}

struct OperationGraph {
    Shared x, w, y, conv, operation, graph;

    OperationGraph(cudnnHandle_t handle, const Problem& p) {
        auto type = p.precision == BF16 ? CUDNN_DATA_BFLOAT16 : CUDNN_DATA_FLOAT;
        x = tensor('x', type, p.n, p.c(), p.h(), p.nhwc);
        w = tensor('w', type, p.k(), p.c(), p.r(), p.nhwc);
        y = tensor('y', type, p.n, p.k(), p.p(), p.nhwc);

        conv = std::make_shared<Descriptor>(CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
        const int64_t rank = 2, pad[] = {p.layer.pad, p.layer.pad}, stride[] = {p.layer.stride, p.layer.stride};
        const int64_t dilation[] = {1, 1};
        conv->set(CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, CUDNN_DATA_FLOAT);
        conv->set(CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, CUDNN_CROSS_CORRELATION);
        conv->set(CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, rank);
        conv->set(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, 2, pad);
        conv->set(CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, 2, pad);
        conv->set(CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, 2, stride);
        conv->set(CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, 2, dilation);
        CUDNN_CHECK(conv->finalize());

        // The three operations differ in type and in a run of attribute numbers only.
        struct Names {
            cudnnBackendDescriptorType_t type;
            cudnnBackendAttributeName_t alpha, beta, conv, x, w, y;
        };
        static const Names NAMES[] = {
            {CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
             CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
             CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
             CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y},
            {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
             CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA,
             CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,
             CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY},
            {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
             CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA,
             CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
             CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY},
        };
        const Names& names = NAMES[p.direction];
        const float one = 1, zero = 0;
        operation = std::make_shared<Descriptor>(names.type);
        operation->set(names.alpha, CUDNN_TYPE_FLOAT, one);
        operation->set(names.beta, CUDNN_TYPE_FLOAT, zero);
        operation->set(names.conv, CUDNN_TYPE_BACKEND_DESCRIPTOR, conv->raw);
        operation->set(names.x, CUDNN_TYPE_BACKEND_DESCRIPTOR, x->raw);
        operation->set(names.w, CUDNN_TYPE_BACKEND_DESCRIPTOR, w->raw);
        operation->set(names.y, CUDNN_TYPE_BACKEND_DESCRIPTOR, y->raw);
        CUDNN_CHECK(operation->finalize());

        graph = std::make_shared<Descriptor>(CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
        graph->set(CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, handle);
        graph->set(CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, operation->raw);
        CUDNN_CHECK(graph->finalize());
    }
};

inline std::vector<Shared> engine_configs(const OperationGraph& g, cudnnBackendHeurMode_t mode) {
    Descriptor heuristics(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
    heuristics.set(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, CUDNN_TYPE_BACKEND_DESCRIPTOR, g.graph->raw);
    heuristics.set(CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, mode);
    std::vector<Shared> configs;
    if (heuristics.finalize() != CUDNN_STATUS_SUCCESS) return configs;
    int64_t count = 0;
    auto results = [&](int64_t room, cudnnBackendDescriptor_t* raw) {
        return cudnnBackendGetAttribute(heuristics.raw, CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                                        room, &count, raw);
    };
    if (results(0, nullptr) != CUDNN_STATUS_SUCCESS) return configs;
    std::vector<cudnnBackendDescriptor_t> raw;
    for (int64_t i = 0; i < count; ++i) {
        configs.push_back(std::make_shared<Descriptor>(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR));
        raw.push_back(configs.back()->raw);
    }
    if (count > 0 && results(count, raw.data()) != CUDNN_STATUS_SUCCESS) count = 0;
    configs.resize(count);
    return configs;
}

struct Engine {
    int64_t index = -1;
    bool tensor_cores = false, down_converts = false, nondeterministic = false, compiles = false;
};

inline Engine engine_of(const Descriptor& config) {
    Engine result;
    Descriptor engine(CUDNN_BACKEND_ENGINE_DESCRIPTOR);
    int64_t count = 0;
    CUDNN_CHECK(cudnnBackendGetAttribute(config.raw, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
                                         &count, &engine.raw));
    CUDNN_CHECK(cudnnBackendGetAttribute(engine.raw, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, 1, &count,
                                         &result.index));
    cudnnBackendNumericalNote_t notes[CUDNN_NUMERICAL_NOTE_TYPE_COUNT];
    CUDNN_CHECK(cudnnBackendGetAttribute(engine.raw, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE,
                                         CUDNN_NUMERICAL_NOTE_TYPE_COUNT, &count, notes));
    for (int64_t i = 0; i < count; ++i) {
        result.tensor_cores |= notes[i] == CUDNN_NUMERICAL_NOTE_TENSOR_CORE;
        result.down_converts |= notes[i] == CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS;
        result.nondeterministic |= notes[i] == CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC;
    }
    cudnnBackendBehaviorNote_t behaviour[CUDNN_BEHAVIOR_NOTE_TYPE_COUNT];
    CUDNN_CHECK(cudnnBackendGetAttribute(engine.raw, CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE, CUDNN_TYPE_BEHAVIOR_NOTE,
                                         CUDNN_BEHAVIOR_NOTE_TYPE_COUNT, &count, behaviour));
    for (int64_t i = 0; i < count; ++i) result.compiles |= behaviour[i] == CUDNN_BEHAVIOR_NOTE_RUNTIME_COMPILATION;
    return result;
}

inline cudnnStatus_t execute(cudnnHandle_t handle, const Descriptor& plan, const Buffers& b, void* space) {
    Descriptor pack(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
    const int64_t ids[] = {'x', 'w', 'y'};
    const void* pointers[] = {b.x, b.w, b.y};
    pack.set(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, 3, ids);
    pack.set(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, 3, pointers);
    pack.set(CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, space);
    CUDNN_CHECK(pack.finalize());
    return cudnnBackendExecute(handle, plan.raw, pack.raw);
}

// Builds the plans of at most `most` engine configurations and times each with a few launches.
inline Search search_graph(cudnnHandle_t handle, const Problem& problem, const Buffers& b, void* space,
                           Stopwatch& watch, size_t limit, size_t most) {
    Search search;
    const double begin = seconds();
    auto g = std::make_shared<OperationGraph>(handle, problem);
    std::vector<Shared> configs = engine_configs(*g, CUDNN_HEUR_MODE_A);
    search.offered = int(configs.size());
    std::vector<Shared> fallback = engine_configs(*g, CUDNN_HEUR_MODE_FALLBACK);
    configs.insert(configs.end(), fallback.begin(), fallback.end());
    for (const Shared& config : configs) {
        if (search.candidates.size() >= most) break;
        Engine engine = engine_of(*config);
        if (engine.down_converts || (problem.precision == FP32 && engine.tensor_cores)) continue;
        auto plan = std::make_shared<Descriptor>(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
        plan->set(CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, handle);
        plan->set(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, CUDNN_TYPE_BACKEND_DESCRIPTOR, config->raw);
        if (plan->finalize() != CUDNN_STATUS_SUCCESS) continue;
        int64_t workspace = 0, count = 0;
        CUDNN_CHECK(cudnnBackendGetAttribute(plan->raw, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1,
                                             &count, &workspace));
        if (size_t(workspace) > limit) continue;
        Candidate candidate;
        candidate.name = "engine " + std::to_string(engine.index) + (engine.compiles ? " compiled" : "");
        candidate.workspace = size_t(workspace);
        candidate.deterministic = !engine.nondeterministic;
        candidate.run = [g, config, plan, handle](const Buffers& b, void* space) {
            return execute(handle, *plan, b, space);
        };
        bool ok = true;
        auto launches = [&](int count) {
            for (int i = 0; i < count && ok; ++i) ok = candidate.run(b, space) == CUDNN_STATUS_SUCCESS;
        };
        launches(1);
        candidate.rough_us = watch.us([&] { launches(3); }) / 3;
        if (!ok) continue;
        if (search.candidates.empty()) search.first_us = candidate.rough_us;
        search.candidates.push_back(candidate);
    }
    std::stable_sort(search.candidates.begin(), search.candidates.end(),
                     [](const Candidate& a, const Candidate& b) { return a.rough_us < b.rough_us; });
    search.ms = (seconds() - begin) * 1e3;
    return search;
}

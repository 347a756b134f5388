// Times cuDNN's legacy convolutions and its backend graph interface on layers of a resnet50; one JSON line a cell.
//
//     convolutions OUTPUT [--seconds S] [--workspace GIB] [--plans N] [--only TEXT]...
//
// Elements sampled from a poisoned output are held to fp64 in each cell. Stops between cells once S seconds are over.
// GIB: what a convolution may take as workspace (1). N: plans of the graph interface that are tried (10).
// TEXT: runs the cells with this in their name, say "1x1 64-256 56 64 fp32 nhwc".
#include <cmath>

#include "graph.h"
#include "legacy.h"

constexpr size_t ARENA = size_t(4) << 30;
constexpr size_t ROTATED = size_t(192) << 20;  // several times the L2: no launch finds its inputs there
constexpr int SAMPLES = 512;

struct Bench {
    cudaStream_t stream;
    cudnnHandle_t handle;
    Stopwatch* watch;
    char* arena;
    void* space;
    double* sums;
    FILE* out;
};

static std::vector<Buffers> lay_out(const Bench& bench, const Problem& p) {
    int sets = std::max<int>(1, std::min<size_t>(16, (ROTATED + p.bytes() - 1) / p.bytes()));
    std::vector<Buffers> result;
    size_t offset = 0;
    auto take = [&](size_t count) {
        void* at = bench.arena + offset;
        offset += (count * p.element() + 511) / 512 * 512;
        if (offset > ARENA) std::fprintf(stderr, "the arena is too small\n"), std::exit(1);
        return at;
    };
    for (int i = 0; i < sets; ++i) {
        Buffers b;
        b.x = take(p.x_count());
        b.w = take(p.w_count());
        b.y = take(p.y_count());
        result.push_back(b);
    }
    return result;
}

static void fill_inputs(const Bench& bench, const Problem& p, const std::vector<Buffers>& sets) {
    for (const Buffers& b : sets) {
        struct { void* data; size_t count; } parts[] = {{b.x, p.x_count()}, {b.w, p.w_count()}, {b.y, p.y_count()}};
        for (int i = 0; i < 3; ++i) {
            if (p.precision == BF16) fill<__nv_bfloat16>(parts[i].data, parts[i].count, i + 1, bench.stream);
            else fill<float>(parts[i].data, parts[i].count, i + 1, bench.stream);
        }
    }
}

template <typename T>
static double error_of(const Bench& bench, const Problem& p, const Buffers& b, const Candidate& candidate) {
    void* result = p.direction == FORWARD ? b.y : p.direction == INPUT_GRADIENT ? b.x : b.w;
    size_t count = p.direction == FORWARD ? p.y_count() : p.direction == INPUT_GRADIENT ? p.x_count() : p.w_count();
    CUDA_CHECK(cudaMemsetAsync(result, 0xff, count * sizeof(T), bench.stream));
    CUDA_CHECK(cudaMemsetAsync(bench.sums, 0, 3 * sizeof(double), bench.stream));
    if (candidate.run(b, bench.space) != CUDNN_STATUS_SUCCESS) return NAN;
    sample_error<T><<<SAMPLES, 256, 0, bench.stream>>>(p, b, count, bench.sums);
    CUDA_CHECK(cudaGetLastError());
    count_nan<T><<<1024, 256, 0, bench.stream>>>(static_cast<const T*>(result), count, bench.sums + 2);
    CUDA_CHECK(cudaGetLastError());
    double sums[3];
    CUDA_CHECK(cudaMemcpyAsync(sums, bench.sums, sizeof sums, cudaMemcpyDeviceToHost, bench.stream));
    CUDA_CHECK(cudaStreamSynchronize(bench.stream));
    return sums[2] > 0 ? NAN : std::sqrt(sums[0] / sums[1]);
}

static double error_of(const Bench& bench, const Problem& p, const Buffers& b, const Candidate& candidate) {
    if (p.precision == BF16) return error_of<__nv_bfloat16>(bench, p, b, candidate);
    return error_of<float>(bench, p, b, candidate);
}

static void report(const Bench& bench, const Problem& p, const char* interface, const Search& search,
                   const std::vector<Buffers>& sets) {
    struct Timed { const Candidate* candidate; Timing timing; };
    std::vector<Timed> timed;
    bool deterministic = false;
    int uncaptured = 0;
    for (size_t i = 0; i < search.candidates.size(); ++i) {
        const Candidate& candidate = search.candidates[i];
        // The three that look fastest, and the fastest that gives the same bits twice.
        if (i >= 3 && (deterministic || !candidate.deterministic)) continue;
        deterministic |= candidate.deterministic;
        Launch launch = [&](int set) { return candidate.run(sets[set], bench.space) == CUDNN_STATUS_SUCCESS; };
        Timing timing = measure(*bench.watch, launch, int(sets.size()));
        if (timing.ok) timed.push_back({&candidate, timing}), uncaptured += !timing.captured;
    }
    std::fprintf(bench.out,
                 "{\"layer\":\"%s\",\"batch\":%d,\"precision\":\"%s\",\"layout\":\"%s\",\"direction\":\"%s\","
                 "\"interface\":\"%s\",\"flops\":%.0f,\"bytes\":%zu,\"offered\":%d,\"usable\":%zu,\"search_ms\":%.1f",
                 p.layer.name, p.n, PRECISIONS[p.precision], LAYOUTS[p.nhwc], DIRECTIONS[p.direction], interface,
                 p.flops(), p.bytes(), search.offered, search.candidates.size(), search.ms);
    if (!timed.empty()) {
        const Timed* best = &timed[0];
        const Timed* same = nullptr;
        for (const Timed& t : timed) {
            if (t.timing.us < best->timing.us) best = &t;
            if (t.candidate->deterministic && (!same || t.timing.us < same->timing.us)) same = &t;
        }
        double error = error_of(bench, p, sets[0], *best->candidate);
        const Timing& t = best->timing;
        std::fprintf(bench.out,
                     ",\"us\":%.2f,\"low\":%.2f,\"high\":%.2f,\"host_us\":%.2f,\"chosen_us\":%.2f,"
                     "\"unsearched_us\":%.2f,\"name\":\"%s\",\"workspace\":%zu,\"deterministic\":%s,\"uncaptured\":%d",
                     t.us, t.low, t.high, t.host_us, timed[0].timing.us, search.first_us, best->candidate->name.c_str(),
                     best->candidate->workspace, best->candidate->deterministic ? "true" : "false", uncaptured);
        if (same)
            std::fprintf(bench.out, ",\"deterministic_us\":%.2f,\"deterministic_name\":\"%s\"", same->timing.us,
                         same->candidate->name.c_str());
        if (std::isnan(error)) std::fprintf(bench.out, ",\"error\":null,\"right\":false");
        else std::fprintf(bench.out, ",\"error\":%.3g,\"right\":%s", error, error <= p.tolerance() ? "true" : "false");
    }
    std::fprintf(bench.out, "}\n");
    std::fflush(bench.out);
}

struct Options {
    double seconds = 1e9;
    size_t workspace = size_t(1) << 30;
    size_t plans = 10;
    std::vector<std::string> only;

    Options(int argc, char** argv) {
        for (int i = 2; i + 1 < argc; i += 2) {
            std::string name = argv[i];
            if (name == "--seconds") seconds = std::atof(argv[i + 1]);
            else if (name == "--workspace") workspace = size_t(std::atof(argv[i + 1]) * (1 << 30));
            else if (name == "--plans") plans = std::atoi(argv[i + 1]);
            else if (name == "--only") only.push_back(argv[i + 1]);
            else usage();
        }
        if (argc < 2 || argc % 2) usage();
    }
    static void usage() {
        std::fprintf(stderr,
                     "usage: convolutions OUTPUT [--seconds S] [--workspace GIB] [--plans N] [--only TEXT]...\n");
        std::exit(2);
    }
    bool wants(const Problem& p) const {
        std::string name = std::string(p.layer.name) + " " + std::to_string(p.n) + " " + PRECISIONS[p.precision] + " " +
                           LAYOUTS[p.nhwc] + " " + DIRECTIONS[p.direction];
        for (const std::string& text : only)
            if (name.find(text) != std::string::npos) return true;
        return only.empty();
    }
};

static std::vector<Problem> problems(const Options& options) {
    std::vector<Problem> result;
    for (int batch : {64, 256})
        for (const Layer& layer : LAYERS)
            for (int precision = FP32; precision <= BF16; ++precision)
                for (int nhwc = 0; nhwc < 2; ++nhwc)
                    for (int direction = FORWARD; direction <= WEIGHT_GRADIENT; ++direction) {
                        Problem p{layer, batch, Precision(precision), nhwc == 1, Direction(direction)};
                        if (options.wants(p)) result.push_back(p);
                    }
    return result;
}

int main(int argc, char** argv) {
    const Options options(argc, argv);
    const double begin = seconds();
    Bench bench{};
    bench.out = std::fopen(argv[1], "w");
    if (!bench.out) return std::perror(argv[1]), 1;
    CUDA_CHECK(cudaStreamCreateWithFlags(&bench.stream, cudaStreamNonBlocking));
    CUDNN_CHECK(cudnnCreate(&bench.handle));
    CUDNN_CHECK(cudnnSetStream(bench.handle, bench.stream));
    Stopwatch watch(bench.stream);
    bench.watch = &watch;
    CUDA_CHECK(cudaMalloc(&bench.arena, ARENA));
    CUDA_CHECK(cudaMalloc(&bench.space, options.workspace));
    CUDA_CHECK(cudaMalloc(&bench.sums, 3 * sizeof(double)));
    cudaDeviceProp properties;
    CUDA_CHECK(cudaGetDeviceProperties(&properties, 0));
    int runtime = 0, driver = 0;
    CUDA_CHECK(cudaRuntimeGetVersion(&runtime));
    CUDA_CHECK(cudaDriverGetVersion(&driver));
    std::fprintf(bench.out,
                 "{\"card\":\"%s\",\"cudnn\":%zu,\"runtime\":%d,\"driver\":%d,\"l2\":%d,\"processors\":%d,"
                 "\"workspace\":%zu}\n",
                 properties.name, cudnnGetVersion(), runtime, driver, properties.l2CacheSize,
                 properties.multiProcessorCount, options.workspace);
    size_t done = 0;
    const std::vector<Problem> all = problems(options);
    for (const Problem& p : all) {
        if (seconds() - begin > options.seconds) break;
        std::vector<Buffers> sets = lay_out(bench, p);
        for (bool graph : {false, true}) {
            fill_inputs(bench, p, sets);
            const size_t limit = options.workspace;
            Search search = graph ? search_graph(bench.handle, p, sets[0], bench.space, watch, limit, options.plans)
                                  : search_legacy(bench.handle, p, sets[0], bench.space, limit);
            fill_inputs(bench, p, sets);
            report(bench, p, graph ? "graph" : "legacy", search, sets);
        }
        ++done;
    }
    std::printf("%zu of %zu cells in %.0f s\n", done, all.size(), seconds() - begin);
    std::fclose(bench.out);
    return 0;
}

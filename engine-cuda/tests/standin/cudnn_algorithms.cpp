// cuDNN: which algorithms there are for a convolution.
#include "cudnn.h"

#include <algorithm>

using namespace standin;

// An algorithm of a direction.
struct Kind {
    int number;
    bool same_bits;
    // Bytes of workspace for each of the result.
    size_t workspace;
    // Takes channels that are last, and any window.
    bool last, any_window;
};

// In the order of their speed. Sums that threads add in any order come first, as they do where they are fast.
static const std::vector<Kind>& kinds(Direction direction) {
    static const std::vector<Kind> forward = {
        {6, true, 0, false, false}, {1, true, 2, true, true}, {7, true, 40, false, false}, {0, true, 0, true, true}};
    static const std::vector<Kind> input = {{0, false, 0, true, true}, {4, true, 0, false, false}, {1, true, 3, true, true}};
    static const std::vector<Kind> weight = {{0, false, 0, true, true}, {3, false, 1, false, true}, {1, true, 5, true, true}};
    return direction == Direction::Forward ? forward : direction == Direction::InputGradient ? input : weight;
}

// Whether the window is 3 by 3 and goes on by one.
static bool is_small(const Convolution& c) {
    const auto all = [](const std::vector<int>& numbers, size_t from, int value) {
        return std::all_of(numbers.begin() + static_cast<long>(from), numbers.end(), [=](int n) { return n == value; });
    };
    return c.x.sizes.size() == 4 && all(c.w.sizes, 2, 3) && all(c.window.strides, 0, 1) && all(c.window.dilations, 0, 1);
}

// cuDNN tries the math type of the descriptor and the default, which lets single precision be rounded to TF32 on devices that
// have it.
std::vector<Performance> standin::candidates(const Convolution& c, Direction direction) {
    std::vector<int> maths = {c.window.math};
    if (c.window.math != DEFAULT_MATH) maths.insert(maths.begin(), DEFAULT_MATH);
    const size_t result = direction == Direction::Forward         ? elements(c.y)
                          : direction == Direction::InputGradient ? elements(c.x)
                                                                  : elements(c.w);
    std::vector<Performance> found;
    float time = 0.01f;
    for (int math : maths)
        for (const Kind& kind : kinds(direction)) {
            if ((c.last && !kind.last) || (!kind.any_window && !is_small(c))) continue;
            // What an algorithm needs depends on its math type.
            const size_t memory = kind.workspace * result * 4 + (kind.workspace && math == TENSOR_OP_MATH ? 4096 : 0);
            found.push_back({kind.number, CUDNN_SUCCESS, time, memory, kind.same_bits, math, {}});
            time += 0.01f;
        }
    return found;
}

static int list(const Convolution& c, Direction direction, int wanted, int* count, Performance* found, size_t most) {
    std::vector<Performance> all = candidates(c, direction);
    // Those without enough memory come last.
    const auto fits = [&](const Performance& one) { return one.memory <= most; };
    std::stable_partition(all.begin(), all.end(), fits);
    for (Performance& one : all) {
        if (fits(one)) continue;
        one.status = CUDNN_DEVICE_ALLOCATION_FAILED;
        one.time = -1;
    }
    *count = std::min(wanted, static_cast<int>(all.size()));
    std::copy(all.begin(), all.begin() + *count, found);
    return CUDNN_SUCCESS;
}

struct Operand {
    const void* start;
    size_t elements;
    const char* what;
};

// Measures: runs on the buffers, writes to the result and the workspace, and waits.
static int measure(const void* handle, const Convolution& c, Direction direction, std::vector<Operand> operands, int wanted,
                   int* count, Performance* found, void* workspace, size_t bytes, const char* function) {
    Lock lock(state());
    const Handle* own = handle_of(handle, function);
    if (!own || !has_context(function)) return CUDNN_NOT_INITIALIZED;
    if (wanted < 1) return refuse(CUDNN_BAD_PARAM, "%s: no results are wanted", function);
    if (fails()) return CUDNN_DEVICE_ALLOCATION_FAILED;
    Work work{function, {}, nullptr};
    const size_t width = bytes_of(c.number);
    for (const Operand& operand : operands)
        work.accesses.push_back({address_of(operand.start), operand.elements * width, operand.what});
    if (bytes) work.accesses.push_back({address_of(workspace), bytes, "the workspace"});
    keeps_apart(work, operands.size() - 1);
    const Operand result = operands.back();
    size_t used = 0;
    for (const Performance& one : candidates(c, direction))
        if (one.memory <= bytes) used = std::max(used, one.memory);
    work.run = [=] {
        std::memset(const_cast<void*>(result.start), 0xff, result.elements * width);
        if (used) std::memset(workspace, 0xff, used);
    };
    if (enqueue(own->stream, std::move(work)) || finish_all(function)) return CUDNN_EXECUTION_FAILED;
    return list(c, direction, wanted, count, found, bytes);
}

EXPORT int cudnnFindConvolutionForwardAlgorithmEx(void* handle, const void* of_x, const void* x, const void* of_w,
                                                  const void* w, const void* window, const void* of_y, void* y, int wanted,
                                                  int* count, Performance* found, void* workspace, size_t bytes) {
    Convolution c;
    const char* function = "cudnnFindConvolutionForwardAlgorithmEx";
    if (int error = describe(of_x, of_w, of_y, window, function, c)) return error;
    return measure(handle, c, Direction::Forward, {{x, elements(c.x), "x"}, {w, elements(c.w), "w"}, {y, elements(c.y), "y"}},
                   wanted, count, found, workspace, bytes, function);
}

EXPORT int cudnnFindConvolutionBackwardDataAlgorithmEx(void* handle, const void* of_w, const void* w, const void* of_y,
                                                       const void* y, const void* window, const void* of_x, void* x, int wanted,
                                                       int* count, Performance* found, void* workspace, size_t bytes) {
    Convolution c;
    const char* function = "cudnnFindConvolutionBackwardDataAlgorithmEx";
    if (int error = describe(of_x, of_w, of_y, window, function, c)) return error;
    return measure(handle, c, Direction::InputGradient,
                   {{w, elements(c.w), "w"}, {y, elements(c.y), "dy"}, {x, elements(c.x), "dx"}}, wanted, count, found,
                   workspace, bytes, function);
}

EXPORT int cudnnFindConvolutionBackwardFilterAlgorithmEx(void* handle, const void* of_x, const void* x, const void* of_y,
                                                         const void* y, const void* window, const void* of_w, void* w,
                                                         int wanted, int* count, Performance* found, void* workspace,
                                                         size_t bytes) {
    Convolution c;
    const char* function = "cudnnFindConvolutionBackwardFilterAlgorithmEx";
    if (int error = describe(of_x, of_w, of_y, window, function, c)) return error;
    return measure(handle, c, Direction::WeightGradient,
                   {{x, elements(c.x), "x"}, {y, elements(c.y), "dy"}, {w, elements(c.w), "dw"}}, wanted, count, found,
                   workspace, bytes, function);
}

// Guesses: nothing runs.
static int guess(const void* handle, const void* x, const void* w, const void* y, const void* window, Direction direction,
                 int wanted, int* count, Performance* found, const char* function) {
    Lock lock(state());
    Convolution c;
    if (!handle_of(handle, function)) return CUDNN_NOT_INITIALIZED;
    if (int error = describe(x, w, y, window, function, c)) return error;
    if (wanted < 1) return refuse(CUDNN_BAD_PARAM, "%s: no results are wanted", function);
    if (fails()) return CUDNN_DEVICE_ALLOCATION_FAILED;
    return list(c, direction, wanted, count, found, SIZE_MAX);
}

EXPORT int cudnnGetConvolutionForwardAlgorithm_v7(void* handle, const void* x, const void* w, const void* window, const void* y,
                                                  int wanted, int* count, Performance* found) {
    return guess(handle, x, w, y, window, Direction::Forward, wanted, count, found, "cudnnGetConvolutionForwardAlgorithm_v7");
}

EXPORT int cudnnGetConvolutionBackwardDataAlgorithm_v7(void* handle, const void* w, const void* y, const void* window,
                                                       const void* x, int wanted, int* count, Performance* found) {
    return guess(handle, x, w, y, window, Direction::InputGradient, wanted, count, found,
                 "cudnnGetConvolutionBackwardDataAlgorithm_v7");
}

EXPORT int cudnnGetConvolutionBackwardFilterAlgorithm_v7(void* handle, const void* x, const void* y, const void* window,
                                                         const void* w, int wanted, int* count, Performance* found) {
    return guess(handle, x, w, y, window, Direction::WeightGradient, wanted, count, found,
                 "cudnnGetConvolutionBackwardFilterAlgorithm_v7");
}

// cuDNN: convolutions as plain loops, with sums in double precision.
#include "cudnn.h"

using namespace standin;

// Visits the places in x, w and y that belong together. Axes before the last two spatial ones are of size one if there are
// none.
template <typename F>
static void each(const Convolution& c, F visit) {
    const size_t spatial = c.window.pads.size();
    const auto size = [&](const std::vector<int>& sizes, size_t axis) {
        return axis + spatial < 3 ? 1L : static_cast<long>(sizes[axis + spatial - 1]);
    };
    const auto of_window = [&](const std::vector<int>& numbers, size_t axis, long fill) {
        return axis + spatial < 3 ? fill : static_cast<long>(numbers[axis + spatial - 3]);
    };
    long x[3], w[3], y[3], pads[3], strides[3], dilations[3];
    for (size_t axis = 0; axis < 3; ++axis) {
        x[axis] = size(c.x.sizes, axis);
        w[axis] = size(c.w.sizes, axis);
        y[axis] = size(c.y.sizes, axis);
        pads[axis] = of_window(c.window.pads, axis, 0);
        strides[axis] = of_window(c.window.strides, axis, 1);
        dilations[axis] = of_window(c.window.dilations, axis, 1);
    }
    const long images = c.x.sizes[0], channels = c.x.sizes[1], outputs = c.w.sizes[0];
    const long per_in = c.w.sizes[1], per_out = outputs / c.window.groups;
    const long of_x = x[0] * x[1] * x[2], of_w = w[0] * w[1] * w[2], of_y = y[0] * y[1] * y[2];
    for (long n = 0; n < images; ++n)
        for (long p = 0; p < of_y; ++p)
            for (long k = 0; k < of_w; ++k) {
                const long at_y[3] = {p / (y[1] * y[2]), p / y[2] % y[1], p % y[2]};
                const long at_w[3] = {k / (w[1] * w[2]), k / w[2] % w[1], k % w[2]};
                long q = 0;
                bool inside = true;
                for (size_t axis = 0; axis < 3; ++axis) {
                    const long place = at_y[axis] * strides[axis] + at_w[axis] * dilations[axis] - pads[axis];
                    inside = inside && place >= 0 && place < x[axis];
                    q = q * x[axis] + place;
                }
                if (!inside) continue;
                for (long o = 0; o < outputs; ++o)
                    for (long i = 0; i < per_in; ++i) {
                        const long channel = o / per_out * per_in + i;
                        if (c.last)
                            visit((n * of_x + q) * channels + channel, (o * of_w + k) * per_in + i,
                                  (n * of_y + p) * outputs + o);
                        else
                            visit((n * channels + channel) * of_x + q, (o * per_in + i) * of_w + k,
                                  (n * outputs + o) * of_y + p);
                    }
            }
}

// Whether single precision is rounded for tensor cores.
static bool rounds(const Convolution& c) { return c.window.math != FMA_MATH; }

struct Call {
    Direction direction;
    // The two operands and the result.
    const void *a, *b;
    void* result;
    double alpha, beta;
    bool same_bits;
};

static void compute(const Convolution& c, const Call& call) {
    const size_t counts[3] = {elements(c.x), elements(c.w), elements(c.y)};
    const auto [of_a, of_b, of_result] = call.direction == Direction::Forward ? std::tuple{counts[0], counts[1], counts[2]}
                                         : call.direction == Direction::InputGradient
                                             ? std::tuple{counts[2], counts[1], counts[0]}
                                             : std::tuple{counts[0], counts[2], counts[1]};
    std::vector<double> a, b, sums(of_result);
    read_all(call.a, of_a, c.number, rounds(c), a);
    read_all(call.b, of_b, c.number, rounds(c), b);
    switch (call.direction) {
        case Direction::Forward:
            each(c, [&](long x, long w, long y) {
                sums[static_cast<size_t>(y)] += a[static_cast<size_t>(x)] * b[static_cast<size_t>(w)];
            });
            break;
        case Direction::InputGradient:
            each(c, [&](long x, long w, long y) {
                sums[static_cast<size_t>(x)] += a[static_cast<size_t>(y)] * b[static_cast<size_t>(w)];
            });
            break;
        case Direction::WeightGradient:
            each(c, [&](long x, long w, long y) {
                sums[static_cast<size_t>(w)] += a[static_cast<size_t>(x)] * b[static_cast<size_t>(y)];
            });
            break;
    }
    // Threads that add in any order never give the same bits again.
    static uint64_t calls;
    const double noise = call.same_bits ? 1 : 1 + 1e-7 * static_cast<double>(++calls % 97);
    for (size_t i = 0; i < of_result; ++i) {
        double x = call.alpha * sums[i] * noise;
        if (call.beta != 0) x += call.beta * read(call.result, i, c.number);
        write(call.result, i, c.number, x);
    }
}

static int convolve(const void* handle, const Convolution& c, Direction direction, int algorithm, const void* alpha,
                    const void* a, const void* b, const void* beta, void* result, void* workspace, size_t bytes,
                    const char* function) {
    Lock lock(state());
    const Handle* own = handle_of(handle, function);
    if (!own || !has_context(function)) return CUDNN_NOT_INITIALIZED;
    if (fails()) return CUDNN_EXECUTION_FAILED;
    if (!alpha || !beta) return refuse(CUDNN_BAD_PARAM_NULL_POINTER, "%s: alpha or beta is missing", function);
    const Performance* chosen = nullptr;
    const std::vector<Performance> all = candidates(c, direction);
    for (const Performance& one : all)
        if (one.algorithm == algorithm && one.math == c.window.math) chosen = &one;
    if (!chosen)
        return refuse(CUDNN_NOT_SUPPORTED, "%s: algorithm %d with math type %d is not for this convolution", function,
                      algorithm, c.window.math);
    if (bytes < chosen->memory)
        return refuse(CUDNN_BAD_PARAM_SIZE_INSUFFICIENT, "%s: a workspace of %zu bytes, not %zu", function, bytes,
                      chosen->memory);
    const auto scale = [&](const void* from) {
        return c.number == Number::F64 ? *static_cast<const double*>(from) : *static_cast<const float*>(from);
    };
    const Call call{direction, a, b, result, scale(alpha), scale(beta), chosen->same_bits != 0};
    const size_t x = elements(c.x), w = elements(c.w), y = elements(c.y);
    const auto [of_a, of_b, of_result] = direction == Direction::Forward         ? std::tuple{x, w, y}
                                         : direction == Direction::InputGradient ? std::tuple{y, w, x}
                                                                                 : std::tuple{x, y, w};
    const size_t width = bytes_of(c.number), memory = chosen->memory;
    Work work{function,
              {{address_of(a), of_a * width, "the first operand"},
               {address_of(b), of_b * width, "the second operand"},
               {address_of(result), of_result * width, "the result"}},
              nullptr};
    if (memory) work.accesses.push_back({address_of(workspace), memory, "the workspace"});
    keeps_apart(work, 2);
    work.run = [=] {
        if (memory) std::memset(workspace, 0xff, memory);
        compute(c, call);
    };
    return enqueue(own->stream, std::move(work)) ? CUDNN_EXECUTION_FAILED : CUDNN_SUCCESS;
}

EXPORT int cudnnConvolutionForward(void* handle, const void* alpha, const void* of_x, const void* x, const void* of_w,
                                   const void* w, const void* window, int algorithm, void* workspace, size_t bytes,
                                   const void* beta, const void* of_y, void* y) {
    Convolution c;
    const char* function = "cudnnConvolutionForward";
    if (int error = describe(of_x, of_w, of_y, window, function, c)) return error;
    return convolve(handle, c, Direction::Forward, algorithm, alpha, x, w, beta, y, workspace, bytes, function);
}

EXPORT int cudnnConvolutionBackwardData(void* handle, const void* alpha, const void* of_w, const void* w, const void* of_y,
                                        const void* y, const void* window, int algorithm, void* workspace, size_t bytes,
                                        const void* beta, const void* of_x, void* x) {
    Convolution c;
    const char* function = "cudnnConvolutionBackwardData";
    if (int error = describe(of_x, of_w, of_y, window, function, c)) return error;
    return convolve(handle, c, Direction::InputGradient, algorithm, alpha, y, w, beta, x, workspace, bytes, function);
}

EXPORT int cudnnConvolutionBackwardFilter(void* handle, const void* alpha, const void* of_x, const void* x, const void* of_y,
                                          const void* y, const void* window, int algorithm, void* workspace, size_t bytes,
                                          const void* beta, const void* of_w, void* w) {
    Convolution c;
    const char* function = "cudnnConvolutionBackwardFilter";
    if (int error = describe(of_x, of_w, of_y, window, function, c)) return error;
    return convolve(handle, c, Direction::WeightGradient, algorithm, alpha, x, y, beta, w, workspace, bytes, function);
}

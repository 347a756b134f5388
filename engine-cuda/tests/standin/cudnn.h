// Descriptors of convolutions, as cuDNN's stand-in keeps them.
#pragma once
#include "numbers.h"
#include "standin.h"

namespace standin {

enum {
    CUDNN_SUCCESS = 0,
    CUDNN_NOT_INITIALIZED = 1001,
    CUDNN_BAD_PARAM = 2000,
    CUDNN_BAD_PARAM_NULL_POINTER = 2002,
    CUDNN_BAD_PARAM_SIZE_INSUFFICIENT = 2006,
    CUDNN_BAD_PARAM_SHAPE_MISMATCH = 2008,
    CUDNN_NOT_SUPPORTED = 3000,
    CUDNN_DEVICE_ALLOCATION_FAILED = 4004,
    CUDNN_EXECUTION_FAILED = 5000,
};

enum Math { DEFAULT_MATH = 0, TENSOR_OP_MATH = 1, TENSOR_OP_MATH_ALLOW_CONVERSION = 2, FMA_MATH = 3 };

struct Handle {
    void* stream = nullptr;
};

struct TensorDescriptor {
    int type = -1;
    std::vector<int> sizes, strides;
};

struct FilterDescriptor {
    int type = -1, format = 0;
    std::vector<int> sizes;
};

struct WindowDescriptor {
    std::vector<int> pads, strides, dilations;
    int sums = -1, groups = 1, math = DEFAULT_MATH;
};

enum class Direction { Forward, InputGradient, WeightGradient };

// A convolution with all that describes it; x and y are the input and the output, or their gradients.
struct Convolution {
    TensorDescriptor x, y;
    FilterDescriptor w;
    WindowDescriptor window;
    // Channels are the last axis in memory.
    bool last = false;
    Number number = Number::F32;
};

// Fills in what descriptors say. An error of cuDNN if they do not fit one another.
int describe(const void* x, const void* w, const void* y, const void* window, const char* function, Convolution& found);

// The handle; null, and a report, if there is none.
const Handle* handle_of(const void* handle, const char* function);

// What cuDNN tells about an algorithm.
struct Performance {
    int algorithm, status;
    float time;
    size_t memory;
    int same_bits, math;
    int rest[3];
};
static_assert(sizeof(Performance) == 48);

// The algorithms of a direction with the math types that cuDNN tries, the fastest first.
std::vector<Performance> candidates(const Convolution& convolution, Direction direction);

// Reports work whose accesses overlap, but for operands, which come first.
void keeps_apart(const Work& work, size_t operands);

// Elements of a tensor.
template <typename Descriptor>
size_t elements(const Descriptor& descriptor) {
    size_t count = 1;
    for (int size : descriptor.sizes) count *= static_cast<size_t>(size);
    return count;
}

}  // namespace standin

// cuDNN: handles and descriptors.
#include "cudnn.h"

#include <set>

using namespace standin;

static std::set<const void*> handles, tensors, filters, windows;

// cuDNN's types of numbers: single and double precision, and bf16.
static bool is_type(int type) { return type == 0 || type == 1 || type == 9; }

template <typename T>
static int create(std::set<const void*>& all, const char* kind, void** found) {
    Lock lock(state());
    if (fails()) return CUDNN_DEVICE_ALLOCATION_FAILED;
    T* own = new T;
    all.insert(own);
    made(kind);
    *found = own;
    return CUDNN_SUCCESS;
}

template <typename T>
static int destroy(std::set<const void*>& all, const char* kind, void* handle) {
    Lock lock(state());
    if (!all.erase(handle)) return refuse(CUDNN_BAD_PARAM, "cuDNN: %s that are destroyed must be there", kind);
    delete static_cast<T*>(handle);
    given_back(kind);
    return CUDNN_SUCCESS;
}

template <typename T>
static T* known(const std::set<const void*>& all, const void* handle, const char* function) {
    Lock lock(state());
    if (all.count(handle)) return static_cast<T*>(const_cast<void*>(handle));
    broken("%s: there is no such descriptor", function);
    return nullptr;
}

EXPORT size_t cudnnGetVersion() { return setting("STANDIN_CUDNN", 90100); }

EXPORT int cudnnCreate(void** handle) {
    if (!has_context("cudnnCreate")) return CUDNN_NOT_INITIALIZED;
    // It allocates.
    Lock lock(state());
    if (no_capture("cudnnCreate")) return CUDNN_EXECUTION_FAILED;
    return create<Handle>(handles, "cuDNN handles", handle);
}

EXPORT int cudnnDestroy(void* handle) {
    if (!has_context("cudnnDestroy")) return CUDNN_NOT_INITIALIZED;
    // It waits for the device.
    Lock lock(state());
    finish_all("cudnnDestroy");
    return destroy<Handle>(handles, "cuDNN handles", handle);
}

EXPORT int cudnnSetStream(void* handle, void* stream) {
    auto* own = known<Handle>(handles, handle, "cudnnSetStream");
    if (!own) return CUDNN_BAD_PARAM;
    Lock lock(state());
    if (!is_stream(stream)) return refuse(CUDNN_BAD_PARAM, "cudnnSetStream: there is no such stream");
    if (fails()) return CUDNN_EXECUTION_FAILED;
    own->stream = stream;
    return CUDNN_SUCCESS;
}

EXPORT int cudnnCreateTensorDescriptor(void** found) { return create<TensorDescriptor>(tensors, "tensor descriptors", found); }
EXPORT int cudnnDestroyTensorDescriptor(void* handle) {
    return destroy<TensorDescriptor>(tensors, "tensor descriptors", handle);
}
EXPORT int cudnnCreateFilterDescriptor(void** found) { return create<FilterDescriptor>(filters, "filter descriptors", found); }
EXPORT int cudnnDestroyFilterDescriptor(void* handle) {
    return destroy<FilterDescriptor>(filters, "filter descriptors", handle);
}
EXPORT int cudnnCreateConvolutionDescriptor(void** found) {
    return create<WindowDescriptor>(windows, "convolution descriptors", found);
}
EXPORT int cudnnDestroyConvolutionDescriptor(void* handle) {
    return destroy<WindowDescriptor>(windows, "convolution descriptors", handle);
}

static bool all_at_least(int least, int count, const int* numbers) {
    for (int i = 0; i < count; ++i)
        if (numbers[i] < least) return false;
    return true;
}

EXPORT int cudnnSetTensorNdDescriptor(void* handle, int type, int count, const int* sizes, const int* strides) {
    auto* own = known<TensorDescriptor>(tensors, handle, "cudnnSetTensorNdDescriptor");
    if (!own) return CUDNN_BAD_PARAM;
    if (fails()) return CUDNN_DEVICE_ALLOCATION_FAILED;
    if (!is_type(type) || count < 4 || count > 8 || !all_at_least(1, count, sizes) || !all_at_least(1, count, strides))
        return refuse(CUDNN_BAD_PARAM, "cudnnSetTensorNdDescriptor: type %d, %d axes, or a size below 1", type, count);
    *own = {type, {sizes, sizes + count}, {strides, strides + count}};
    if (elements(*own) >= 1ull << 31) return refuse(CUDNN_NOT_SUPPORTED, "cudnnSetTensorNdDescriptor: too many elements");
    return CUDNN_SUCCESS;
}

EXPORT int cudnnSetFilterNdDescriptor(void* handle, int type, int format, int count, const int* sizes) {
    auto* own = known<FilterDescriptor>(filters, handle, "cudnnSetFilterNdDescriptor");
    if (!own) return CUDNN_BAD_PARAM;
    if (fails()) return CUDNN_DEVICE_ALLOCATION_FAILED;
    if (!is_type(type) || format < 0 || format > 1 || count < 3 || count > 8 || !all_at_least(1, count, sizes))
        return refuse(CUDNN_BAD_PARAM, "cudnnSetFilterNdDescriptor: type %d, format %d, %d axes, or a size below 1", type,
                      format, count);
    *own = {type, format, {sizes, sizes + count}};
    return CUDNN_SUCCESS;
}

EXPORT int cudnnSetConvolutionNdDescriptor(void* handle, int count, const int* pads, const int* strides, const int* dilations,
                                           int mode, int sums) {
    auto* own = known<WindowDescriptor>(windows, handle, "cudnnSetConvolutionNdDescriptor");
    if (!own) return CUDNN_BAD_PARAM;
    if (fails()) return CUDNN_DEVICE_ALLOCATION_FAILED;
    const bool good = count >= 2 && count <= 6 && all_at_least(0, count, pads) && all_at_least(1, count, strides) &&
                      all_at_least(1, count, dilations);
    if (!good || mode != 1 || (sums != 0 && sums != 1))
        return refuse(CUDNN_BAD_PARAM, "cudnnSetConvolutionNdDescriptor: %d axes, mode %d, sums of type %d, or a bad number",
                      count, mode, sums);
    own->pads.assign(pads, pads + count);
    own->strides.assign(strides, strides + count);
    own->dilations.assign(dilations, dilations + count);
    own->sums = sums;
    return CUDNN_SUCCESS;
}

EXPORT int cudnnSetConvolutionGroupCount(void* handle, int groups) {
    auto* own = known<WindowDescriptor>(windows, handle, "cudnnSetConvolutionGroupCount");
    if (!own || groups < 1) return refuse(CUDNN_BAD_PARAM, "cudnnSetConvolutionGroupCount: %d groups", groups);
    if (fails()) return CUDNN_DEVICE_ALLOCATION_FAILED;
    own->groups = groups;
    return CUDNN_SUCCESS;
}

EXPORT int cudnnSetConvolutionMathType(void* handle, int math) {
    auto* own = known<WindowDescriptor>(windows, handle, "cudnnSetConvolutionMathType");
    if (!own || math < DEFAULT_MATH || math > FMA_MATH) return refuse(CUDNN_BAD_PARAM, "cudnnSetConvolutionMathType: %d", math);
    if (fails()) return CUDNN_DEVICE_ALLOCATION_FAILED;
    own->math = math;
    return CUDNN_SUCCESS;
}

const Handle* standin::handle_of(const void* handle, const char* function) {
    return known<const Handle>(handles, handle, function);
}

void standin::keeps_apart(const Work& work, size_t operands) {
    for (size_t i = operands; i < work.accesses.size(); ++i)
        for (size_t j = 0; j < i; ++j)
            if (work.accesses[i].overlaps(work.accesses[j]))
                broken("%s: %s overlaps %s", work.name.c_str(), work.accesses[i].what, work.accesses[j].what);
}

// Strides of a tensor without gaps, with channels first or last.
static std::vector<int> packed(const std::vector<int>& sizes, bool last) {
    std::vector<int> strides(sizes.size(), 1);
    int step = 1;
    const auto next = [&](size_t axis) {
        strides[axis] = step;
        step *= sizes[axis];
    };
    if (last) next(1);
    for (size_t axis = sizes.size(); axis-- > 2;) next(axis);
    if (!last) next(1);
    next(0);
    return strides;
}

// Why descriptors do not fit one another, or null.
static const char* fault(const Convolution& c) {
    const size_t axes = c.x.sizes.size();
    if (c.x.type < 0 || c.w.type < 0 || c.y.type < 0 || c.window.sums < 0) return "a descriptor is not set";
    if (c.w.sizes.size() != axes || c.y.sizes.size() != axes || c.window.pads.size() + 2 != axes)
        return "numbers of axes differ";
    if (c.w.type != c.x.type || c.y.type != c.x.type) return "types differ";
    if (c.window.sums != (c.x.type == 1 ? 1 : 0)) return "there are no such sums of this type";
    const int groups = c.window.groups;
    if (c.x.sizes[1] % groups || c.w.sizes[0] % groups || c.w.sizes[1] != c.x.sizes[1] / groups) return "channels do not fit";
    if (c.y.sizes[0] != c.x.sizes[0] || c.y.sizes[1] != c.w.sizes[0]) return "the output has other channels or images";
    for (size_t i = 0; i + 2 < axes; ++i) {
        const int span = (c.w.sizes[i + 2] - 1) * c.window.dilations[i] + 1;
        const int room = c.x.sizes[i + 2] + 2 * c.window.pads[i] - span;
        if (room < 0 || c.y.sizes[i + 2] != room / c.window.strides[i] + 1) return "the output has another size";
    }
    const bool packed_as_filter = c.x.strides == packed(c.x.sizes, c.last) && c.y.strides == packed(c.y.sizes, c.last);
    if (!packed_as_filter) return "layouts differ";
    return nullptr;
}

int standin::describe(const void* x, const void* w, const void* y, const void* window, const char* function,
                      Convolution& found) {
    const auto* of_x = known<TensorDescriptor>(tensors, x, function);
    const auto* of_w = known<FilterDescriptor>(filters, w, function);
    const auto* of_y = known<TensorDescriptor>(tensors, y, function);
    const auto* of_window = known<WindowDescriptor>(windows, window, function);
    if (!of_x || !of_w || !of_y || !of_window) return CUDNN_BAD_PARAM_NULL_POINTER;
    found = {*of_x,
             *of_y,
             *of_w,
             *of_window,
             of_w->format == 1,
             of_x->type == 1   ? Number::F64
             : of_x->type == 9 ? Number::Bf16
                               : Number::F32};
    if (const char* reason = fault(found)) return refuse(CUDNN_BAD_PARAM_SHAPE_MISMATCH, "%s: %s", function, reason);
    return CUDNN_SUCCESS;
}

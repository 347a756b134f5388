// cuBLASLt: handles and descriptions.
#include "cublaslt.h"

#include <set>

using namespace standin;

static std::set<const void*> handles, descriptions, layouts, preferences;

static bool known(const std::set<const void*>& all, const void* handle, const char* kind, const char* function) {
    Lock lock(state());
    if (all.count(handle)) return true;
    broken("%s: there is no such %s", function, kind);
    return false;
}

bool standin::is_handle(const void* handle, const char* function) { return known(handles, handle, "handle", function); }

const Description* standin::description_of(const void* handle, const char* function) {
    return known(descriptions, handle, "description", function) ? static_cast<const Description*>(handle) : nullptr;
}

const Layout* standin::layout_of(const void* handle, const char* function) {
    return known(layouts, handle, "layout", function) ? static_cast<const Layout*>(handle) : nullptr;
}

const Preference* standin::preference_of(const void* handle, const char* function) {
    return known(preferences, handle, "preference", function) ? static_cast<const Preference*>(handle) : nullptr;
}

template <typename T>
static int create(std::set<const void*>& all, const char* kind, void** found, T value) {
    Lock lock(state());
    if (fails()) return CUBLAS_ALLOC_FAILED;
    T* own = new T(value);
    all.insert(own);
    made(kind);
    *found = own;
    return CUBLAS_SUCCESS;
}

template <typename T>
static int destroy(std::set<const void*>& all, const char* kind, void* handle) {
    Lock lock(state());
    if (!all.erase(handle)) return refuse(CUBLAS_INVALID_VALUE, "cuBLASLt: %s that are destroyed must be there", kind);
    delete static_cast<T*>(handle);
    given_back(kind);
    return CUBLAS_SUCCESS;
}

EXPORT int cublasLtCreate(void** handle) {
    if (!has_context("cublasLtCreate")) return CUBLAS_NOT_INITIALIZED;
    // It allocates.
    Lock lock(state());
    if (no_capture("cublasLtCreate")) return CUBLAS_EXECUTION_FAILED;
    return create(handles, "cuBLASLt handles", handle, 0);
}

EXPORT int cublasLtDestroy(void* handle) {
    if (!has_context("cublasLtDestroy")) return CUBLAS_NOT_INITIALIZED;
    return destroy<int>(handles, "cuBLASLt handles", handle);
}

EXPORT int cublasLtMatmulDescCreate(void** found, int compute, int scale) {
    const bool fits =
        compute == COMPUTE_64F ? scale == 1 : (compute == COMPUTE_32F || compute == COMPUTE_32F_FAST_TF32) && scale == 0;
    if (!fits) return refuse(CUBLAS_INVALID_VALUE, "cublasLtMatmulDescCreate: sums %d with scale %d", compute, scale);
    return create(descriptions, "products", found, Description{compute, scale});
}

EXPORT int cublasLtMatmulDescDestroy(void* handle) { return destroy<Description>(descriptions, "products", handle); }

// Copies an attribute, which must have its own size.
template <typename T>
static int set(T& to, const void* from, size_t bytes, const char* what) {
    if (!from || bytes != sizeof to)
        return refuse(CUBLAS_INVALID_VALUE, "cuBLASLt: %s has %zu bytes, not %zu", what, sizeof to, bytes);
    if (fails()) return CUBLAS_ALLOC_FAILED;
    std::memcpy(&to, from, bytes);
    return CUBLAS_SUCCESS;
}

EXPORT int cublasLtMatmulDescSetAttribute(void* handle, int attribute, const void* value, size_t bytes) {
    auto* own = const_cast<Description*>(description_of(handle, "cublasLtMatmulDescSetAttribute"));
    if (!own) return CUBLAS_INVALID_VALUE;
    switch (attribute) {
        case 3: return set(own->transposed[0], value, bytes, "TRANSA");
        case 4: return set(own->transposed[1], value, bytes, "TRANSB");
        case 7: return set(own->epilogue, value, bytes, "EPILOGUE");
        case 8: return set(own->bias, value, bytes, "BIAS_POINTER");
        default: return refuse(CUBLAS_INVALID_VALUE, "cublasLtMatmulDescSetAttribute: attribute %d is not known", attribute);
    }
}

EXPORT int cublasLtMatrixLayoutCreate(void** found, int type, uint64_t rows, uint64_t columns, int64_t step) {
    if (type != 0 && type != 1 && type != 14) return refuse(CUBLAS_INVALID_VALUE, "cublasLtMatrixLayoutCreate: type %d", type);
    if (!rows || !columns || step < static_cast<int64_t>(rows))
        return refuse(CUBLAS_INVALID_VALUE, "cublasLtMatrixLayoutCreate: %llu rows, %llu columns, step %lld",
                      static_cast<unsigned long long>(rows), static_cast<unsigned long long>(columns),
                      static_cast<long long>(step));
    return create(layouts, "layouts", found, Layout{type, rows, columns, step});
}

EXPORT int cublasLtMatrixLayoutDestroy(void* handle) { return destroy<Layout>(layouts, "layouts", handle); }

EXPORT int cublasLtMatrixLayoutSetAttribute(void* handle, int attribute, const void* value, size_t bytes) {
    auto* own = const_cast<Layout*>(layout_of(handle, "cublasLtMatrixLayoutSetAttribute"));
    if (!own) return CUBLAS_INVALID_VALUE;
    switch (attribute) {
        case 5: return set(own->batch, value, bytes, "BATCH_COUNT");
        case 6: return set(own->stride, value, bytes, "STRIDED_BATCH_OFFSET");
        default: return refuse(CUBLAS_INVALID_VALUE, "cublasLtMatrixLayoutSetAttribute: attribute %d is not known", attribute);
    }
}

EXPORT int cublasLtMatmulPreferenceCreate(void** found) { return create(preferences, "preferences", found, Preference{}); }

EXPORT int cublasLtMatmulPreferenceDestroy(void* handle) { return destroy<Preference>(preferences, "preferences", handle); }

EXPORT int cublasLtMatmulPreferenceSetAttribute(void* handle, int attribute, const void* value, size_t bytes) {
    auto* own = const_cast<Preference*>(preference_of(handle, "cublasLtMatmulPreferenceSetAttribute"));
    if (!own) return CUBLAS_INVALID_VALUE;
    if (attribute == 1) return set(own->workspace, value, bytes, "MAX_WORKSPACE_BYTES");
    if (attribute < 5 || attribute > 8)
        return refuse(CUBLAS_INVALID_VALUE, "cublasLtMatmulPreferenceSetAttribute: attribute %d is not known", attribute);
    uint32_t& alignment = own->alignment[attribute - 5];
    if (int error = set(alignment, value, bytes, "MIN_ALIGNMENT_BYTES")) return error;
    if (!alignment || alignment & (alignment - 1))
        return refuse(CUBLAS_INVALID_VALUE, "cuBLASLt: an alignment of %u bytes", alignment);
    return CUBLAS_SUCCESS;
}

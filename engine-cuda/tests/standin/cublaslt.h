// Descriptions of products, as cuBLASLt's stand-in keeps them.
#pragma once
#include "numbers.h"
#include "standin.h"

namespace standin {

enum {
    CUBLAS_SUCCESS = 0,
    CUBLAS_NOT_INITIALIZED = 1,
    CUBLAS_ALLOC_FAILED = 3,
    CUBLAS_INVALID_VALUE = 7,
    CUBLAS_EXECUTION_FAILED = 13,
    CUBLAS_NOT_SUPPORTED = 15
};

enum Compute { COMPUTE_32F = 68, COMPUTE_64F = 70, COMPUTE_32F_FAST_TF32 = 77 };

enum Epilogue { EPILOGUE_DEFAULT = 1, EPILOGUE_BIAS = 4 };

struct Description {
    int compute, scale;
    int32_t transposed[2] = {0, 0};
    uint32_t epilogue = EPILOGUE_DEFAULT;
    uint64_t bias = 0;
};

struct Layout {
    int type;
    uint64_t rows, columns;
    int64_t step;
    int32_t batch = 1;
    int64_t stride = 0;
};

struct Preference {
    uint64_t workspace = 0;
    // Of the addresses of A, B, C and D.
    uint32_t alignment[4] = {256, 256, 256, 256};
};

// An algorithm, which callers keep as 64 bytes.
struct Algorithm {
    uint64_t mark;
    uint64_t workspace;
    uint64_t alignment[4];
    // Of the product that it was chosen for.
    uint64_t product;
    uint64_t rest;
};
constexpr uint64_t MARK = 0x616c676f72697468;

struct Found {
    Algorithm algorithm;
    size_t workspace;
    int state;
    float waves;
    int rest[4];
};
static_assert(sizeof(Algorithm) == 64 && sizeof(Found) == 96);

// The objects of a handle; null, and a report, if there is none.
bool is_handle(const void* handle, const char* function);
const Description* description_of(const void* handle, const char* function);
const Layout* layout_of(const void* handle, const char* function);
const Preference* preference_of(const void* handle, const char* function);

}  // namespace standin

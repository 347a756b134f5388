// cuBLASLt: algorithms and products, D = alpha op(A) op(B) + beta C + bias, column by column.
#include "cublaslt.h"

#include <algorithm>

using namespace standin;

// A product with all that describes it.
struct Product {
    Description description;
    Layout layouts[4];
};

static Number number(const Layout& layout) {
    return layout.type == 0 ? Number::F32 : layout.type == 1 ? Number::F64 : Number::Bf16;
}

static size_t width(const Layout& layout) { return bytes_of(number(layout)); }

// Elements from the first to the last.
static size_t extent(const Layout& layout) {
    return static_cast<size_t>((layout.batch - 1) * layout.stride + (static_cast<int64_t>(layout.columns) - 1) * layout.step) +
           layout.rows;
}

static bool describe(const void* description, const void* const* layouts, const char* function, Product& found) {
    const Description* own = description_of(description, function);
    if (!own) return false;
    found.description = *own;
    for (int i = 0; i < 4; ++i) {
        const Layout* layout = layout_of(layouts[i], function);
        if (!layout) return false;
        found.layouts[i] = *layout;
    }
    return true;
}

// Rows and columns of a factor as it is used.
static std::pair<uint64_t, uint64_t> used(const Product& product, int side) {
    const Layout& layout = product.layouts[side];
    return product.description.transposed[side] ? std::pair{layout.columns, layout.rows}
                                                : std::pair{layout.rows, layout.columns};
}

// Why it is no product, or null.
static const char* fault(const Product& product) {
    const auto& [a, b, c, d] = product.layouts;
    const Description& own = product.description;
    for (int32_t transposed : own.transposed)
        if (transposed != 0 && transposed != 1) return "a factor is neither transposed nor not";
    const auto [m, k] = used(product, 0);
    const auto [l, n] = used(product, 1);
    if (k != l || d.rows != m || d.columns != n) return "sizes do not fit";
    if (c.rows != d.rows || c.columns != d.columns || c.type != d.type) return "C is not as D";
    for (const Layout& layout : product.layouts) {
        if (layout.batch < 1 || layout.batch != d.batch) return "batches differ";
        if (layout.stride < 0) return "a stride is negative";
    }
    if (d.batch > 1 && d.stride < static_cast<int64_t>(d.columns) * d.step) return "matrices of D overlap";
    const bool types = own.compute == COMPUTE_64F ? a.type == 1 && b.type == 1 && d.type == 1
                       : own.compute == COMPUTE_32F_FAST_TF32
                           ? a.type == 0 && b.type == 0 && d.type == 0
                           : a.type == b.type && (a.type == 0 ? d.type == 0 : a.type == 14 && (d.type == 14 || d.type == 0));
    if (!types) return "there is no product of these types";
    if (own.epilogue != EPILOGUE_DEFAULT && own.epilogue != EPILOGUE_BIAS) return "the epilogue is not known";
    return nullptr;
}

// A number for what an algorithm was chosen for.
static uint64_t checksum(const Product& product) {
    uint64_t sum = 14695981039346656037ull;
    const auto add = [&](uint64_t x) { sum = (sum ^ x) * 1099511628211ull; };
    const Description& own = product.description;
    for (uint64_t x : {static_cast<uint64_t>(own.compute), static_cast<uint64_t>(own.transposed[0]),
                       static_cast<uint64_t>(own.transposed[1]), static_cast<uint64_t>(own.epilogue)})
        add(x);
    for (const Layout& l : product.layouts)
        for (uint64_t x : {static_cast<uint64_t>(l.type), l.rows, l.columns, static_cast<uint64_t>(l.step),
                           static_cast<uint64_t>(l.batch), static_cast<uint64_t>(l.stride)})
            add(x);
    return sum;
}

EXPORT int cublasLtMatmulAlgoGetHeuristic(void* handle, const void* description, const void* a, const void* b, const void* c,
                                          const void* d, const void* preference, int wanted, Found* found, int* count) {
    const char* function = "cublasLtMatmulAlgoGetHeuristic";
    Product product;
    const void* layouts[] = {a, b, c, d};
    if (!is_handle(handle, function)) return CUBLAS_NOT_INITIALIZED;
    const Preference* prefers = preference_of(preference, function);
    if (!prefers || wanted < 1 || !describe(description, layouts, function, product)) return CUBLAS_INVALID_VALUE;
    *count = 0;
    if (fails()) return CUBLAS_ALLOC_FAILED;
    if (const char* reason = fault(product)) return refuse(CUBLAS_NOT_SUPPORTED, "%s: %s", function, reason);
    // Long sums are split, with parts in the workspace, where there is one.
    const size_t part = product.layouts[3].rows * product.layouts[3].columns * 4;
    const bool split = used(product, 0).second >= 64 && prefers->workspace >= part;
    *found = {};
    found->algorithm = {MARK, split ? part : 0, {}, checksum(product), 0};
    std::copy(prefers->alignment, prefers->alignment + 4, found->algorithm.alignment);
    found->workspace = found->algorithm.workspace;
    found->state = CUBLAS_SUCCESS;
    *count = 1;
    return CUBLAS_SUCCESS;
}

// The sum of a product at row i and column j of matrix z.
static double sum(const Product& product, const std::vector<double>& a, const std::vector<double>& b, size_t z, size_t i,
                  size_t j) {
    const size_t k = used(product, 0).second;
    const auto steps = [&](int side) {
        const Layout& layout = product.layouts[side];
        const auto step = static_cast<size_t>(layout.step);
        return product.description.transposed[side] ? std::pair{step, size_t{1}} : std::pair{size_t{1}, step};
    };
    const auto [row_a, column_a] = steps(0);
    const auto [row_b, column_b] = steps(1);
    const double* of_a = &a[z * static_cast<size_t>(product.layouts[0].stride) + i * row_a];
    const double* of_b = &b[z * static_cast<size_t>(product.layouts[1].stride) + j * column_b];
    double total = 0;
    for (size_t l = 0; l < k; ++l) total += of_a[l * column_a] * of_b[l * row_b];
    return total;
}

struct Operands {
    uint64_t a, b, c, d;
    double alpha, beta;
};

static void compute(const Product& product, const Operands& own) {
    const bool rounds = product.description.compute == COMPUTE_32F_FAST_TF32;
    const auto& [of_a, of_b, of_c, of_d] = product.layouts;
    const uint64_t bias = product.description.epilogue == EPILOGUE_BIAS ? product.description.bias : 0;
    std::vector<double> a, b;
    read_all(at<void>(own.a), extent(of_a), number(of_a), rounds, a);
    read_all(at<void>(own.b), extent(of_b), number(of_b), rounds, b);
    for (size_t z = 0; z < static_cast<size_t>(of_d.batch); ++z)
        for (size_t j = 0; j < of_d.columns; ++j)
            for (size_t i = 0; i < of_d.rows; ++i) {
                const auto place = [&](const Layout& layout) {
                    return z * static_cast<size_t>(layout.stride) + j * static_cast<size_t>(layout.step) + i;
                };
                double x = own.alpha * sum(product, a, b, z, i, j);
                if (own.beta != 0) x += own.beta * read(at<void>(own.c), place(of_c), number(of_c));
                if (bias) x += read(at<void>(bias), i, number(of_d));
                write(at<void>(own.d), place(of_d), number(of_d), x);
            }
}

EXPORT int cublasLtMatmul(void* handle, const void* description, const void* alpha, const void* a, const void* of_a,
                          const void* b, const void* of_b, const void* beta, const void* c, const void* of_c, void* d,
                          const void* of_d, const Algorithm* algorithm, void* workspace, size_t bytes, void* stream) {
    Lock lock(state());
    const char* function = "cublasLtMatmul";
    Product product;
    const void* layouts[] = {of_a, of_b, of_c, of_d};
    if (!has_context(function) || !is_handle(handle, function)) return CUBLAS_NOT_INITIALIZED;
    if (fails()) return CUBLAS_EXECUTION_FAILED;
    if (!alpha || !beta || !algorithm || !describe(description, layouts, function, product))
        return refuse(CUBLAS_INVALID_VALUE, "%s: something is missing", function);
    if (const char* reason = fault(product)) return refuse(CUBLAS_INVALID_VALUE, "%s: %s", function, reason);
    if (algorithm->mark != MARK || algorithm->product != checksum(product))
        return refuse(CUBLAS_INVALID_VALUE, "%s: the algorithm is another product's", function);
    if (bytes < algorithm->workspace)
        return refuse(CUBLAS_INVALID_VALUE, "%s: a workspace of %zu bytes is too small", function, bytes);
    const bool wide = product.description.compute == COMPUTE_64F;
    const auto scale = [&](const void* from) {
        return wide ? *static_cast<const double*>(from) : *static_cast<const float*>(from);
    };
    const Operands own{address_of(a), address_of(b), address_of(c), address_of(d), scale(alpha), scale(beta)};
    const uint64_t addresses[] = {own.a, own.b, own.c, own.d};
    const char* names[] = {"A", "B", "C", "D"};
    Work work{function, {}, nullptr};
    for (int i = 0; i < 4; ++i) {
        if (i == 2 && own.beta == 0) continue;
        if (addresses[i] % algorithm->alignment[i] || addresses[i] % width(product.layouts[i]))
            return refuse(CUBLAS_INVALID_VALUE, "%s: the address of %s is no multiple of %llu", function, names[i],
                          static_cast<unsigned long long>(algorithm->alignment[i]));
        work.accesses.push_back({addresses[i], extent(product.layouts[i]) * width(product.layouts[i]), names[i]});
    }
    const Layout& result = product.layouts[3];
    const auto overlaps = [&](int i) {
        const size_t own_bytes = extent(product.layouts[i]) * width(product.layouts[i]);
        return addresses[i] < own.d + extent(result) * width(result) && own.d < addresses[i] + own_bytes;
    };
    if (overlaps(0) || overlaps(1)) broken("%s: a factor overlaps the result", function);
    const Layout& added = product.layouts[2];
    const bool same = own.c == own.d && added.step == result.step && added.stride == result.stride;
    if (own.beta != 0 && overlaps(2) && !same) broken("%s: C overlaps D", function);
    if (product.description.epilogue == EPILOGUE_BIAS) {
        const uint64_t bias = product.description.bias;
        if (!bias || bias % 16)
            return refuse(CUBLAS_INVALID_VALUE, "%s: the address of the bias is no multiple of 16", function);
        work.accesses.push_back({bias, result.rows * width(result), "the bias"});
    }
    const size_t needed = algorithm->workspace;
    if (needed) {
        if (address_of(workspace) % 256)
            return refuse(CUBLAS_INVALID_VALUE, "%s: the address of the workspace is no multiple of 256", function);
        work.accesses.push_back({address_of(workspace), needed, "the workspace"});
    }
    work.run = [=] {
        if (needed) std::memset(workspace, 0xff, needed);
        compute(product, own);
    };
    return enqueue(stream, std::move(work)) ? CUBLAS_EXECUTION_FAILED : CUBLAS_SUCCESS;
}

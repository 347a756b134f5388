// Libraries as plain loops, and memory of a case. `cuda.h` and `threads.h` come before it.
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#if defined(__GNUC__) && !defined(__clang__)
// Libraries are loops over all elements; kernels compile faster without optimisation.
#pragma GCC push_options
#pragma GCC optimize("O2")
#endif

template <typename F> static void launch(unsigned blocks, bool syncs, F kernel) {
    run_blocks(blocks, syncs, [](void* f) { (*static_cast<F*>(f))(); }, &kernel);
}

// Convolutions with three spatial axes; sums in double precision.
struct Window { long n, c, o, groups, x[3], w[3], y[3], pads[3], strides[3], dilations[3]; bool last; };

template <typename F> static void each(const Window& v, F visit) {
    const long per_in = v.c / v.groups, per_out = v.o / v.groups;
    for (long n = 0; n < v.n; ++n) for (long o = 0; o < v.o; ++o) for (long c = 0; c < per_in; ++c)
    for (long p = 0; p < v.y[0] * v.y[1] * v.y[2]; ++p) for (long k = 0; k < v.w[0] * v.w[1] * v.w[2]; ++k) {
        const long at[3] = {p / (v.y[1] * v.y[2]), p / v.y[2] % v.y[1], p % v.y[2]};
        const long cell[3] = {k / (v.w[1] * v.w[2]), k / v.w[2] % v.w[1], k % v.w[2]};
        long position = 0;
        bool inside = true;
        for (int axis = 0; axis < 3; ++axis) {
            const long place = at[axis] * v.strides[axis] + cell[axis] * v.dilations[axis] - v.pads[axis];
            inside = inside && place >= 0 && place < v.x[axis];
            position = position * v.x[axis] + place;
        }
        if (!inside) continue;
        const long channel = o / per_out * per_in + c;
        const long of_x = v.x[0] * v.x[1] * v.x[2], of_w = v.w[0] * v.w[1] * v.w[2], of_y = v.y[0] * v.y[1] * v.y[2];
        if (v.last) visit((n * of_x + position) * v.c + channel, (o * of_w + k) * per_in + c, (n * of_y + p) * v.o + o);
        else visit((n * v.c + channel) * of_x + position, (o * per_in + c) * of_w + k, (n * v.o + o) * of_y + p);
    }
}

template <typename T> static void convolve(const Window& v, int direction, const T* a, const T* b, T* result) {
    const long sizes[3] = {v.n * v.c * v.x[0] * v.x[1] * v.x[2], v.o * (v.c / v.groups) * v.w[0] * v.w[1] * v.w[2],
                           v.n * v.o * v.y[0] * v.y[1] * v.y[2]};
    std::vector<double> sum(direction == 0 ? sizes[2] : direction == 1 ? sizes[0] : sizes[1]);
    each(v, [&](long x, long w, long y) {
        if (direction == 0) sum[y] += (double)a[x] * b[w];
        if (direction == 1) sum[x] += (double)a[y] * b[w];
        if (direction == 2) sum[w] += (double)a[x] * b[y];
    });
    for (size_t i = 0; i < sum.size(); ++i) result[i] = (T)sum[i];
}

struct Factor { long offset, batch, row, column; };

template <typename T, typename R>
static void multiply(long batch, long m, long n, long k, Factor fa, Factor fb, const T* a, const T* b, const R* bias, const R* added, R* result) {
    for (long z = 0; z < batch; ++z) for (long i = 0; i < m; ++i) for (long j = 0; j < n; ++j) {
        double sum = bias ? (double)bias[j] : 0;
        if (added) sum += (double)added[(z * m + i) * n + j];
        for (long l = 0; l < k; ++l)
            sum += (double)a[fa.offset + z * fa.batch + i * fa.row + l * fa.column] *
                   b[fb.offset + z * fb.batch + l * fb.row + j * fb.column];
        result[(z * m + i) * n + j] = (R)sum;
    }
}

// Buffers of a case: either each in memory of its own, so that a sanitizer sees what is read beside it, or where the plan
// has them.
struct Buffers {
    std::vector<char*> at;
    std::vector<char*> owned;
    char* claim(size_t bytes) {
        char* memory = static_cast<char*>(std::aligned_alloc(256, (bytes + 255) / 256 * 256 + 256));
        std::memset(memory, 0xff, bytes);
        owned.push_back(memory);
        return memory;
    }
    ~Buffers() { for (char* memory : owned) std::free(memory); }
};

static void read_exactly(FILE* file, char* to, size_t bytes) {
    if (bytes && std::fread(to, 1, bytes, file) != bytes) { std::fprintf(stderr, "the data ends early\n"); std::exit(2); }
}

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC pop_options
#endif

// The upper half of a float, rounded to the nearest one, and of two to the even one. Arithmetic is that of floats.
struct __align__(2) bf16 {
    unsigned short bits;
    bf16() = default;
    __device__ bf16(float x) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
        asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(x));
#else
        const unsigned all = __float_as_uint(x);
        const unsigned rounded = all + 0x7fffu + ((all >> 16) & 1u);
        bits = (unsigned short)(x != x ? all >> 16 | 0x40u : rounded >> 16);
#endif
    }
    __device__ operator float() const { return __uint_as_float((unsigned)bits << 16); }
};

// Four numbers in one access.
struct __align__(16) floatx4 { float at[4]; };
struct __align__(16) doublex4 { double at[4]; };
struct __align__(8) bf16x4 { bf16 at[4]; };
struct __align__(16) longx4 { long long at[4]; };
struct __align__(16) intx4 { int at[4]; };
struct __align__(4) bytex4 { unsigned char at[4]; };
struct __align__(4) boolx4 { bool at[4]; };

// Extrema that are NaN if one of the numbers is.
__device__ inline float larger(float a, float b) { return a > b || a != a ? a : b; }
__device__ inline double larger(double a, double b) { return a > b || a != a ? a : b; }
__device__ inline long long larger(long long a, long long b) { return a > b ? a : b; }
__device__ inline int larger(int a, int b) { return a > b ? a : b; }
__device__ inline float smaller(float a, float b) { return a < b || a != a ? a : b; }
__device__ inline double smaller(double a, double b) { return a < b || a != a ? a : b; }
__device__ inline long long smaller(long long a, long long b) { return a < b ? a : b; }
__device__ inline int smaller(int a, int b) { return a < b ? a : b; }

// Powers and remainders with the sign of the divisor.
__device__ inline float power(float a, float b) { return powf(a, b); }
__device__ inline double power(double a, double b) { return pow(a, b); }
__device__ inline long long power(long long a, long long b) { return (long long)pow((double)a, (double)b); }
__device__ inline int power(int a, int b) { return (int)pow((double)a, (double)b); }
__device__ inline float remainder_of(float a, float b) { float r = fmodf(a, b); return r != 0 && (r < 0) != (b < 0) ? r + b : r; }
__device__ inline double remainder_of(double a, double b) { double r = fmod(a, b); return r != 0 && (r < 0) != (b < 0) ? r + b : r; }
__device__ inline long long remainder_of(long long a, long long b) { long long r = a % b; return r != 0 && (r < 0) != (b < 0) ? r + b : r; }
__device__ inline int remainder_of(int a, int b) { int r = a % b; return r != 0 && (r < 0) != (b < 0) ? r + b : r; }
__device__ inline float rest_of(float a, float b) { return fmodf(a, b); }
__device__ inline double rest_of(double a, double b) { return fmod(a, b); }
__device__ inline long long rest_of(long long a, long long b) { return a % b; }
__device__ inline int rest_of(int a, int b) { return a % b; }


// Numbers of the types that the libraries take.
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace standin {

enum class Number { F32, F64, Bf16 };

inline size_t bytes_of(Number type) { return type == Number::F64 ? 8 : type == Number::F32 ? 4 : 2; }

inline float from_bits(uint32_t bits) {
    float x;
    std::memcpy(&x, &bits, 4);
    return x;
}
inline uint32_t to_bits(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    return bits;
}

// Rounds to the nearest number with so many bits less, of two to the even one.
inline uint32_t shortened(float x, int less) {
    const uint32_t bits = to_bits(x);
    if (x != x) return bits | 1u << 22;
    return bits + (1u << (less - 1)) - 1 + ((bits >> less) & 1u);
}

inline double read(const void* from, size_t place, Number type) {
    switch (type) {
        case Number::F64: return static_cast<const double*>(from)[place];
        case Number::F32: return static_cast<const float*>(from)[place];
        default: return from_bits(static_cast<uint32_t>(static_cast<const uint16_t*>(from)[place]) << 16);
    }
}

inline void write(void* to, size_t place, Number type, double x) {
    switch (type) {
        case Number::F64: static_cast<double*>(to)[place] = x; break;
        case Number::F32: static_cast<float*>(to)[place] = static_cast<float>(x); break;
        default: static_cast<uint16_t*>(to)[place] = static_cast<uint16_t>(shortened(static_cast<float>(x), 16) >> 16); break;
    }
}

// What tensor cores read of single precision: ten bits of the fraction.
inline double as_tf32(double x) { return from_bits(shortened(static_cast<float>(x), 13) & ~0x1fffu); }

// Reads many numbers, rounded for tensor cores if they are of single precision.
template <typename Target>
void read_all(const void* from, size_t count, Number type, bool tensor_cores, Target& to) {
    to.resize(count);
    for (size_t i = 0; i < count; ++i) {
        const double x = read(from, i, type);
        to[i] = tensor_cores && type == Number::F32 ? as_tf32(x) : x;
    }
}

}  // namespace standin

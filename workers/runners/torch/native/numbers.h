// Numbers of 16 bits, what is done to one row by itself, and memory.

#pragma once

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "vector.h"

namespace {

// Numbers of 16 bits. As elements of keys and values they are told apart by type.
struct Bf16 {
    uint16_t bits;

    float value() const {
        const uint32_t whole = (uint32_t)bits << 16;
        float value;
        std::memcpy(&value, &whole, sizeof value);
        return value;
    }

    static Floats load(const void* p) { return load_bf16(p); }

    static void store(void* p, Floats v) { store_bf16(p, v); }
};

struct F16 {
    uint16_t bits;

    static Floats load(const void* p) { return load_f16(p); }

    static void store(void* p, Floats v) { store_f16(p, v); }
};

struct Float {
    float number;

    static Floats load(const void* p) { return ::load((const float*)p); }
};

// e^x for x <= 88: 2^n times a polynomial.
inline Floats exponential(Floats x) {
    x = max(x, repeat(-87.f));
    const Floats t = x * repeat(1.44269504f);
    const Floats n = nearest(t);
    const Floats f = t - n;
    Floats p = repeat(1.8775767e-3f);
    p = multiply_add(p, f, repeat(8.9893397e-3f));
    p = multiply_add(p, f, repeat(5.5826318e-2f));
    p = multiply_add(p, f, repeat(2.4015361e-1f));
    p = multiply_add(p, f, repeat(6.9315308e-1f));
    p = multiply_add(p, f, repeat(9.9999994e-1f));
    return scaled(p, n);
}

inline float rms_scale(const float* x, int size, float eps) {
    Floats sum = zeros();
    for (int k = 0; k < size; k += kLanes) {
        const Floats v = load(x + k);
        sum = multiply_add(v, v, sum);
    }
    return 1.f / std::sqrt(total(sum) / size + eps);
}

inline void norm_row(const float* x, const float* weight, float eps, int size, float* out) {
    const Floats scale = repeat(rms_scale(x, size, eps));
    for (int k = 0; k < size; k += kLanes) store(out + k, load(x + k) * scale * load(weight + k));
}

// SiLU of the one times the other.
inline Floats gated(Floats gate, Floats up) {
    const Floats e = exponential(min(zeros() - gate, repeat(88.f)));
    return gate * up / (repeat(1.f) + e);
}

// A grown buffer keeps its size. Contents are lost.
template <typename T>
struct Buffer {
    T* data = nullptr;
    size_t size = 0;

    bool reserve(size_t wanted) {
        if (wanted <= size) return true;
        std::free(data);
        data = (T*)std::aligned_alloc(64, (wanted * sizeof(T) + 63) / 64 * 64);
        size = data ? wanted : 0;
        return data != nullptr;
    }

    ~Buffer() { std::free(data); }
};

}  // namespace

// Numbers of 16 bits, what is done to one row by itself, and memory.

#pragma once

#include <immintrin.h>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>

namespace {

// Numbers of 16 bits, 16 at a time. As elements of keys and values they are told apart by type.
struct Bf16 {
    uint16_t bits;

    float value() const {
        const uint32_t whole = (uint32_t)bits << 16;
        float value;
        std::memcpy(&value, &whole, sizeof value);
        return value;
    }

    static __m512 load(const void* p) {
        return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p)), 16));
    }

    static void store(void* p, __m512 v) { _mm256_storeu_si256((__m256i*)p, (__m256i)_mm512_cvtneps_pbh(v)); }
};

struct F16 {
    uint16_t bits;

    static __m512 load(const void* p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p)); }

    static void store(void* p, __m512 v) {
        _mm256_storeu_si256((__m256i*)p, _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
    }
};

struct Float {
    float number;

    static __m512 load(const void* p) { return _mm512_loadu_ps(p); }
};

// e^x for x <= 88: 2^n times a polynomial.
inline __m512 exponential(__m512 x) {
    x = _mm512_max_ps(x, _mm512_set1_ps(-87.f));
    const __m512 t = _mm512_mul_ps(x, _mm512_set1_ps(1.44269504f));
    const __m512 n = _mm512_roundscale_ps(t, 0);
    const __m512 f = _mm512_sub_ps(t, n);
    __m512 p = _mm512_set1_ps(1.8775767e-3f);
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(8.9893397e-3f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(5.5826318e-2f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(2.4015361e-1f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(6.9315308e-1f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(9.9999994e-1f));
    return _mm512_scalef_ps(p, n);
}

inline float rms_scale(const float* x, int size, float eps) {
    __m512 sum = _mm512_setzero_ps();
    for (int k = 0; k < size; k += 16) {
        const __m512 v = _mm512_loadu_ps(x + k);
        sum = _mm512_fmadd_ps(v, v, sum);
    }
    return 1.f / std::sqrt(_mm512_reduce_add_ps(sum) / size + eps);
}

void norm_row(const float* x, const float* weight, float eps, int size, float* out) {
    const __m512 scale = _mm512_set1_ps(rms_scale(x, size, eps));
    for (int k = 0; k < size; k += 16)
        _mm512_storeu_ps(out + k, _mm512_mul_ps(_mm512_mul_ps(_mm512_loadu_ps(x + k), scale), _mm512_loadu_ps(weight + k)));
}

// SiLU of the one times the other.
inline __m512 gated(__m512 gate, __m512 up) {
    const __m512 e = exponential(_mm512_min_ps(_mm512_sub_ps(_mm512_setzero_ps(), gate), _mm512_set1_ps(88.f)));
    return _mm512_div_ps(_mm512_mul_ps(gate, up), _mm512_add_ps(_mm512_set1_ps(1.f), e));
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

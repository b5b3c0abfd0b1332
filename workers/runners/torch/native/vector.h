// Sixteen numbers at a time: one register with AVX-512, two with AVX2. The same operations in the same order on both.

#pragma once

#include <immintrin.h>

#include <cstdint>

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__) && \
    defined(__AVX512VNNI__)
#define HAS_AVX512 1
#else
#define HAS_AVX512 0
#endif

namespace {

constexpr int kLanes = 16;

#if HAS_AVX512

struct Mask {
    __mmask16 bits;
};

struct Floats {
    __m512 all;
};

struct Ints {
    __m512i all;
};

// The first `count` lanes, if there are as many.
inline Mask first_lanes(int count) {
    return {count >= 16 ? (__mmask16)0xffff : count <= 0 ? (__mmask16)0 : (__mmask16)((1u << count) - 1)};
}

inline Floats zeros() { return {_mm512_setzero_ps()}; }
inline Floats repeat(float number) { return {_mm512_set1_ps(number)}; }
inline Floats load(const float* p) { return {_mm512_loadu_ps(p)}; }
inline Floats load(Mask mask, const float* p) { return {_mm512_maskz_loadu_ps(mask.bits, p)}; }
inline void store(float* p, Floats v) { _mm512_storeu_ps(p, v.all); }
inline void store(Mask mask, float* p, Floats v) { _mm512_mask_storeu_ps(p, mask.bits, v.all); }
inline Floats operator+(Floats a, Floats b) { return {_mm512_add_ps(a.all, b.all)}; }
inline Floats operator-(Floats a, Floats b) { return {_mm512_sub_ps(a.all, b.all)}; }
inline Floats operator*(Floats a, Floats b) { return {_mm512_mul_ps(a.all, b.all)}; }
inline Floats operator/(Floats a, Floats b) { return {_mm512_div_ps(a.all, b.all)}; }
inline Floats multiply_add(Floats a, Floats b, Floats c) { return {_mm512_fmadd_ps(a.all, b.all, c.all)}; }
inline Floats max(Floats a, Floats b) { return {_mm512_max_ps(a.all, b.all)}; }
inline Floats min(Floats a, Floats b) { return {_mm512_min_ps(a.all, b.all)}; }
inline Floats absolute(Floats v) { return {_mm512_abs_ps(v.all)}; }
inline Floats nearest(Floats v) { return {_mm512_roundscale_ps(v.all, 0)}; }
// v 2^n, of whole n.
inline Floats scaled(Floats v, Floats n) { return {_mm512_scalef_ps(v.all, n.all)}; }
// `v` where the mask is set, else `other`.
inline Floats choose(Mask mask, Floats v, Floats other) { return {_mm512_mask_mov_ps(other.all, mask.bits, v.all)}; }
inline float total(Floats v) { return _mm512_reduce_add_ps(v.all); }
inline float largest(Floats v) { return _mm512_reduce_max_ps(v.all); }

inline Ints no_ints() { return {_mm512_setzero_si512()}; }
inline Ints repeat_int(int32_t number) { return {_mm512_set1_epi32(number)}; }
inline Ints load_ints(const void* p) { return {_mm512_loadu_si512(p)}; }
inline Floats to_floats(Ints v) { return {_mm512_cvtepi32_ps(v.all)}; }
// To the nearest, and within 16 bits.
inline void store_int16(int16_t* p, Floats v) {
    _mm256_storeu_si256((__m256i*)p, _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(v.all)));
}

// The same, high and low bytes apart.
inline void store_int16_bytes(int8_t* high, int8_t* low, Floats v) {
    const __m256i whole = _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(v.all));
    _mm_storeu_si128((__m128i*)high, _mm256_cvtepi16_epi8(_mm256_srai_epi16(whole, 8)));
    _mm_storeu_si128((__m128i*)low, _mm256_cvtepi16_epi8(whole));
}

inline Floats load_f16(const void* p) { return {_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p))}; }
inline void store_f16(void* p, Floats v) {
    _mm256_storeu_si256((__m256i*)p, _mm512_cvtps_ph(v.all, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
inline Floats load_bf16(const void* p) {
    return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p)), 16))};
}

#else

struct Mask {
    __m256i low, high;
};

struct Floats {
    __m256 low, high;
};

struct Ints {
    __m256i low, high;
};

inline Mask first_lanes(int count) {
    const __m256i places = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return {_mm256_cmpgt_epi32(_mm256_set1_epi32(count), places),
            _mm256_cmpgt_epi32(_mm256_set1_epi32(count - 8), places)};
}

inline Floats zeros() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
inline Floats repeat(float number) { return {_mm256_set1_ps(number), _mm256_set1_ps(number)}; }
inline Floats load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline Floats load(Mask mask, const float* p) {
    return {_mm256_maskload_ps(p, mask.low), _mm256_maskload_ps(p + 8, mask.high)};
}
inline void store(float* p, Floats v) {
    _mm256_storeu_ps(p, v.low);
    _mm256_storeu_ps(p + 8, v.high);
}
inline void store(Mask mask, float* p, Floats v) {
    _mm256_maskstore_ps(p, mask.low, v.low);
    _mm256_maskstore_ps(p + 8, mask.high, v.high);
}
inline Floats operator+(Floats a, Floats b) { return {_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)}; }
inline Floats operator-(Floats a, Floats b) { return {_mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high)}; }
inline Floats operator*(Floats a, Floats b) { return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)}; }
inline Floats operator/(Floats a, Floats b) { return {_mm256_div_ps(a.low, b.low), _mm256_div_ps(a.high, b.high)}; }
inline Floats multiply_add(Floats a, Floats b, Floats c) {
    return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
}
inline Floats max(Floats a, Floats b) { return {_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high)}; }
inline Floats min(Floats a, Floats b) { return {_mm256_min_ps(a.low, b.low), _mm256_min_ps(a.high, b.high)}; }
inline Floats absolute(Floats v) {
    const __m256 sign = _mm256_set1_ps(-0.f);
    return {_mm256_andnot_ps(sign, v.low), _mm256_andnot_ps(sign, v.high)};
}
inline Floats nearest(Floats v) {
    constexpr int kNearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
    return {_mm256_round_ps(v.low, kNearest), _mm256_round_ps(v.high, kNearest)};
}
// 2^n, of whole n from -126 to 127.
inline __m256 power_of_two(__m256 n) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23));
}
inline Floats scaled(Floats v, Floats n) {
    return {_mm256_mul_ps(v.low, power_of_two(n.low)), _mm256_mul_ps(v.high, power_of_two(n.high))};
}
inline Floats choose(Mask mask, Floats v, Floats other) {
    return {_mm256_blendv_ps(other.low, v.low, _mm256_castsi256_ps(mask.low)),
            _mm256_blendv_ps(other.high, v.high, _mm256_castsi256_ps(mask.high))};
}
inline float total(Floats v) {
    const __m256 eight = _mm256_add_ps(v.low, v.high);
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    four = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
}
inline float largest(Floats v) {
    const __m256 eight = _mm256_max_ps(v.low, v.high);
    __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    four = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(four, _mm_movehdup_ps(four)));
}

inline Ints no_ints() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
inline Ints repeat_int(int32_t number) { return {_mm256_set1_epi32(number), _mm256_set1_epi32(number)}; }
inline Ints load_ints(const void* p) {
    return {_mm256_loadu_si256((const __m256i*)p), _mm256_loadu_si256((const __m256i*)p + 1)};
}
inline Floats to_floats(Ints v) { return {_mm256_cvtepi32_ps(v.low), _mm256_cvtepi32_ps(v.high)}; }
inline void store_int16(int16_t* p, Floats v) {
    const __m256i both = _mm256_packs_epi32(_mm256_cvtps_epi32(v.low), _mm256_cvtps_epi32(v.high));
    _mm256_storeu_si256((__m256i*)p, _mm256_permute4x64_epi64(both, _MM_SHUFFLE(3, 1, 2, 0)));
}
inline void store_int16_bytes(int8_t* high, int8_t* low, Floats v) {
    int16_t whole[kLanes];
    store_int16(whole, v);
    for (int i = 0; i < kLanes; i++) high[i] = whole[i] >> 8, low[i] = (int8_t)whole[i];
}

inline Floats load_f16(const void* p) {
    return {_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p)), _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p + 1))};
}
inline void store_f16(void* p, Floats v) {
    constexpr int kNearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
    _mm_storeu_si128((__m128i*)p, _mm256_cvtps_ph(v.low, kNearest));
    _mm_storeu_si128((__m128i*)p + 1, _mm256_cvtps_ph(v.high, kNearest));
}
inline __m256 widened(__m128i bf16) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bf16), 16));
}
inline Floats load_bf16(const void* p) {
    return {widened(_mm_loadu_si128((const __m128i*)p)), widened(_mm_loadu_si128((const __m128i*)p + 1))};
}

#endif

// Rounded to nearest even. A number that is none stays none.
inline __m128i to_bf16(__m256 v) {
    const __m256i bits = _mm256_castps_si256(v);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    const __m256i is_none = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
    rounded = _mm256_srli_epi32(_mm256_blendv_epi8(rounded, _mm256_set1_epi32(0x7fc00000), is_none), 16);
    const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(rounded, rounded), _MM_SHUFFLE(3, 1, 2, 0));
    return _mm256_castsi256_si128(packed);
}

inline void store_bf16(void* p, Floats v) {
    alignas(64) float numbers[kLanes];
    store(numbers, v);
    for (int i = 0; i < kLanes; i += 8)
        _mm_storeu_si128((__m128i*)((uint16_t*)p + i), to_bf16(_mm256_loadu_ps(numbers + i)));
}

}  // namespace

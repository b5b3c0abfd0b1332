// Products of weights that came in blocks of 32 numbers of at most 8 bits, a scale and a minimum for each block, as GGUF
// files have them: exactly those weights, and activations rounded to 8 bits with a scale for each 32 of a row.
//
// Of a block: sum of (scale_w q_w + min_w) scale_x q_x = scale_w scale_x (sum of q_w q_x, in integers) + min_w (scale_x
// sum of q_x), and the latter is known of the row.
//
// A panel has for every block: scales [32] and minima [32] in F16; numbers [8][32][4], fours along K as the dot product
// wants them. Of 4 bits [4][32][4], where the high ones are those of four fours later.

#pragma once

#include "numbers.h"
#include "panels.h"

namespace blocks {

constexpr int kSize = 32;
constexpr int kTimesHigh = 16;
constexpr int kHeadBytes = 2 * kPanel * 2;
constexpr int block_bytes(Format format) {
    return kHeadBytes + kPanel * kSize / (format == Format::kNibbles ? 2 : 1);
}

inline float largest_of(const __m256 (&v)[4]) {
    const __m256 sign = _mm256_set1_ps(-0.f);
    __m256 most = _mm256_andnot_ps(sign, v[0]);
    for (int i = 1; i < 4; i++) most = _mm256_max_ps(most, _mm256_andnot_ps(sign, v[i]));
    __m128 four = _mm_max_ps(_mm256_castps256_ps128(most), _mm256_extractf128_ps(most, 1));
    four = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(four, _mm_movehdup_ps(four)));
}

// Of 32 signed bytes.
inline int sum_of(__m256i bytes) {
    const __m256i pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), bytes);
    const __m256i fours = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
    __m128i sum = _mm_add_epi32(_mm256_castsi256_si128(fours), _mm256_extracti128_si256(fours, 1));
    sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, _MM_SHUFFLE(1, 0, 3, 2)));
    return _mm_cvtsi128_si32(_mm_add_epi32(sum, _mm_shuffle_epi32(sum, _MM_SHUFFLE(2, 3, 0, 1))));
}

// Where a row's units lie: those of the next block, and of a block the one of its sum.
struct Units {
    float* first;
    int next, sum;

    // Of a row by itself.
    static Units plain(float* units, int row, int num_in) { return {units + (int64_t)row * num_in / kSize * 2, 2, 1}; }

    // Of 16 rows one behind another.
    static Units tiled(float* units, int row, int num_in) {
        return {units + (int64_t)(row / 16) * (num_in / kSize) * 32 + row % 16, 32, 16};
    }
};

// A row of activations: integers, and of each block what one of them stands for, and their sum in that.
inline void round_row(const float* x, int size, int8_t* out, const Units& where) {
    __m256 spoilt = _mm256_setzero_ps();
    float* units = where.first;
    for (int k = 0; k < size; k += kSize, units += where.next) {
        __m256 v[4];
        for (int i = 0; i < 4; i++) v[i] = _mm256_loadu_ps(x + k + i * 8);
        // Nothing, but of what is infinite or no number.
        for (int i = 0; i < 4; i++) spoilt = _mm256_or_ps(spoilt, _mm256_sub_ps(v[i], v[i]));
        const float most = largest_of(v);
        const __m256 factor = _mm256_set1_ps(most > 1e-30f ? 127.f / most : 0.f);
        __m256i whole[4];
        for (int i = 0; i < 4; i++) whole[i] = _mm256_cvtps_epi32(_mm256_mul_ps(v[i], factor));
        const __m256i packed = _mm256_permutevar8x32_epi32(
            _mm256_packs_epi16(_mm256_packs_epi32(whole[0], whole[1]), _mm256_packs_epi32(whole[2], whole[3])),
            _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
        _mm256_storeu_si256((__m256i*)(out + k), packed);
        units[0] = most / 127.f;
        units[where.sum] = units[0] * (float)sum_of(packed);
    }
    if (_mm256_movemask_ps(_mm256_cmp_ps(spoilt, spoilt, _CMP_UNORD_Q))) where.first[where.sum] = NAN;
}

// ---- one panel's outputs, kWide at a time

#if HAS_AVX512
constexpr int kWide = 16;
using Numbers = __m512i;
using Sums = __m512;

inline Numbers load_numbers(const void* p) { return _mm512_loadu_si512(p); }
inline Numbers low_nibbles(Numbers v) { return _mm512_and_si512(v, _mm512_set1_epi8(15)); }
inline Numbers high_nibbles(Numbers v) { return low_nibbles(_mm512_srli_epi16(v, 4)); }
inline Numbers repeat_four(int32_t four) { return _mm512_set1_epi32(four); }
inline Numbers no_numbers() { return _mm512_setzero_si512(); }
inline Sums no_sums() { return _mm512_setzero_ps(); }
inline Sums repeat_number(float number) { return _mm512_set1_ps(number); }
inline Sums load_scales(const uint8_t* p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p)); }
inline Sums times(Sums a, Sums b) { return _mm512_mul_ps(a, b); }
inline Sums plus_times(Sums a, Sums b, Sums c) { return _mm512_fmadd_ps(a, b, c); }
inline void store_sums(float* p, Sums v) { _mm512_storeu_ps(p, v); }
// GCC copies every sum for the intrinsic, and there are as many sums as registers hold.
inline void add_fours(Numbers& sum, Numbers w, Numbers x) { asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(w), "v"(x)); }
template <int kTimes>
inline Sums whole(Numbers sum) {
    static_assert(kTimes == 1);
    return _mm512_cvtepi32_ps(sum);
}
#else
constexpr int kWide = 8;
using Numbers = __m256i;
using Sums = __m256;

inline Numbers load_numbers(const void* p) { return _mm256_loadu_si256((const __m256i*)p); }
inline Numbers low_nibbles(Numbers v) { return _mm256_and_si256(v, _mm256_set1_epi8(15)); }
inline Numbers high_nibbles(Numbers v) { return low_nibbles(_mm256_srli_epi16(v, 4)); }
inline Numbers repeat_four(int32_t four) { return _mm256_set1_epi32(four); }
inline Numbers no_numbers() { return _mm256_setzero_si256(); }
inline Sums no_sums() { return _mm256_setzero_ps(); }
inline Sums repeat_number(float number) { return _mm256_set1_ps(number); }
inline Sums load_scales(const uint8_t* p) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p)); }
inline Sums times(Sums a, Sums b) { return _mm256_mul_ps(a, b); }
inline Sums plus_times(Sums a, Sums b, Sums c) { return _mm256_fmadd_ps(a, b, c); }
inline void store_sums(float* p, Sums v) { _mm256_storeu_ps(p, v); }
// Sums of 16 bits: of numbers of 4 bits and a block of 32 at most 30,480.
// GCC would add products to each other first, and keep more of them than there are registers.
inline void add_fours(Numbers& sum, Numbers w, Numbers x) {
    Numbers product;
    asm("vpmaddubsw %3, %2, %1\n\tvpaddw %1, %0, %0" : "+x"(sum), "=&x"(product) : "x"(w), "x"(x));
}
template <int kTimes>
inline Sums whole(Numbers sum) {
    return _mm256_cvtepi32_ps(_mm256_madd_epi16(sum, _mm256_set1_epi16(kTimes)));
}
#endif

constexpr int kRows = HAS_AVX512 ? 12 : 6;
constexpr int kFours = kSize / 4;

inline Numbers four(const int8_t* x) {
    int32_t all;
    std::memcpy(&all, x, sizeof all);
    return repeat_four(all);
}

template <int R>
inline void add_fours_of(Numbers (&sums)[R], const int8_t* x, int64_t stride, Numbers w) {
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) add_fours(sums[r], w, four(x + r * stride));
}

// What R rows have of a block so far, times the scale, goes to the sums.
template <int R, int kTimes>
inline void add_block(Sums (&sums)[R], const Numbers (&of_block)[R], Sums scale, const float* units, int64_t stride) {
#pragma GCC unroll 16
    for (int r = 0; r < R; r++)
        sums[r] = plus_times(whole<kTimes>(of_block[r]), times(scale, repeat_number(units[r * stride])), sums[r]);
}

template <int R>
inline void clear(Numbers (&of_block)[R]) {
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) of_block[r] = no_numbers();
}

// A block of R rows and kWide outputs, whose numbers begin at `w`.
template <int R, Format F>
inline void multiply_block(Sums (&sums)[R], const int8_t* x, int64_t stride, const uint8_t* w, Sums scale,
                           const float* units, int64_t units_stride) {
    Numbers of_block[R];
    clear(of_block);
    if constexpr (F == Format::kNibbles) {
        for (int i = 0; i < kFours / 2; i++) {
            const Numbers both = load_numbers(w + i * kPanel * 4);
            add_fours_of(of_block, x + i * 4, stride, low_nibbles(both));
            add_fours_of(of_block, x + i * 4 + kSize / 2, stride, high_nibbles(both));
        }
        add_block<R, 1>(sums, of_block, scale, units, units_stride);
    } else if constexpr (HAS_AVX512) {
        for (int i = 0; i < kFours; i++)
            add_fours_of(of_block, x + i * 4, stride, load_numbers(w + i * kPanel * 4));
        add_block<R, 1>(sums, of_block, scale, units, units_stride);
    } else {
        // Eight bits are too many for sums of 16: first the low four, then the high ones.
        for (int i = 0; i < kFours; i++)
            add_fours_of(of_block, x + i * 4, stride, low_nibbles(load_numbers(w + i * kPanel * 4)));
        add_block<R, 1>(sums, of_block, scale, units, units_stride);
        clear(of_block);
        for (int i = 0; i < kFours; i++)
            add_fours_of(of_block, x + i * 4, stride, high_nibbles(load_numbers(w + i * kPanel * 4)));
        add_block<R, kTimesHigh>(sums, of_block, scale, units, units_stride);
    }
}

// R rows times kWide outputs of a panel, from its output `first` on, to `results` [R][kPanel].
template <int R, Format F>
__attribute__((noinline)) void multiply_some(const int8_t* x, const float* units, int num_in, const uint8_t* panel,
                                             int first, const char* soon, int step, float* results) {
    const int num_blocks = num_in / kSize;
    const int64_t units_stride = num_blocks * 2;
    Sums sums[R];
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) sums[r] = no_sums();
    for (int b = 0; b < num_blocks; b++, panel += block_bytes(F), soon += step, units += 2) {
        for (int i = 0; i < step; i += 64) _mm_prefetch(soon + i, _MM_HINT_T0);
        const Sums scale = load_scales(panel + first * 2), least = load_scales(panel + (kPanel + first) * 2);
        multiply_block<R, F>(sums, x + b * kSize, num_in, panel + kHeadBytes + first * 4, scale, units, units_stride);
#pragma GCC unroll 16
        for (int r = 0; r < R; r++) sums[r] = plus_times(least, repeat_number(units[r * units_stride + 1]), sums[r]);
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) store_sums(results + r * kPanel, sums[r]);
}

// R rows times a panel. Meanwhile, for every block, `step` bytes from `soon` on are asked for.
template <int R, Format F>
void multiply(const int8_t* x, const float* units, int num_in, const uint8_t* panel, const char* soon, int step,
              Floats (&results)[R][2]) {
    for (int first = 0; first < kPanel; first += kWide)
        multiply_some<R, F>(x, units, num_in, panel, first, soon, first == 0 ? step : 0, (float*)results + first);
}

// Numbers [num_out][num_in] of at most 4 or 8 bits, scales and minima [num_out][num_in / 32] in F16, into panels; the last
// one is filled with zeros.
inline void pack(const uint8_t* numbers, const F16* scales, const F16* minima, int num_out, int num_in, Format format,
                 uint8_t* panels) {
    const int num_blocks = num_in / kSize, num_panels = (num_out + kPanel - 1) / kPanel, bytes = block_bytes(format);
    std::memset(panels, 0, (int64_t)num_panels * num_blocks * bytes);
#pragma omp parallel for
    for (int panel = 0; panel < num_panels; panel++) {
        for (int o = 0; o < kPanel && panel * kPanel + o < num_out; o++) {
            const int64_t n = panel * kPanel + o;
            for (int b = 0; b < num_blocks; b++) {
                uint8_t* to = panels + ((int64_t)panel * num_blocks + b) * bytes;
                ((F16*)to)[o] = scales[n * num_blocks + b];
                ((F16*)to)[kPanel + o] = minima[n * num_blocks + b];
                const uint8_t* from = numbers + n * num_in + b * kSize;
                uint8_t* numbers_to = to + kHeadBytes + o * 4;
                for (int k = 0; k < kSize; k++) {
                    if (format == Format::kBytes)
                        numbers_to[k / 4 * kPanel * 4 + k % 4] = from[k];
                    else
                        numbers_to[k % 16 / 4 * kPanel * 4 + k % 4] |= from[k] << (k < 16 ? 0 : 4);
                }
            }
        }
    }
}

}  // namespace blocks

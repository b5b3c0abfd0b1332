// Products of 16-bit integers, exact within a block of kBlock numbers: for weights that came in 16 bits.
//
// A sum of products of integers fits in 32 bits: it is at most the length of the one vector times that of the other, of a
// block of kBlock numbers, and those are held below kWeightLength and kRowLength.
//
// Panel [K/2][32][2]: pairs along K, as the dot product wants them. The unit of an output and that of a row, which their
// integers are multiples of, are left to the caller.

#pragma once

#include <algorithm>

#include "numbers.h"
#include "panels.h"

namespace words {

// The most numbers summed as integers, and how long a vector of so many may be. Rounded to integers it may be longer by
// half the root of kBlock; the product stays below 2^31.
constexpr int kBlock = 768;
constexpr float kWeightLength = 32760.f;
constexpr float kRowLength = 65470.f;
constexpr float kMost = 32767.f;
// Rows that share a pass over a panel: their sums stay in registers.
constexpr int kRows = HAS_AVX512 ? 12 : 6;
// As few wait for memory.
constexpr int kFewRows = HAS_AVX512 ? 8 : 4;

// num_in in as few equal blocks as can be; the last may be shorter.
inline int block_size(int num_in) {
    const int num_blocks = (num_in + kBlock - 1) / kBlock;
    return ((num_in + num_blocks - 1) / num_blocks + 31) / 32 * 32;
}

// To integers, `kIsSplit`: all high bytes before all low ones. Returns what one of them stands for; not a number if any of
// the row is none or infinite.
template <bool kIsSplit>
inline float round_row(const float* x, int size, int16_t* out) {
    const int block = block_size(size);
    float longest = 0.f;
    Floats most = repeat(1e-30f);
    for (int start = 0; start < size; start += block) {
        Floats sum = zeros();
        for (int k = start; k < std::min(start + block, size); k += kLanes) {
            const Floats v = load(x + k);
            sum = multiply_add(v, v, sum);
            most = max(most, absolute(v));
        }
        const float length = std::sqrt(total(sum));
        if (!std::isfinite(length)) return NAN;
        longest = std::max(longest, length);
    }
    const float factor = std::min(kRowLength / std::max(longest, 1e-30f), kMost / largest(most));
    for (int k = 0; k < size; k += kLanes) {
        const Floats whole = load(x + k) * repeat(factor);
        if constexpr (kIsSplit)
            store_int16_bytes((int8_t*)out + k, (int8_t*)out + size + k, whole);
        else
            store_int16(out + k, whole);
    }
    return 1.f / factor;
}

// The power of two that makes the longest block of a weight's row nearly as long as may be: most numbers lose nothing.
inline float weight_unit(const Bf16* row, int num_in) {
    const int block = block_size(num_in);
    double longest = 0;
    for (int start = 0; start < num_in; start += block) {
        double sum = 0;
        for (int k = start; k < std::min(start + block, num_in); k++) sum += (double)row[k].value() * row[k].value();
        if (!std::isfinite(sum)) return NAN;
        longest = std::max(longest, std::sqrt(sum));
    }
    return std::exp2(std::max(std::ceil(std::log2(longest / kWeightLength)), -120.));
}

inline Ints pair(const int16_t* p) {
    int32_t both;
    std::memcpy(&both, p, sizeof both);
    return repeat_int(both);
}

#if HAS_AVX512
constexpr int kHalves = 2;

// GCC copies every sum for the intrinsic, and there are as many sums as registers hold.
inline void add_products(Ints& sum, Ints x, Ints w) {
    asm("vpdpwssd %2, %1, %0" : "+v"(sum.all) : "v"(x.all), "v"(w.all));
}
#else
constexpr int kHalves = 1;

inline void add_products(Ints& sum, Ints x, Ints w) {
    __m256i product;
    asm("vpmaddwd %3, %2, %1\n\tvpaddd %1, %0, %0" : "+x"(sum.low), "=&x"(product) : "x"(x.low), "x"(w.low));
    asm("vpmaddwd %3, %2, %1\n\tvpaddd %1, %0, %0" : "+x"(sum.high), "=&x"(product) : "x"(x.high), "x"(w.high));
}
#endif

// R rows times kHalves halves of a panel, a block of it. A function of its own, so that nothing but its sums asks for
// registers.
//
// Few rows ask for the panel's next lines. More have the time to fetch another panel: half of it, from `ahead` on, if that
// is to be.
template <int R, bool kIsAhead>
__attribute__((noinline)) void block_rows(const int16_t* x, int64_t x_stride, const int16_t* panel, const char* ahead,
                                          int size, Ints (*result)[kHalves]) {
    Ints sums[R][kHalves];
#pragma GCC unroll 16
    for (int r = 0; r < R; r++)
        for (int h = 0; h < kHalves; h++) sums[r][h] = no_ints();
    for (int k = 0; k < size; k += 2) {
        const int16_t* w = panel + (int64_t)k * kPanel;
        if (R <= kFewRows) {
            for (int h = 0; h < kHalves; h++) _mm_prefetch((const char*)w + kPrefetch + h * 64, _MM_HINT_T0);
        } else if (kIsAhead) {
            _mm_prefetch(ahead + (int64_t)k * 32, _MM_HINT_T1);
        }
        Ints weights[kHalves];
        for (int h = 0; h < kHalves; h++) weights[h] = load_ints(w + h * 32);
#pragma GCC unroll 16
        for (int r = 0; r < R; r++) {
            const Ints v = pair(x + r * x_stride + k);
            for (int h = 0; h < kHalves; h++) add_products(sums[r][h], v, weights[h]);
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; r++)
        for (int h = 0; h < kHalves; h++) result[r][h] = sums[r][h];
}

template <int R, bool kIsAhead>
inline void sum_panel(const int16_t* x, const int16_t* panel, const char* ahead, int num_in, Floats (&sums)[R][2]) {
    const int block = block_size(num_in);
    for (int r = 0; r < R; r++) sums[r][0] = sums[r][1] = zeros();
    for (int k = 0; k < num_in; k += block) {
        for (int half = 0; half < 2; half += kHalves) {
            Ints of_block[R][kHalves];
            block_rows<R, kIsAhead>(x + k, num_in, panel + (int64_t)k * kPanel + half * 32, ahead + (int64_t)k * 32,
                                    std::min(block, num_in - k), of_block);
            for (int r = 0; r < R; r++)
                for (int h = 0; h < kHalves; h++)
                    sums[r][half + h] = sums[r][half + h] + to_floats(of_block[r][h]);
        }
    }
}

// Sums of products of integers to what they stand for, of a panel of which `count` outputs have a unit.
template <int R>
inline void to_units(const float* row_units, const float* units, int count, Floats (&sums)[R][2]) {
    const Floats low = load(first_lanes(count), units), high = load(first_lanes(count - 16), units + 16);
    for (int r = 0; r < R; r++) {
        const Floats unit = repeat(row_units[r]);
        sums[r][0] = sums[r][0] * low * unit;
        sums[r][1] = sums[r][1] * high * unit;
    }
}

// R rows times a panel of which `count` outputs have a unit. `ahead` may be null.
template <int R>
void multiply(const int16_t* x, const float* row_units, int num_in, const int16_t* panel, const float* units, int count,
              const char* ahead, Floats (&sums)[R][2]) {
    if (ahead)
        sum_panel<R, true>(x, panel, ahead, num_in, sums);
    else
        sum_panel<R, false>(x, panel, (const char*)panel, num_in, sums);
    to_units(row_units, units, count, sums);
}

// Rows [num_out, num_in] into panels, and the unit of each output. The last panel is filled with zeros.
inline void pack(const Bf16* rows, int num_out, int num_in, int16_t* panels, float* units) {
    const int num_panels = (num_out + kPanel - 1) / kPanel;
#pragma omp parallel for
    for (int n = 0; n < num_panels * kPanel; n++) {
        const Bf16* row = rows + (int64_t)n * num_in;
        const float unit = n < num_out ? weight_unit(row, num_in) : 1.f;
        if (n < num_out) units[n] = unit;
        int16_t* to = panels + (int64_t)(n / kPanel) * num_in * kPanel + n % kPanel * 2;
        for (int k = 0; k < num_in; k++)
            to[(int64_t)(k / 2) * 2 * kPanel + k % 2] = n < num_out ? (int16_t)std::lrint(row[k].value() / unit) : 0;
    }
}

}  // namespace words

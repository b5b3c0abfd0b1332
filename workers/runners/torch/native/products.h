// Matrix products of 16-bit integers, exact within a block of kBlock numbers.
//
// A sum of products of integers fits in 32 bits: it is at most the length of the one vector times that of the other, of a
// block of kBlock numbers, and those are held below kWeightLength and kRowLength.
//
// Weight [N/32][K/2][32][2]: a panel of 32 outputs, pairs along K, as the dot product wants them.

#pragma once

#include <omp.h>

#include <algorithm>

#include "numbers.h"

namespace {

constexpr int kPanel = 32;
// Rows that share a pass over a panel: 24 sums stay in registers.
constexpr int kRows = 12;
// A few panels stay in the cache while all rows pass, and a few rows while those panels do. Threads take panels by as
// many, so they are few.
constexpr int kPanelsAtOnce = 3;
// In a pass of so few rows memory is waited for: they ask for what is so many bytes ahead. Of more than so many passes it
// never is.
constexpr int kFewRows = 8;
constexpr int kPrefetch = 4096;
constexpr int kFewPasses = 6;
// The most numbers summed as integers, and how long a vector of so many may be. Rounded to integers it may be longer by
// half the root of kBlock; the product stays below 2^31.
constexpr int kBlock = 768;
constexpr float kWeightLength = 32760.f;
constexpr float kRowLength = 65470.f;
constexpr float kMost = 32767.f;

// kGated: of every panel the first half are gates and the second half what they let through; one number comes of both.
enum class Store { kSet, kAdd, kGated };

// What an integer stands for, of each output, and of each row.
struct Matrix {
    const int16_t* panels;
    const float* units;
};

struct Rows {
    const int16_t* values;
    const float* units;
};

struct Weight {
    Matrix matrix;
    const float* bias;  // may be null
    int num_out;
    int num_in;
    const int16_t* then;  // the panels after these, to be fetched ahead

    int64_t panel_bytes() const { return (int64_t)kPanel * num_in * sizeof(int16_t); }

    int num_panels() const { return (num_out + kPanel - 1) / kPanel; }

    // What lies so far from the first panel.
    const char* at(int64_t bytes) const {
        const int64_t beyond = bytes - num_panels() * panel_bytes();
        return beyond < 0 ? (const char*)matrix.panels + bytes : (const char*)then + beyond;
    }
};

// num_in in as few equal blocks as can be; the last may be shorter.
inline int block_size(int num_in) {
    const int num_blocks = (num_in + kBlock - 1) / kBlock;
    return ((num_in + num_blocks - 1) / num_blocks + 31) / 32 * 32;
}

// To integers. Returns what one of them stands for; not a number if any of the row is none or infinite.
float round_row(const float* x, int size, int16_t* out) {
    const int block = block_size(size);
    float longest = 0.f;
    __m512 most = _mm512_set1_ps(1e-30f);
    for (int start = 0; start < size; start += block) {
        __m512 sum = _mm512_setzero_ps();
        for (int k = start; k < std::min(start + block, size); k += 16) {
            const __m512 v = _mm512_loadu_ps(x + k);
            sum = _mm512_fmadd_ps(v, v, sum);
            most = _mm512_max_ps(most, _mm512_abs_ps(v));
        }
        const float length = std::sqrt(_mm512_reduce_add_ps(sum));
        if (!std::isfinite(length)) return NAN;
        longest = std::max(longest, length);
    }
    const float factor = std::min(kRowLength / std::max(longest, 1e-30f), kMost / _mm512_reduce_max_ps(most));
    for (int k = 0; k < size; k += 16) {
        const __m512i v = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x + k), _mm512_set1_ps(factor)));
        _mm256_storeu_si256((__m256i*)(out + k), _mm512_cvtsepi32_epi16(v));
    }
    return 1.f / factor;
}

// The power of two that makes the longest block of a weight's row nearly as long as may be: most numbers lose nothing.
float weight_unit(const Bf16* row, int num_in) {
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

inline __m512i pair(const int16_t* p) {
    int32_t both;
    std::memcpy(&both, p, sizeof both);
    return _mm512_set1_epi32(both);
}

// GCC copies every sum for the intrinsic, and there are as many sums as registers hold.
inline void add_products(__m512i& sum, __m512i x, __m512i w) { asm("vpdpwssd %2, %1, %0" : "+v"(sum) : "v"(x), "v"(w)); }

// Into result [R][2]. A function of its own, so that nothing but its sums asks for registers.
//
// Few rows ask for the panel's next lines. More have the time to fetch another panel: half of it, from `ahead` on, if that
// is to be.
template <int R, bool kIsAhead>
__attribute__((noinline)) void block_rows(const int16_t* x, int64_t x_stride, const int16_t* panel, const char* ahead,
                                          int size, __m512i* result) {
    __m512i sums[R][2];
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) sums[r][0] = sums[r][1] = _mm512_setzero_si512();
    for (int k = 0; k < size; k += 2) {
        const int16_t* w = panel + (int64_t)k * kPanel;
        if (R <= kFewRows) {
            _mm_prefetch((const char*)w + kPrefetch, _MM_HINT_T0);
            _mm_prefetch((const char*)w + kPrefetch + 64, _MM_HINT_T0);
        } else if (kIsAhead) {
            _mm_prefetch(ahead + (int64_t)k * 32, _MM_HINT_T1);
        }
        const __m512i low = _mm512_loadu_si512(w), high = _mm512_loadu_si512(w + 32);
#pragma GCC unroll 16
        for (int r = 0; r < R; r++) {
            const __m512i v = pair(x + r * x_stride + k);
            add_products(sums[r][0], v, low);
            add_products(sums[r][1], v, high);
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; r++)
        for (int half = 0; half < 2; half++) result[2 * r + half] = sums[r][half];
}

template <int R, bool kIsAhead>
inline void panel_rows(const int16_t* x, const int16_t* panel, const char* ahead, int num_in, __m512 (&sums)[R][2]) {
    const int block = block_size(num_in);
    for (int r = 0; r < R; r++) sums[r][0] = sums[r][1] = _mm512_setzero_ps();
    for (int k = 0; k < num_in; k += block) {
        __m512i of_block[R * 2];
        block_rows<R, kIsAhead>(x + k, num_in, panel + (int64_t)k * kPanel, ahead + (int64_t)k * 32,
                                std::min(block, num_in - k), of_block);
        for (int r = 0; r < R; r++)
            for (int half = 0; half < 2; half++)
                sums[r][half] = _mm512_add_ps(sums[r][half], _mm512_cvtepi32_ps(of_block[2 * r + half]));
    }
}

// One number of each gate and what it lets through, of `count` rows of sums.
__attribute__((noinline)) void store_gated(const __m512 (*sums)[2], int count, const float* row_units,
                                           const float* units, float* out, int64_t stride) {
    const __m512 gate_units = _mm512_loadu_ps(units), up_units = _mm512_loadu_ps(units + 16);
    for (int r = 0; r < count; r++) {
        const __m512 unit = _mm512_set1_ps(row_units[r]);
        const __m512 gate = _mm512_mul_ps(_mm512_mul_ps(sums[r][0], gate_units), unit);
        const __m512 up = _mm512_mul_ps(_mm512_mul_ps(sums[r][1], up_units), unit);
        _mm512_storeu_ps(out + r * stride, gated(gate, up));
    }
}

// Rows x from `row` on, times a panel. `ahead` may be null.
template <int R>
void multiply_rows(const Rows& x, int row, const Weight& w, int panel, const char* ahead, float* out, int64_t stride,
                   Store store) {
    __m512 sums[R][2];
    const int16_t* values = x.values + (int64_t)row * w.num_in;
    const int16_t* of_panel = w.matrix.panels + (int64_t)panel * kPanel * w.num_in;
    if (ahead)
        panel_rows<R, true>(values, of_panel, ahead, w.num_in, sums);
    else
        panel_rows<R, false>(values, of_panel, (const char*)of_panel, w.num_in, sums);
    if (store == Store::kGated)
        return store_gated(sums, R, x.units + row, w.matrix.units + panel * kPanel, out + row * stride + panel * 16,
                           stride);
    for (int half = 0; half < 2; half++) {
        const int n = panel * kPanel + half * 16, count = std::min(16, w.num_out - n);
        if (count <= 0) return;
        const __mmask16 mask = (__mmask16)((1u << count) - 1);
        const __m512 units = _mm512_maskz_loadu_ps(mask, w.matrix.units + n);
        const __m512 bias = w.bias ? _mm512_maskz_loadu_ps(mask, w.bias + n) : _mm512_setzero_ps();
        for (int r = 0; r < R; r++) {
            float* to = out + (row + r) * stride + n;
            __m512 v = _mm512_mul_ps(_mm512_mul_ps(sums[r][half], units), _mm512_set1_ps(x.units[row + r]));
            if (w.bias) v = _mm512_add_ps(v, bias);
            if (store == Store::kAdd) v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(mask, to));
            _mm512_mask_storeu_ps(to, mask, v);
        }
    }
}

using MultiplyRows = void (*)(const Rows&, int, const Weight&, int, const char*, float*, int64_t, Store);

// For 1 to kRows rows.
constexpr MultiplyRows kMultiplyRows[kRows] = {
    multiply_rows<1>, multiply_rows<2>, multiply_rows<3>, multiply_rows<4>,  multiply_rows<5>,  multiply_rows<6>,
    multiply_rows<7>, multiply_rows<8>, multiply_rows<9>, multiply_rows<10>, multiply_rows<11>, multiply_rows<12>,
};

// Panels first .. last for all rows, in as few passes as can be, of as equal numbers of rows. The panels from `ahead`
// bytes on, as many, are fetched meanwhile.
void multiply_panels(const Rows& x, int rows, int num_passes, const Weight& w, int first, int last, int64_t ahead,
                     float* out, int64_t stride, Store store) {
    const int64_t enough = num_passes > kFewPasses ? ahead : ahead + (last - first) * w.panel_bytes();
    for (int pass = 0; pass < num_passes; pass++) {
        const int row = rows * pass / num_passes, count = rows * (pass + 1) / num_passes - row;
        for (int panel = first; panel < last; panel++) {
            const bool is_ahead = ahead < enough;
            kMultiplyRows[count - 1](x, row, w, panel, is_ahead ? w.at(ahead) : nullptr, out, stride, store);
            if (is_ahead) ahead += w.panel_bytes() / 2;
        }
    }
}

// out [rows, num_out] (+)= x [rows, num_in] times the weight. To be called by all threads of a region; ends in a barrier.
// A thread that is not interrupted takes more of the panels than one that is.
void multiply(const Rows& x, int rows, const Weight& w, float* out, int64_t stride, Store store) {
    const int num_panels = w.num_panels(), threads = omp_get_num_threads();
    // Two passes at least where one would fetch but half a panel.
    const int num_passes = std::max((rows + kRows - 1) / kRows, rows > kFewRows ? 2 : 1);
    // One pass waits for memory, which is read fastest on and on.
    const int at_once = num_passes == 1 ? std::max(kPanelsAtOnce, num_panels / (4 * threads)) : kPanelsAtOnce;
    const int num_chunks = (num_panels + at_once - 1) / at_once;
#pragma omp for schedule(dynamic, 1)
    for (int chunk = 0; chunk < num_chunks; chunk++) {
        const int first = chunk * at_once, last = std::min(first + at_once, num_panels);
        // The next chunk of this thread, if they take turns.
        const int64_t ahead = (int64_t)(first + threads * at_once) * w.panel_bytes();
        multiply_panels(x, rows, num_passes, w, first, last, ahead, out, stride, store);
    }
}

// The same by the calling thread alone.
void multiply_alone(const Rows& x, int rows, const Weight& w, float* out, int64_t stride, Store store) {
    const int num_panels = w.num_panels(), num_passes = (rows + kRows - 1) / kRows;
    for (int first = 0; first < num_panels; first += kPanelsAtOnce) {
        const int last = std::min(first + kPanelsAtOnce, num_panels);
        multiply_panels(x, rows, num_passes, w, first, last, last * w.panel_bytes(), out, stride, store);
    }
}

}  // namespace

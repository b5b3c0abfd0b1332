// Up to 16 rows times half a panel, by tiles.

#pragma once

#include "blocks.h"
#include "panels.h"
#include "tiles.h"
#include "words.h"

#if HAS_AMX

namespace tiled {

// Lines to be asked for meanwhile.
class Ahead {
   public:
    Ahead(const char* from, int64_t bytes) : next(from), end(from + bytes) {}

    void ask(int lines) {
        for (; lines > 0 && next < end; lines--, next += 64) _mm_prefetch(next, _MM_HINT_T1);
    }

   private:
    const char *next, *end;
};

// ---- blocks: of every block a product of 32 of K, then its scales

namespace of_blocks {

// Two products are on their way while a third is scaled.
enum Tile { kSums, kX = 2, kW = 4 };

inline void use(int rows) {
    tiles::Shapes shapes;
    for (int t = 0; t < 2; t++) {
        shapes.set(kSums + t, rows, tiles::kOuts * 4);
        shapes.set(kX + t, rows, blocks::kSize);
        shapes.set(kW + t, blocks::kFours, tiles::kOuts * 4);
    }
    shapes.use();
}

// R rows and half a panel, whose numbers of a block begin at `w` in the first.
template <int R, Format F>
class Products {
   public:
    Products(const int8_t* x, int64_t x_stride, const uint8_t* w, int num_blocks)
        : x(x), x_stride(x_stride), w(w), num_blocks(num_blocks) {
        lay_out(0);
        lay_out(1);
        start<0>(0);
        lay_out(2);
        start<1>(1);
    }

    // The sums of block b, whose place among two is P, and what comes after it.
    template <int P>
    const int32_t (*take(int b))[tiles::kOuts] {
        tiles::store<kSums + P>(sums[P], sizeof *sums[P]);
        lay_out(b + 3);
        start<P>(b + 2);
        return sums[P];
    }

   private:
    // Nibbles to bytes.
    void lay_out(int b) {
        if (F != Format::kNibbles || b >= num_blocks) return;
        const uint8_t* from = w + b * blocks::block_bytes(F);
        auto& to = numbers[b % 4];
#pragma GCC unroll 4
        for (int i = 0; i < blocks::kFours / 2; i++) {
            const __m512i both = blocks::load_numbers(from + i * kPanel * 4);
            _mm512_store_si512(to[i], blocks::low_nibbles(both));
            _mm512_store_si512(to[i + blocks::kFours / 2], blocks::high_nibbles(both));
        }
    }

    template <int P>
    void start(int b) {
        if (b >= num_blocks) return;
        tiles::zero<kSums + P>();
        tiles::load<kX + P>(x + b * blocks::kSize, x_stride);
        if (F == Format::kNibbles)
            tiles::load<kW + P>(numbers[b % 4], sizeof *numbers[0]);
        else
            tiles::load<kW + P>(w + b * blocks::block_bytes(F), kPanel * 4);
        tiles::add_products<tiles::Signs::kFirst, kSums + P, kX + P, kW + P>();
    }

    const int8_t* x;
    const int64_t x_stride;
    const uint8_t* w;
    const int num_blocks;
    alignas(64) uint8_t numbers[4][blocks::kFours][tiles::kOuts * 4];
    alignas(64) int32_t sums[2][R][tiles::kOuts];
};

// R rows times 16 outputs of a panel, from its output `first` on, to `results` [R][kPanel]. `units` as blocks::Units has
// them for tiles.
template <int R, Format F>
__attribute__((noinline)) void multiply_half(const int8_t* x, const float* units, int num_in, const uint8_t* panel,
                                             int first, Ahead& ahead, float* results) {
    const int num_blocks = num_in / blocks::kSize;
    Products<R, F> products(x, num_in, panel + blocks::kHeadBytes + first * 4, num_blocks);
    __m512 sums[R];
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) sums[r] = _mm512_setzero_ps();
    const auto add = [&](const int32_t(*ints)[tiles::kOuts]) {
        const __m512 scale = blocks::load_scales(panel + first * 2);
        const __m512 least = blocks::load_scales(panel + (kPanel + first) * 2);
#pragma GCC unroll 16
        for (int r = 0; r < R; r++) {
            const __m512 whole = _mm512_cvtepi32_ps(_mm512_load_si512(ints[r]));
            sums[r] = _mm512_fmadd_ps(whole, _mm512_mul_ps(scale, _mm512_set1_ps(units[r])), sums[r]);
            sums[r] = _mm512_fmadd_ps(least, _mm512_set1_ps(units[tiles::kRows + r]), sums[r]);
        }
        panel += blocks::block_bytes(F);
        units += 2 * tiles::kRows;
        ahead.ask(blocks::block_bytes(F) / 64 / 2);
    };
    for (int b = 0; b < num_blocks; b += 2) {
        add(products.template take<0>(b));
        if (b + 1 < num_blocks) add(products.template take<1>(b + 1));
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) _mm512_storeu_ps(results + r * kPanel, sums[r]);
}

}  // namespace of_blocks

// ---- words: of both numbers the high and the low byte, four products for 64 of K

namespace of_words {

constexpr int kDepth = 64;
enum Tile { kSumsHigh, kSumsMiddle, kSumsLow, kXHigh, kXLow, kWHigh, kWLow };

inline void use(int rows) {
    tiles::Shapes shapes;
    for (int t : {kSumsHigh, kSumsMiddle, kSumsLow}) shapes.set(t, rows, tiles::kOuts * 4);
    for (int t : {kXHigh, kXLow}) shapes.set(t, rows, kDepth);
    for (int t : {kWHigh, kWLow}) shapes.set(t, kDepth / 4, tiles::kOuts * 4);
    shapes.use();
}

// Which bytes of two pairs along K, of 16 outputs, are the high or the low ones of four.
inline __m512i fours_of_pairs(int byte) {
    alignas(64) uint8_t places[64];
    for (int i = 0; i < 64; i++) places[i] = i % 4 / 2 * 64 + i / 4 * 4 + i % 2 * 2 + byte;
    return _mm512_load_si512(places);
}

struct Bytes {
    alignas(64) uint8_t high[kDepth / 4][tiles::kOuts * 4], low[kDepth / 4][tiles::kOuts * 4];
};

// 16 outputs of kDepth of K, the last ones zeros where there are but `size`.
inline void lay_out(const int16_t* from, int size, __m512i of_high, __m512i of_low, Bytes& to) {
    for (int i = 0; i < kDepth / 4; i++, from += 4 * kPanel) {
        const bool is_there = i * 4 < size;
        const __m512i pair = is_there ? _mm512_loadu_si512(from) : _mm512_setzero_si512();
        const __m512i next = is_there ? _mm512_loadu_si512(from + 2 * kPanel) : pair;
        _mm512_store_si512(to.high[i], _mm512_permutex2var_epi8(pair, of_high, next));
        _mm512_store_si512(to.low[i], _mm512_permutex2var_epi8(pair, of_low, next));
    }
}

// R rows, of which all high bytes come before all low ones, times a half of a panel.
template <int R>
__attribute__((noinline)) void multiply_half(const int8_t* x, int num_in, const int16_t* panel, int half, Ahead& ahead,
                                             Floats (&sums)[R][2]) {
    using tiles::Signs;
    const __m512i of_high = fours_of_pairs(1), of_low = fours_of_pairs(0);
    const int block = words::block_size(num_in);
    const int64_t stride = 2 * num_in;
    Bytes bytes[2];
    alignas(64) int32_t parts[3][R][tiles::kOuts];
    for (int r = 0; r < R; r++) sums[r][half] = zeros();
    for (int start = 0; start < num_in; start += block) {
        const int end = std::min(start + block, num_in);
        const auto prepare = [&](int k) {
            if (k < end) lay_out(panel + (int64_t)k * kPanel + half * 32, end - k, of_high, of_low, bytes[k / kDepth % 2]);
        };
        tiles::zero<kSumsHigh>();
        tiles::zero<kSumsMiddle>();
        tiles::zero<kSumsLow>();
        prepare(start);
        for (int k = start; k < end; k += kDepth) {
            const Bytes& w = bytes[k / kDepth % 2];
            tiles::load<kXHigh>(x + k, stride);
            tiles::load<kWHigh>(w.high, sizeof *w.high);
            tiles::add_products<Signs::kBoth, kSumsHigh, kXHigh, kWHigh>();
            tiles::load<kWLow>(w.low, sizeof *w.low);
            tiles::add_products<Signs::kFirst, kSumsMiddle, kXHigh, kWLow>();
            tiles::load<kXLow>(x + num_in + k, stride);
            tiles::add_products<Signs::kNone, kSumsLow, kXLow, kWLow>();
            tiles::add_products<Signs::kSecond, kSumsMiddle, kXLow, kWHigh>();
            prepare(k + kDepth);
            ahead.ask(kDepth / 2);
        }
        tiles::store<kSumsHigh>(parts[0], sizeof *parts[0]);
        tiles::store<kSumsMiddle>(parts[1], sizeof *parts[1]);
        tiles::store<kSumsLow>(parts[2], sizeof *parts[2]);
        for (int r = 0; r < R; r++) {
            // Each may be too large for 32 bits where their sum is not: what is lost of the parts is lost of none in all.
            __m512i sum = _mm512_slli_epi32(_mm512_load_si512(parts[0][r]), 16);
            sum = _mm512_add_epi32(sum, _mm512_slli_epi32(_mm512_load_si512(parts[1][r]), 8));
            sum = _mm512_add_epi32(sum, _mm512_load_si512(parts[2][r]));
            sums[r][half] = sums[r][half] + to_floats(Ints{sum});
        }
    }
}

}  // namespace of_words

}  // namespace tiled

#endif

// Attention of queries over paged keys and values, with float32 sums.
//
// Page of a layer, for each key head: keys [D][16 tokens], values [16 tokens][D].
//
// A row's numbers are summed in an order of its own: over the dimensions of a score one by one, over the tokens one by
// one, and the largest score is looked for in every block of kSpan tokens from the first on. So a row that is computed
// alone, straight from the pages, and one of a long prompt, from pages widened once for many rows, agree to the bit.

#pragma once

#include <algorithm>
#include <type_traits>

#include "numbers.h"

namespace {

constexpr int kPage = 16;
// The pages of a block, and its tokens.
constexpr int kPages = 4;
constexpr int kSpan = kPages * kPage;
// Rows that share widened pages.
constexpr int kWideRows = 96;
constexpr float kMinusInfinity = -1e30f;

struct Heads {
    int num_heads, num_kv_heads, head_dim;

    int group() const { return num_heads / num_kv_heads; }
    int width() const { return (num_heads + 2 * num_kv_heads) * head_dim; }
    int64_t page_elements() const { return (int64_t)kPage * num_kv_heads * head_dim; }
};

// The pages of one key head: where they lie in keys, and in values, as page `i` is at pages[i] * stride + offset.
struct Pages {
    const int* pages;
    int count;
    int64_t stride, offset;

    int64_t at(int i) const { return pages[i] * stride + offset; }
};

// Where a row's query is and its result goes, and how many tokens it sees.
struct Query {
    const float* from;
    float* to;
    int seen;
};

// The most rows whose sums fit in registers. J: head_dim / 16.
template <int J>
constexpr int kTileRows = J <= 4 && HAS_AVX512 ? 6 : J <= 8 ? 3 : 1;

// And the most dimensions of theirs, by 16.
template <int J>
constexpr int kTileDims = HAS_AVX512 ? J : 2;

inline int tile_rows(int head_dim) {
    return head_dim <= 64 ? kTileRows<4> : head_dim <= 128 ? kTileRows<8> : kTileRows<16>;
}

// What has been summed so far of R rows, D numbers each.
struct Running {
    float* queries;  // times the scale
    float* sums;
    float* totals;  // 16 a row: of each place in a page
    float* most;
};

inline void prefetch(const char* from, int num_bytes) {
    for (int i = 0; i < num_bytes; i += 64) _mm_prefetch(from + i, _MM_HINT_T0);
}

// Scores of R rows and the tokens of two pages, the page's D rows `stride` apart, into [R][kSpan]. Meanwhile the lines of
// two other pages are asked for.
template <int R, int D, bool kIsAhead, typename T>
__attribute__((noinline)) void score_pages(const float* queries, const T* const* keys, int stride,
                                           const char* const* soon, float* scores) {
    Floats sums[R][2];
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) sums[r][0] = sums[r][1] = zeros();
    for (int d = 0; d < D; d++) {
        if (kIsAhead) _mm_prefetch(soon[d % 2] + d / 2 * 64, _MM_HINT_T0);
        const Floats low = T::load(keys[0] + (int64_t)d * stride), high = T::load(keys[1] + (int64_t)d * stride);
#pragma GCC unroll 8
        for (int r = 0; r < R; r++) {
            const Floats q = repeat(queries[r * D + d]);
            sums[r][0] = multiply_add(q, low, sums[r][0]);
            sums[r][1] = multiply_add(q, high, sums[r][1]);
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) {
        store(scores + r * kSpan, sums[r][0]);
        store(scores + r * kSpan + kPage, sums[r][1]);
    }
}

// Scores of a block to weights, in place, of `num_rows` rows. Of its tokens those of `num_pages` pages were computed.
template <int J>
__attribute__((noinline)) void weigh(const Query* queries, int num_rows, int first, int num_pages, float* scores,
                                     const Running& rows) {
    for (int r = 0; r < num_rows; r++, scores += kSpan) {
        const int count = queries[r].seen - first;
        float *sums = rows.sums + r * J * 16, *totals = rows.totals + r * 16, *most = rows.most + r;
        Floats highest = repeat(kMinusInfinity);
        for (int i = 0; i < num_pages; i++) {
            const Mask mask = first_lanes(count - i * kPage);
            highest = max(highest, choose(mask, load(scores + i * kPage), highest));
        }
        const float here = largest(highest);
        Floats total = load(totals);
        if (here > *most) {
            const Floats shrink = exponential(repeat(*most - here));
            total = total * shrink;
            for (int j = 0; j < J; j++)
                store(sums + j * 16, load(sums + j * 16) * shrink);
            *most = here;
        }
        for (int i = 0; i < num_pages; i++) {
            const Mask mask = first_lanes(count - i * kPage);
            const Floats score = load(scores + i * kPage);
            const Floats p = choose(mask, exponential(score - repeat(*most)), zeros());
            total = total + p;
            store(scores + i * kPage, p);
        }
        store(totals, total);
    }
}

// Weights of R rows times the values of `count` tokens, pages of them, are added to the sums: as many dimensions of all
// tokens at once as registers hold.
template <int R, int J, bool kIsAhead, typename T>
__attribute__((noinline)) void add_values(const float* weights, const T* const* values, int count,
                                          const char* const* soon, float* sums) {
    constexpr int D = J * 16, kDims = kTileDims<J>;
    for (int first = 0; first < J; first += kDims) {
        Floats of[R][kDims];
#pragma GCC unroll 8
        for (int r = 0; r < R; r++)
#pragma GCC unroll 16
            for (int j = 0; j < kDims; j++) of[r][j] = load(sums + r * D + (first + j) * 16);
        for (int t = 0; t < count; t++) {
            const T* value = values[t / kPage] + t % kPage * D + first * 16;
            if (kIsAhead && first == 0) prefetch(soon[t / kPage] + t % kPage * D * 2, D * 2);
            Floats p[R];
#pragma GCC unroll 8
            for (int r = 0; r < R; r++) p[r] = repeat(weights[r * kSpan + t]);
#pragma GCC unroll 16
            for (int j = 0; j < kDims; j++) {
                const Floats v = T::load(value + j * 16);
#pragma GCC unroll 8
                for (int r = 0; r < R; r++) of[r][j] = multiply_add(p[r], v, of[r][j]);
            }
        }
#pragma GCC unroll 8
        for (int r = 0; r < R; r++)
#pragma GCC unroll 16
            for (int j = 0; j < kDims; j++) store(sums + r * D + (first + j) * 16, of[r][j]);
    }
}

// A block of tokens from `first` on, for R rows of which some see a part of it and none more than `longest` tokens.
template <int R, int J, bool kIsAhead, typename T>
inline void attend_block(const Query* queries, const Running& rows, int first, int longest, const T* const* keys,
                         const T* const* values, int key_stride, const char* const* soon_keys,
                         const char* const* soon_values) {
    constexpr int D = J * 16;
    alignas(64) float scores[R * kSpan];
    const int count = std::min(longest - first, kSpan), num_pages = (count + kPage - 1) / kPage;
    for (int i = 0; i < num_pages; i += 2)
        score_pages<R, D, kIsAhead>(rows.queries, keys + i, key_stride, soon_keys + i, scores + i * kPage);
    weigh<J>(queries, R, first, num_pages, scores, rows);
    add_values<R, J, kIsAhead>(scores, values, count, soon_values, rows.sums);
}

template <int J>
inline void begin(const Query* queries, int count, float scale, const Running& rows) {
    constexpr int D = J * 16;
    for (int r = 0; r < count; r++) {
        for (int d = 0; d < D; d += 16) {
            store(rows.queries + r * D + d, load(queries[r].from + d) * repeat(scale));
            store(rows.sums + r * D + d, zeros());
        }
        store(rows.totals + r * 16, zeros());
        rows.most[r] = kMinusInfinity;
    }
}

template <int J>
inline void finish(const Query* queries, int count, const Running& rows) {
    constexpr int D = J * 16;
    for (int r = 0; r < count; r++) {
        const Floats share = repeat(1.f / total(load(rows.totals + r * 16)));
        for (int d = 0; d < D; d += 16)
            store(queries[r].to + d, load(rows.sums + r * D + d) * share);
    }
}

inline int longest_of(const Query* queries, int count) {
    int longest = 0;
    for (int r = 0; r < count; r++) longest = std::max(longest, queries[r].seen);
    return longest;
}

// R rows of queries of one key head over the pages of one sequence, straight from the pages. They lie anywhere, so those
// of the next block are asked for on the way, and the first ones of `next`.
template <int R, int J, typename Kv>
void attend_rows(const Query* queries, const Kv* keys, const Kv* values, const Pages& pages, const Pages& next,
                 float scale) {
    constexpr int D = J * 16;
    alignas(64) float q[R * D], sums[R * D], totals[R * 16];
    float most[R];
    const Running rows{q, sums, totals, most};
    begin<J>(queries, R, scale, rows);
    const int longest = longest_of(queries, R);
    for (int first = 0; first < longest; first += kSpan) {
        const Kv *of_keys[kPages], *of_values[kPages];
        const char *soon_keys[kPages], *soon_values[kPages];
        for (int i = 0; i < kPages; i++) {
            const int page = first / kPage + i, ahead = page + kPages;
            const int64_t base = pages.at(std::min(page, pages.count - 1));
            int64_t soon = base;
            if (first + kSpan < longest) {
                if (ahead < pages.count) soon = pages.at(ahead);
            } else if (i < next.count) {
                soon = next.at(i);
            }
            of_keys[i] = keys + base, of_values[i] = values + base;
            soon_keys[i] = (const char*)(keys + soon), soon_values[i] = (const char*)(values + soon);
        }
        attend_block<R, J, true>(queries, rows, first, longest, of_keys, of_values, kPage, soon_keys, soon_values);
    }
    finish<J>(queries, R, rows);
}

// Room for attend_wide, in floats.
inline int64_t wide_space(int head_dim) {
    return (int64_t)kWideRows * (2 * head_dim + 16 + 1) + 2 * kSpan * head_dim;
}

// The same of up to kWideRows rows, in order of what they see: each block of pages is widened once for all of them.
template <int J, typename Kv>
void attend_wide(const Query* queries, int count, const Kv* keys, const Kv* values, const Pages& pages, float scale,
                 float* space) {
    constexpr int D = J * 16, kMost = kTileRows<J>;
    Float* wide_keys = (Float*)space;                // [D][kSpan]
    Float* wide_values = wide_keys + D * kSpan;      // [kSpan][D]
    float* rows_space = space + 2 * D * kSpan;
    const Running rows{rows_space, rows_space + kWideRows * D, rows_space + 2 * kWideRows * D,
                       rows_space + kWideRows * (2 * D + 16)};
    begin<J>(queries, count, scale, rows);
    const Float *of_keys[kPages], *of_values[kPages];
    for (int i = 0; i < kPages; i++) {
        of_keys[i] = wide_keys + i * kPage;
        of_values[i] = wide_values + i * kPage * D;
    }
    const int longest = longest_of(queries, count);
    for (int first = 0; first < longest; first += kSpan) {
        for (int page = first / kPage, i = 0; i < kPages && page < pages.count; i++, page++) {
            const Kv *key = keys + pages.at(page), *value = values + pages.at(page);
            if (page + kPages < pages.count) {
                prefetch((const char*)(keys + pages.at(page + kPages)), kPage * D * sizeof(Kv));
                prefetch((const char*)(values + pages.at(page + kPages)), kPage * D * sizeof(Kv));
            }
            for (int d = 0; d < D; d++)
                store((float*)(wide_keys + d * kSpan + i * kPage), Kv::load(key + d * kPage));
            for (int d = 0; d < kPage * D; d += 16)
                store((float*)(wide_values + i * kPage * D + d), Kv::load(value + d));
        }
        for (int r = 0; r < count;) {
            const Query* few = queries + r;
            const Running of_few{rows.queries + r * D, rows.sums + r * D, rows.totals + r * 16, rows.most + r};
            const int left = count - r;
            const auto attend = [&](auto number) {
                constexpr int R = std::min(decltype(number)::value, kMost);
                const int seen = longest_of(few, R);
                if (seen > first)
                    attend_block<R, J, false>(few, of_few, first, seen, of_keys, of_values, kSpan, nullptr, nullptr);
                r += R;
            };
            if (left >= kMost)
                attend(std::integral_constant<int, kMost>());
            else if (left >= 3)
                attend(std::integral_constant<int, 3>());
            else
                attend(std::integral_constant<int, 1>());
        }
    }
    finish<J>(queries, count, rows);
}

}  // namespace

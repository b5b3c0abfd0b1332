// Matrix products: panels of weights shared out over threads, and rows over passes.

#pragma once

#include <omp.h>

#include <algorithm>
#include <utility>

#include "blocks.h"
#include "numbers.h"
#include "panels.h"
#include "tiled.h"
#include "words.h"

namespace {

// A few panels stay in the cache while all rows pass, and a few rows while those panels do. Threads take panels by as
// many, so they are few.
constexpr int kPanelsAtOnce = 3;
// Of more rows than so many memory is never waited for.
constexpr int kPrefetchRows = 72;

// kGated: of every panel the first half are gates and the second half what they let through; one number comes of both.
enum class Store { kSet, kAdd, kGated };

struct Weight {
    Matrix matrix;
    const float* bias;  // may be null
    int num_out;
    int num_in;
    const void* then;  // the panels after these, to be fetched ahead

    Format format() const { return matrix.format; }

    int64_t panel_bytes() const {
        if (format() == Format::kWords) return (int64_t)kPanel * num_in * sizeof(int16_t);
        return (int64_t)num_in / blocks::kSize * blocks::block_bytes(format());
    }

    int num_panels() const { return (num_out + kPanel - 1) / kPanel; }

    // Of a pass.
    int most_rows() const { return format() == Format::kWords ? words::kRows : blocks::kRows; }

    // Two passes at least where one would fetch but half a panel.
    int num_passes(int rows) const {
        const int most = most_rows();
        return std::max((rows + most - 1) / most, format() == Format::kWords && rows > words::kFewRows ? 2 : 1);
    }

    // What lies so far from the first panel.
    const char* at(int64_t bytes) const {
        const int64_t beyond = bytes - num_panels() * panel_bytes();
        return beyond < 0 ? (const char*)matrix.panels + bytes : (const char*)then + beyond;
    }
};

// One number of each gate and what it lets through, of `count` rows of sums.
__attribute__((noinline)) void store_gated(const Floats (*sums)[2], int count, float* out, int64_t stride) {
    for (int r = 0; r < count; r++) store(out + r * stride, gated(sums[r][0], sums[r][1]));
}

// `count` rows of sums of a panel to where its outputs are in `out`.
__attribute__((noinline)) void store_sums(const Floats (*sums)[2], int count, const Weight& w, int panel, float* out,
                                          int64_t stride, Store how) {
    for (int half = 0; half < 2; half++) {
        const int n = panel * kPanel + half * kLanes;
        const Mask mask = first_lanes(w.num_out - n);
        const Floats bias = w.bias ? load(mask, w.bias + n) : zeros();
        for (int r = 0; r < count; r++) {
            float* to = out + r * stride + n;
            Floats v = sums[r][half];
            if (w.bias) v = v + bias;
            if (how == Store::kAdd) v = v + load(mask, to);
            store(mask, to, v);
        }
    }
}

// Where each of them goes, as `how` says.
template <int R>
inline void store_any(const Floats (&sums)[R][2], int row, const Weight& w, int panel, float* out, int64_t stride,
                      Store how) {
    if (how == Store::kGated)
        store_gated(sums, R, out + row * stride + panel * 16, stride);
    else
        store_sums(sums, R, w, panel, out + row * stride, stride, how);
}

// Rows x from `row` on, times a panel. Half a panel from `ahead` on, unless it is null, is fetched meanwhile.
template <int R, Format F>
void multiply_rows(const Rows& x, int row, const Weight& w, int panel, const char* ahead, float* out, int64_t stride,
                   Store how) {
    Floats sums[R][2];
    const char* of_panel = (const char*)w.matrix.panels + panel * w.panel_bytes();
    const int64_t begin = (int64_t)row * w.num_in;
    if constexpr (F == Format::kWords) {
        words::multiply<R>((const int16_t*)x.values + begin, x.units + row, w.num_in, (const int16_t*)of_panel,
                           w.matrix.units + panel * kPanel, w.num_out - panel * kPanel, ahead, sums);
    } else {
        // A block's lines are asked for: of the panel itself where it is read once, half of them of the one ahead.
        const int bytes = blocks::block_bytes(F);
        const char* soon = ahead ? ahead : of_panel + kPrefetch;
        blocks::multiply<R, F>((const int8_t*)x.values + begin, x.units + begin / blocks::kSize * 2, w.num_in,
                               (const uint8_t*)of_panel, soon, ahead ? bytes / 2 : bytes, sums);
    }
    store_any(sums, row, w, panel, out, stride, how);
}

using MultiplyRows = void (*)(const Rows&, int, const Weight&, int, const char*, float*, int64_t, Store);

template <Format F, int... R>
MultiplyRows multiplier_of(int rows, std::integer_sequence<int, R...>) {
    static constexpr MultiplyRows kOf[] = {multiply_rows<R + 1, F>...};
    return kOf[rows - 1];
}

inline MultiplyRows multiplier(Format format, int rows) {
    switch (format) {
        case Format::kWords:
            return multiplier_of<Format::kWords>(rows, std::make_integer_sequence<int, words::kRows>());
        case Format::kBytes:
            return multiplier_of<Format::kBytes>(rows, std::make_integer_sequence<int, blocks::kRows>());
        default:
            return multiplier_of<Format::kNibbles>(rows, std::make_integer_sequence<int, blocks::kRows>());
    }
}

// Panels first .. last for all rows, in as few passes as can be, of as equal numbers of rows. The panels from `ahead`
// bytes on, as many, are fetched meanwhile.
void multiply_panels(const Rows& x, int rows, int num_passes, const Weight& w, int first, int last, int64_t ahead,
                     float* out, int64_t stride, Store how) {
    const bool is_waited_for = num_passes > 1 && rows <= kPrefetchRows;
    const int64_t enough = is_waited_for ? ahead + (last - first) * w.panel_bytes() : ahead;
    for (int pass = 0; pass < num_passes; pass++) {
        const int row = rows * pass / num_passes, count = rows * (pass + 1) / num_passes - row;
        const MultiplyRows multiply = multiplier(w.format(), count);
        for (int panel = first; panel < last; panel++) {
            const bool is_ahead = ahead < enough;
            multiply(x, row, w, panel, is_ahead ? w.at(ahead) : nullptr, out, stride, how);
            if (is_ahead) ahead += w.panel_bytes() / 2;
        }
    }
}

#if HAS_AMX

// R rows x from `row` on, a multiple of 16, times a panel.
template <int R, Format F>
void multiply_tiled(const Rows& x, int row, const Weight& w, int panel, tiled::Ahead& ahead, float* out, int64_t stride,
                    Store how) {
    const int64_t begin = (int64_t)row * w.num_in;
    const char* of_panel = (const char*)w.matrix.panels + panel * w.panel_bytes();
    Floats sums[R][2];
    for (int half = 0; half < 2; half++) {
        if constexpr (F == Format::kWords)
            tiled::of_words::multiply_half<R>((const int8_t*)((const int16_t*)x.values + begin), w.num_in,
                                              (const int16_t*)of_panel, half, ahead, sums);
        else
            tiled::of_blocks::multiply_half<R, F>((const int8_t*)x.values + begin, x.units + begin / blocks::kSize * 2,
                                                  w.num_in, (const uint8_t*)of_panel, half * tiles::kOuts, ahead,
                                                  (float*)sums + half * tiles::kOuts);
    }
    if constexpr (F == Format::kWords)
        words::to_units(x.units + row, w.matrix.units + panel * kPanel, w.num_out - panel * kPanel, sums);
    store_any(sums, row, w, panel, out, stride, how);
}

using MultiplyTiled = void (*)(const Rows&, int, const Weight&, int, tiled::Ahead&, float*, int64_t, Store);

template <Format F, int... R>
MultiplyTiled tiled_multiplier_of(int rows, std::integer_sequence<int, R...>) {
    static constexpr MultiplyTiled kOf[] = {multiply_tiled<R + 1, F>...};
    return kOf[rows - 1];
}

inline MultiplyTiled tiled_multiplier(Format format, int rows) {
    const auto most = std::make_integer_sequence<int, tiles::kRows>();
    switch (format) {
        case Format::kWords: return tiled_multiplier_of<Format::kWords>(rows, most);
        case Format::kBytes: return tiled_multiplier_of<Format::kBytes>(rows, most);
        default: return tiled_multiplier_of<Format::kNibbles>(rows, most);
    }
}

inline void use_tiles(Format format, int rows) {
    if (format == Format::kWords)
        tiled::of_words::use(rows);
    else
        tiled::of_blocks::use(rows);
}

// Panels first .. last for all rows. The panels from `ahead` bytes on, as many, are fetched meanwhile.
void multiply_panels_tiled(const Rows& x, int rows, const Weight& w, int first, int last, int64_t ahead, float* out,
                           int64_t stride, Store how) {
    const tiles::Held held;
    int rows_of_tiles = 0;
    for (int panel = first; panel < last; panel++, ahead += w.panel_bytes()) {
        tiled::Ahead lines(w.at(ahead), w.panel_bytes());
        for (int row = 0; row < rows; row += tiles::kRows) {
            const int count = std::min(tiles::kRows, rows - row);
            if (count != rows_of_tiles) use_tiles(w.format(), count);
            rows_of_tiles = count;
            tiled_multiplier(w.format(), count)(x, row, w, panel, lines, out, stride, how);
        }
    }
}

#else

void multiply_panels_tiled(const Rows&, int, const Weight&, int, int, int64_t, float*, int64_t, Store) {}

#endif

// out [rows, num_out] (+)= x [rows, num_in] times the weight. To be called by all threads of a region; ends in a barrier.
// A thread that is not interrupted takes more of the panels than one that is.
void multiply(const Rows& x, int rows, const Weight& w, float* out, int64_t stride, Store how) {
    const int num_panels = w.num_panels(), threads = omp_get_num_threads(), num_passes = w.num_passes(rows);
    // One pass waits for memory, which is read fastest on and on.
    const int at_once = num_passes == 1 ? std::max(kPanelsAtOnce, num_panels / (4 * threads)) : kPanelsAtOnce;
    const int num_chunks = (num_panels + at_once - 1) / at_once;
#pragma omp for schedule(dynamic, 1)
    for (int chunk = 0; chunk < num_chunks; chunk++) {
        const int first = chunk * at_once, last = std::min(first + at_once, num_panels);
        // The next chunk of this thread, if they take turns.
        const int64_t ahead = (int64_t)(first + threads * at_once) * w.panel_bytes();
        if (tiles::are_used(rows))
            multiply_panels_tiled(x, rows, w, first, last, ahead, out, stride, how);
        else
            multiply_panels(x, rows, num_passes, w, first, last, ahead, out, stride, how);
    }
}

// The same by the calling thread alone.
void multiply_alone(const Rows& x, int rows, const Weight& w, float* out, int64_t stride, Store how) {
    if (tiles::are_used(rows)) {
        multiply_panels_tiled(x, rows, w, 0, w.num_panels(), w.panel_bytes(), out, stride, how);
        return;
    }
    const int num_panels = w.num_panels(), num_passes = w.num_passes(rows);
    for (int first = 0; first < num_panels; first += kPanelsAtOnce) {
        const int last = std::min(first + kPanelsAtOnce, num_panels);
        multiply_panels(x, rows, num_passes, w, first, last, last * w.panel_bytes(), out, stride, how);
    }
}

}  // namespace

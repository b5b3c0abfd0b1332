// How weights lie in memory, whatever their numbers are: outputs in panels of 32, of which a pass of a few rows takes one
// after the other.

#pragma once

#include <cstdint>

namespace {

constexpr int kPanel = 32;
// In a pass that is the only one memory is waited for: it asks for what is so many bytes ahead.
constexpr int kPrefetch = 4096;

// kWords: 16-bit integers (words.h). kBytes, kNibbles: blocks of numbers of 8 or 4 bits (blocks.h).
enum class Format : int32_t { kWords, kBytes, kNibbles };

// `units`: of kWords, what an integer stands for in each output.
struct Matrix {
    const void* panels;
    const float* units;
    Format format;
};

// Activations, rounded as the weights want them. kWords: `values` int16 [rows][K], `units` [rows]. Else int8 [rows][K],
// and of each block of a row two numbers, see blocks.h.
struct Rows {
    const void* values;
    const float* units;
};

}  // namespace

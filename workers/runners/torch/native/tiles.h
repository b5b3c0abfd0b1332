// Products of many rows by AMX, on processors that have it: the same sums of integers as in words.h and blocks.h, and the
// same operations on them in the same order, so that a row's results do not depend on how many are with it, to the bit.
//
// A tile takes 16 rows of 64 bytes. Activations [row][64 of K] times weights [16 fours of K][16 outputs][4] give sums
// [row][output] of 32 bits, in 16 cycles where two vector units would need 128 (Intel's optimization manual, Intel AMX).

#pragma once

#include "vector.h"

#if HAS_AVX512 && defined(__AMX_INT8__) && defined(__AVX512VBMI__) && defined(__linux__)
#define HAS_AMX 1
#include <sys/syscall.h>
#include <unistd.h>
#else
#define HAS_AMX 0
#endif

#include <cstdint>
#include <cstring>

namespace tiles {

constexpr int kRows = 16;
constexpr int kOuts = 16;

#if HAS_AMX

// Numbers have to be laid out for tiles and sums to be fetched from them, which pays from about so many rows on.
constexpr int kLeastRows = 7;

// The system gives the large registers only to a process that asks for them.
inline bool are_allowed() {
    constexpr long kRequestPermission = 0x1023, kTileData = 18;
    static const bool allowed = syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
    return allowed;
}

inline bool are_used(int rows) { return rows >= kLeastRows && are_allowed(); }

// Rows, and bytes of one, of every tile.
struct alignas(64) Shapes {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {};
    uint8_t rows[16] = {};

    void set(int tile, int num_rows, int bytes) {
        rows[tile] = num_rows;
        row_bytes[tile] = bytes;
    }

    // All 64 bytes are named: GCC 12's intrinsic names eight, and loses the rest.
    void use() const { asm volatile("ldtilecfg %0" : : "m"(*(const char(*)[64])this) : "memory"); }
};

// Tiles are a thread's for as long. Then they are as they were: other libraries, as llama.cpp, say once for a thread what
// shapes theirs have.
class Held {
   public:
    Held() { asm volatile("sttilecfg %0" : "=m"(*(char(*)[64])&before) : : "memory"); }
    Held(const Held&) = delete;
    ~Held() { before.use(); }

   private:
    Shapes before;
};

template <int T>
inline void zero() {
    asm volatile("tilezero %%tmm%c0" : : "i"(T));
}

template <int T>
inline void load(const void* from, int64_t stride) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(stride), "i"(T) : "memory");
}

template <int T>
inline void store(void* to, int64_t stride) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(to), "r"(stride), "i"(T) : "memory");
}

// Sums in tile T of products of X by W; of both it is said whether numbers are signed.
enum class Signs { kBoth, kFirst, kSecond, kNone };

template <Signs S, int T, int X, int W>
inline void add_products() {
    if constexpr (S == Signs::kBoth)
        asm volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(T), "i"(X), "i"(W));
    else if constexpr (S == Signs::kFirst)
        asm volatile("tdpbsud %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(T), "i"(X), "i"(W));
    else if constexpr (S == Signs::kSecond)
        asm volatile("tdpbusd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(T), "i"(X), "i"(W));
    else
        asm volatile("tdpbuud %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(T), "i"(X), "i"(W));
}

#else

inline bool are_used(int) { return false; }

#endif

}  // namespace tiles

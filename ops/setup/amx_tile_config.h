/* Given to the llama.cpp build by `-include`. gcc 12 declares that _tile_loadconfig reads a pointer-sized object, so the
   optimiser drops the stores that fill the 64-byte tile configuration, and the first decode on a processor with AMX dies
   with SIGSEGV. These forms name all 64 bytes. Other compilers and processors see nothing of it. */
#pragma once
#if defined(__AMX_TILE__) && defined(__GNUC__) && !defined(__clang__)
#include <immintrin.h>
static inline void inferflux_tile_loadconfig(const void *config) {
    __asm__ volatile("ldtilecfg %0" : : "m"(*(const char(*)[64])config) : "memory");
}
static inline void inferflux_tile_storeconfig(void *config) {
    __asm__ volatile("sttilecfg %0" : "=m"(*(char(*)[64])config) : : "memory");
}
#define _tile_loadconfig inferflux_tile_loadconfig
#define _tile_storeconfig inferflux_tile_storeconfig
#endif

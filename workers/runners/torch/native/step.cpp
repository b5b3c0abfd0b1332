// One step of a Llama-family decoder on a processor with AVX-512 and its 16-bit integer dot product: mixed prompts and
// decodes, whole, in one call.
//
// Keys and values are F16 or BF16. Matrix products are of 16-bit integers: of weights with a power of two for each output,
// of activations with a factor for each row. Both keep 12 bits and more where BF16 keeps 8, and that is what brings logits
// several times nearer to float32's, in as many instructions. Everything else is float32.
// Integer sums are exact, and every row is computed by the same instructions in the same order whatever else is in the
// batch, so that a row's logits do not depend on its company, to the bit.
//
// A sum of products of integers fits in 32 bits: it is at most the length of the one vector times that of the other, of a
// block of kBlock numbers, and those are held below kWeightLength and kRowLength.
//
// Layouts. Weight [N/32][K/2][32][2]: a panel of 32 outputs, pairs along K, as the dot product wants them. Page of a
// layer, for each key head: keys [D][16 tokens], values [16 tokens][D].

#include <immintrin.h>
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <type_traits>
#include <vector>

namespace {

constexpr int kPage = 16;
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
// How many pages of keys and values are asked for ahead.
constexpr int kPagesAhead = 2;
constexpr float kMinusInfinity = -1e30f;
// The most numbers summed as integers, and how long a vector of so many may be. Rounded to integers it may be longer by
// half the root of kBlock; the product stays below 2^31.
constexpr int kBlock = 768;
constexpr float kWeightLength = 32760.f;
constexpr float kRowLength = 65470.f;
constexpr float kMost = 32767.f;

// ---- small things

// Numbers of 16 bits, 16 at a time. As elements of keys and values they are told apart by type.
struct Bf16 {
    uint16_t bits;

    float value() const {
        const uint32_t whole = (uint32_t)bits << 16;
        float value;
        std::memcpy(&value, &whole, sizeof value);
        return value;
    }

    static __m512 load(const void* p) {
        return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p)), 16));
    }

    static void store(void* p, __m512 v) { _mm256_storeu_si256((__m256i*)p, (__m256i)_mm512_cvtneps_pbh(v)); }
};

struct F16 {
    uint16_t bits;

    static __m512 load(const void* p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p)); }

    static void store(void* p, __m512 v) {
        _mm256_storeu_si256((__m256i*)p, _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
    }
};

// e^x for x <= 88: 2^n times a polynomial.
inline __m512 exponential(__m512 x) {
    x = _mm512_max_ps(x, _mm512_set1_ps(-87.f));
    const __m512 t = _mm512_mul_ps(x, _mm512_set1_ps(1.44269504f));
    const __m512 n = _mm512_roundscale_ps(t, 0);
    const __m512 f = _mm512_sub_ps(t, n);
    __m512 p = _mm512_set1_ps(1.8775767e-3f);
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(8.9893397e-3f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(5.5826318e-2f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(2.4015361e-1f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(6.9315308e-1f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(9.9999994e-1f));
    return _mm512_scalef_ps(p, n);
}

inline float rms_scale(const float* x, int size, float eps) {
    __m512 sum = _mm512_setzero_ps();
    for (int k = 0; k < size; k += 16) {
        const __m512 v = _mm512_loadu_ps(x + k);
        sum = _mm512_fmadd_ps(v, v, sum);
    }
    return 1.f / std::sqrt(_mm512_reduce_add_ps(sum) / size + eps);
}

void norm_row(const float* x, const float* weight, float eps, int size, float* out) {
    const __m512 scale = _mm512_set1_ps(rms_scale(x, size, eps));
    for (int k = 0; k < size; k += 16)
        _mm512_storeu_ps(out + k, _mm512_mul_ps(_mm512_mul_ps(_mm512_loadu_ps(x + k), scale), _mm512_loadu_ps(weight + k)));
}

// A grown buffer keeps its size. Contents are lost.
template <typename T>
struct Buffer {
    T* data = nullptr;
    size_t size = 0;

    bool reserve(size_t wanted) {
        if (wanted <= size) return true;
        std::free(data);
        data = (T*)std::aligned_alloc(64, (wanted * sizeof(T) + 63) / 64 * 64);
        size = data ? wanted : 0;
        return data != nullptr;
    }

    ~Buffer() { std::free(data); }
};

// ---- matrix products

enum class Store { kSet, kAdd };

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

// out [rows, num_out] (+)= x [rows, num_in] times the weight. To be called by all threads of a region; ends in a barrier.
// A thread that is not interrupted takes more of the panels than one that is.
void multiply(const Rows& x, int rows, const Weight& w, float* out, int64_t stride, Store store) {
    const int num_panels = w.num_panels(), threads = omp_get_num_threads();
    // As few passes as can be, of as equal numbers of rows; two at least where one would fetch but half a panel.
    const int num_passes = std::max((rows + kRows - 1) / kRows, rows > kFewRows ? 2 : 1);
    // One pass waits for memory, which is read fastest on and on.
    const int at_once = num_passes == 1 ? std::max(kPanelsAtOnce, num_panels / (4 * threads)) : kPanelsAtOnce;
    const int num_chunks = (num_panels + at_once - 1) / at_once;
#pragma omp for schedule(dynamic, 1)
    for (int chunk = 0; chunk < num_chunks; chunk++) {
        const int first = chunk * at_once, last = std::min(first + at_once, num_panels);
        // The next chunk of this thread, if they take turns.
        int64_t ahead = (int64_t)(first + threads * at_once) * w.panel_bytes();
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
}

// ---- attention

struct Heads {
    int num_heads, num_kv_heads, head_dim;

    int group() const { return num_heads / num_kv_heads; }
    int width() const { return (num_heads + 2 * num_kv_heads) * head_dim; }
    int64_t page_elements() const { return (int64_t)kPage * num_kv_heads * head_dim; }
};

// A query against pages: what has been summed so far.
template <int J>
struct Running {
    __m512 sums[J];
    __m512 total;  // of each place in a page
    float most;
};

// The pages of one key head: where they lie in keys, and in values, as page `i` is at pages[i] * stride + offset.
struct Pages {
    const int* pages;
    int count;
    int64_t stride, offset;

    int64_t at(int i) const { return pages[i] * stride + offset; }
};

// R rows of queries of one key head over the pages of one sequence; row r sees `seen[r]` tokens. J: head_dim / 16.
// Pages lie anywhere, so those that come soon are asked for on the way, and the first ones of `next`.
template <int R, int J, typename Kv>
void attend_rows(const float* const* queries, float* const* outputs, const int* seen, const Kv* keys, const Kv* values,
                 const Pages& pages, const Pages& next, float scale) {
    constexpr int D = J * 16;
    constexpr int kLines = kPage * D * sizeof(Kv) / 64;
    alignas(64) float q[R][D];
    Running<J> rows[R];
    int longest = 0;
    for (int r = 0; r < R; r++) {
        for (int j = 0; j < J; j++) {
            _mm512_store_ps(q[r] + j * 16, _mm512_mul_ps(_mm512_loadu_ps(queries[r] + j * 16), _mm512_set1_ps(scale)));
            rows[r].sums[j] = _mm512_setzero_ps();
        }
        rows[r].most = kMinusInfinity;
        rows[r].total = _mm512_setzero_ps();
        longest = std::max(longest, seen[r]);
    }
    for (int first = 0; first < longest; first += kPage) {
        const int page = first / kPage, ahead = page + kPagesAhead, beyond = ahead - pages.count;
        const int64_t base = pages.at(page);
        const int64_t soon = beyond < 0 ? pages.at(ahead) : beyond < next.count ? next.at(beyond) : base;
        const Kv *key = keys + base, *value = values + base;
        const char *soon_key = (const char*)(keys + soon), *soon_value = (const char*)(values + soon);
        __m512 even[R], odd[R];
        for (int r = 0; r < R; r++) even[r] = odd[r] = _mm512_setzero_ps();
        for (int d = 0; d < D; d += 2) {
            static_assert(kLines == D / 2);
            _mm_prefetch(soon_key + d * 32, _MM_HINT_T0);
            const __m512 k0 = Kv::load(key + d * kPage), k1 = Kv::load(key + (d + 1) * kPage);
            for (int r = 0; r < R; r++) {
                even[r] = _mm512_fmadd_ps(_mm512_set1_ps(q[r][d]), k0, even[r]);
                odd[r] = _mm512_fmadd_ps(_mm512_set1_ps(q[r][d + 1]), k1, odd[r]);
            }
        }
        alignas(64) float weights[R][kPage];
        for (int r = 0; r < R; r++) {
            Running<J>& row = rows[r];
            const int count = std::clamp(seen[r] - first, 0, kPage);
            const __mmask16 mask = (__mmask16)((1u << count) - 1);
            const __m512 scores =
                _mm512_mask_mov_ps(_mm512_set1_ps(kMinusInfinity), mask, _mm512_add_ps(even[r], odd[r]));
            const float most = _mm512_reduce_max_ps(scores);
            if (most > row.most) {
                const __m512 shrink = exponential(_mm512_set1_ps(row.most - most));
                row.total = _mm512_mul_ps(row.total, shrink);
                for (int j = 0; j < J; j++) row.sums[j] = _mm512_mul_ps(row.sums[j], shrink);
                row.most = most;
            }
            const __m512 p =
                _mm512_maskz_mov_ps(mask, exponential(_mm512_sub_ps(scores, _mm512_set1_ps(row.most))));
            row.total = _mm512_add_ps(row.total, p);
            _mm512_store_ps(weights[r], p);
        }
        for (int t = 0; t < kPage; t++) {
            for (int line = 0; line < J / 2; line++)
                _mm_prefetch(soon_value + (t * J / 2 + line) * 64, _MM_HINT_T0);
            for (int j = 0; j < J; j++) {
                const __m512 v = Kv::load(value + t * D + j * 16);
                for (int r = 0; r < R; r++)
                    rows[r].sums[j] = _mm512_fmadd_ps(_mm512_set1_ps(weights[r][t]), v, rows[r].sums[j]);
            }
        }
    }
    for (int r = 0; r < R; r++) {
        const __m512 share = _mm512_set1_ps(1.f / _mm512_reduce_add_ps(rows[r].total));
        for (int j = 0; j < J; j++) _mm512_storeu_ps(outputs[r] + j * 16, _mm512_mul_ps(rows[r].sums[j], share));
    }
}

// The most rows whose sums fit in registers.
template <int J>
constexpr int kTileRows = J <= 4 ? 6 : J <= 8 ? 3 : 1;

// Rows first .. first + count of a sequence's queries of one key head; a row is a token and one of the group's heads.
struct Tile {
    int sequence, kv_head, first, count;
};

struct Layer {
    const float* input_norm;
    Matrix qkv;
    const float* qkv_bias;
    const float* q_norm;
    const float* k_norm;
    Matrix out;
    const float* post_norm;
    Matrix gate_up;
    Matrix down;
};

}  // namespace

extern "C" {

struct Model {
    int32_t num_layers, hidden, num_heads, num_kv_heads, head_dim, intermediate, vocab, threads;
    int32_t kv_is_f16;  // else BF16
    float eps;
    int64_t layer_stride;  // of keys and values, in elements
    const Layer* layers;
    const Bf16* embedding;
    const float* norm;
    Matrix head;
    const float* cos;
    const float* sin;
    void* keys;
    void* values;
};

struct Step {
    int32_t num_rows, num_sequences, num_logits, table_stride;
    const int32_t *tokens, *positions, *logit_rows, *starts, *counts, *lengths, *tables;
    const volatile int32_t* is_aborted;
    float* logits;
    int64_t* stage_ns;  // of each stage, to be added to
};
}

namespace {

// What a step's time goes to. Rows: all that is done to a row by itself.
enum Stage { kOfRows, kOfProducts, kOfAttention, kOfHead };

struct Scratch {
    // `plain`: what is to be rounded into `in` and `units`.
    Buffer<float> x, qkv, gate_up, plain, units;
    Buffer<int16_t> in;
    Buffer<int32_t> sequence_of;
    std::vector<Tile> tiles;

    bool reserve(const Model& m, int rows) {
        const size_t n = rows;
        const Heads heads{m.num_heads, m.num_kv_heads, m.head_dim};
        const size_t narrow = std::max(m.hidden, m.num_heads * m.head_dim);
        return x.reserve(n * m.hidden) && qkv.reserve(n * heads.width()) && gate_up.reserve(n * 2 * m.intermediate) &&
               plain.reserve(n * narrow) && units.reserve(n) && in.reserve(n * std::max<size_t>(narrow, m.intermediate)) &&
               sequence_of.reserve(n);
    }
};

// Kv: the type of keys and values.
template <typename Kv>
class Pass {
   public:
    Pass(const Model& model, const Step& step, Scratch& scratch)
        : m(model), s(step), b(scratch), heads{m.num_heads, m.num_kv_heads, m.head_dim} {}

    // Before the region.
    void plan() {
        const int most = heads.head_dim <= 64 ? 6 : heads.head_dim <= 128 ? 3 : 1;
        b.tiles.clear();
        for (int i = 0; i < s.num_sequences; i++) {
            for (int r = 0; r < s.counts[i]; r++) b.sequence_of.data[s.starts[i] + r] = i;
            const int rows = s.counts[i] * heads.group();
            for (int h = 0; h < heads.num_kv_heads; h++)
                for (int first = 0; first < rows; first += most)
                    b.tiles.push_back({i, h, first, std::min(most, rows - first)});
        }
    }

    // All threads, together.
    void run() {
        if (omp_get_thread_num() == 0) ended = omp_get_wtime();
#pragma omp for schedule(static)
        for (int i = 0; i < s.num_rows; i++) embed(i);
        for (int l = 0; l < m.num_layers; l++) {
#pragma omp single
            stop = *s.is_aborted != 0;
            if (stop) return;
            attention(m.layers[l], (Kv*)m.keys + l * m.layer_stride, (Kv*)m.values + l * m.layer_stride);
            mlp(m.layers[l], l + 1 < m.num_layers ? m.layers[l + 1].qkv.panels : m.head.panels);
        }
#pragma omp for schedule(static)
        for (int i = 0; i < s.num_logits; i++)
            norm(s.logit_rows[i], m.norm, i);
        end(kOfRows);
        multiply(rows(), s.num_logits, {m.head, nullptr, m.vocab, m.hidden, m.layers[0].qkv.panels}, s.logits, m.vocab,
                 Store::kSet);
        end(kOfHead);
    }

    bool stop = false;

   private:
    // After a barrier: what has passed since the last one was this stage's.
    void end(Stage stage) {
        if (omp_get_thread_num() != 0) return;
        const double now = omp_get_wtime();
        s.stage_ns[stage] += (int64_t)((now - ended) * 1e9);
        ended = now;
    }

    Rows rows() const { return {b.in.data, b.units.data}; }

    void round(const float* x, int size, int row) {
        b.units.data[row] = round_row(x, size, b.in.data + (int64_t)row * size);
    }

    void norm(int from, const float* weight, int to) {
        float* plain = b.plain.data + (int64_t)to * m.hidden;
        norm_row(b.x.data + (int64_t)from * m.hidden, weight, m.eps, m.hidden, plain);
        round(plain, m.hidden, to);
    }

    void embed(int row) {
        const Bf16* from = m.embedding + (int64_t)s.tokens[row] * m.hidden;
        float* to = b.x.data + (int64_t)row * m.hidden;
        for (int k = 0; k < m.hidden; k += 16) _mm512_storeu_ps(to + k, Bf16::load(from + k));
    }

    void norm_rows(const float* weight) {
#pragma omp for schedule(static)
        for (int i = 0; i < s.num_rows; i++)
            norm(i, weight, i);
    }

    void attention(const Layer& layer, Kv* keys, Kv* values) {
        const int width = heads.width(), out_width = heads.num_heads * heads.head_dim;
        norm_rows(layer.input_norm);
        end(kOfRows);
        multiply(rows(), s.num_rows, {layer.qkv, layer.qkv_bias, width, m.hidden, layer.out.panels}, b.qkv.data, width,
                 Store::kSet);
        end(kOfProducts);
#pragma omp for schedule(static)
        for (int i = 0; i < s.num_rows; i++) {
            rotate(layer, i);
            remember(i, keys, values);
        }
        end(kOfRows);
#pragma omp for schedule(dynamic, 4)
        for (size_t i = 0; i < b.tiles.size(); i++)
            attend(b.tiles[i], b.tiles[i + 1 < b.tiles.size() ? i + 1 : i], keys, values);
        end(kOfAttention);
#pragma omp for schedule(static)
        for (int i = 0; i < s.num_rows; i++) round(b.plain.data + (int64_t)i * out_width, out_width, i);
        end(kOfRows);
        multiply(rows(), s.num_rows, {layer.out, nullptr, m.hidden, out_width, layer.gate_up.panels}, b.x.data, m.hidden,
                 Store::kAdd);
        end(kOfProducts);
    }

    void mlp(const Layer& layer, const int16_t* then) {
        norm_rows(layer.post_norm);
        end(kOfRows);
        const int width = 2 * m.intermediate;
        multiply(rows(), s.num_rows, {layer.gate_up, nullptr, width, m.hidden, layer.down.panels}, b.gate_up.data, width,
                 Store::kSet);
        end(kOfProducts);
#pragma omp for schedule(static)
        for (int i = 0; i < s.num_rows; i++) activate(i);
        end(kOfRows);
        multiply(rows(), s.num_rows, {layer.down, nullptr, m.hidden, m.intermediate, then}, b.x.data, m.hidden,
                 Store::kAdd);
        end(kOfProducts);
    }

    void rotate(const Layer& layer, int row) {
        const int half = heads.head_dim / 2, num = heads.num_heads + heads.num_kv_heads;
        const float* cos = m.cos + (int64_t)s.positions[row] * half;
        const float* sin = m.sin + (int64_t)s.positions[row] * half;
        for (int h = 0; h < num; h++) {
            float* p = b.qkv.data + (int64_t)row * heads.width() + h * heads.head_dim;
            const float* weight = h < heads.num_heads ? layer.q_norm : layer.k_norm;
            const __m512 scale =
                _mm512_set1_ps(weight ? rms_scale(p, heads.head_dim, m.eps) : 1.f);
            for (int d = 0; d < half; d += 16) {
                __m512 x = _mm512_loadu_ps(p + d), y = _mm512_loadu_ps(p + half + d);
                if (weight) {
                    x = _mm512_mul_ps(_mm512_mul_ps(x, scale), _mm512_loadu_ps(weight + d));
                    y = _mm512_mul_ps(_mm512_mul_ps(y, scale), _mm512_loadu_ps(weight + half + d));
                }
                const __m512 c = _mm512_loadu_ps(cos + d), n = _mm512_loadu_ps(sin + d);
                _mm512_storeu_ps(p + d, _mm512_sub_ps(_mm512_mul_ps(x, c), _mm512_mul_ps(y, n)));
                _mm512_storeu_ps(p + half + d, _mm512_add_ps(_mm512_mul_ps(y, c), _mm512_mul_ps(x, n)));
            }
        }
    }

    // A row's key and value go to its page.
    void remember(int row, Kv* keys, Kv* values) {
        const int position = s.positions[row], place = position % kPage, dim = heads.head_dim;
        const int32_t* pages = s.tables + (int64_t)b.sequence_of.data[row] * s.table_stride;
        const int64_t base = pages[position / kPage] * heads.page_elements();
        const float* key = b.qkv.data + (int64_t)row * heads.width() + heads.num_heads * dim;
        const float* value = key + heads.num_kv_heads * dim;
        alignas(64) Kv k[16];
        for (int h = 0; h < heads.num_kv_heads; h++) {
            Kv* to_key = keys + base + (int64_t)h * kPage * dim + place;
            Kv* to_value = values + base + (int64_t)h * kPage * dim + place * dim;
            for (int d = 0; d < dim; d += 16) {
                Kv::store(to_value + d, _mm512_loadu_ps(value + h * dim + d));
                Kv::store(k, _mm512_loadu_ps(key + h * dim + d));
                for (int e = 0; e < 16; e++) to_key[(d + e) * kPage] = k[e];
            }
        }
    }

    void attend(const Tile& tile, const Tile& next, const Kv* keys, const Kv* values) {
        switch (heads.head_dim / 16) {
            case 2: return attend_of<2>(tile, next, keys, values);
            case 4: return attend_of<4>(tile, next, keys, values);
            case 6: return attend_of<6>(tile, next, keys, values);
            case 8: return attend_of<8>(tile, next, keys, values);
            case 16: return attend_of<16>(tile, next, keys, values);
        }
    }

    Pages pages_of(const Tile& tile) const {
        const int32_t* pages = s.tables + (int64_t)tile.sequence * s.table_stride;
        const int last = s.positions[s.starts[tile.sequence] + (tile.first + tile.count - 1) / heads.group()];
        return {pages, last / kPage + 1, heads.page_elements(), (int64_t)tile.kv_head * kPage * heads.head_dim};
    }

    template <int J>
    void attend_of(const Tile& tile, const Tile& next, const Kv* keys, const Kv* values) {
        const float* queries[6];
        float* outputs[6];
        int seen[6];
        const int start = s.starts[tile.sequence], dim = heads.head_dim;
        for (int r = 0; r < tile.count; r++) {
            const int row = start + (tile.first + r) / heads.group();
            const int head = tile.kv_head * heads.group() + (tile.first + r) % heads.group();
            queries[r] = b.qkv.data + (int64_t)row * heads.width() + head * dim;
            outputs[r] = b.plain.data + ((int64_t)row * heads.num_heads + head) * dim;
            seen[r] = s.positions[row] + 1;
        }
        const Pages pages = pages_of(tile), pages_next = pages_of(next);
        const float scale = 1.f / std::sqrt((float)dim);
        const auto call = [&](auto rows) {
            constexpr int R = std::min(decltype(rows)::value, kTileRows<J>);
            attend_rows<R, J, Kv>(queries, outputs, seen, keys, values, pages, pages_next, scale);
        };
        switch (tile.count) {
            case 1: return call(std::integral_constant<int, 1>());
            case 2: return call(std::integral_constant<int, 2>());
            case 3: return call(std::integral_constant<int, 3>());
            case 4: return call(std::integral_constant<int, 4>());
            case 5: return call(std::integral_constant<int, 5>());
            case 6: return call(std::integral_constant<int, 6>());
        }
    }

    void activate(int row) {
        float* gate = b.gate_up.data + (int64_t)row * 2 * m.intermediate;
        const float* up = gate + m.intermediate;
        for (int k = 0; k < m.intermediate; k += 16) {
            const __m512 x = _mm512_loadu_ps(gate + k);
            const __m512 e = exponential(_mm512_min_ps(_mm512_sub_ps(_mm512_setzero_ps(), x), _mm512_set1_ps(88.f)));
            const __m512 y = _mm512_mul_ps(x, _mm512_loadu_ps(up + k));
            _mm512_storeu_ps(gate + k, _mm512_div_ps(y, _mm512_add_ps(_mm512_set1_ps(1.f), e)));
        }
        round(gate, m.intermediate, row);
    }

    const Model& m;
    const Step& s;
    Scratch& b;
    const Heads heads;
    double ended = 0;
};

// 0: done. 1: aborted, some keys and values have been written. 2: no memory for so many rows.
template <typename Kv>
int32_t run(const Model& model, const Step& step, Scratch& scratch) {
    if (!scratch.reserve(model, step.num_rows)) return 2;
    Pass<Kv> pass(model, step, scratch);
    pass.plan();
#pragma omp parallel num_threads(model.threads)
    pass.run();
    return pass.stop ? 1 : 0;
}

}  // namespace

extern "C" {

void* new_scratch() { return new (std::nothrow) Scratch(); }

void free_scratch(void* scratch) { delete (Scratch*)scratch; }

// Rows [num_out, num_in] into panels, as integers, and what one of them stands for in each output. The last panel is
// filled with zeros.
void pack(const Bf16* rows, int32_t num_out, int32_t num_in, int16_t* panels, float* units) {
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

// See `run`.
int32_t run_step(const Model* model, const Step* step, void* scratch) {
    return model->kv_is_f16 ? run<F16>(*model, *step, *(Scratch*)scratch) : run<Bf16>(*model, *step, *(Scratch*)scratch);
}
}

// One step of a Llama-family decoder on a processor with AVX-512 BF16: mixed prompts and decodes, whole, in one call.
//
// Weights are BF16, keys and values F16 or BF16; everything else is float32. What goes into a product is not rounded: in
// BF16 that alone puts logits half a unit away. Every row is computed by the same instructions in the same order whatever
// else is in the batch, so that a row's logits do not depend on its company, to the bit.
//
// Layouts. Weight [N/32][K/2][32][2]: a panel of 32 outputs, pairs along K, which a shift and a mask take apart. Page of
// a layer, for each key head: keys [D][16 tokens], values [16 tokens][D].

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
constexpr int kPanelsAtOnce = 4;
constexpr int kPrefetch = 4096;
constexpr float kMinusInfinity = -1e30f;

// ---- small things

// Numbers of 16 bits, 16 at a time. As elements of keys and values they are told apart by type.
struct Bf16 {
    uint16_t bits;

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

struct Weight {
    const Bf16* panels;
    const float* bias;  // may be null
    int num_out;
    int num_in;
};

// Of 16 pairs the first or the second, as float32.
inline __m512 first_of(__m512i pairs) { return _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16)); }

inline __m512 second_of(__m512i pairs) {
    return _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32((int)0xffff0000)));
}

template <int R>
inline void add_products(const float* x, int64_t x_stride, __m512 low, __m512 high, __m512 (&sums)[R][2]) {
    for (int r = 0; r < R; r++) {
        const __m512 v = _mm512_set1_ps(x[r * x_stride]);
        sums[r][0] = _mm512_fmadd_ps(v, low, sums[r][0]);
        sums[r][1] = _mm512_fmadd_ps(v, high, sums[r][1]);
    }
}

template <int R>
inline void panel_rows(const float* x, int64_t x_stride, const Bf16* panel, int num_in, __m512 (&sums)[R][2]) {
    for (int r = 0; r < R; r++) sums[r][0] = sums[r][1] = _mm512_setzero_ps();
    for (int k = 0; k < num_in; k += 2) {
        const Bf16* w = panel + (int64_t)k * kPanel;
        if (R <= 8) {
            _mm_prefetch((const char*)(w + kPrefetch / 2), _MM_HINT_T0);
            _mm_prefetch((const char*)(w + kPrefetch / 2 + 32), _MM_HINT_T0);
        }
        const __m512i low = _mm512_loadu_si512(w), high = _mm512_loadu_si512(w + 32);
        add_products(x + k, x_stride, first_of(low), first_of(high), sums);
        add_products(x + k + 1, x_stride, second_of(low), second_of(high), sums);
    }
}

template <int R>
inline void multiply_rows(const float* x, const Weight& w, int panel, float* out, int64_t out_stride, Store store) {
    __m512 sums[R][2];
    panel_rows<R>(x, w.num_in, w.panels + (int64_t)panel * kPanel * w.num_in, w.num_in, sums);
    for (int half = 0; half < 2; half++) {
        const int n = panel * kPanel + half * 16, count = std::min(16, w.num_out - n);
        if (count <= 0) return;
        const __mmask16 mask = (__mmask16)((1u << count) - 1);
        const __m512 bias = w.bias ? _mm512_maskz_loadu_ps(mask, w.bias + n) : _mm512_setzero_ps();
        for (int r = 0; r < R; r++) {
            float* to = out + r * out_stride + n;
            __m512 v = sums[r][half];
            if (w.bias) v = _mm512_add_ps(v, bias);
            if (store == Store::kAdd) v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(mask, to));
            _mm512_mask_storeu_ps(to, mask, v);
        }
    }
}

void multiply_panels(const float* x, int rows, const Weight& w, int first, int last, float* out, int64_t stride,
                     Store store) {
    const auto block = [&](auto size, int r) {
        for (int panel = first; panel < last; panel++)
            multiply_rows<decltype(size)::value>(x + (int64_t)r * w.num_in, w, panel, out + r * stride, stride, store);
    };
    int r = 0;
    for (; r + kRows <= rows; r += kRows) block(std::integral_constant<int, kRows>(), r);
    for (; r + 8 <= rows; r += 8) block(std::integral_constant<int, 8>(), r);
    for (; r + 4 <= rows; r += 4) block(std::integral_constant<int, 4>(), r);
    for (; r + 2 <= rows; r += 2) block(std::integral_constant<int, 2>(), r);
    for (; r < rows; r++) block(std::integral_constant<int, 1>(), r);
}

// out [rows, num_out] (+)= x [rows, num_in] times the weight. To be called by all threads of a region; ends in a barrier.
void multiply(const float* x, int rows, const Weight& w, float* out, int64_t stride, Store store) {
    const int num_panels = (w.num_out + kPanel - 1) / kPanel;
    const int64_t thread = omp_get_thread_num(), threads = omp_get_num_threads();
    const int first = num_panels * thread / threads, last = num_panels * (thread + 1) / threads;
    // A few panels stay in the cache while all rows pass, and a few rows while those panels do.
    for (int panel = first; panel < last; panel += kPanelsAtOnce)
        multiply_panels(x, rows, w, panel, std::min(panel + kPanelsAtOnce, last), out, stride, store);
#pragma omp barrier
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
    float most, total;
};

// R rows of queries of one key head over the pages of one sequence; row r sees `seen[r]` tokens. J: head_dim / 16.
template <int R, int J, typename Kv>
void attend_rows(const float* const* queries, float* const* outputs, const int* seen, const Kv* keys, const Kv* values,
                 const int* pages, int64_t page_stride, float scale) {
    constexpr int D = J * 16;
    alignas(64) float q[R][D];
    Running<J> rows[R];
    int longest = 0;
    for (int r = 0; r < R; r++) {
        for (int j = 0; j < J; j++) {
            _mm512_store_ps(q[r] + j * 16, _mm512_mul_ps(_mm512_loadu_ps(queries[r] + j * 16), _mm512_set1_ps(scale)));
            rows[r].sums[j] = _mm512_setzero_ps();
        }
        rows[r].most = kMinusInfinity;
        rows[r].total = 0.f;
        longest = std::max(longest, seen[r]);
    }
    for (int first = 0; first < longest; first += kPage) {
        const int64_t base = pages[first / kPage] * page_stride;
        const Kv *key = keys + base, *value = values + base;
        __m512 even[R], odd[R];
        for (int r = 0; r < R; r++) even[r] = odd[r] = _mm512_setzero_ps();
        for (int d = 0; d < D; d += 2) {
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
                const float shrink = std::exp(row.most - most);
                row.total *= shrink;
                for (int j = 0; j < J; j++) row.sums[j] = _mm512_mul_ps(row.sums[j], _mm512_set1_ps(shrink));
                row.most = most;
            }
            const __m512 p =
                _mm512_maskz_mov_ps(mask, exponential(_mm512_sub_ps(scores, _mm512_set1_ps(row.most))));
            row.total += _mm512_reduce_add_ps(p);
            _mm512_store_ps(weights[r], p);
        }
        for (int t = 0; t < kPage; t++)
            for (int j = 0; j < J; j++) {
                const __m512 v = Kv::load(value + t * D + j * 16);
                for (int r = 0; r < R; r++)
                    rows[r].sums[j] = _mm512_fmadd_ps(_mm512_set1_ps(weights[r][t]), v, rows[r].sums[j]);
            }
    }
    for (int r = 0; r < R; r++) {
        const __m512 share = _mm512_set1_ps(1.f / rows[r].total);
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
    const Bf16* qkv;
    const float* qkv_bias;
    const float* q_norm;
    const float* k_norm;
    const Bf16* out;
    const float* post_norm;
    const Bf16* gate_up;
    const Bf16* down;
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
    const Bf16* head;
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
};
}

namespace {

struct Scratch {
    Buffer<float> x, qkv, gate_up, in, attended, active;
    Buffer<int32_t> sequence_of;
    std::vector<Tile> tiles;

    bool reserve(const Model& m, int rows) {
        const size_t n = rows;
        const Heads heads{m.num_heads, m.num_kv_heads, m.head_dim};
        return x.reserve(n * m.hidden) && qkv.reserve(n * heads.width()) && gate_up.reserve(n * 2 * m.intermediate) &&
               in.reserve(n * m.hidden) && attended.reserve(n * m.num_heads * m.head_dim) &&
               active.reserve(n * m.intermediate) && sequence_of.reserve(n);
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
#pragma omp for schedule(static)
        for (int i = 0; i < s.num_rows; i++) embed(i);
        for (int l = 0; l < m.num_layers; l++) {
#pragma omp single
            stop = *s.is_aborted != 0;
            if (stop) return;
            attention(m.layers[l], (Kv*)m.keys + l * m.layer_stride, (Kv*)m.values + l * m.layer_stride);
            mlp(m.layers[l]);
        }
#pragma omp for schedule(static)
        for (int i = 0; i < s.num_logits; i++)
            norm_row(b.x.data + (int64_t)s.logit_rows[i] * m.hidden, m.norm, m.eps, m.hidden, input(i));
        multiply(b.in.data, s.num_logits, {m.head, nullptr, m.vocab, m.hidden}, s.logits, m.vocab, Store::kSet);
    }

    bool stop = false;

   private:
    float* input(int row) { return b.in.data + (int64_t)row * m.hidden; }

    void embed(int row) {
        const Bf16* from = m.embedding + (int64_t)s.tokens[row] * m.hidden;
        float* to = b.x.data + (int64_t)row * m.hidden;
        for (int k = 0; k < m.hidden; k += 16) _mm512_storeu_ps(to + k, Bf16::load(from + k));
    }

    void norm_rows(const float* weight) {
#pragma omp for schedule(static)
        for (int i = 0; i < s.num_rows; i++)
            norm_row(b.x.data + (int64_t)i * m.hidden, weight, m.eps, m.hidden, input(i));
    }

    void attention(const Layer& layer, Kv* keys, Kv* values) {
        const int width = heads.width(), out_width = heads.num_heads * heads.head_dim;
        norm_rows(layer.input_norm);
        multiply(b.in.data, s.num_rows, {layer.qkv, layer.qkv_bias, width, m.hidden}, b.qkv.data, width, Store::kSet);
#pragma omp for schedule(static)
        for (int i = 0; i < s.num_rows; i++) {
            rotate(layer, i);
            remember(i, keys, values);
        }
#pragma omp for schedule(dynamic, 4)
        for (size_t i = 0; i < b.tiles.size(); i++) attend(b.tiles[i], keys, values);
        multiply(b.attended.data, s.num_rows, {layer.out, nullptr, m.hidden, out_width}, b.x.data, m.hidden,
                 Store::kAdd);
    }

    void mlp(const Layer& layer) {
        norm_rows(layer.post_norm);
        const int width = 2 * m.intermediate;
        multiply(b.in.data, s.num_rows, {layer.gate_up, nullptr, width, m.hidden}, b.gate_up.data, width, Store::kSet);
#pragma omp for schedule(static)
        for (int i = 0; i < s.num_rows; i++) activate(i);
        multiply(b.active.data, s.num_rows, {layer.down, nullptr, m.hidden, m.intermediate}, b.x.data, m.hidden,
                 Store::kAdd);
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

    void attend(const Tile& tile, const Kv* keys, const Kv* values) {
        switch (heads.head_dim / 16) {
            case 2: return attend_of<2>(tile, keys, values);
            case 4: return attend_of<4>(tile, keys, values);
            case 6: return attend_of<6>(tile, keys, values);
            case 8: return attend_of<8>(tile, keys, values);
            case 16: return attend_of<16>(tile, keys, values);
        }
    }

    template <int J>
    void attend_of(const Tile& tile, const Kv* keys, const Kv* values) {
        const float* queries[6];
        float* outputs[6];
        int seen[6];
        const int start = s.starts[tile.sequence], dim = heads.head_dim;
        for (int r = 0; r < tile.count; r++) {
            const int row = start + (tile.first + r) / heads.group();
            const int head = tile.kv_head * heads.group() + (tile.first + r) % heads.group();
            queries[r] = b.qkv.data + (int64_t)row * heads.width() + head * dim;
            outputs[r] = b.attended.data + ((int64_t)row * heads.num_heads + head) * dim;
            seen[r] = s.positions[row] + 1;
        }
        const int64_t offset = (int64_t)tile.kv_head * kPage * dim;
        const int32_t* pages = s.tables + (int64_t)tile.sequence * s.table_stride;
        const float scale = 1.f / std::sqrt((float)dim);
        const auto call = [&](auto rows) {
            constexpr int R = std::min(decltype(rows)::value, kTileRows<J>);
            attend_rows<R, J, Kv>(queries, outputs, seen, keys + offset, values + offset, pages, heads.page_elements(),
                                  scale);
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
        const float* gate = b.gate_up.data + (int64_t)row * 2 * m.intermediate;
        const float* up = gate + m.intermediate;
        float* out = b.active.data + (int64_t)row * m.intermediate;
        for (int k = 0; k < m.intermediate; k += 16) {
            const __m512 x = _mm512_loadu_ps(gate + k);
            const __m512 e = exponential(_mm512_min_ps(_mm512_sub_ps(_mm512_setzero_ps(), x), _mm512_set1_ps(88.f)));
            const __m512 y = _mm512_mul_ps(x, _mm512_loadu_ps(up + k));
            _mm512_storeu_ps(out + k, _mm512_div_ps(y, _mm512_add_ps(_mm512_set1_ps(1.f), e)));
        }
    }

    const Model& m;
    const Step& s;
    Scratch& b;
    const Heads heads;
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

// Rows [num_out, num_in] into panels; the last panel is filled with zeros.
void pack(const Bf16* rows, int32_t num_out, int32_t num_in, Bf16* panels) {
    const int num_panels = (num_out + kPanel - 1) / kPanel;
#pragma omp parallel for
    for (int panel = 0; panel < num_panels; panel++)
        for (int k = 0; k < num_in; k++)
            for (int i = 0; i < kPanel; i++) {
                const int n = panel * kPanel + i;
                panels[((int64_t)panel * num_in + k / 2 * 2) * kPanel + i * 2 + k % 2] =
                    n < num_out ? rows[(int64_t)n * num_in + k] : Bf16{0};
            }
}

// See `run`.
int32_t run_step(const Model* model, const Step* step, void* scratch) {
    return model->kv_is_f16 ? run<F16>(*model, *step, *(Scratch*)scratch) : run<Bf16>(*model, *step, *(Scratch*)scratch);
}
}

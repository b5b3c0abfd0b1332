// One step of a Llama-family decoder on a processor with AVX-512 and its integer dot products, or AVX2: mixed prompts and
// decodes, whole, in one call.
//
// Keys and values are F16 or BF16. Matrix products are of integers. Weights that came in 16 bits: 16-bit integers, of
// weights with a power of two for each output, of activations with a factor for each row; both keep 12 bits and more where
// BF16 keeps 8, and that is what brings logits several times nearer to float32's, in as many instructions. Weights that
// came in blocks of at most 8 bits: those, and activations of 8 bits with a factor for each 32. Everything else is float32.
// Integer sums are exact, and every row is computed by the same instructions in the same order whatever else is in the
// batch, so that a row's logits do not depend on its company, to the bit.
//
// Few rows go through a layer together: threads share the panels of each weight. Of many rows each thread takes blocks,
// and a block goes from one layer's attention to the next one's by itself, while all of it is in the thread's cache.

#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <new>
#include <type_traits>
#include <vector>

#include "attention.h"
#include "numbers.h"
#include "products.h"

namespace {

// A block is at most of so many rows; from as many for each thread on there are blocks.
constexpr int kBlockRows = 64;
constexpr int kManyRows = 48;

// Rows first .. first + count of a sequence's queries of one key head; a row is a token and one of the group's heads.
// `start` is the first token's row in the batch.
struct Tile {
    int sequence, start, kv_head, first, count;
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

// Rows as they go into a product.
struct Rounded {
    Buffer<int16_t> values;
    Buffer<float> units;

    bool reserve(size_t rows, size_t width) {
        // Tiles read beyond a row, and have units of 16 rows.
        return values.reserve(rows * width + 64) && units.reserve((rows + tiles::kRows) * width / blocks::kSize * 2);
    }

    Rows rows() const { return {values.data, units.data}; }

    // `rows`: how many go into the product together.
    void set(int row, const float* x, int size, Format format, int rows) {
        const int64_t begin = (int64_t)row * size;
        const bool is_tiled = tiles::are_used(rows);
        if (format == Format::kWords) {
            const auto round = is_tiled ? words::round_row<true> : words::round_row<false>;
            units.data[row] = round(x, size, values.data + begin);
        } else {
            const auto where = is_tiled ? blocks::Units::tiled : blocks::Units::plain;
            blocks::round_row(x, size, (int8_t*)values.data + begin, where(units.data, row, size));
        }
    }
};

// What rows need on their way through a layer.
struct Space {
    Rounded in;
    Buffer<float> gated;

    bool reserve(const Model& m, size_t rows) {
        const size_t narrow = std::max(m.hidden, m.num_heads * m.head_dim);
        return in.reserve(rows, std::max<size_t>(narrow, m.intermediate)) && gated.reserve(rows * m.intermediate);
    }
};

struct Own {
    Space block;
    Buffer<float> numbers;  // of attend_wide, or a row
};

struct Scratch {
    Buffer<float> x, qkv, attended;
    Buffer<int32_t> positions, sequence_of;
    Space all;
    std::vector<Own> own;  // of each thread
    std::vector<Tile> tiles, wide_tiles;

    bool reserve(const Model& m, const Step& s, bool has_blocks) {
        const size_t n = s.num_rows;
        const Heads heads{m.num_heads, m.num_kv_heads, m.head_dim};
        own.resize(m.threads);
        for (Own& each : own)
            if ((has_blocks && !each.block.reserve(m, kBlockRows)) ||
                !each.numbers.reserve(std::max<size_t>(wide_space(m.head_dim), m.hidden)))
                return false;
        return x.reserve(n * m.hidden) && qkv.reserve(n * heads.width()) &&
               attended.reserve(n * m.num_heads * m.head_dim) && positions.reserve(n) && sequence_of.reserve(n) &&
               all.reserve(m, has_blocks ? s.num_logits : n);
    }
};

struct Range {
    int first, count;
};

// Kv: the type of keys and values.
template <typename Kv>
class Pass {
   public:
    Pass(const Model& model, const Step& step, Scratch& scratch)
        : m(model), s(step), b(scratch), heads{m.num_heads, m.num_kv_heads, m.head_dim}, num_rows(s.num_rows) {}

    static bool has_blocks(const Model& m, int rows) { return rows >= m.threads * kManyRows; }

    // Before the region.
    void plan() {
        std::copy_n(s.positions, num_rows, b.positions.data);
        b.tiles.clear();
        b.wide_tiles.clear();
        for (int i = 0; i < s.num_sequences; i++) {
            std::fill_n(b.sequence_of.data + s.starts[i], s.counts[i], i);
            add_tiles(i, s.starts[i], s.counts[i]);
        }
        order_tiles();
    }

    // All threads, together.
    void run() {
        if (omp_get_thread_num() == 0) ended = omp_get_wtime();
        if (has_blocks(m, num_rows))
            for_blocks([&](Space& space, Range rows) {
                for (int i = rows.first; i < rows.first + rows.count; i++) embed(i);
                query_alone(0, space, rows);
            });
        else
            query_together(0);
        for (int l = 0; l < m.num_layers; l++) {
            const bool is_last = l + 1 == m.num_layers;
#pragma omp single
            {
                stop = *s.is_aborted != 0;
                if (is_last && !stop) keep_wanted();
            }
            if (stop || num_rows == 0) return;
            attend(l);
            if (has_blocks(m, num_rows))
                for_blocks([&](Space& space, Range rows) {
                    follow_alone(l, space, rows);
                    if (!is_last) query_alone(l + 1, space, rows);
                });
            else {
                follow_together(l);
                if (!is_last) query_together(l + 1);
            }
        }
#pragma omp for schedule(static)
        for (int i = 0; i < num_rows; i++) norm(b.all, b.x.data, m.norm, m.head.format, i, num_rows);
        end(kOfRows);
        multiply(b.all.in.rows(), num_rows, {m.head, nullptr, m.vocab, m.hidden, m.layers[0].qkv.panels}, s.logits,
                 m.vocab, Store::kSet);
        end(kOfHead);
    }

    bool stop = false;

   private:
    // What has passed since the last end was this stage's, as one thread sees it.
    void end(Stage stage) {
        if (omp_get_thread_num() != 0) return;
        const double now = omp_get_wtime();
        s.stage_ns[stage] += (int64_t)((now - ended) * 1e9);
        ended = now;
    }

    // Ends in a barrier.
    template <typename Function>
    void for_blocks(const Function& function) {
        const int threads = omp_get_num_threads(), most = threads * kBlockRows;
        const int num_blocks = (num_rows + most - 1) / most * threads;
#pragma omp for schedule(dynamic, 1)
        for (int i = 0; i < num_blocks; i++) {
            const int first = (int64_t)num_rows * i / num_blocks, last = (int64_t)num_rows * (i + 1) / num_blocks;
            function(b.own[omp_get_thread_num()].block, Range{first, last - first});
        }
        end(kOfProducts);
    }

    // ---- what comes of a row by itself

    void embed(int row) {
        const Bf16* from = m.embedding + (int64_t)s.tokens[row] * m.hidden;
        float* to = b.x.data + (int64_t)row * m.hidden;
        for (int k = 0; k < m.hidden; k += 16) store(to + k, Bf16::load(from + k));
    }

    // Row i of x, normed and rounded, is row i that goes into the product.
    void norm(Space& space, const float* x, const float* weight, Format format, int i, int rows) {
        float* plain = b.own[omp_get_thread_num()].numbers.data;
        norm_row(x + (int64_t)i * m.hidden, weight, m.eps, m.hidden, plain);
        space.in.set(i, plain, m.hidden, format, rows);
    }

    void rotate(const Layer& layer, int row) {
        const int half = heads.head_dim / 2, num = heads.num_heads + heads.num_kv_heads;
        const float* cos = m.cos + (int64_t)b.positions.data[row] * half;
        const float* sin = m.sin + (int64_t)b.positions.data[row] * half;
        for (int h = 0; h < num; h++) {
            float* p = b.qkv.data + (int64_t)row * heads.width() + h * heads.head_dim;
            const float* weight = h < heads.num_heads ? layer.q_norm : layer.k_norm;
            const Floats scale =
                repeat(weight ? rms_scale(p, heads.head_dim, m.eps) : 1.f);
            for (int d = 0; d < half; d += 16) {
                Floats x = load(p + d), y = load(p + half + d);
                if (weight) {
                    x = x * scale * load(weight + d);
                    y = y * scale * load(weight + half + d);
                }
                const Floats c = load(cos + d), n = load(sin + d);
                store(p + d, x * c - y * n);
                store(p + half + d, y * c + x * n);
            }
        }
    }

    // A row's key and value go to its page.
    void remember(int l, int row) {
        const int position = b.positions.data[row], place = position % kPage, dim = heads.head_dim;
        const int32_t* pages = s.tables + (int64_t)b.sequence_of.data[row] * s.table_stride;
        const int64_t base = pages[position / kPage] * heads.page_elements();
        const float* key = b.qkv.data + (int64_t)row * heads.width() + heads.num_heads * dim;
        const float* value = key + heads.num_kv_heads * dim;
        alignas(64) Kv k[16];
        for (int h = 0; h < heads.num_kv_heads; h++) {
            Kv* to_key = keys(l) + base + (int64_t)h * kPage * dim + place;
            Kv* to_value = values(l) + base + (int64_t)h * kPage * dim + place * dim;
            for (int d = 0; d < dim; d += 16) {
                Kv::store(to_value + d, load(value + h * dim + d));
                Kv::store(k, load(key + h * dim + d));
                for (int e = 0; e < 16; e++) to_key[(d + e) * kPage] = k[e];
            }
        }
    }

    // ---- a layer: queries, keys and values of rows; then what follows attention

    Weight qkv(int l) const { return {m.layers[l].qkv, m.layers[l].qkv_bias, heads.width(), m.hidden, m.layers[l].out.panels}; }

    Weight out(int l) const {
        return {m.layers[l].out, nullptr, m.hidden, heads.num_heads * heads.head_dim, m.layers[l].gate_up.panels};
    }

    Weight gate_up(int l) const {
        return {m.layers[l].gate_up, nullptr, 2 * m.intermediate, m.hidden, m.layers[l].down.panels};
    }

    Weight down(int l) const {
        const void* then = l + 1 < m.num_layers ? m.layers[l + 1].qkv.panels : m.head.panels;
        return {m.layers[l].down, nullptr, m.hidden, m.intermediate, then};
    }

    void query_together(int l) {
#pragma omp for schedule(static)
        for (int i = 0; i < num_rows; i++) {
            if (l == 0) embed(i);
            norm(b.all, b.x.data, m.layers[l].input_norm, m.layers[l].qkv.format, i, num_rows);
        }
        end(kOfRows);
        multiply(b.all.in.rows(), num_rows, qkv(l), b.qkv.data, heads.width(), Store::kSet);
        end(kOfProducts);
#pragma omp for schedule(static)
        for (int i = 0; i < num_rows; i++) {
            rotate(m.layers[l], i);
            remember(l, i);
        }
        end(kOfRows);
    }

    void follow_together(int l) {
        Space& space = b.all;
        const int width = heads.num_heads * heads.head_dim;
#pragma omp for schedule(static)
        for (int i = 0; i < num_rows; i++) space.in.set(i, b.attended.data + (int64_t)i * width, width, m.layers[l].out.format, num_rows);
        end(kOfRows);
        multiply(space.in.rows(), num_rows, out(l), b.x.data, m.hidden, Store::kAdd);
        end(kOfProducts);
#pragma omp for schedule(static)
        for (int i = 0; i < num_rows; i++) norm(space, b.x.data, m.layers[l].post_norm, m.layers[l].gate_up.format, i, num_rows);
        end(kOfRows);
        multiply(space.in.rows(), num_rows, gate_up(l), space.gated.data, m.intermediate, Store::kGated);
        end(kOfProducts);
#pragma omp for schedule(static)
        for (int i = 0; i < num_rows; i++) space.in.set(i, space.gated.data + (int64_t)i * m.intermediate, m.intermediate, m.layers[l].down.format, num_rows);
        end(kOfRows);
        multiply(space.in.rows(), num_rows, down(l), b.x.data, m.hidden, Store::kAdd);
        end(kOfProducts);
    }

    void query_alone(int l, Space& space, Range rows) {
        const float* x = b.x.data + (int64_t)rows.first * m.hidden;
        for (int i = 0; i < rows.count; i++) norm(space, x, m.layers[l].input_norm, m.layers[l].qkv.format, i, rows.count);
        end(kOfRows);
        multiply_alone(space.in.rows(), rows.count, qkv(l), b.qkv.data + (int64_t)rows.first * heads.width(),
                       heads.width(), Store::kSet);
        end(kOfProducts);
        for (int i = rows.first; i < rows.first + rows.count; i++) {
            rotate(m.layers[l], i);
            remember(l, i);
        }
        end(kOfRows);
    }

    void follow_alone(int l, Space& space, Range rows) {
        const int width = heads.num_heads * heads.head_dim;
        const float* attended = b.attended.data + (int64_t)rows.first * width;
        float* x = b.x.data + (int64_t)rows.first * m.hidden;
        for (int i = 0; i < rows.count; i++) space.in.set(i, attended + (int64_t)i * width, width, m.layers[l].out.format, rows.count);
        end(kOfRows);
        multiply_alone(space.in.rows(), rows.count, out(l), x, m.hidden, Store::kAdd);
        end(kOfProducts);
        for (int i = 0; i < rows.count; i++) norm(space, x, m.layers[l].post_norm, m.layers[l].gate_up.format, i, rows.count);
        end(kOfRows);
        multiply_alone(space.in.rows(), rows.count, gate_up(l), space.gated.data, m.intermediate, Store::kGated);
        end(kOfProducts);
        for (int i = 0; i < rows.count; i++)
            space.in.set(i, space.gated.data + (int64_t)i * m.intermediate, m.intermediate, m.layers[l].down.format, rows.count);
        end(kOfRows);
        multiply_alone(space.in.rows(), rows.count, down(l), x, m.hidden, Store::kAdd);
        end(kOfProducts);
    }

    // Of the last layer only those rows go on whose logits are wanted. By one thread.
    void keep_wanted() {
        if (s.num_logits == num_rows) return;
        b.tiles.clear();
        b.wide_tiles.clear();
        for (int i = 0; i < s.num_logits; i++) {
            const int from = s.logit_rows[i];
            std::copy_n(b.x.data + (int64_t)from * m.hidden, m.hidden, b.x.data + (int64_t)i * m.hidden);
            std::copy_n(b.qkv.data + (int64_t)from * heads.width(), heads.num_heads * heads.head_dim,
                        b.qkv.data + (int64_t)i * heads.width());
            b.positions.data[i] = b.positions.data[from];
            b.sequence_of.data[i] = b.sequence_of.data[from];
        }
        num_rows = s.num_logits;
        for (int i = 0; i < num_rows;) {
            int end = i + 1;
            while (end < num_rows && b.sequence_of.data[end] == b.sequence_of.data[i]) end++;
            add_tiles(b.sequence_of.data[i], i, end - i);
            i = end;
        }
        order_tiles();
    }

    // ---- attention

    void add_tiles(int sequence, int start, int num_tokens) {
        const int rows = num_tokens * heads.group(), most = tile_rows(heads.head_dim);
        const bool is_wide = rows > most;
        for (int h = 0; h < heads.num_kv_heads; h++)
            for (int first = 0; first < rows; first += is_wide ? kWideRows : most) {
                const int count = std::min(is_wide ? kWideRows : most, rows - first);
                (is_wide ? b.wide_tiles : b.tiles).push_back({sequence, start, h, first, count});
            }
    }

    // The longest first, so that threads end together.
    void order_tiles() {
        std::stable_sort(b.wide_tiles.begin(), b.wide_tiles.end(),
                         [&](const Tile& one, const Tile& other) { return cost(one) > cost(other); });
    }

    int64_t cost(const Tile& tile) const { return (int64_t)tile.count * (b.positions.data[last_row(tile)] + kSpan); }

    int last_row(const Tile& tile) const { return tile.start + (tile.first + tile.count - 1) / heads.group(); }

    // Ends in a barrier.
    void attend(int l) {
#pragma omp for schedule(dynamic, 1) nowait
        for (size_t i = 0; i < b.wide_tiles.size(); i++) attend_any<true>(l, b.wide_tiles[i], b.wide_tiles[i]);
#pragma omp for schedule(dynamic, 4)
        for (size_t i = 0; i < b.tiles.size(); i++)
            attend_any<false>(l, b.tiles[i], b.tiles[i + 1 < b.tiles.size() ? i + 1 : i]);
        end(kOfAttention);
    }

    template <bool kIsWide>
    void attend_any(int l, const Tile& tile, const Tile& next) {
        switch (heads.head_dim / 16) {
            case 2: return attend_of<kIsWide, 2>(l, tile, next);
            case 4: return attend_of<kIsWide, 4>(l, tile, next);
            case 6: return attend_of<kIsWide, 6>(l, tile, next);
            case 8: return attend_of<kIsWide, 8>(l, tile, next);
            case 16: return attend_of<kIsWide, 16>(l, tile, next);
        }
    }

    Pages pages_of(const Tile& tile) const {
        const int32_t* pages = s.tables + (int64_t)tile.sequence * s.table_stride;
        return {pages, b.positions.data[last_row(tile)] / kPage + 1, heads.page_elements(),
                (int64_t)tile.kv_head * kPage * heads.head_dim};
    }

    Kv* keys(int l) const { return (Kv*)m.keys + l * m.layer_stride; }

    Kv* values(int l) const { return (Kv*)m.values + l * m.layer_stride; }

    template <bool kIsWide, int J>
    void attend_of(int l, const Tile& tile, const Tile& next) {
        Query queries[kIsWide ? kWideRows : kTileRows<J>];
        const int dim = heads.head_dim;
        for (int r = 0; r < tile.count; r++) {
            const int row = tile.start + (tile.first + r) / heads.group();
            const int head = tile.kv_head * heads.group() + (tile.first + r) % heads.group();
            queries[r] = {b.qkv.data + (int64_t)row * heads.width() + head * dim,
                          b.attended.data + ((int64_t)row * heads.num_heads + head) * dim, b.positions.data[row] + 1};
        }
        const Pages pages = pages_of(tile);
        const float scale = 1.f / std::sqrt((float)dim);
        if constexpr (kIsWide) {
            float* space = b.own[omp_get_thread_num()].numbers.data;
            return attend_wide<J, Kv>(queries, tile.count, keys(l), values(l), pages, scale, space);
        }
        const Pages pages_next = pages_of(next);
        const auto call = [&](auto rows) {
            constexpr int R = std::min(decltype(rows)::value, kTileRows<J>);
            attend_rows<R, J, Kv>(queries, keys(l), values(l), pages, pages_next, scale);
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

    const Model& m;
    const Step& s;
    Scratch& b;
    const Heads heads;
    int num_rows;
    double ended = 0;
};

// 0: done. 1: aborted, some keys and values have been written. 2: no memory for so many rows.
template <typename Kv>
int32_t run(const Model& model, const Step& step, Scratch& scratch) {
    if (!scratch.reserve(model, step, Pass<Kv>::has_blocks(model, step.num_rows))) return 2;
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

// Rows [num_out, num_in] into panels of kWords, and what one of their integers stands for in each output.
void pack_words(const Bf16* rows, int32_t num_out, int32_t num_in, int16_t* panels, float* units) {
    words::pack(rows, num_out, num_in, panels, units);
}

// See `blocks::pack`.
void pack_blocks(const uint8_t* numbers, const F16* scales, const F16* minima, int32_t num_out, int32_t num_in,
                 int32_t format, uint8_t* panels) {
    blocks::pack(numbers, scales, minima, num_out, num_in, (Format)format, panels);
}

// See `run`.
int32_t run_step(const Model* model, const Step* step, void* scratch) {
    return model->kv_is_f16 ? run<F16>(*model, *step, *(Scratch*)scratch) : run<Bf16>(*model, *step, *(Scratch*)scratch);
}
}

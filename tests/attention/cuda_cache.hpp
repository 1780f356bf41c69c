// SPDX-License-Identifier: Apache-2.0
// A cache of one layer as a GPU sees it, and attention over it by the kernels, on the host, and by the formula.
#pragma once

#include <zse/attention/cuda/cache_launches.hpp>
#include <zse/exec/cuda/emulated.hpp>
#include <zse/kv/append.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

namespace cuda_cache {

namespace kv = zse::kv;
namespace attention = zse::attention::cuda;
using zse::exec::gpu::Order;
using zse::kernels::Isa;

/// Launches kernels on the host, in an order of threads that a test chooses.
struct Ordered {
    template <class Kernel>
    static void launch(zse::exec::gpu::Stream& stream, const Kernel& kernel) noexcept {
        const zse::exec::gpu::Launch l = kernel.launch();
        if (stream.failed() || l.blocks.x == 0 || l.blocks.y == 0 || l.blocks.z == 0) return;
        stream.count();
        try {
            zse::exec::gpu::EmulatedBlock::run_grid(kernel, order());
        } catch (const std::exception& error) {
            ADD_FAILURE() << error.what();
            stream.fail(1, "a kernel failed");
        }
    }
    static Order& order() {
        static Order order = Order::ascending;
        return order;
    }
};
inline constexpr std::array<Order, 3> orders{Order::ascending, Order::descending, Order::shuffled};

struct Shape {
    std::uint32_t kv_heads = 2;
    std::uint32_t group = 3;
    std::uint32_t page_tokens = 16;

    [[nodiscard]] std::uint32_t heads() const { return kv_heads * group; }
};

/// The last `rows` of `tokens` tokens of a sequence are in the batch; tokens [sinks, boundary) were dropped.
struct Part {
    std::uint32_t tokens = 1;
    std::uint32_t rows = 1;
    std::uint32_t sinks = 0;
    std::uint32_t boundary = 0;
};

/// How attention is asked for.
struct Ask {
    std::uint32_t splits = 1;
    std::uint32_t window = 0;
    bool invariant = false;
    bool reference = false;  ///< by ReferenceKernel
};

template <class K, class V, std::uint32_t Dim = 64>
class Batch {
public:
    Batch(const Shape& shape, const std::vector<Part>& parts, unsigned seed = 1)
        : shape_(shape),
          parts_(parts),
          layout_(kv::PageLayout::of<K, V>(shape.page_tokens, 1, shape.kv_heads, Dim, Dim)) {
        std::size_t pages = 0;
        for (const Part& part : parts) pages += layout_.pages(part.tokens);
        std::vector<kv::PageIndex> order(pages);
        for (std::size_t i = 0; i < pages; ++i) order[i] = static_cast<kv::PageIndex>(i);
        std::shuffle(order.begin(), order.end(), std::mt19937(99));
        // What was never written must change nothing: not a number shows it, where codes can say it.
        pool_.assign(pages * layout_.page_bytes() / sizeof(Chunk), [] {
            Chunk chunk;
            std::memset(&chunk, 0xff, sizeof chunk);
            return chunk;
        }());
        std::size_t used = 0;
        for (std::size_t s = 0; s < parts.size(); ++s) {
            const Part& part = parts[s];
            pages_.emplace_back();
            for (std::size_t i = 0; i < layout_.pages(part.tokens); ++i)
                pages_.back().push_back(order[used++]);
            fill(s, seed + static_cast<unsigned>(s));
            kv::Segment segment;
            segment.first_row = static_cast<std::uint32_t>(positions_.size());
            segment.rows = part.rows;
            segment.first_position = part.tokens - part.rows;
            segment.boundary = part.boundary;
            segment.sinks = part.sinks;
            segments_.push_back(segment);
            for (std::uint32_t r = 0; r < part.rows; ++r) {
                segment_of_row_.push_back(static_cast<std::uint32_t>(s));
                positions_.push_back(segment.first_position + r);
            }
            lose_dropped(s);
        }
        for (std::size_t s = 0; s < parts.size(); ++s) segments_[s].pages = pages_[s].data();
        std::mt19937 random(seed + 77);
        std::uniform_real_distribution<float> uniform(-1.7f, 1.7f);
        q_.resize(positions_.size() * stride());
        for (float& value : q_) value = uniform(random);
    }

    /// Outputs `[rows, heads, dim]`, and the greatest magnitudes of rows.
    std::vector<float> attend(const Ask& ask, Order order = Order::ascending, const float* extra = nullptr,
                              std::uint32_t extra_states = 0) {
        attention::AttendCall call = this->call(ask);
        call.extra = extra;
        call.extra_states = extra_states;
        std::vector<float> out(positions_.size() * shape_.heads() * Dim, 77.0f);
        greatest_.assign(positions_.size(), 0);
        std::uint32_t most = 1;
        for (const Part& part : parts_) most = std::max(most, part.tokens);
        std::vector<float> partials(
            attention::partials_floats(
                static_cast<std::uint32_t>(parts_.size()) * std::min(call.most_rows, attention::few_rows),
                call.heads, Dim, most, ask.invariant),
            std::nanf(""));
        call.partials = partials.data();
        call.partials_floats = partials.size();
        call.out = out.data();
        call.greatest = greatest_.data();
        zse::exec::gpu::Stream stream;
        Ordered::order() = order;
        launch(stream, call, ask.reference);
        EXPECT_FALSE(stream.failed()) << stream.why();
        kernels_ = stream.kernels();
        return out;
    }
    /// Rows of another batch, from `first` on, as this one's queries.
    void take_queries(const Batch& other, std::size_t first) {
        std::copy_n(other.q_.begin() + static_cast<std::ptrdiff_t>(first * stride()), q_.size(), q_.begin());
    }
    /// A call but for where it writes.
    [[nodiscard]] attention::AttendCall call(const Ask& ask) {
        attention::AttendCall call;
        turned_ = q_;
        for (std::size_t row = 0; row < positions_.size(); ++row) {
            for (std::size_t head = 0; head < shape_.heads(); ++head) {
                float* query = turned_.data() + row * stride() + head * Dim;
                if (K::rotates) kv::rotate(query, Dim);
            }
        }
        call.pages = pages();
        call.segments = segments_.data();
        call.segment_count = static_cast<std::uint32_t>(segments_.size());
        call.rows = static_cast<std::uint32_t>(positions_.size());
        for (const Part& part : parts_) {
            call.most_rows = std::max(call.most_rows, part.rows);
            call.most_tokens = std::max(call.most_tokens, part.tokens);
        }
        call.segment_of_row = segment_of_row_.data();
        call.positions = positions_.data();
        call.window = ask.window;
        call.q = turned_.data();
        call.q_stride = stride();
        call.heads = shape_.heads();
        call.scale = scale();
        call.splits = ask.splits;
        call.invariant = ask.invariant;
        return call;
    }
    /// By the kernels for heads of this one width: others would only take time to compile.
    static void launch(zse::exec::gpu::Stream& stream, const attention::AttendCall& call,
                       bool reference = false) {
        using Launches = attention::CacheLaunch<K, V, Ordered, attention::Dims<Dim>>;
        if (reference) {
            Launches::attend_reference(stream, call);
        } else {
            Launches::attend(stream, call);
        }
    }
    [[nodiscard]] const std::vector<std::uint32_t>& greatest() const { return greatest_; }
    [[nodiscard]] std::uint64_t kernels() const { return kernels_; }

    /// The formula in double precision, over what the codecs' own decoders read.
    std::vector<float> truth(const Ask& ask) {
        const kv::LayerCache cache{pages(), kv::side_kernels<K>(Isa::portable),
                                   kv::side_kernels<V>(Isa::portable)};
        std::vector<float> out;
        for (std::size_t row = 0; row < positions_.size(); ++row) {
            const std::size_t s = segment_of_row_[row];
            for (std::uint32_t head = 0; head < shape_.heads(); ++head) {
                const auto of = state(cache, s, row, head, ask.window, 0, positions_[row] + 1);
                std::vector<float> value(Dim);
                for (std::size_t i = 0; i < value.size(); ++i)
                    value[i] = static_cast<float>(of.value[i] / of.sum);
                if (V::rotates) kv::rotate(value.data(), value.size());
                out.insert(out.end(), value.begin(), value.end());
            }
        }
        return out;
    }
    struct State {
        double greatest = -std::numeric_limits<double>::infinity();
        double sum = 0;
        std::vector<double> value;
    };
    /// Over tokens [begin, end) of those that a row sees; the value stays in the codec's basis.
    State state(std::size_t row, std::uint32_t head, std::uint32_t begin, std::uint32_t end) {
        const kv::LayerCache cache{pages(), kv::side_kernels<K>(Isa::portable),
                                   kv::side_kernels<V>(Isa::portable)};
        return state(cache, segment_of_row_[row], row, head, 0, begin, end);
    }

private:
    using Chunk = zse::exec::gpu::Chunk;

    [[nodiscard]] std::size_t stride() const { return shape_.heads() * Dim + 5; }  // wider than a row
    [[nodiscard]] float scale() const { return 1.0f / std::sqrt(static_cast<float>(Dim)); }
    [[nodiscard]] kv::LayerPages pages() {
        return {reinterpret_cast<std::byte*>(pool_.data()), layout_.page_bytes(), layout_};
    }
    void fill(std::size_t s, unsigned seed) {
        const kv::LayerCache cache{pages(), kv::side_kernels<K>(Isa::portable),
                                   kv::side_kernels<V>(Isa::portable)};
        std::mt19937 random(seed);
        std::uniform_real_distribution<float> uniform(-1.7f, 1.7f);
        std::vector<float> row(Dim);
        for (std::uint32_t t = 0; t < parts_[s].tokens; ++t) {
            const kv::PageIndex page = pages_[s][t / layout_.page_tokens];
            for (std::uint32_t head = 0; head < shape_.kv_heads; ++head) {
                for (float& value : row) value = uniform(random);
                cache.put_key(page, head, t % layout_.page_tokens, row.data());
                for (float& value : row) value = uniform(random);
                cache.put_value(page, head, t % layout_.page_tokens, row.data());
            }
        }
    }
    /// Pages of dropped tokens alone belong to others by now.
    void lose_dropped(std::size_t s) {
        const Part& part = parts_[s];
        for (std::size_t i = 0; i < pages_[s].size(); ++i) {
            const std::size_t first = i * layout_.page_tokens;
            if (first >= part.sinks && first + layout_.page_tokens <= part.boundary)
                pages_[s][i] = 0xffffffffu;
        }
    }
    State state(const kv::LayerCache& cache, std::size_t s, std::size_t row, std::uint32_t head,
                std::uint32_t window, std::uint32_t begin, std::uint32_t end) {
        const std::uint32_t position = positions_[row];
        const std::uint32_t kv_head = head / shape_.group;
        std::vector<float> query(q_.begin() + static_cast<std::ptrdiff_t>(row * stride() + head * Dim),
                                 q_.begin() + static_cast<std::ptrdiff_t>(row * stride() + (head + 1) * Dim));
        if (K::rotates) kv::rotate(query.data(), query.size());
        std::vector<float> part(Dim);
        std::vector<std::pair<std::uint32_t, double>> scores;
        State of;
        of.value.assign(Dim, 0.0);
        for (std::uint32_t t = begin; t < end && t <= position; ++t) {
            if (window != 0 && position - t >= window) continue;
            if (t >= parts_[s].sinks && t < parts_[s].boundary) continue;
            cache.get_key(pages_[s][t / layout_.page_tokens], kv_head, t % layout_.page_tokens, part.data());
            double score = 0;
            for (std::size_t i = 0; i < part.size(); ++i) score += double{query[i]} * double{part[i]};
            scores.emplace_back(t, score * double{scale()});
            of.greatest = std::max(of.greatest, scores.back().second);
        }
        for (const auto& [t, score] : scores) {
            cache.get_value(pages_[s][t / layout_.page_tokens], kv_head, t % layout_.page_tokens,
                            part.data());
            const double weight = std::exp(score - of.greatest);
            of.sum += weight;
            for (std::size_t i = 0; i < part.size(); ++i) of.value[i] += weight * double{part[i]};
        }
        return of;
    }

    Shape shape_;
    std::vector<Part> parts_;
    kv::PageLayout layout_;
    std::vector<Chunk> pool_;
    std::vector<std::vector<kv::PageIndex>> pages_;
    std::vector<kv::Segment> segments_;
    std::vector<std::uint32_t> segment_of_row_, positions_, greatest_;
    std::vector<float> q_, turned_;
    std::uint64_t kernels_ = 0;
};

/// Outputs of a call are within `tolerance` of the formula, and so is the greatest magnitude of each row.
template <class K, class V, std::uint32_t Dim = 64>
void expect_near(const Shape& shape, const std::vector<Part>& parts, const Ask& ask, float tolerance) {
    Batch<K, V, Dim> batch(shape, parts);
    const auto truth = batch.truth(ask);
    const auto out = batch.attend(ask);
    ASSERT_EQ(out.size(), truth.size());
    for (std::size_t i = 0; i < out.size(); ++i) {
        ASSERT_NEAR(out[i], truth[i], tolerance)
            << K::name << " " << V::name << " dim " << Dim << " group " << shape.group << " page "
            << shape.page_tokens << " splits " << ask.splits << " window " << ask.window << " tokens "
            << parts[0].tokens << " rows " << parts[0].rows << " value " << i;
    }
    const std::size_t width = shape.heads() * Dim;
    for (std::size_t row = 0; row < out.size() / width; ++row) {
        float most = 0;
        for (std::size_t i = 0; i < width; ++i) most = std::max(most, std::fabs(out[row * width + i]));
        ASSERT_EQ(std::bit_cast<float>(batch.greatest()[row]), most);
    }
}

inline bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

}  // namespace cuda_cache

// SPDX-License-Identifier: Apache-2.0
// The plan of a model: its forward pass recorded, its matrices and pages counted. Runs at compile time.
#pragma once

#include <zse/exec/recorder.hpp>
#include <zse/memory/arena.hpp>
#include <zse/memory/plan.hpp>
#include <zse/model/llama.hpp>
#include <zse/sampling/sampler.hpp>

#include <optional>

namespace zse::inline v1 {
namespace model {

/// Limits with every zero replaced by what it stands for.
constexpr Limits resolved(const ModelSpec& spec, Limits limits) noexcept {
    if (limits.context == 0) limits.context = spec.trained_context;
    if (limits.output_rows == 0) limits.output_rows = limits.batch;
    return limits;
}

/// What is wrong with limits, or an empty text.
constexpr std::string_view defect(const Limits& limits) noexcept {
    if (limits.context == 0 || limits.context > 1u << 30) return "the context must be 1 to 2^30 tokens";
    if (limits.batch == 0 || limits.batch > 4096) return "the batch must be 1 to 4096 sequences";
    if (limits.step_tokens < limits.batch || limits.step_tokens > 65536) {
        return "the token budget of a step must be at least the batch and at most 65536";
    }
    if (limits.output_rows < limits.batch || limits.output_rows > limits.step_tokens) {
        return "the rows of logits must be at least the batch and at most the token budget of a step";
    }
    if (limits.threads == 0 || limits.threads > 256) return "threads must be 1 to 256";
    const auto page = limits.page_tokens;
    if (page != 1 && page != 8 && page != 16 && page != 32) return "a page must hold 1, 8, 16 or 32 tokens";
    return {};
}

/// The matrices that a policy holds for a model, and the bytes of all tensors, packed and padded to cache lines.
template <class WeightPolicy>
struct WeightLayout {
    static constexpr Bytes alignment = 64;

    static constexpr kernels::Matrix matrix(std::uint64_t rows, std::uint64_t columns, weights::Format stored,
                                            weights::Role role) noexcept {
        kernels::Matrix m;
        m.rows = static_cast<std::uint32_t>(rows);
        m.columns = static_cast<std::uint32_t>(columns);
        m.format = WeightPolicy::held(stored, role);
        return m;
    }
    static constexpr LayerWeights layer(const ModelSpec& spec, const LayerFormats& f) noexcept {
        using weights::Role;
        LayerWeights w;
        w.q = matrix(spec.q_width(), spec.hidden, f.q, Role::layer);
        w.k = matrix(spec.kv_width(), spec.hidden, f.k, Role::layer);
        w.v = matrix(spec.kv_width(), spec.hidden, f.v, Role::layer);
        w.o = matrix(spec.hidden, spec.q_width(), f.o, Role::layer);
        w.gate = matrix(spec.feed_forward, spec.hidden, f.gate, Role::layer);
        w.up = matrix(spec.feed_forward, spec.hidden, f.up, Role::layer);
        w.down = matrix(spec.hidden, spec.feed_forward, f.down, Role::layer);
        return w;
    }
    static constexpr ModelWeights top(const ModelSpec& spec) noexcept {
        using weights::Role;
        ModelWeights w;
        w.embedding = matrix(spec.vocabulary, spec.hidden, spec.embedding_format, Role::embedding);
        w.output = spec.tied_output ? w.embedding
                                    : matrix(spec.vocabulary, spec.hidden, spec.output_format, Role::output);
        return w;
    }
    static constexpr Bytes padded(Bytes bytes) noexcept { return round_up(bytes, alignment); }
    static constexpr Bytes floats(std::uint64_t count) noexcept { return padded(count * sizeof(float)); }

    /// Bytes of a layer: seven matrices, two norms, and biases.
    static constexpr Bytes layer_bytes(const ModelSpec& spec, const LayerFormats& formats) noexcept {
        const LayerWeights w = layer(spec, formats);
        Bytes sum = 2 * floats(spec.hidden);
        if (spec.qkv_bias) sum += floats(spec.q_width()) + 2 * floats(spec.kv_width());
        for (const kernels::Matrix& m : {w.q, w.k, w.v, w.o, w.gate, w.up, w.down}) sum += padded(m.bytes());
        return sum;
    }
    /// Bytes of all tensors.
    static constexpr Bytes bytes(const ModelSpec& spec) noexcept {
        const ModelWeights w = top(spec);
        Bytes sum = padded(w.embedding.bytes()) + floats(spec.hidden);
        if (!spec.tied_output) sum += padded(w.output.bytes());
        if (spec.rope_factors) sum += floats(spec.rope_dim / 2);
        for (std::uint32_t run = 0; run < spec.run_count; ++run) {
            sum = saturating_add(
                sum, saturating_mul(layer_bytes(spec, spec.runs[run].formats), spec.runs[run].count));
        }
        return sum;
    }
};

namespace detail {

/// Stands in for weights and cache while a forward pass is recorded: shapes without bytes.
template <class WeightPolicy>
struct PlannedWeights {
    const ModelSpec& spec;

    [[nodiscard]] constexpr ModelWeights top() const noexcept {
        return WeightLayout<WeightPolicy>::top(spec);
    }
    [[nodiscard]] constexpr LayerWeights layer(std::uint32_t index) const noexcept {
        std::uint32_t run = 0;
        while (index >= spec.runs[run].count) index -= spec.runs[run++].count;
        return WeightLayout<WeightPolicy>::layer(spec, spec.runs[run].formats);
    }
};

struct PlannedCache {
    kv::PageLayout layout;
    [[nodiscard]] constexpr kv::LayerCache layer(std::uint32_t /*index*/) const noexcept {
        kv::LayerCache cache;
        cache.pages.layout = layout;
        return cache;
    }
    [[nodiscard]] constexpr attention::CacheKernels kernels() const noexcept { return {}; }
};

}  // namespace detail

/// Arrays that describe a step and the histories of its sequences: what an engine carves from its control
/// arena.
struct ControlLayout {
    static constexpr Bytes bytes(const Limits& limits) noexcept {
        using memory::Carver;
        const std::uint64_t rows = limits.step_tokens;
        return 3 * Carver::footprint<std::uint32_t>(rows)  // tokens, positions, segment of each row
               + Carver::footprint<std::uint32_t>(limits.output_rows)             // which rows give logits
               + Carver::footprint<kv::Segment>(limits.batch)                     // one segment a sequence
               + limits.batch * Carver::footprint<std::int32_t>(limits.context);  // tokens of each sequence
    }
    /// The pool's free pages, and one table per sequence.
    static constexpr Bytes page_table_bytes(const Limits& limits, std::uint64_t pages_per_sequence) noexcept {
        using memory::Carver;
        return saturating_add(
            Carver::footprint<kv::PageIndex>(saturating_mul(limits.batch, pages_per_sequence)),
            saturating_mul(limits.batch, Carver::footprint<kv::PageIndex>(pages_per_sequence)));
    }
};

/// The KV layout of a model under a pair of codecs.
template <class KvPair>
constexpr kv::PageLayout page_layout(const ModelSpec& spec, const Limits& limits) noexcept {
    return kv::PageLayout::of<typename KvPair::Key, typename KvPair::Value>(
        limits.page_tokens, spec.layers, spec.kv_heads, spec.head_dim, spec.head_dim);
}

/// What an engine of these policies holds for a model within limits. `limits` are resolved and free of
/// defects.
template <class WeightPolicy, class KvPair, class Attention>
constexpr memory::Plan plan(const ModelSpec& spec, const Limits& limits) {
    using memory::Kind;
    using memory::Tier;
    memory::Plan plan;
    plan.parameters = spec.parameters();

    const kv::PageLayout layout = page_layout<KvPair>(spec, limits);
    plan.kv_page_bytes = layout.page_bytes();
    plan.kv_bytes_per_token = layout.token_bytes();
    plan.kv_pages = saturating_mul(layout.pages(limits.context), limits.batch);

    exec::Recorder recorder;
    Llama<Attention>::forward(recorder, spec, limits, detail::PlannedWeights<WeightPolicy>{spec},
                              detail::PlannedCache{layout}, Batch{}, nullptr);
    plan.scratch_per_thread = recorder.thread_bytes();

    plan.add(Tier::host, Kind::weights, WeightLayout<WeightPolicy>::bytes(spec));
    plan.add(Tier::host, Kind::kv, saturating_mul(plan.kv_pages, plan.kv_page_bytes));
    plan.add(Tier::host, Kind::scratch, recorder.shared_bytes() + limits.threads * recorder.thread_bytes());
    plan.add(Tier::host, Kind::logits, saturating_mul(limits.output_rows, spec.vocabulary) * sizeof(float));
    plan.add(Tier::host, Kind::sampling, sampling::scratch_bytes(spec.vocabulary));
    plan.add(Tier::host, Kind::page_tables,
             ControlLayout::page_table_bytes(limits, layout.pages(limits.context)));
    plan.add(Tier::host, Kind::control, ControlLayout::bytes(limits));
    return plan;
}

}  // namespace model
}  // namespace zse::inline v1

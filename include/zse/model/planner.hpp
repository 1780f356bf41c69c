// SPDX-License-Identifier: Apache-2.0
// The plan of a model: its forward pass recorded, its matrices and pages counted. Runs at compile time.
#pragma once

#include <zse/exec/captured.hpp>
#include <zse/exec/cuda/executor.hpp>
#include <zse/exec/recorder.hpp>
#include <zse/kv/pool.hpp>
#include <zse/memory/arena.hpp>
#include <zse/memory/plan.hpp>
#include <zse/model/device_layout.hpp>
#include <zse/model/groups.hpp>
#include <zse/model/llama.hpp>
#include <zse/model/weight_ring.hpp>
#include <zse/sampling/sampler.hpp>

#include <optional>

namespace zse::inline v1 {
namespace model {

/// Limits with every zero replaced by what it stands for.
constexpr Limits resolved(const ModelSpec& spec, Limits limits) noexcept {
    if (limits.context == 0) limits.context = spec.trained_context;
    if (limits.output_rows == 0) limits.output_rows = limits.batch;
    const Placement placement(spec.layers, limits);
    limits.gpu_layers = placement.gpu_layers;
    limits.disk_layers = placement.disk_layers;
    limits.disk_output = placement.disk_output;
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
    if (limits.kv_recent % 1024 != 0)
        return "the recent tokens that pruning keeps must be a multiple of 1024";
    if (limits.kv_sinks != 0 && limits.kv_recent == 0)
        return "first tokens are kept where pruning drops others: say how many recent ones it keeps";
    if (limits.kv_sinks > 256) return "pruning keeps at most 256 first tokens";
    if (limits.kv_heavy % 1024 != 0) return "the heavy tokens that pruning keeps must be a multiple of 1024";
    if (limits.kv_heavy != 0 && limits.kv_recent == 0)
        return "heavy tokens are kept where pruning drops others: say how many recent ones it keeps";
    return {};
}

/// For whom a plan is made: the processor, or a device that the host feeds.
struct OnHost {
    using Recorder = exec::Recorder;
    static constexpr weights::Packing packing = weights::Packing::cpu_r16k4;
};
struct OnDevice {
    using Recorder = exec::gpu::DeviceRecorder;
    static constexpr weights::Packing packing = weights::Packing::cuda_mma16;
};

/// The matrices that a policy holds for a model, and the bytes of all tensors, packed and padded to cache lines.
template <class WeightPolicy, class Target = OnHost>
struct WeightLayout {
    static constexpr Bytes alignment = 64;

    static constexpr kernels::Matrix matrix(std::uint64_t rows, std::uint64_t columns, weights::Format stored,
                                            weights::Role role) noexcept {
        kernels::Matrix m;
        m.rows = static_cast<std::uint32_t>(rows);
        m.columns = static_cast<std::uint32_t>(columns);
        m.format = WeightPolicy::held(stored, role);
        m.packing = Target::packing;
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

    /// Bytes of a layer: attention, one feed-forward block or the experts with their router, two norms, and biases.
    static constexpr Bytes layer_bytes(const ModelSpec& spec, const LayerFormats& formats) noexcept {
        const LayerWeights w = layer(spec, formats);
        Bytes sum = 2 * floats(spec.hidden);
        if (spec.qkv_bias) sum += floats(spec.q_width()) + 2 * floats(spec.kv_width());
        for (const kernels::Matrix& m : {w.q, w.k, w.v, w.o}) sum += padded(m.bytes());
        const std::uint64_t blocks = std::max(spec.experts, 1u);
        for (const kernels::Matrix& m : {w.gate, w.up, w.down}) {
            sum = saturating_add(sum, saturating_mul(padded(m.bytes()), blocks));
        }
        if (spec.experts != 0) sum += padded(saturating_mul(spec.experts, spec.hidden) * sizeof(float));
        return sum;
    }
    /// Bytes of the embedding, and of what comes after the last layer; a tied output matrix is the embedding. The norm of
    /// the output is always resident.
    static constexpr Bytes embedding_bytes(const ModelSpec& spec) noexcept {
        return spec.tied_output ? 0 : padded(top(spec).embedding.bytes());
    }
    static constexpr Bytes output_bytes(const ModelSpec& spec) noexcept {
        return padded(top(spec).output.bytes()) + floats(spec.hidden);
    }
    /// Bytes of all tensors that lie in a tier; on disk without what whole blocks add.
    static constexpr Bytes bytes(const ModelSpec& spec, const Placement& placement,
                                 memory::Tier tier) noexcept {
        Bytes sum = 0;
        if (tier == memory::Tier::host) {
            if (!placement.disk_output) sum = embedding_bytes(spec);
            if (spec.rope_factors) sum += floats(spec.rope_dim / 2);
        }
        if (placement.of_output() == tier) {
            sum = saturating_add(sum, placement.disk_output ? floats(spec.hidden) : output_bytes(spec));
        }
        if (tier == memory::Tier::disk && placement.disk_output) {
            sum = embedding_bytes(spec) + output_bytes(spec) - floats(spec.hidden);
        }
        for (std::uint32_t run = 0, first = 0; run < spec.run_count; first += spec.runs[run++].count) {
            const std::uint32_t there = placement.weights_in(tier, first, spec.runs[run].count);
            sum = saturating_add(sum, saturating_mul(layer_bytes(spec, spec.runs[run].formats), there));
        }
        return sum;
    }
    /// On a device: two windows for layers whose weights lie in the host tier, one computed with while the next one comes.
    static constexpr Bytes window_bytes(const ModelSpec& spec, const Placement& placement) noexcept {
        return 2 * window_layer_bytes(spec, placement);
    }
    /// Of the largest such layer.
    static constexpr Bytes window_layer_bytes(const ModelSpec& spec, const Placement& placement) noexcept {
        Bytes most = 0;
        for (std::uint32_t run = 0, first = 0; run < spec.run_count; first += spec.runs[run++].count) {
            if (placement.weights_in(memory::Tier::host, first, spec.runs[run].count) == 0) continue;
            most = std::max(most, layer_bytes(spec, spec.runs[run].formats));
        }
        return most;
    }
    /// What the weights in the disk tier take there, and in memory on their way.
    static constexpr RingLayout ring(const ModelSpec& spec, const Placement& placement) noexcept {
        RingLayout ring;
        for (std::uint32_t run = 0, first = 0; run < spec.run_count; first += spec.runs[run++].count) {
            ring.add_layers(layer_bytes(spec, spec.runs[run].formats),
                            placement.weights_in(memory::Tier::disk, first, spec.runs[run].count));
        }
        if (placement.disk_output) {
            const ModelWeights w = top(spec);
            ring.add_output(w.output, w.embedding, spec.tied_output);
        }
        return ring;
    }
};

namespace detail {

/// Stands in for weights and cache while a forward pass is recorded: shapes without bytes.
template <class WeightPolicy, class Target>
struct PlannedWeights {
    const ModelSpec& spec;

    [[nodiscard]] constexpr ModelWeights top() const noexcept {
        return WeightLayout<WeightPolicy, Target>::top(spec);
    }
    [[nodiscard]] constexpr LayerWeights layer(std::uint32_t index) const noexcept {
        return WeightLayout<WeightPolicy, Target>::layer(spec, spec.run_of(index).formats);
    }
    [[nodiscard]] constexpr WeightRing* ring() const noexcept { return nullptr; }
    [[nodiscard]] constexpr DeviceWindows* windows() const noexcept { return nullptr; }
    [[nodiscard]] constexpr std::span<const kernels::Matrix> output_tiles() const noexcept { return {}; }
};

template <class Kv, std::uint32_t Cut>
struct PlannedCache {
    const ModelSpec& spec;
    const Limits& limits;

    [[nodiscard]] constexpr bool alike(std::uint32_t a, std::uint32_t b) const noexcept {
        return kv::Codecs<Kv>::of(a) == kv::Codecs<Kv>::of(b) &&
               (spec.run_of(a).window == 0) == (spec.run_of(b).window == 0);
    }
    [[nodiscard]] constexpr kv::LayerState layer(std::uint32_t index) const noexcept {
        const kv::LayerCodecs codecs = kv::Codecs<Kv>::of(index);
        const typename kv::Codecs<Kv>::Pairs pairs{};
        kv::LayerState state;
        state.cache.pages.layout = layout_of(pairs, codecs.recent, limits.page_tokens, 1, spec);
        if (codecs.old != kv::LayerCodecs::none) {
            state.old.pages.layout = layout_of(pairs, codecs.old, limits.page_tokens, 1, spec);
        } else if (limits.kv_heavy != 0 && spec.run_of(index).window == 0) {
            state.old.pages.layout = state.cache.pages.layout;
            state.mass = {limits.kv_heavy, limits.kv_recent + Cut};
        }
        return state;
    }
    [[nodiscard]] constexpr attention::LayerKernels kernels(std::uint32_t /*index*/) const noexcept {
        return {};
    }
};

}  // namespace detail

/// Arrays that describe a step, the histories of its sequences, and where its matrices lie: what an engine carves from
/// its control arena.
struct ControlLayout {
    /// Matrices of a model that are packed into parts, one for each thread.
    static constexpr std::uint64_t matrices(const ModelSpec& spec) noexcept {
        return 7 * std::uint64_t{spec.layers} + (spec.tied_output ? 1 : 2);
    }
    /// Steps that are captured, for batches of 1, 2, 4, ... sequences; one such list.
    static constexpr std::uint32_t buckets(const Limits& limits) noexcept {
        return limits.enforce_eager ? 0 : exec::Buckets::count(limits.batch);
    }
    static constexpr Bytes bucket_bytes(std::uint64_t operations) noexcept {
        return exec::Captured::footprint(operations);
    }
    static constexpr Bytes bytes(const ModelSpec& spec, const Limits& limits, std::uint64_t groups,
                                 std::uint64_t operations) noexcept {
        using memory::Carver;
        const std::uint64_t rows = limits.step_tokens;
        return 3 * Carver::footprint<std::uint32_t>(rows)  // tokens, positions, segment of each row
               + Carver::footprint<std::uint32_t>(limits.output_rows)   // which rows give logits
               + groups * Carver::footprint<kv::Segment>(limits.batch)  // one segment a sequence
               +
               Carver::footprint<std::int32_t>(saturating_mul(limits.batch, limits.context))  // their tokens
               + Carver::footprint<LayerWeights>(spec.layers)  // matrices of each layer
               + Carver::footprint<const std::byte*>(matrices(spec) * limits.threads)  // their parts
               + Carver::footprint<LayerPlace>(spec.layers) +
               buckets(limits) * Carver::footprint<std::byte>(bucket_bytes(operations));
    }
    /// A pool's free pages and holders, and one table per sequence.
    static constexpr Bytes table_bytes(std::uint64_t pages, std::uint64_t batch,
                                       std::uint64_t entries) noexcept {
        using memory::Carver;
        if (pages == 0) return 0;
        return saturating_add(saturating_add(Carver::footprint<kv::PageIndex>(pages),
                                             Carver::footprint<kv::PagePool::Holders>(pages)),
                              Carver::footprint<kv::PageIndex>(saturating_mul(batch, entries)));
    }
    static constexpr Bytes page_table_bytes(const StateGroups& groups, const Limits& limits) noexcept {
        Bytes sum = 0;
        for (const StateGroup& group : groups.all()) {
            const kv::Keeping& keeping = group.keeping;
            sum =
                saturating_add(sum, table_bytes(group.pages, limits.batch, keeping.entries(limits.context)));
            sum = saturating_add(sum, kv::TieredPages::table_bytes(group.layout, group.spread));
            sum = saturating_add(
                sum, table_bytes(group.old_pages, limits.batch, keeping.old_pages(limits.context)));
            sum = saturating_add(sum, memory::Carver::footprint<float>(
                                          saturating_mul(limits.batch, group.mass().floats(group.layout))));
        }
        return sum;
    }
};

/// What an engine of these policies holds for a model within limits. `limits` are resolved and free of
/// defects.
template <class WeightPolicy, class Kv, class Attention, class Target = OnHost>
constexpr memory::Plan plan(const ModelSpec& spec, const Limits& limits) {
    using memory::Kind;
    using memory::Tier;
    memory::Plan plan;
    plan.parameters = spec.parameters();
    const Placement placement(spec.layers, limits);

    const StateGroups groups = state_groups<Kv, Attention::cut>(spec, limits);
    for (const StateGroup& group : groups.all()) {
        if (group.spread.spread() && !groups.keep_all()) {
            throw Error(ErrorCode::usage,
                        "keys and values lie in several tiers only where layers keep all tokens in one "
                        "precision; leave "
                        "out the sizes of slower tiers, or windows, pruning and the precision of old tokens");
        }
        const kv::Keeping& keeping = group.keeping;
        plan.kv_bytes_per_token += group.layout.token_bytes();
        memory::PoolPlan pool{group.tier, group.pages, group.layout.page_bytes(),
                              keeping.pages(limits.context)};
        pool.host_pages = group.spread.host;
        pool.disk_pages = group.spread.disk;
        pool.disk_page_bytes = kv::TieredPages::slice_bytes(group.layout) * group.layout.layers;
        pool.staging_bytes = kv::TieredPages::staging_bytes(group.layout, group.spread);
        plan.pools[plan.pool_count++] = pool;
        plan.add(group.tier, Kind::kv, pool.bytes());
        plan.add(Tier::host, Kind::kv, pool.host_bytes());
        plan.add(Tier::disk, Kind::kv, pool.disk_bytes());
        plan.add(Tier::host, Kind::staging, pool.staging_bytes);
        if (!keeping.old) continue;
        const memory::PoolPlan old{group.tier, group.old_pages, group.old_layout.page_bytes(),
                                   keeping.old_pages(limits.context)};
        plan.pools[plan.pool_count++] = old;
        plan.add(group.tier, Kind::kv, old.bytes());
    }

    constexpr bool on_device = Target::Recorder::device;
    typename Target::Recorder recorder;
    Llama<Attention>::forward(recorder, spec, limits, detail::PlannedWeights<WeightPolicy, Target>{spec},
                              detail::PlannedCache<Kv, Attention::cut>{spec, limits}, Batch{}, nullptr);
    plan.scratch_per_thread = recorder.thread_bytes();

    using Layout = WeightLayout<WeightPolicy, Target>;
    for (const Tier tier : {Tier::gpu, Tier::host}) {
        plan.add(tier, Kind::weights, Layout::bytes(spec, placement, tier));
    }
    const RingLayout ring = Layout::ring(spec, placement);
    plan.add(Tier::disk, Kind::weights, ring.disk_bytes);
    plan.weights_staging = ring.staging_bytes();
    plan.add(Tier::host, Kind::staging, plan.weights_staging);
    const Tier compute = placement.of_compute();
    const Bytes logits = saturating_mul(limits.output_rows, spec.vocabulary) * sizeof(float);
    plan.add(compute, Kind::logits, logits);
    if constexpr (on_device) {
        const Bytes choosing =
            exec::gpu::workspace_zeros + sampling::cuda::workspace_bytes(limits.output_rows, spec.vocabulary);
        plan.scratch_per_thread = std::max(recorder.thread_bytes(), round_up(choosing, 64));
        plan.add(compute, Kind::scratch, recorder.shared_bytes() + plan.scratch_per_thread);
        plan.add(Tier::host, Kind::logits,
                 logits);  // where tokens are chosen that the device does not choose
        const DeviceLayout device(groups, limits);
        plan.add(Tier::gpu, Kind::control, device.bytes());
        plan.add(Tier::host, Kind::staging, device.host_bytes());
        plan.add(Tier::gpu, Kind::staging, Layout::window_bytes(spec, placement));
    } else {
        plan.add(compute, Kind::scratch, recorder.shared_bytes() + limits.threads * recorder.thread_bytes());
    }
    plan.add(Tier::host, Kind::sampling, sampling::scratch_bytes(spec.vocabulary));
    plan.add(Tier::host, Kind::page_tables, ControlLayout::page_table_bytes(groups, limits));
    plan.add(Tier::host, Kind::prompt_cache, groups.prompt_cache_bytes(limits));
    const kv::PromptLayout prompts = groups.prompt_layout(limits);
    plan.add(Tier::disk, Kind::prompt_cache, prompts.file_bytes);
    plan.add(Tier::host, Kind::staging, prompts.staging_bytes());
    plan.add(Tier::host, Kind::tokenizer, spec.tokenizer_bytes);
    plan.add(
        Tier::host, Kind::control,
        ControlLayout::bytes(spec, limits, groups.count,
                             on_device ? 0 : Llama<Attention>::operations(spec, limits) + ring.operations()) +
            ring.control_bytes(limits.threads));
    return plan;
}

}  // namespace model
}  // namespace zse::inline v1

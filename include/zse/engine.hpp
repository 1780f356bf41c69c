// SPDX-License-Identifier: Apache-2.0
// Engine<Policies...>: weight precision, KV precision, attention, tiers and execution, put together by the
// compiler.
#pragma once

#include <zse/attention/flash.hpp>
#include <zse/attention/reference.hpp>
#include <zse/engine/generation.hpp>
#include <zse/engine/setup.hpp>
#include <zse/exec/cpu.hpp>
#include <zse/kv/recode.hpp>
#include <zse/kv/retain.hpp>
#include <zse/memory/tiers.hpp>
#include <zse/model/identity.hpp>
#include <zse/policy/compose.hpp>
#include <zse/weights/as_stored.hpp>

#include <filesystem>

namespace zse::inline v1 {

/// The canonical engine of five policies. Write Engine<...>, which sorts them.
template <policy::WeightPolicy W, policy::KvPolicy K, policy::AttentionPolicy A, policy::TierPolicy T,
          policy::ExecPolicy X>
class EngineOf final : public AnyEngine {
public:
    using Weights = W;
    using Kv = K;
    using Attention = A;
    using Tiers = T;
    using Exec = X;
    static_assert(policy::require<"zse: Engine with " + T::spelling + " on " + X::spelling +
                                      " needs tiers that the processor reaches; use tiers::host, or "
                                      "tiers::chain<tiers::arena, tiers::host>",
                                  tiers::on_host<T>>());

    using Setup = engine::Setup<W, K, A, T, X>;

    using AnyEngine::plan;

    /// The bytes that such an engine holds for a model, by tier and kind. Zeros in `limits` mean the
    /// defaults. At compile time, limits or shapes that make no sense stop compilation; at run time they
    /// throw usage.
    static constexpr memory::Plan plan(const ModelSpec& spec, const Limits& limits = {}) {
        return Setup::plan(spec, limits);
    }

    /// Opens a model file. Everything that the engine will hold is taken here, from the plan and from nothing
    /// else.
    static EngineOf open(const std::filesystem::path& path, const Limits& limits = {}) {
        engine::Options options;
        options.limits = limits;
        const io::Gguf file = io::Gguf::open(path);
        const ModelSpec spec = model::spec_from_gguf(file);
        return EngineOf(file, spec, engine::vocabulary_from_gguf(file, spec.vocabulary),
                        Setup::resolve(file, spec, options));
    }
    /// Opens an already read file, with all options.
    static std::unique_ptr<AnyEngine> open(const io::Gguf& file, const ModelSpec& spec,
                                           std::shared_ptr<const engine::Vocabulary> vocabulary,
                                           const engine::Options& options) {
        return std::unique_ptr<AnyEngine>(
            new EngineOf(file, spec, std::move(vocabulary), Setup::resolve(file, spec, options)));
    }

    [[nodiscard]] std::string description() const override { return Setup::description(); }

private:
    using Resolved = typename Setup::Resolved;

    EngineOf(const io::Gguf& file, const ModelSpec& spec,
             std::shared_ptr<const engine::Vocabulary> vocabulary, const Resolved& r)
        : AnyEngine(spec, std::move(vocabulary), r.plan,
                    model::state_groups<K, A::cut>(spec, r.options.limits), r.options, r.identity),
          team_(r.options.limits.threads),
          scratch_(arena(placement().of_compute(), memory::Kind::scratch)),
          weights_(file, spec, placement(), weight_arenas(model::WeightLayout<W>::ring(spec, placement())),
                   control(), team_, binding(*r.options.isa), r.options.progress),
          places_(control().template take<model::LayerPlace>(spec.layers)),
          codecs_(codecs(typename kv::Codecs<K>::Pairs{}, *r.options.isa)),
          executor_(team_, scratch_.data(),
                    scratch_.size() - r.options.limits.threads * r.plan.scratch_per_thread,
                    r.plan.scratch_per_thread) {
        model::state_groups<K, A::cut>(spec, r.options.limits, places_);
        const Bytes bytes =
            model::ControlLayout::bucket_bytes(model::Llama<A>::operations(spec, limits()) +
                                               model::WeightLayout<W>::ring(spec, placement()).operations());
        for (std::uint32_t i = 0; i < model::ControlLayout::buckets(limits()); ++i) {
            captured_.emplace_back(control().template take<std::byte>(bytes));
            note_uncaptured(bytes);
        }
    }

    static model::WeightBinding binding(kernels::Isa isa) {
        return {[isa](weights::Format format) { return kernels::bind<W>(format, isa); },
                kernels::row_kernels(isa)};
    }

    /// The functions of one pair of codecs.
    struct Codec {
        const kv::SideKernels* k = nullptr;
        const kv::SideKernels* v = nullptr;
        attention::CacheKernels attention;
    };
    template <class... Pair>
    static auto codecs(policy::List<Pair...> /*pairs*/, kernels::Isa isa) noexcept {
        return std::array<Codec, sizeof...(Pair)>{
            Codec{kv::side_kernels<typename Pair::Key>(isa), kv::side_kernels<typename Pair::Value>(isa),
                  attention::cache_kernels<typename Pair::Key, typename Pair::Value>(isa)}...};
    }
    /// A layer of a group, `index` among its layers.
    [[nodiscard]] kv::LayerCache cache(const kv::PagePool& pool, const kv::PageLayout& layout,
                                       std::uint8_t codec, std::uint32_t index) const noexcept {
        return {pool.layer(layout, index), codecs_[codec].k, codecs_[codec].v};
    }

    /// The cache of every layer, for a forward pass.
    struct Cache {
        const EngineOf& engine;
        const kv::BatchRows& rows;

        [[nodiscard]] kv::LayerState layer(std::uint32_t layer) const noexcept {
            const auto [number, index] = engine.places_[layer];
            const model::StateGroup& group = engine.groups().groups[number];
            const kv::GroupPages& pages = engine.pages().groups()[number];
            kv::LayerState state;
            state.rows = rows;
            state.rows.segments = engine.segments(number, rows.segments.size());
            state.window = group.keeping.window;
            state.cache = engine.cache(pages.pool, group.layout, group.codecs.recent, index);
            state.tiers = group.spread.disk != 0 ? pages.pool.tiers() : nullptr;
            state.index = index;
            if (group.keeping.old) {
                state.old = engine.cache(pages.old_pool, group.old_layout, group.old_codec(), index);
            }
            state.mass = group.mass();
            state.mass_at = state.mass.tokens() * index * group.layout.kv_heads;
            return state;
        }
        [[nodiscard]] attention::LayerKernels kernels(std::uint32_t layer) const noexcept {
            const kv::LayerCodecs& of = engine.groups().groups[engine.places_[layer].group].codecs;
            attention::LayerKernels kernels;
            kernels.recent = engine.codecs_[of.recent].attention;
            kernels.old = engine.codecs_[of.old == kv::LayerCodecs::none ? of.recent : of.old].attention;
            return kernels;
        }
    };

    void forward(const model::Batch& batch, float* logits) override {
        recode(batch.rows.segments.size());
        // A step in which each sequence generates has the same shapes whenever there are as many of them.
        const bool generates = batch.most_rows == 1 && batch.output_rows.size() == batch.rows.rows;
        const std::uint32_t bucket = generates ? exec::Buckets::of(batch.rows.rows) : exec::Buckets::none;
        if (bucket < captured_.size() && captured_[bucket].complete()) {
            captured_[bucket].run(executor_);
            finish_streaming(weights_.ring());
            return count_step(true);
        }
        if (bucket < captured_.size()) executor_.capture(captured_[bucket]);
        model::Llama<A>::forward(executor_, spec(), limits(), weights_, Cache{*this, batch.rows}, batch,
                                 logits);
        executor_.close();
        scratch_.uses(executor_.used());
        if (bucket < captured_.size()) note_captured(captured_[bucket].bytes());
        finish_streaming(weights_.ring());
        count_step(false);
    }
    /// Where a sequence enters a new stretch, the tokens that it leaves behind get their old codec, or the heavy ones of
    /// them are kept.
    void recode(std::size_t sequences) {
        for (std::uint32_t number = 0; number < groups().count; ++number) {
            const model::StateGroup& group = groups().groups[number];
            if (!group.keeping.old) continue;
            const kv::GroupPages& pages = this->pages().groups()[number];
            for (const kv::Segment& segment : segments(number, sequences)) {
                const bool begins = segment.first_position == 0;
                const std::uint32_t before = begins ? 0 : group.keeping.boundary(segment.first_position - 1);
                const kv::LayerCache recent = cache(pages.pool, group.layout, group.codecs.recent, 0);
                const kv::LayerCache old = cache(pages.old_pool, group.old_layout, group.old_codec(), 0);
                if (begins && segment.mass != nullptr) {
                    std::fill_n(segment.mass, group.mass().floats(group.layout), 0.0f);
                }
                if (before == segment.boundary) continue;
                if (segment.mass != nullptr) {
                    executor_.run(kv::Retain{recent, old, segment.pages, segment.old_pages, segment.mass,
                                             group.mass(), before, segment.boundary - before,
                                             group.keeping.old_tokens(segment.first_position - 1),
                                             limits().kv_sinks});
                    continue;
                }
                executor_.run(kv::Recode{recent, old, segment.pages, segment.old_pages,
                                         before / group.keeping.page_tokens,
                                         segment.boundary / group.keeping.page_tokens});
            }
        }
    }

    exec::Team team_;
    memory::Arena scratch_;
    model::LoadedWeights<W> weights_;
    std::span<model::LayerPlace> places_;
    decltype(codecs(typename kv::Codecs<K>::Pairs{}, kernels::Isa{})) codecs_;
    exec::CpuExecutor executor_;
    std::vector<exec::Captured> captured_;  ///< by bucket
};

namespace engine {

/// What an Engine is where a policy is left out.
struct Defaults {
    using Weights = weights::as_stored;
    using Kv = kv::f16;
    using Attention = attention::flash<>;
    using Tiers = tiers::automatic;
    using Exec = exec::cpu;
};

template <class C>
using EngineOfComposition = EngineOf<
    typename C::Weights, typename kv::Canonical<typename C::Kv>::type, typename C::Attention,
    typename tiers::Canonical<std::conditional_t<std::is_same_v<typename C::Tiers, tiers::automatic>,
                                                 typename C::Exec::default_tiers, typename C::Tiers>>::type,
    typename C::Exec>;

}  // namespace engine

/// The engine of these policies, given in any order; each family may be left out. All orders are one type.
template <class... Policies>
using Engine = engine::EngineOfComposition<policy::Composition<engine::Defaults, Policies...>>;

}  // namespace zse::inline v1

// SPDX-License-Identifier: Apache-2.0
// Engine<Policies...>: weight precision, KV precision, attention, tiers and execution, put together by the
// compiler.
#pragma once

#include <zse/attention/flash.hpp>
#include <zse/attention/reference.hpp>
#include <zse/engine/generation.hpp>
#include <zse/exec/cpu.hpp>
#include <zse/memory/tiers.hpp>
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
                                      " needs a tier that the processor reaches; use tiers::host",
                                  std::is_same_v<T, tiers::host>>());

    using AnyEngine::plan;

    /// The bytes that such an engine holds for a model, by tier and kind. Zeros in `limits` mean the
    /// defaults. At compile time, limits or shapes that make no sense stop compilation; at run time they
    /// throw usage.
    static constexpr memory::Plan plan(const ModelSpec& spec, Limits limits = {}) {
        limits = model::resolved(spec, limits);
        accept(spec, limits);
        return model::plan<W, K, A>(spec, limits);
    }

    /// Opens a model file. Everything that the engine will hold is taken here, from the plan and from nothing
    /// else.
    static EngineOf open(const std::filesystem::path& path, const Limits& limits = {}) {
        engine::Options options;
        options.limits = limits;
        const io::Gguf file = io::Gguf::open(path);
        const ModelSpec spec = model::spec_from_gguf(file);
        return EngineOf(file, spec, engine::vocabulary_from_gguf(file, spec.vocabulary),
                        resolve(spec, options));
    }
    /// Opens an already read file, with all options.
    static std::unique_ptr<AnyEngine> open(const io::Gguf& file, const ModelSpec& spec,
                                           std::shared_ptr<const engine::Vocabulary> vocabulary,
                                           const engine::Options& options) {
        return std::unique_ptr<AnyEngine>(
            new EngineOf(file, spec, std::move(vocabulary), resolve(spec, options)));
    }

    [[nodiscard]] std::string description() const override {
        return text("Engine<", W::spelling.view(), ", ", K::spelling.view(), ", ", A::spelling.view(), ", ",
                    T::spelling.view(), ", ", X::spelling.view(), ">");
    }

private:
    struct Resolved {
        engine::Options options;
        memory::Plan plan;
    };
    static Resolved resolve(const ModelSpec& spec, engine::Options options) {
        options.limits = model::resolved(spec, options.limits);
        options.isa = kernels::chosen(options.isa);
        memory::Plan plan = EngineOf::plan(spec, options.limits);
        return {std::move(options), plan};
    }
    EngineOf(const io::Gguf& file, const ModelSpec& spec,
             std::shared_ptr<const engine::Vocabulary> vocabulary, const Resolved& r)
        : AnyEngine(spec, std::move(vocabulary), r.plan, model::page_layout<K>(spec, r.options.limits),
                    r.options),
          team_(r.options.limits.threads),
          scratch_(arena(memory::Kind::scratch)),
          weights_(file, spec, arena(memory::Kind::weights), team_, *r.options.isa, r.options.progress),
          kernels_(attention::cache_kernels<typename K::Key, typename K::Value>(*r.options.isa)),
          executor_(team_, scratch_.data(),
                    scratch_.size() - r.options.limits.threads * r.plan.scratch_per_thread,
                    r.plan.scratch_per_thread) {}

    static constexpr void accept(const ModelSpec& spec, const Limits& limits) {
        if (const std::string_view wrong = spec.defect(); !wrong.empty()) {
            throw Error(ErrorCode::usage, text("the model's shape makes no plan: ", wrong));
        }
        if (const std::string_view wrong = model::defect(limits); !wrong.empty()) {
            throw Error(ErrorCode::usage, text("the limits make no plan: ", wrong));
        }
        accept_group<typename K::Key>(spec);
        accept_group<typename K::Value>(spec);
    }
    template <kv::KvCodec C>
    static constexpr void accept_group(const ModelSpec& spec) {
        if (spec.head_dim % C::group != 0) {
            throw Error(ErrorCode::usage,
                        text(C::spelling.view(), " needs a group that divides the head size ", spec.head_dim,
                             "; use kv::f16, or a group of 16"));
        }
    }

    /// The cache of every layer, for a forward pass.
    struct Cache {
        const EngineOf& engine;
        [[nodiscard]] kv::LayerCache layer(std::uint32_t index) const noexcept {
            const kv::PageLayout& layout = engine.layout();
            return {{engine.kv_pool() + index * layout.layer_bytes(), layout.page_bytes(), layout},
                    kv::side_kernels<typename K::Key>(engine.isa()),
                    kv::side_kernels<typename K::Value>(engine.isa())};
        }
        [[nodiscard]] const attention::CacheKernels& kernels() const noexcept { return engine.kernels_; }
    };

    void forward(const model::Batch& batch, float* logits) override {
        model::Llama<A>::forward(executor_, spec(), limits(), weights_, Cache{*this}, batch, logits);
    }

    exec::Team team_;
    memory::Arena scratch_;
    model::LoadedWeights<W> weights_;
    attention::CacheKernels kernels_;
    exec::CpuExecutor executor_;
};

namespace engine {

/// What an Engine is where a policy is left out.
struct Defaults {
    using Weights = weights::as_stored;
    using Kv = kv::f16;
    using Attention = attention::flash<>;
    using Tiers = tiers::host;
    using Exec = exec::cpu;
};

template <class C>
using EngineOfComposition =
    EngineOf<typename C::Weights, typename kv::Canonical<typename C::Kv>::type, typename C::Attention,
             typename tiers::Canonical<typename C::Tiers>::type, typename C::Exec>;

}  // namespace engine

/// The engine of these policies, given in any order; each family may be left out. All orders are one type.
template <class... Policies>
using Engine = engine::EngineOfComposition<policy::Composition<engine::Defaults, Policies...>>;

}  // namespace zse::inline v1

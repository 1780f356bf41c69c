// SPDX-License-Identifier: Apache-2.0
// Engines on a GPU. A program that includes this links what nvcc compiled of the kernels (zse_add_engine_matrix makes it).
#pragma once

#include <zse/attention/cuda/cache_launches.hpp>
#include <zse/engine.hpp>
#include <zse/engine/device_engine.hpp>
#include <zse/exec/cuda/policy.hpp>
#include <zse/kernels/cuda/linear.hpp>
#include <zse/kernels/cuda/rms_norm.hpp>
#include <zse/kv/cuda/rope_angles.hpp>
#include <zse/sampling/cuda/launches.hpp>

#include <optional>

namespace zse::inline v1 {
namespace engine {

/// The launches that know no codec.
template <class Launcher, bool Invariant>
inline constexpr kernels::cuda::RowLaunches row_launches{
    [](exec::gpu::Stream& stream, const kernels::cuda::RmsNormCall& call) noexcept {
        Launcher::launch(stream, kernels::cuda::RmsNormKernel{call});
    },
    [](exec::gpu::Stream& stream, const kernels::cuda::RopeAnglesCall& call) noexcept {
        Launcher::launch(stream, kv::cuda::RopeAnglesKernel{call});
    },
    [](exec::gpu::Stream& stream, const kernels::cuda::SwigluCall& call) noexcept {
        Launcher::launch(stream, kernels::cuda::SwigluKernel{call});
    },
    Invariant};

/// The launches of a codec as a matrix has them.
template <class Codec, class Launcher>
inline constexpr kernels::MatrixKernels device_matrix{nullptr, nullptr,
                                                      &kernels::cuda::matrix_launches<Codec, Launcher>};
/// The same of what knows no codec.
template <class Launcher, bool Invariant>
inline constexpr kernels::RowKernels device_rows{nullptr, nullptr, nullptr,
                                                 nullptr, nullptr, &row_launches<Launcher, Invariant>};

/// The launches for matrices of a format under a weight policy, or null where it cannot hold that format.
template <class Policy, class Launcher>
const kernels::MatrixKernels* bind_on_device(weights::Format format) noexcept {
    const kernels::MatrixKernels* found = nullptr;
    if constexpr (weights::WeightCodec<Policy>) {
        if (format == Policy::format) found = &device_matrix<Policy, Launcher>;
        if constexpr (requires { typename Policy::Table; }) {
            if (format == Policy::Table::format) found = &device_matrix<typename Policy::Table, Launcher>;
        }
    } else {
        weights::visit_codec(format, [&](auto codec) { found = &device_matrix<decltype(codec), Launcher>; });
    }
    return found;
}

template <class... Pair>
DeviceTables device_tables(policy::List<Pair...> /*pairs*/, auto launcher, auto invariant) {
    using Launcher = decltype(launcher);
    return {&device_rows<Launcher, decltype(invariant)::value>,
            {&attention::cuda::cache_launches<typename Pair::Key, typename Pair::Value, Launcher>...},
            &sampling::cuda::sampling_launches<Launcher>};
}

}  // namespace engine

/// The canonical engine of five policies whose forward pass a GPU computes.
template <policy::WeightPolicy W, policy::KvPolicy K, policy::AttentionPolicy A, policy::TierPolicy T,
          policy::ExecPolicy X>
requires exec::gpu::OnDevice<X>
class EngineOf<W, K, A, T, X> final : public engine::DeviceEngine<A> {
public:
    using Weights = W;
    using Kv = K;
    using Attention = A;
    using Tiers = T;
    using Exec = X;
    using Setup = engine::Setup<W, K, A, T, X>;
    static_assert(
        policy::require<"zse: Engine with " + T::spelling + " on " + X::spelling +
                            " needs tiers that a GPU reaches; use tiers::chain<tiers::gpu, tiers::host>, or "
                            "tiers::chain<tiers::gpu, tiers::host, tiers::disk>",
                        tiers::on_device<T>>());

    using AnyEngine::plan;

    /// See EngineOf on the processor.
    static constexpr memory::Plan plan(const ModelSpec& spec, const Limits& limits = {}) {
        return Setup::plan(spec, limits);
    }
    /// Opens an already read file. Throws unsupported where no GPU can be used, out_of_memory where it has too little.
    static std::unique_ptr<AnyEngine> open(const io::Gguf& file, const ModelSpec& spec,
                                           std::shared_ptr<const engine::Vocabulary> vocabulary,
                                           const engine::Options& options) {
        auto resolved = Setup::resolve(file, spec, options);
        if (resolved.options.device == nullptr) resolved.options.device = X::open(options.gpu);
        resolved.options.mapping.source = resolved.options.device;
        return std::unique_ptr<AnyEngine>(new EngineOf(file, spec, std::move(vocabulary), resolved));
    }
    static std::unique_ptr<AnyEngine> open(const std::filesystem::path& path, const Limits& limits = {}) {
        engine::Options options;
        options.limits = limits;
        const io::Gguf file = io::Gguf::open(path);
        const ModelSpec spec = model::spec_from_gguf(file);
        return open(file, spec, engine::vocabulary_from_gguf(file, spec.vocabulary), options);
    }

    [[nodiscard]] std::string description() const override { return Setup::description(); }

private:
    using Base = engine::DeviceEngine<A>;
    using Layout = model::WeightLayout<W, model::OnDevice>;

    EngineOf(const io::Gguf& file, const ModelSpec& spec,
             std::shared_ptr<const engine::Vocabulary> vocabulary, const typename Setup::Resolved& r)
        : Base(spec, std::move(vocabulary), r.plan, model::state_groups<K, A::cut>(spec, r.options.limits),
               r.options, r.identity,
               engine::device_tables(typename kv::Codecs<K>::Pairs{}, typename X::Launcher{},
                                     std::bool_constant<X::invariant>{})) {
        model::state_groups<K, A::cut>(spec, r.options.limits, this->places());
        const model::Placement placement = this->placement();
        const Bytes window = Layout::window_layer_bytes(spec, placement);
        if (window != 0) {
            windows_.emplace(this->runtime(), this->arena(memory::Tier::gpu, memory::Kind::staging), window);
        }
        const model::WeightBinding binding{&engine::bind_on_device<W, typename X::Launcher>,
                                           &engine::device_rows<typename X::Launcher, X::invariant>,
                                           &this->uploader(), windows_ ? &*windows_ : nullptr};
        weights_.emplace(file, spec, placement, this->weight_arenas(Layout::ring(spec, placement)),
                         this->control(), this->team(), binding, r.options.progress);
        if (windows_) windows_->finish();
        this->runtime().synchronise(this->stream());
        this->start({&weights_->top(), weights_->layers(), weights_->output_tiles(), weights_->ring(),
                     windows_ ? &*windows_ : nullptr});
    }

    std::optional<model::DeviceWindows> windows_;
    std::optional<model::LoadedWeights<W, model::OnDevice>> weights_;
};

}  // namespace zse::inline v1

// SPDX-License-Identifier: Apache-2.0
// What engines on any executor have in common before there is one: what they accept, their plan, and their name.
#pragma once

#include <zse/engine/options.hpp>
#include <zse/io/gguf.hpp>
#include <zse/kv/policy.hpp>
#include <zse/memory/tiers.hpp>
#include <zse/model/identity.hpp>
#include <zse/model/planner.hpp>

namespace zse::inline v1 {
namespace engine {

/// Of the engine with these five policies.
template <class W, class K, class A, class T, class X>
struct Setup {
    using Target = std::conditional_t<X::device, model::OnDevice, model::OnHost>;

    /// Limits with every zero replaced by what it stands for.
    static constexpr Limits resolved(const ModelSpec& spec, Limits limits) noexcept {
        limits.device = X::device;
        return model::resolved(spec, limits);
    }
    static constexpr memory::Plan plan(const ModelSpec& spec, Limits limits) {
        limits = resolved(spec, limits);
        accept(spec, limits);
        return model::plan<W, K, A, Target>(spec, limits);
    }
    static std::string description() {
        return text("Engine<", W::spelling.view(), ", ", K::spelling.view(), ", ", A::spelling.view(), ", ",
                    T::spelling.view(), ", ", X::spelling.view(), ">");
    }

    /// What an engine is opened with.
    struct Resolved {
        Options options;
        memory::Plan plan;
        Identity identity;  ///< of the file of prompts, where there is one
    };
    static Resolved resolve(const io::Gguf& file, const ModelSpec& spec, Options options) {
        options.limits = resolved(spec, options.limits);
        options.isa = kernels::chosen(options.isa);
        memory::Plan planned = plan(spec, options.limits);
        Identity identity;
        if (planned.disk[memory::Kind::prompt_cache] != 0) {
            const std::string policies = text(W::spelling.view(), " ", K::spelling.view(), " ",
                                              A::spelling.view(), " ", X::spelling.view());
            identity = model::kv_identity(file, spec, model::state_groups<K, A::cut>(spec, options.limits),
                                          policies, *options.isa);
        }
        return {std::move(options), planned, identity};
    }

private:
    static constexpr void accept(const ModelSpec& spec, const Limits& limits) {
        if (const std::string_view wrong = spec.defect(); !wrong.empty()) {
            throw Error(ErrorCode::usage, text("the model's shape makes no plan: ", wrong));
        }
        if (const std::string_view wrong = model::defect(limits); !wrong.empty()) {
            throw Error(ErrorCode::usage, text("the limits make no plan: ", wrong));
        }
        if (limits.kv_disk_tokens != 0 && !tiers::has<T, memory::Tier::disk>) {
            throw Error(ErrorCode::usage,
                        text("keys and values on disk need an engine that has that tier; this one is on ",
                             T::spelling.view()));
        }
        if (limits.gpu_layers != 0 && !tiers::has<T, memory::Tier::gpu>) {
            throw Error(ErrorCode::usage,
                        text("layers in the gpu tier need an engine that has one; this one is on ",
                             T::spelling.view()));
        }
        if ((limits.disk_layers != 0 || limits.disk_output) && !tiers::has<T, memory::Tier::disk>) {
            throw Error(ErrorCode::usage,
                        text("weights in the disk tier need an engine that has one, such as one on "
                             "tiers::chain<tiers::host, tiers::disk>; this one is on ",
                             T::spelling.view()));
        }
        if constexpr (X::device) accept_on_device(spec, limits);
        accept_groups(spec, typename kv::Codecs<K>::Pairs{});
    }
    static constexpr void accept_on_device(const ModelSpec& spec, const Limits& limits) {
        if (spec.head_dim > 256) {
            throw Error(ErrorCode::unsupported,
                        text("the model has heads of ", spec.head_dim,
                             " values, and kernels for GPUs are made for up to 256; use exec::cpu"));
        }
        if (limits.kv_heavy != 0) {
            throw Error(ErrorCode::unsupported,
                        "heavy tokens are kept on the processor only; leave out kv_heavy, or use exec::cpu");
        }
        for (std::uint32_t layer = 0; layer < spec.layers; ++layer) {
            if (kv::Codecs<K>::of(layer).old == kv::LayerCodecs::none) continue;
            throw Error(ErrorCode::unsupported,
                        "a second precision for old tokens is for the processor only; use "
                        "one precision for all, or exec::cpu");
        }
    }
    template <class... Pair>
    static constexpr void accept_groups(const ModelSpec& spec, policy::List<Pair...> /*pairs*/) {
        (accept_group<typename Pair::Key>(spec), ...);
        (accept_group<typename Pair::Value>(spec), ...);
    }
    template <kv::KvCodec C>
    static constexpr void accept_group(const ModelSpec& spec) {
        if (spec.head_dim % C::group != 0) {
            throw Error(ErrorCode::usage,
                        text(C::spelling.view(), " needs a group that divides the head size ", spec.head_dim,
                             "; use kv::f16, or a group of 16"));
        }
    }
};

}  // namespace engine
}  // namespace zse::inline v1

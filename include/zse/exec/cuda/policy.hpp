// SPDX-License-Identifier: Apache-2.0
// The execution policy of a GPU. Host files may name it: they include no CUDA header, and link what nvcc compiled.
#pragma once

#include <zse/exec/cuda/runtime.hpp>
#include <zse/memory/tiers.hpp>
#include <zse/policy/family.hpp>

namespace zse::inline v1 {

/// How sums are shared out on a GPU.
namespace numerics {

/// Whatever is fastest for a batch: a row's last bits depend on how many rows there are.
struct fast {
    static constexpr bool value = false;
    static constexpr policy::Sentence prefix{"exec::cuda<"};
};
/// A row's bits depend on its own tokens alone, as on the processor; products and attention share out work by shape and
/// position only.
struct invariant {
    static constexpr bool value = true;
    static constexpr policy::Sentence prefix{"exec::cuda_invariant<"};
};

}  // namespace numerics

namespace exec {
namespace gpu {

/// What all executors of a device have in common.
struct DevicePolicy {
    static constexpr auto policy_family = policy::Family::exec;
    static constexpr bool device = true;
    using default_tiers = tiers::chain<tiers::gpu, tiers::host, tiers::disk>;
};

template <class P>
concept OnDevice = requires {
    requires P::device;
};

template <int First, int... Rest>
constexpr auto join_architectures() {
    if constexpr (sizeof...(Rest) == 0) {
        return policy::decimal<First>() + "";
    } else {
        return policy::decimal<First>() + ", " + join_architectures<Rest...>();
    }
}

}  // namespace gpu

/// A GPU. `Architectures` say for which compute capabilities (90 is 9.0) the program's kernels are compiled; the build has
/// to agree (ZSE_CUDA_ARCHITECTURES).
template <class Numerics, int... Architectures>
struct on_gpu : gpu::DevicePolicy {
    static_assert(policy::require<"zse: exec::cuda names no architecture; use exec::cuda<90>",
                                  sizeof...(Architectures) != 0>());
    static constexpr bool invariant = Numerics::value;
    static constexpr auto spelling = Numerics::prefix + gpu::join_architectures<Architectures...>() + ">";
    static constexpr std::string_view name = invariant ? "cuda-invariant" : "cuda";
    using Launcher = gpu::Native;
    static std::shared_ptr<gpu::Runtime> open(int device) { return gpu::open_native(device); }
};

/// exec::cuda<90>: a GPU, as fast as it can.
template <int... Architectures>
using cuda = on_gpu<numerics::fast, Architectures...>;
/// The same, with bits that depend on a sequence's own tokens alone.
template <int... Architectures>
using cuda_invariant = on_gpu<numerics::invariant, Architectures...>;

}  // namespace exec
}  // namespace zse::inline v1

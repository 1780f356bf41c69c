// SPDX-License-Identifier: Apache-2.0
// The host in the place of a GPU as an execution policy: whole engines whose kernels run block by block on fibers.
#pragma once

#include <zse/engine/cuda.hpp>
#include <zse/exec/cuda/emulated_runtime.hpp>

namespace support {

/// Launches on the host, by kernels that are compiled in files of their own (see emulated_kernels.hpp): an engine knows all
/// kernels of its codecs.
struct Elsewhere {
    template <zse::exec::gpu::Kernel K>
    static void launch(zse::exec::gpu::Stream& stream, const K& kernel) noexcept;
};

template <class Numerics = zse::numerics::fast>
struct emulated : zse::exec::gpu::DevicePolicy {
    static constexpr bool invariant = Numerics::value;
    static constexpr zse::policy::Sentence spelling{"support::emulated"};
    static constexpr std::string_view name = "emulated";
    using Launcher = Elsewhere;
    static std::shared_ptr<zse::exec::gpu::Runtime> open(int /*device*/) {
        return std::make_shared<zse::exec::gpu::EmulatedRuntime>();
    }
};
using emulated_gpu = emulated<>;
using emulated_invariant_gpu = emulated<zse::numerics::invariant>;

}  // namespace support

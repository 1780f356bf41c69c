// SPDX-License-Identifier: Apache-2.0
// The launches of sampling on a GPU.
#pragma once

#include <zse/policy/list.hpp>
#include <zse/sampling/cuda/adjust.hpp>
#include <zse/sampling/cuda/choose.hpp>
#include <zse/sampling/cuda/top_list.hpp>

namespace zse::inline v1 {
namespace sampling {
namespace cuda {

/// For exec::gpu::instantiate.
using SamplingKernelList = policy::List<AdjustKernel<>, ChooseKernel<>, TopListKernel<>>;

/// Launcher: exec::gpu::Native or exec::gpu::Emulated.
template <class Launcher>
inline constexpr SamplingLaunches sampling_launches{
    [](exec::gpu::Stream& stream, const SampleCall& call) noexcept {
        Launcher::launch(stream, AdjustKernel<>{call});
        Launcher::launch(stream, ChooseKernel<>{call});
    },
    [](exec::gpu::Stream& stream, const TopCall& call) noexcept {
        Launcher::launch(stream, TopListKernel<>{call});
    }};

}  // namespace cuda
}  // namespace sampling
}  // namespace zse::inline v1

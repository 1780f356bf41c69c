// SPDX-License-Identifier: Apache-2.0
// Compiles kernels for the GPU, so that files of the host can launch them. Only nvcc reads this.
#pragma once

#include <zse/exec/cuda/native.cuh>
#include <zse/policy/list.hpp>

namespace zse::inline v1 {
namespace exec {
namespace gpu {

/// `template struct zse::exec::gpu::instantiate<List>;` in a file that nvcc compiles defines Native::launch for each
/// kernel of a policy::List.
template <class List>
struct instantiate;

template <Kernel... K>
struct instantiate<policy::List<K...>> {
    /// Who takes the address of a template's instance makes the compiler emit it.
    static void* const* launches() noexcept {
        static void* const all[] = {nullptr, reinterpret_cast<void*>(&Native::launch<K>)...};
        return all;
    }
};

}  // namespace gpu
}  // namespace exec
}  // namespace zse::inline v1

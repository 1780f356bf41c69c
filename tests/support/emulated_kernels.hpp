// SPDX-License-Identifier: Apache-2.0
// Compiles kernels for the host, for the engines of emulated_gpu.hpp.
#pragma once

#include <support/emulated_gpu.hpp>

namespace support {

template <zse::exec::gpu::Kernel K>
void Elsewhere::launch(zse::exec::gpu::Stream& stream, const K& kernel) noexcept {
    zse::exec::gpu::Emulated::launch(stream, kernel);
}

/// `template struct support::emulate<List>;` defines Elsewhere::launch for each kernel of a policy::List.
template <class List>
struct emulate;

template <zse::exec::gpu::Kernel... K>
struct emulate<zse::policy::List<K...>> {
    using Launch = void (*)();
    static const Launch* launches() noexcept {
        static const Launch all[] = {nullptr, reinterpret_cast<Launch>(&Elsewhere::launch<K>)...};
        return all;
    }
};

}  // namespace support

// SPDX-License-Identifier: Apache-2.0
// Compiles kernels for the host, for the engines of emulated_gpu.hpp.
#pragma once

#include <support/emulated_gpu.hpp>

namespace support {

template <zse::exec::cuda::Kernel K>
void Elsewhere::launch(zse::exec::cuda::Stream& stream, const K& kernel) noexcept {
    zse::exec::cuda::Emulated::launch(stream, kernel);
}

/// `template struct support::emulate<List>;` defines Elsewhere::launch for each kernel of a policy::List.
template <class List>
struct emulate;

template <zse::exec::cuda::Kernel... K>
struct emulate<zse::policy::List<K...>> {
    using Launch = void (*)();
    static const Launch* launches() noexcept {
        static const Launch all[] = {nullptr, reinterpret_cast<Launch>(&Elsewhere::launch<K>)...};
        return all;
    }
};

}  // namespace support

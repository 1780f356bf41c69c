// SPDX-License-Identifier: Apache-2.0
// The kernels of one pair of codecs: which of them a call takes, and the list of all, which a file that nvcc compiles
// instantiates.
#pragma once

#include <zse/attention/cuda/decode.hpp>
#include <zse/attention/cuda/merge.hpp>
#include <zse/attention/cuda/prefill.hpp>
#include <zse/attention/cuda/reference.hpp>
#include <zse/kv/cuda/append.hpp>
#include <zse/policy/list.hpp>

#include <type_traits>

namespace zse::inline v1 {
namespace attention {
namespace cuda {

/// Widths of heads, of keys and of values, that the fast kernels are made for. Others go to ReferenceKernel, and so do
/// pages of fewer than 16 tokens, values in 32 bits, and 4-bit keys with a scale for 16 values.
template <unsigned... Dim>
struct Dims {};
using FastDims = Dims<64, 96, 128, 256>;

/// Whether the fast kernels are made for heads of `dim` in these codecs.
template <class K, class V>
constexpr bool is_fast(std::uint32_t dim) noexcept {
    using kv::cuda::Kind;
    using kv::cuda::kind;
    if (kind<K> == Kind::f32 || kind<V> == Kind::f32) return false;
    if (kind<K> == Kind::int4 && K::group < 32) return false;
    return dim % 32 == 0 && dim <= 256 && dim % K::group == 0 && dim % V::group == 0;
}

namespace detail {

/// A row of `dim` values in registers of a warp: the least of the compiled numbers that holds it.
constexpr unsigned registers(std::uint32_t dim) noexcept {
    return dim <= 64 ? 2 : (dim <= 128 ? 4 : 8);
}
/// No wider head is computed: who launches has refused the model.
inline constexpr std::uint32_t most_dim = 256;
template <class Body>
constexpr void with_registers(std::uint32_t dim, const Body& body) noexcept {
    switch (registers(dim)) {
        case 2: return body(std::integral_constant<unsigned, 2>{});
        case 4: return body(std::integral_constant<unsigned, 4>{});
        default: return body(std::integral_constant<unsigned, 8>{});
    }
}

template <class... Lists>
struct Join;
template <class... A>
struct Join<policy::List<A...>> {
    using type = policy::List<A...>;
};
template <class... A, class... B, class... Rest>
struct Join<policy::List<A...>, policy::List<B...>, Rest...> {
    using type = typename Join<policy::List<A..., B...>, Rest...>::type;
};

template <class K, class V, unsigned Dim, bool Fast = is_fast<K, V>(Dim)>
struct FastKernels {
    using type = policy::List<DecodeKernel<K, V, Dim>, PrefillKernel<K, V, Dim>>;
};
template <class K, class V, unsigned Dim>
struct FastKernels<K, V, Dim, false> {
    using type = policy::List<>;
};
template <class K, class V, class D>
struct AllFastKernels;
template <class K, class V, unsigned... Dim>
struct AllFastKernels<K, V, Dims<Dim...>> {
    using type = typename Join<policy::List<>, typename FastKernels<K, V, Dim>::type...>::type;
};
template <class K, class V, unsigned Registers>
using RowKernels = policy::List<kv::cuda::AppendKernel<K, V, Registers>, ReferenceKernel<K, V, Registers>,
                                MergeKernel<V, Registers>>;

}  // namespace detail

/// Every kernel that launches for keys in K and values in V may take. Lists of several pairs name some kernels twice.
template <class K, class V>
struct CacheKernelList {
    using type = typename detail::Join<typename detail::AllFastKernels<K, V, FastDims>::type,
                                       detail::RowKernels<K, V, 2>, detail::RowKernels<K, V, 4>,
                                       detail::RowKernels<K, V, 8>>::type;
};

/// What CacheLaunches points to. Nothing here waits, allocates, or reads what is on the device.
template <class K, class V, class Launcher, class Fast = FastDims>
struct CacheLaunch {
    static void append(exec::gpu::Stream& stream, const kv::cuda::AppendCall& call) noexcept {
        const kv::PageLayout& layout = call.pages.layout;
        if (layout.k_dim > detail::most_dim || layout.v_dim > detail::most_dim) {
            return stream.fail(1, "zse: heads of more than 256 values");
        }
        detail::with_registers(layout.k_dim < layout.v_dim ? layout.v_dim : layout.k_dim, [&](auto width) {
            Launcher::launch(stream, kv::cuda::AppendKernel<K, V, width()>{call});
        });
    }
    static void attend_reference(exec::gpu::Stream& stream, const AttendCall& call) noexcept {
        if (call.extra_states != 0) return stream.fail(1, "zse: these shapes merge no states from elsewhere");
        detail::with_registers(call.pages.layout.v_dim, [&](auto width) {
            Launcher::launch(stream, ReferenceKernel<K, V, width()>{call});
        });
    }
    static void attend(exec::gpu::Stream& stream, const AttendCall& call) noexcept {
        const kv::PageLayout& layout = call.pages.layout;
        const bool pages = layout.page_tokens == 16 || layout.page_tokens == 32;
        if (!pages || layout.k_dim != layout.v_dim || !attend_any(stream, call, Fast{})) {
            attend_reference(stream, call);
        }
    }

private:
    template <unsigned... Dim>
    static bool attend_any(exec::gpu::Stream& stream, const AttendCall& call, Dims<Dim...>) noexcept {
        return (attend_with<Dim>(stream, call) || ...);
    }
    template <unsigned Dim>
    static bool attend_with(exec::gpu::Stream& stream, const AttendCall& call) noexcept {
        if constexpr (is_fast<K, V>(Dim)) {
            if (call.pages.layout.k_dim != Dim) return false;
            if (call.most_rows > few_rows) Launcher::launch(stream, PrefillKernel<K, V, Dim>{call});
            if (call.segment_count == 1 && call.most_rows > few_rows) return true;  // no rows are left
            attend_few<Dim>(stream, call);
            return true;
        } else {
            return false;
        }
    }
    template <unsigned Dim>
    static void attend_few(exec::gpu::Stream& stream, const AttendCall& call) noexcept {
        const auto rule = call.invariant
                              ? SplitRule{invariant_splits, SplitRule::invariant_tiles}
                              : SplitRule{call.splits < 1 ? 1 : call.splits, SplitRule::fast_tiles};
        SplitRule fitting = rule;
        std::uint32_t parts = most_parts(call, fitting);
        while (needs_partials(call, parts) &&
               PartialPlace::of(call, parts).floats(call) > call.partials_floats) {
            if (call.invariant || parts == 1) {
                return stream.fail(1, "zse: attention has too little room for partial states");
            }
            fitting.most = parts - 1;
            parts = most_parts(call, fitting);
        }
        Launcher::launch(stream, DecodeKernel<K, V, Dim>{call, fitting, parts});
        if (!needs_partials(call, parts)) return;
        Launcher::launch(stream, MergeKernel<V, detail::registers(Dim)>{call, fitting, parts});
    }
    static bool needs_partials(const AttendCall& call, std::uint32_t parts) noexcept {
        return parts > 1 || call.extra_states != 0;
    }
    /// Parts of the longest context that there may be.
    static std::uint32_t most_parts(const AttendCall& call, const SplitRule& rule) noexcept {
        const std::uint64_t tiles = ceil_div(call.most_tokens, TileWalk::tile_tokens);
        const std::uint64_t possible = ceil_div(tiles == 0 ? 1 : tiles, rule.quantum);
        return static_cast<std::uint32_t>(possible < rule.most ? possible : rule.most);
    }
};

/// The launches for keys in K and values in V, by exec::gpu::Native or, in tests, exec::gpu::Emulated.
template <class K, class V, class Launcher>
inline constexpr CacheLaunches cache_launches{&CacheLaunch<K, V, Launcher>::append,
                                              &CacheLaunch<K, V, Launcher>::attend,
                                              &CacheLaunch<K, V, Launcher>::attend_reference};

}  // namespace cuda
}  // namespace attention
}  // namespace zse::inline v1

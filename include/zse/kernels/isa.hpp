// SPDX-License-Identifier: Apache-2.0
// The instruction sets that kernels are written for, and which of them this processor has.
#pragma once

#include <zse/core/error.hpp>

#include <array>
#include <optional>
#include <string_view>

#if defined(__aarch64__)
#include <sys/auxv.h>
#endif

namespace zse::inline v1 {
namespace kernels {

/// Narrowest first. Every program holds the kernels of all that its architecture has; an engine binds one.
enum class Isa : std::uint8_t {
    portable,     ///< plain C++, at the level that the program is compiled for
    avx2,         ///< AVX2, FMA, F16C
    avx512,       ///< AVX-512 F, BW, DQ, VL
    avx512_vnni,  ///< the same with byte dot products
    neon,         ///< Armv8.2 with dot product and half precision
};

#if defined(__x86_64__)
inline constexpr std::array built_isas{Isa::portable, Isa::avx2, Isa::avx512, Isa::avx512_vnni};
#elif defined(__aarch64__)
inline constexpr std::array built_isas{Isa::portable, Isa::neon};
#else
inline constexpr std::array built_isas{Isa::portable};
#endif

constexpr std::string_view name(Isa isa) noexcept {
    constexpr std::array<std::string_view, 5> names{"portable", "avx2", "avx512", "avx512_vnni", "neon"};
    return names[static_cast<std::size_t>(isa)];
}

/// Whether this processor and its system run the kernels of `isa`.
inline bool usable(Isa isa) noexcept {
    switch (isa) {
        case Isa::portable: return true;
#if defined(__x86_64__)
        case Isa::avx2:
            return __builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("fma") != 0 &&
                   __builtin_cpu_supports("bmi2") != 0;  // F16C came before both
        case Isa::avx512:
            return usable(Isa::avx2) && __builtin_cpu_supports("avx512f") != 0 &&
                   __builtin_cpu_supports("avx512bw") != 0 && __builtin_cpu_supports("avx512dq") != 0 &&
                   __builtin_cpu_supports("avx512vl") != 0;
        case Isa::avx512_vnni: return usable(Isa::avx512) && __builtin_cpu_supports("avx512vnni") != 0;
#elif defined(__aarch64__)
        case Isa::neon: {
            // HWCAP_ASIMDHP and HWCAP_ASIMDDP of <asm/hwcap.h>, which not every C library brings.
            constexpr unsigned long half = 1ul << 10, dot = 1ul << 20;
            return (::getauxval(AT_HWCAP) & (half | dot)) == (half | dot);
        }
#endif
        default: return false;
    }
}

/// The widest instruction set that this processor has.
inline Isa widest() noexcept {
    Isa found = Isa::portable;
    for (const Isa isa : built_isas) {
        if (usable(isa)) found = isa;
    }
    return found;
}

/// The names of what this processor runs, narrowest first, separated by commas.
inline std::string usable_names() {
    std::string names;
    for (const Isa isa : built_isas) {
        if (usable(isa)) names.append(names.empty() ? "" : ", ").append(name(isa));
    }
    return names;
}

/// The wanted instruction set, or the widest for none; throws unsupported for one that the processor lacks.
inline Isa chosen(std::optional<Isa> wanted) {
    if (!wanted) return widest();
    if (usable(*wanted)) return *wanted;
    throw Error(ErrorCode::unsupported, text("this processor does not run ", name(*wanted),
                                             " kernels; use one of ", usable_names(), ", or leave it out"));
}

/// The instruction set of this name, or none.
inline std::optional<Isa> isa_called(std::string_view wanted) noexcept {
    for (const Isa isa : built_isas) {
        if (name(isa) == wanted) return isa;
    }
    return std::nullopt;
}

}  // namespace kernels
}  // namespace zse::inline v1

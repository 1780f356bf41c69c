// SPDX-License-Identifier: Apache-2.0
// Runs a test with the kernels of every instruction set that this processor has.
#pragma once

#include <zse/kernels/isa.hpp>

#include <gtest/gtest.h>

#include <iostream>
#include <string>

namespace support {

/// Calls test(isa) for each instruction set that the program has kernels for, narrowest first. What this processor
/// does not run is left out with a note; the portable kernels always run.
template <class Test>
void on_each_isa(const Test& test) {
    int ran = 0;
    for (const zse::kernels::Isa isa : zse::kernels::built_isas) {
        if (!zse::kernels::usable(isa)) {
            std::cout << "note: this processor does not run " << name(isa)
                      << " kernels, so they are left out\n";
            continue;
        }
        const testing::ScopedTrace trace(__FILE__, __LINE__, std::string(name(isa)) + " kernels");
        test(isa);
        if (testing::Test::HasFatalFailure()) return;
        ++ran;
    }
    ASSERT_GT(ran, 0);
}

/// Whether its multiply-add rounds once; the portable one rounds as the compiler likes.
constexpr bool fused(zse::kernels::Isa isa) {
    return isa != zse::kernels::Isa::portable;
}

}  // namespace support

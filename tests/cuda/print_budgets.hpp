// SPDX-License-Identifier: Apache-2.0
// Prints what the kernels of lists may take, for cuda_resources.py to compare with what they do take.
#pragma once

#include <zse/exec/cuda/budget.hpp>
#include <zse/policy/list.hpp>

#include <cxxabi.h>

#include <cstdlib>
#include <iostream>
#include <memory>
#include <string>
#include <typeinfo>

namespace zse_test {

/// Registers, bytes of shared memory and of stack, threads, and the type of the kernel.
inline void print_budget(const zse::exec::gpu::Budget& budget, unsigned threads, const std::type_info& type) {
    const std::unique_ptr<char, void (*)(void*)> name(
        abi::__cxa_demangle(type.name(), nullptr, nullptr, nullptr), std::free);
    std::cout << budget.registers << '\t' << budget.shared_bytes << '\t' << budget.stack_bytes << '\t'
              << threads << '\t' << name.get() << '\n';
}

/// One line for each kernel.
template <zse::exec::gpu::Kernel... K>
void print_budgets(zse::policy::List<K...> /*kernels*/) {
    (print_budget(zse::exec::gpu::budget<K>(), K::threads, typeid(K)), ...);
}

}  // namespace zse_test

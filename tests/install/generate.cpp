// SPDX-License-Identifier: Apache-2.0
// A consumer's program: says which zse it was built with.
// expect: ^zse 0\.1\.0, 1\.50 MB
#include <zse/core/bytes.hpp>

#include <cstdio>

int main() {
    std::printf("zse %s, %s\n", zse::version, zse::human(1'500'000).c_str());
}

// SPDX-License-Identifier: Apache-2.0
// Files that may not be read, also where the tests run as root.
#pragma once

#include <gtest/gtest.h>

#include <unistd.h>

namespace zse_test {

/// Acts as the user nobody until the end of a scope, where the process is root's.
class Nobody {
public:
    Nobody() : before_(::geteuid()) {
        if (before_ != 0) return;
        EXPECT_EQ(::seteuid(65534), 0);
    }
    ~Nobody() {
        if (before_ != 0) return;
        EXPECT_EQ(::seteuid(0), 0);
    }
    Nobody(const Nobody&) = delete;
    Nobody& operator=(const Nobody&) = delete;

private:
    ::uid_t before_;
};

}  // namespace zse_test

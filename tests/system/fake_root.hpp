// SPDX-License-Identifier: Apache-2.0
// A directory of the test's own that stands for "/": what the probes read is written file by file.
#pragma once

#include <zse/system/root.hpp>

#include <gtest/gtest.h>

#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <string_view>

namespace zse_test {

class FakeRoot {
public:
    FakeRoot() {
        std::string name = (std::filesystem::temp_directory_path() / "zse-root-XXXXXX").string();
        if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("no temporary directory");
        root_.path = name;
    }
    FakeRoot(const FakeRoot&) = delete;
    FakeRoot& operator=(const FakeRoot&) = delete;
    ~FakeRoot() {
        std::error_code ignored;
        std::filesystem::remove_all(root_.path, ignored);
    }

    FakeRoot& write(std::string_view relative, std::string_view text) {
        const std::filesystem::path path = root_.at(relative);
        std::filesystem::create_directories(path.parent_path());
        std::ofstream(path, std::ios::binary) << text;
        return *this;
    }
    [[nodiscard]] const zse::system::Root& root() const noexcept { return root_; }

private:
    zse::system::Root root_;
};

/// A root that is stored with the tests.
inline zse::system::Root stored_root(std::string_view name) {
    return {std::filesystem::path(ZSE_TEST_DATA) / "system" / name};
}

/// The sentence of the error that the call throws; checks its code, and that it is one line.
template <class Call>
std::string error_of(zse::ErrorCode code, Call call) {
    try {
        call();
    } catch (const zse::Error& error) {
        EXPECT_EQ(error.code(), code);
        EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
        return error.what();
    }
    return "no error";
}

}  // namespace zse_test

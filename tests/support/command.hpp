// SPDX-License-Identifier: Apache-2.0
// Runs a program and keeps its output, its errors and its exit status.
#pragma once

#include <support/temporary_directory.hpp>

#include <nlohmann/json.hpp>

#include <sys/wait.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>

namespace support {

struct Outcome {
    int status = -1;
    std::string out;
    std::string errors;

    [[nodiscard]] nlohmann::json json() const { return nlohmann::json::parse(out); }
};

inline std::string read_all(const std::filesystem::path& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

/// `arguments` are words of a shell; `input` goes to standard input. ZSE_MODEL, which the build sets for tests, is an
/// option to zse, and so is taken out of the environment.
inline Outcome run_command(const std::string& program, const std::string& arguments,
                           const std::string& input = "") {
    const TemporaryDirectory directory;
    std::ofstream(directory / "in", std::ios::binary) << input;
    const std::string line = "env -u ZSE_MODEL '" + program + "' " + arguments + " <'" +
                             (directory / "in").string() + "' >'" + (directory / "out").string() + "' 2>'" +
                             (directory / "err").string() + "'";
    const int status = std::system(line.c_str());
    return {WIFEXITED(status) ? WEXITSTATUS(status) : 128, read_all(directory / "out"),
            read_all(directory / "err")};
}

}  // namespace support

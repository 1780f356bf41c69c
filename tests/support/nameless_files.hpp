// SPDX-License-Identifier: Apache-2.0
// The files without a name that this process has open: those of the disk tier, for tests that look at them or spoil them.
#pragma once

#include <filesystem>
#include <string>
#include <system_error>
#include <vector>

namespace support {

/// Paths by which they can be opened again; of one directory, or of all.
inline std::vector<std::filesystem::path> nameless_files(const std::filesystem::path& directory = "/") {
    std::vector<std::filesystem::path> found;
    for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
        std::error_code ignored;
        const std::string target = std::filesystem::read_symlink(entry.path(), ignored).string();
        if (target.ends_with(" (deleted)") && target.starts_with(directory.string()) &&
            !target.starts_with("/memfd:")) {
            found.push_back(entry.path());
        }
    }
    return found;
}

}  // namespace support

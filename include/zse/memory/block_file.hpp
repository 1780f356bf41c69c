// SPDX-License-Identifier: Apache-2.0
// An open file that is read and written in place, by several threads at once. Who makes it, and how large, is decided
// elsewhere.
#pragma once

#include <zse/core/bytes.hpp>

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <span>
#include <utility>

namespace zse::inline v1 {
namespace memory {

/// A descriptor that is closed at the end of a scope. Move-only. Reads and writes move all bytes or say why not.
class BlockFile {
public:
    /// Offsets, sizes and addresses are multiples of this where the file is open past the page cache (O_DIRECT).
    static constexpr Bytes block = KiB(4);

    BlockFile() = default;
    explicit BlockFile(int descriptor) noexcept : file_(descriptor) {}
    BlockFile(BlockFile&& other) noexcept : file_(std::exchange(other.file_, -1)) {}
    BlockFile& operator=(BlockFile&& other) noexcept {
        std::swap(file_, other.file_);
        return *this;
    }
    ~BlockFile() {
        if (file_ >= 0) ::close(file_);
    }

    [[nodiscard]] int descriptor() const noexcept { return file_; }

    /// 0, or the error number of the system; EIO where the file ends before the bytes do. Nothing is allocated or thrown.
    [[nodiscard]] int read(Bytes offset, std::span<std::byte> to) const noexcept {
        return transfer(offset, to, ::pread);
    }
    [[nodiscard]] int write(Bytes offset, std::span<const std::byte> from) const noexcept {
        return transfer(offset, from, ::pwrite);
    }

private:
    template <class Span, class Call>
    [[nodiscard]] int transfer(Bytes offset, Span bytes, Call call) const noexcept {
        while (!bytes.empty()) {
            const ssize_t moved = call(file_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
            if (moved < 0 && errno == EINTR) continue;
            if (moved < 0) return errno;
            if (moved == 0) return EIO;
            offset += static_cast<Bytes>(moved);
            bytes = bytes.subspan(static_cast<std::size_t>(moved));
        }
        return 0;
    }

    int file_ = -1;
};

}  // namespace memory
}  // namespace zse::inline v1

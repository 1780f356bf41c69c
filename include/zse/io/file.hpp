// SPDX-License-Identifier: Apache-2.0
// A whole file as read-only memory, with a clear error for each reason why that cannot be had.
#pragma once

#include <zse/core/bytes.hpp>
#include <zse/core/error.hpp>
#include <zse/io/printable.hpp>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <system_error>
#include <utility>

namespace zse::inline v1 {
namespace io {

namespace detail {

/// Closes a file descriptor at the end of a scope.
class Descriptor {
public:
    explicit Descriptor(int number) noexcept : number_(number) {}
    Descriptor(const Descriptor&) = delete;
    Descriptor& operator=(const Descriptor&) = delete;
    ~Descriptor() {
        if (number_ >= 0) ::close(number_);
    }
    [[nodiscard]] int number() const noexcept { return number_; }

private:
    int number_;
};

inline std::string reason(int error_number) {
    return std::error_code(error_number, std::generic_category()).message();
}

}  // namespace detail

/// A file mapped read-only, private to this process. Pages arrive when they are first read and can be
/// given back with release(). The bytes stay at one address when the object is moved.
/// A file that another process shortens while it is mapped raises SIGBUS on access, as with any mapping:
/// replace model files by renaming, not by writing into them.
class MappedFile {
public:
    /// Maps the file. Errors: not_found (no such file), unreadable (a directory, not a regular file, no
    /// permission, I/O error), corrupt (empty).
    static MappedFile open(const std::filesystem::path& path) {
        const std::string shown = detail::printable(path.string());
        // Without O_NONBLOCK, opening a FIFO would wait for a writer for ever.
        const detail::Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
        if (file.number() < 0) {
            const int why = errno;
            if (why == ENOENT || why == ENOTDIR) {
                throw Error(ErrorCode::not_found, text(shown, ": no such file; check the path"));
            }
            throw Error(ErrorCode::unreadable,
                        text(shown, ": cannot be opened: ", detail::reason(why), "; check its permissions"));
        }
        struct stat status {};
        if (::fstat(file.number(), &status) != 0) {
            throw Error(ErrorCode::unreadable,
                        text(shown, ": cannot be examined: ", detail::reason(errno), "; check the disk"));
        }
        if (S_ISDIR(status.st_mode)) {
            throw Error(ErrorCode::unreadable,
                        text(shown, ": expected a file, found a directory; name a file in it"));
        }
        if (!S_ISREG(status.st_mode)) {
            throw Error(
                ErrorCode::unreadable,
                text(shown, ": expected a regular file, found a pipe, socket or device; copy it to a file"));
        }
        if (status.st_size <= 0) {
            throw Error(ErrorCode::corrupt,
                        text(shown, ": the file is empty (0 bytes); download or copy it again"));
        }
        const auto size = static_cast<std::size_t>(status.st_size);
        void* const address = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.number(), 0);
        if (address == MAP_FAILED) {
            throw Error(ErrorCode::unreadable, text(shown, ": its ", size, " bytes cannot be mapped: ",
                                                    detail::reason(errno), "; check limits and file system"));
        }
        return MappedFile(path, static_cast<const std::byte*>(address), size);
    }

    MappedFile(MappedFile&& other) noexcept
        : path_(std::move(other.path_)),
          address_(std::exchange(other.address_, nullptr)),
          size_(std::exchange(other.size_, 0)) {}
    MappedFile& operator=(MappedFile&& other) noexcept {
        if (this != &other) {
            unmap();
            path_ = std::move(other.path_);
            address_ = std::exchange(other.address_, nullptr);
            size_ = std::exchange(other.size_, 0);
        }
        return *this;
    }
    MappedFile(const MappedFile&) = delete;
    MappedFile& operator=(const MappedFile&) = delete;
    ~MappedFile() { unmap(); }

    [[nodiscard]] const std::filesystem::path& path() const noexcept { return path_; }
    [[nodiscard]] Bytes size() const noexcept { return size_; }
    [[nodiscard]] std::span<const std::byte> bytes() const noexcept { return {address_, size_}; }

    /// Gives the pages that lie wholly inside `part` back to the system; reading them again brings them
    /// back from the file. A loader that copies tensors calls it, so that the copy and the mapping are not
    /// both resident. A range that is not of this file is left alone.
    void release(std::span<const std::byte> part) const noexcept {
        if (address_ == nullptr || part.empty()) return;
        const auto base = reinterpret_cast<std::uintptr_t>(address_);
        const auto from = reinterpret_cast<std::uintptr_t>(part.data());
        if (from < base || from - base > size_ || part.size() > size_ - (from - base)) return;
        const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
        // The last page of the file belongs to the mapping alone, so a part that ends the file takes it
        // along.
        const bool last = from - base + part.size() == size_;
        const std::uintptr_t begin = ceil_div(from - base, page) * page;
        const std::uintptr_t end = last ? size_ : (from - base + part.size()) / page * page;
        if (begin < end) {
            ::madvise(const_cast<std::byte*>(address_) + begin, end - begin, MADV_DONTNEED);
        }
    }

private:
    MappedFile(std::filesystem::path path, const std::byte* address, std::size_t size)
        : path_(std::move(path)), address_(address), size_(size) {}

    void unmap() noexcept {
        if (address_ != nullptr) ::munmap(const_cast<std::byte*>(address_), size_);
    }

    std::filesystem::path path_;
    const std::byte* address_ = nullptr;
    std::size_t size_ = 0;
};

}  // namespace io
}  // namespace zse::inline v1

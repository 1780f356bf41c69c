// SPDX-License-Identifier: Apache-2.0
// Bytes of the disk tier: a file without a name, taken whole from the file system on a reservation.
#pragma once

#include <zse/memory/block_file.hpp>
#include <zse/memory/ledger.hpp>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <span>
#include <string>
#include <utility>

namespace zse::inline v1 {
namespace memory {

/// One file that the ledger counts. It has all its blocks from the start, so that a full disk shows at open and at no
/// later time; and no name, so that it is gone with the process, however that ends. Reads and writes go past the page
/// cache where the file system lets them: that cache would be memory that no plan counts. Move-only; threads may read
/// and write different parts at once.
class DiskArena : public BlockFile {
public:
    DiskArena() = default;

    /// Takes exactly arena_bytes() of the reservation, in a directory that exists. Throws usage (no such directory, or
    /// one that cannot be written), out_of_memory (the disk is full), unreadable (the disk failed).
    DiskArena(Reservation reservation, const std::filesystem::path& directory)
        : reservation_(std::move(reservation)) {
        if (reservation_.bytes() == 0) return;
        size_ = arena_bytes(reservation_.bytes());
        file() = BlockFile(create(directory));
        // glibc writes zeros where the file system cannot promise blocks, so either way they are there afterwards.
        if (const int why = ::posix_fallocate(descriptor(), 0, static_cast<off_t>(size_)); why != 0) {
            file() = BlockFile();
            throw Error(
                why == ENOSPC || why == EFBIG || why == EDQUOT ? ErrorCode::out_of_memory
                                                               : ErrorCode::unreadable,
                text(directory.string(), ": the file system refused ", size_, " bytes for ",
                     name(reservation_.kind()), " (", std::strerror(why),
                     "); free space there, choose another directory, or lower the size of the disk tier"));
        }
        const int flags = ::fcntl(descriptor(), F_GETFL);
        direct_ = ::fcntl(descriptor(), F_SETFL, flags | O_DIRECT) == 0;
        reservation_.ledger()->took(Tier::disk, reservation_.kind(), reservation_.bytes(), size_,
                                    Backing::plain);
    }
    DiskArena(DiskArena&& other) noexcept { swap(other); }
    DiskArena& operator=(DiskArena&& other) noexcept {
        DiskArena old(std::move(other));
        swap(old);
        return *this;
    }
    ~DiskArena() {
        if (descriptor() < 0) return;
        uses(0);
        reservation_.ledger()->gave_back(Tier::disk, reservation_.kind(), reservation_.bytes(), size_);
    }

    /// Bytes of the reservation.
    [[nodiscard]] Bytes size() const noexcept { return reservation_.bytes(); }
    /// Whether reads and writes go past the page cache.
    [[nodiscard]] bool direct() const noexcept { return direct_; }
    /// Bytes that the file system holds for the file now.
    [[nodiscard]] Bytes allocated() const noexcept {
        struct stat status {};
        return descriptor() >= 0 && ::fstat(descriptor(), &status) == 0
                   ? static_cast<Bytes>(status.st_blocks) * 512
                   : 0;
    }

    /// Tells the ledger how many of the bytes are in use now.
    void uses(Bytes bytes) noexcept {
        if (bytes == used_ || reservation_.ledger() == nullptr) return;
        reservation_.ledger()->uses(Tier::disk, reservation_.kind(),
                                    static_cast<std::int64_t>(bytes) - static_cast<std::int64_t>(used_));
        used_ = bytes;
    }

private:
    BlockFile& file() noexcept { return *this; }
    static int create(const std::filesystem::path& directory) {
        int file = ::open(directory.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
        // File systems without nameless files get one that loses its name at once.
        if (file < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL)) {
            std::string pattern = (directory / "zse-XXXXXX").string();
            file = ::mkostemp(pattern.data(), O_CLOEXEC);
            if (file >= 0) ::unlink(pattern.c_str());
        }
        if (file >= 0) return file;
        const int why = errno;
        const bool full = why == ENOSPC || why == EDQUOT || why == EMFILE || why == ENFILE;
        throw Error(full ? ErrorCode::out_of_memory : ErrorCode::usage,
                    text(directory.string(),
                         ": expected a directory for files of the disk tier, but no file can be made there (",
                         std::strerror(why), "); create it, make it writable, or name another"));
    }
    void swap(DiskArena& other) noexcept {
        std::swap(reservation_, other.reservation_);
        std::swap(file(), other.file());
        std::swap(size_, other.size_);
        std::swap(used_, other.used_);
        std::swap(direct_, other.direct_);
    }

    Reservation reservation_;
    Bytes size_ = 0;
    Bytes used_ = 0;
    bool direct_ = false;
};

}  // namespace memory
}  // namespace zse::inline v1

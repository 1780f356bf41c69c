// SPDX-License-Identifier: Apache-2.0
// The file of a prompt cache: made or found in a directory, locked, of its full size from the start, and checked.
#pragma once

#include <zse/core/digest.hpp>
#include <zse/io/printable.hpp>
#include <zse/kv/prompt_layout.hpp>
#include <zse/memory/ledger.hpp>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <string>
#include <system_error>
#include <utility>

namespace zse::inline v1 {
namespace kv {

/// One file for one model in one setting, `<16 hexadecimal digits of its identity>.zsecache`, which the ledger counts.
///
/// Whatever happened to it, it is opened: what is no whole record is an empty slot, and a file of another version, shape
/// or identity begins anew. Only bytes that zse never wrote are refused. Records are written through the page cache, so
/// that a process that is killed loses none that it wrote; slots go past it where the file system lets them, since that
/// cache would be memory that no plan counts.
class PromptFile {
public:
    /// Takes exactly layout.file_bytes, which the reservation is for. Makes the directory where there is none. Throws
    /// usage (no directory, not writable, in use by another engine), corrupt (a foreign file has the name), out_of_memory
    /// (the disk is full), unreadable (the disk failed).
    PromptFile(memory::Reservation reservation, const std::filesystem::path& directory,
               const Identity& identity, const PromptLayout& layout)
        : reservation_(std::move(reservation)), layout_(layout), seed_(identity.low) {
        shown_ = io::detail::printable(directory.string());
        std::error_code why;
        std::filesystem::create_directories(directory, why);
        if (!std::filesystem::is_directory(directory)) {
            throw Error(ErrorCode::usage, text(shown_, ": expected a directory for the prompt cache, found ",
                                               why ? why.message() : "a file", "; name another"));
        }
        const std::filesystem::path path = directory / (identity.short_name() + ".zsecache");
        records_ = open(path);
        lock();
        const Header header = header_of(identity);
        if (!is(header)) clear();
        take();
        if (const int error = records_.write(0, std::as_bytes(std::span(&header, 1))); error != 0)
            throw failed("written", error);
        // Not all file systems have a way past the page cache.
        const int direct = ::open(path.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_DIRECT);
        slots_ = direct >= 0 ? memory::BlockFile(direct) : open(path);
        reservation_.ledger()->took(memory::Tier::disk, reservation_.kind(), reservation_.bytes(),
                                    layout_.file_bytes, memory::Backing::plain);
    }
    PromptFile(const PromptFile&) = delete;
    PromptFile& operator=(const PromptFile&) = delete;
    /// What was written reaches the disk now, and not at some time after the process is gone.
    ~PromptFile() {
        ::fdatasync(records_.descriptor());
        uses(0);
        reservation_.ledger()->gave_back(memory::Tier::disk, reservation_.kind(), reservation_.bytes(),
                                         layout_.file_bytes);
    }

    [[nodiscard]] const PromptLayout& layout() const noexcept { return layout_; }
    /// The directory, printable.
    [[nodiscard]] const std::string& shown() const noexcept { return shown_; }
    [[nodiscard]] const memory::BlockFile& records() const noexcept { return records_; }
    [[nodiscard]] const memory::BlockFile& slots() const noexcept { return slots_; }

    /// The checksum that a record in a slot should have. `record` is record_bytes() long.
    [[nodiscard]] std::uint64_t checksum_of(std::span<const std::byte> record,
                                            std::uint64_t slot) const noexcept {
        return checksum(record.subspan(sizeof(std::uint64_t)), seed_ + slot);
    }
    /// Calls found(slot, record, tokens) for each whole record, in order. `buffer` holds at least one record. Throws
    /// unreadable.
    template <class Found>
    void for_each_record(std::span<std::byte> buffer, const Found& found) const {
        const Bytes each = layout_.record_bytes();
        const std::uint64_t at_once = buffer.size() / each;
        for (std::uint64_t first = 0; first < layout_.slots; first += at_once) {
            const std::uint64_t count = std::min(at_once, layout_.slots - first);
            const std::span<std::byte> bytes = buffer.first(count * each);
            if (const int error = records_.read(layout_.record_at(first), bytes); error != 0)
                throw failed("read", error);
            for (std::uint64_t i = 0; i < count; ++i) {
                const std::span<const std::byte> one = bytes.subspan(i * each, each);
                PromptRecord record;
                std::memcpy(&record, one.data(), sizeof record);
                if (record.magic != PromptRecord::written || record.page_tokens != layout_.page_tokens ||
                    record.checksum != checksum_of(one, first + i)) {
                    continue;
                }
                found(static_cast<std::uint32_t>(first + i), record,
                      reinterpret_cast<const std::int32_t*>(one.data() + sizeof record));
            }
        }
    }

    /// Tells the ledger how many of the bytes are in use now.
    void uses(Bytes bytes) noexcept {
        if (bytes == used_) return;
        reservation_.ledger()->uses(memory::Tier::disk, reservation_.kind(),
                                    static_cast<std::int64_t>(bytes) - static_cast<std::int64_t>(used_));
        used_ = bytes;
    }

private:
    /// The first bytes of the file. A file of another version differs here.
    struct Header {
        static constexpr std::array<char, 8> ours{'z', 's', 'e', 'c', 'a', 'c', 'h', 'e'};
        static constexpr std::uint32_t newest = 1;

        std::array<char, 8> magic = ours;
        std::uint32_t version = newest;
        std::uint32_t page_tokens = 0;
        Identity identity;
        Bytes pages_bytes = 0;
        std::uint64_t slots = 0;
        Bytes file_bytes = 0;
        friend bool operator==(const Header&, const Header&) = default;
    };
    static_assert(sizeof(Header) == 8 + 2 * 4 + 16 + 3 * 8);

    [[nodiscard]] Header header_of(const Identity& identity) const noexcept {
        Header header;
        header.page_tokens = layout_.page_tokens;
        header.identity = identity;
        header.pages_bytes = layout_.pages_bytes;
        header.slots = layout_.slots;
        header.file_bytes = layout_.file_bytes;
        return header;
    }
    [[nodiscard]] memory::BlockFile open(const std::filesystem::path& path) const {
        memory::BlockFile file(
            ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600));
        if (file.descriptor() < 0) {
            throw Error(ErrorCode::usage, text(shown_, ": the prompt cache's file ", path.filename().string(),
                                               " cannot be opened for writing (", std::strerror(errno),
                                               "); make the directory writable, or name another"));
        }
        struct stat status {};
        if (::fstat(file.descriptor(), &status) != 0 || !S_ISREG(status.st_mode)) {
            throw Error(ErrorCode::corrupt,
                        text(shown_, ": expected a file of the prompt cache, found that ",
                             path.filename().string(), " is none; remove it, or name another directory"));
        }
        return file;
    }
    void lock() const {
        if (::flock(records_.descriptor(), LOCK_EX | LOCK_NB) == 0) return;
        if (errno == EWOULDBLOCK) {
            throw Error(ErrorCode::usage,
                        text(shown_,
                             ": the prompt cache of this model there is in use by another zse engine; "
                             "give each a directory of its own, or stop the other"));
        }
        throw Error(ErrorCode::usage, text(shown_, ": the file system cannot lock the prompt cache's file (",
                                           std::strerror(errno), "); name a directory on another one"));
    }
    /// Whether the file is what it should be; else it is one of ours that begins anew. Throws corrupt where it is not ours.
    [[nodiscard]] bool is(const Header& expected) const {
        struct stat status {};
        ::fstat(records_.descriptor(), &status);
        Header found;
        std::memset(static_cast<void*>(&found), 0, sizeof found);
        const Header zeros = found;
        const Bytes size = std::min<Bytes>(sizeof found, static_cast<Bytes>(status.st_size));
        if (const int error = records_.read(0, std::as_writable_bytes(std::span(&found, 1)).first(size));
            error != 0) {
            throw failed("read", error);
        }
        // Zeros are what is there before a new file's first bytes are written.
        if (found.magic != Header::ours && !(found == zeros)) {
            throw Error(ErrorCode::corrupt,
                        text(shown_,
                             ": expected a prompt cache of zse, found a file with its name that begins "
                             "otherwise; move it away, or name another directory"));
        }
        return found == expected && static_cast<Bytes>(status.st_size) == layout_.file_bytes;
    }
    /// Empties the file: whatever was in it is no record of this one.
    void clear() const {
        if (::ftruncate(records_.descriptor(), 0) != 0) throw failed("emptied", errno);
    }
    /// Has the file system promise all blocks. glibc writes zeros where it cannot, and leaves what is there.
    void take() const {
        const int why = ::posix_fallocate(records_.descriptor(), 0, static_cast<off_t>(layout_.file_bytes));
        if (why == 0) return;
        clear();
        if (why != ENOSPC && why != EFBIG && why != EDQUOT) throw failed("made", why);
        throw Error(ErrorCode::out_of_memory,
                    text(shown_, ": the file system refused ", layout_.file_bytes,
                         " bytes for the prompt cache (", std::strerror(why),
                         "); free space there, name another directory, or lower --prompt-cache-size"));
    }
    [[nodiscard]] Error failed(const char* what, int error) const {
        return Error(ErrorCode::unreadable,
                     text(shown_, ": the prompt cache's file cannot be ", what, " (", std::strerror(error),
                          "); check the disk, or name another "
                          "directory"));
    }

    memory::Reservation reservation_;
    PromptLayout layout_;
    std::uint64_t seed_;
    std::string shown_;
    memory::BlockFile records_;  ///< through the page cache; has the lock
    memory::BlockFile slots_;
    Bytes used_ = 0;
};

}  // namespace kv
}  // namespace zse::inline v1

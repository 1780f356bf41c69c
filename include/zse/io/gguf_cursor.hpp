// SPDX-License-Identifier: Apache-2.0
// Reads a GGUF header front to back; nothing is touched before it is known to be inside the file.
#pragma once

#include <zse/core/bytes.hpp>
#include <zse/core/error.hpp>
#include <zse/io/gguf_value.hpp>
#include <zse/io/printable.hpp>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace zse::inline v1 {
namespace io {
namespace detail {

/// A position in the bytes of one file, and words for what is being read there, so that each error names
/// file, section, entry and offset.
class GgufCursor {
public:
    /// `file` is the name for messages, already printable; it and the image outlive the cursor.
    GgufCursor(std::span<const std::byte> image, const std::string& file) : image_(image), file_(&file) {}

    /// Names what follows: enter("tensor", 3). `subject` is set once the entry's own name is known.
    void enter(const char* section, std::uint64_t index) noexcept {
        section_ = section;
        index_ = index;
        subject_ = {};
    }
    void subject(std::string_view key) noexcept { subject_ = key; }

    [[nodiscard]] std::size_t position() const noexcept { return at_; }
    [[nodiscard]] Bytes remaining() const noexcept { return image_.size() - at_; }

    /// The next bytes; corrupt where the file ends before.
    std::span<const std::byte> take_bytes(Bytes count) {
        if (count > remaining()) {
            fail(ErrorCode::corrupt, text("the file is truncated: ", count, " bytes are needed at offset ",
                                          at_, ", ", remaining(), " are left; download or copy it again"));
        }
        const auto taken = image_.subspan(at_, static_cast<std::size_t>(count));
        at_ += taken.size();
        return taken;
    }

    template <class T>
    T take() {
        return load<T>(take_bytes(sizeof(T)).data());
    }

    /// A string with its 64-bit length before it, as versions 2 and 3 write it.
    std::string_view take_string() {
        const std::size_t begin = at_;
        const auto length = take<std::uint64_t>();
        if (length > remaining()) {
            fail(ErrorCode::corrupt, text("the string at offset ", begin, " claims ", length, " bytes, ",
                                          remaining(), " are left in the file; download or copy it again"));
        }
        const auto taken = take_bytes(length);
        return characters(taken.data(), taken.size());
    }

    /// Throws with file and entry in front of the sentence.
    [[noreturn]] void fail(ErrorCode code, const std::string& sentence,
                           SourceLocation where = SourceLocation::here()) const {
        std::string entry(section_);
        if (index_ != none) entry += " " + std::to_string(index_);
        if (!subject_.empty()) entry += " " + in_quotes(subject_);
        throw Error(code, text(*file_, ": ", entry, ": ", sentence), where);
    }

    static constexpr std::uint64_t none = ~std::uint64_t{0};

private:
    std::span<const std::byte> image_;
    const std::string* file_;
    std::size_t at_ = 0;
    const char* section_ = "header";
    std::uint64_t index_ = none;
    std::string_view subject_;
};

}  // namespace detail
}  // namespace io
}  // namespace zse::inline v1

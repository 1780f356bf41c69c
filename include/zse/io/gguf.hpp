// SPDX-License-Identifier: Apache-2.0
// A GGUF model, of one file or several, as typed metadata and tensor views. What the keys mean is model/.
#pragma once

#include <zse/core/bytes.hpp>
#include <zse/core/error.hpp>
#include <zse/io/file.hpp>
#include <zse/io/ggml_type.hpp>
#include <zse/io/gguf_part.hpp>
#include <zse/io/gguf_split.hpp>
#include <zse/io/gguf_value.hpp>
#include <zse/io/printable.hpp>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace zse::inline v1 {
namespace io {

/// A model file, checked whole when it is opened: afterwards each view that this class hands out is safe to
/// read. It owns the mappings; views (keys, strings, `TensorInfo::data`) live as long as it does, also
/// when it is moved. Strings are as in the file: nothing says that they are UTF-8.
///
/// Metadata: find_X(key) gives nothing where the key is absent and throws `corrupt` where its value is not an
/// X; require_X(key) throws for absence too. An X converts only where nothing is lost (see Value).
class Gguf {
public:
    /// Opens a model. Any part of a split model ("name-00001-of-00003.gguf") opens all of them, from the same
    /// directory. Errors: those of MappedFile::open; corrupt (bytes that break the format, parts that do not
    /// belong together); unsupported (other versions, byte orders, tensor types); not_found (a missing part).
    static Gguf open(const std::filesystem::path& path) {
        std::vector<MappedFile> files;
        std::vector<detail::GgufPart> parts;
        files.push_back(MappedFile::open(path));
        parts.push_back(detail::parse_part(files.front().bytes(), path.string()));
        const std::uint64_t count = detail::part_count(parts.front());
        if (count > 1) {
            const std::uint64_t given = detail::part_number(parts.front(), count);
            const std::string stem = checked_stem(path, parts.front().file, given, count);
            MappedFile given_file = std::move(files.front());
            detail::GgufPart given_part = std::move(parts.front());
            files.clear();
            parts.clear();
            for (std::uint64_t i = 0; i < count; ++i) {
                if (i == given) {                            // once
                    files.push_back(std::move(given_file));  // NOLINT(bugprone-use-after-move)
                    parts.push_back(std::move(given_part));  // NOLINT(bugprone-use-after-move)
                    continue;
                }
                const auto sibling = path.parent_path() / detail::split_file_name(stem, i + 1, count);
                files.push_back(open_sibling(sibling, i, count));
                parts.push_back(detail::parse_part(files.back().bytes(), sibling.string()));
            }
        }
        return Gguf(std::move(files), std::move(parts), path.string());
    }

    /// Reads a model from memory, which has to outlive the result. `name` stands in messages. Errors as for
    /// open; a part of a split model alone is not_found.
    static Gguf parse(std::span<const std::byte> image, const std::string& name) {
        return parse_parts(std::span(&image, 1), name);
    }

    /// Reads the parts of a split model from memory, in order.
    static Gguf parse_parts(std::span<const std::span<const std::byte>> images, const std::string& name) {
        if (images.empty()) {
            throw Error(ErrorCode::usage,
                        text(detail::printable(name), ": expected at least one part, found none"));
        }
        std::vector<detail::GgufPart> parts;
        for (std::size_t i = 0; i < images.size(); ++i) {
            const bool single = images.size() == 1;
            parts.push_back(detail::parse_part(images[i], single ? name : text(name, " (part ", i + 1, ")")));
        }
        return Gguf({}, std::move(parts), name);
    }

    /// The name that it was opened by, printable.
    [[nodiscard]] const std::string& file_name() const noexcept { return name_; }
    /// The format's version, 2 or 3, of the first part.
    [[nodiscard]] std::uint32_t version() const noexcept { return version_; }
    /// Bytes that each tensor's offset in the data section of the first part is a multiple of.
    [[nodiscard]] Bytes alignment() const noexcept { return alignment_; }
    /// The mapped files in part order; empty for a model in memory.
    [[nodiscard]] std::span<const MappedFile> files() const noexcept { return files_; }

    /// All metadata, in the file's order; of a split model, those of the first part.
    [[nodiscard]] std::span<const Entry> metadata() const noexcept { return entries_; }
    /// The value of a key; nullptr where there is none.
    [[nodiscard]] const Value* find_value(std::string_view key) const noexcept {
        const Entry* const entry = keys_.find(entries_, key);
        return entry != nullptr ? &entry->value : nullptr;
    }

    [[nodiscard]] std::optional<std::uint64_t> find_unsigned(std::string_view key) const {
        return converted(key, "an unsigned integer", &Value::to_unsigned);
    }
    [[nodiscard]] std::optional<std::int64_t> find_signed(std::string_view key) const {
        return converted(key, "an integer", &Value::to_signed);
    }
    [[nodiscard]] std::optional<double> find_float(std::string_view key) const {
        return converted(key, "a float", &Value::to_float);
    }
    [[nodiscard]] std::optional<bool> find_bool(std::string_view key) const {
        return converted(key, "a bool", &Value::to_bool);
    }
    [[nodiscard]] std::optional<std::string_view> find_string(std::string_view key) const {
        return converted(key, "a string", &Value::to_string);
    }
    /// Views into the file, 16 bytes each.
    [[nodiscard]] std::optional<std::vector<std::string_view>> find_strings(std::string_view key) const {
        return converted(key, "an array of strings", &Value::to_strings);
    }
    [[nodiscard]] std::optional<std::vector<double>> find_floats(std::string_view key) const {
        return converted(key, "an array of floats", &Value::to_floats);
    }
    [[nodiscard]] std::optional<std::vector<std::int64_t>> find_ints(std::string_view key) const {
        return converted(key, "an array of integers", &Value::to_ints);
    }
    [[nodiscard]] std::optional<std::vector<bool>> find_bools(std::string_view key) const {
        return converted(key, "an array of bools", &Value::to_bools);
    }

    [[nodiscard]] std::uint64_t require_unsigned(std::string_view key) const {
        return required(key, "an unsigned integer", find_unsigned(key));
    }
    [[nodiscard]] std::int64_t require_signed(std::string_view key) const {
        return required(key, "an integer", find_signed(key));
    }
    [[nodiscard]] double require_float(std::string_view key) const {
        return required(key, "a float", find_float(key));
    }
    [[nodiscard]] bool require_bool(std::string_view key) const {
        return required(key, "a bool", find_bool(key));
    }
    [[nodiscard]] std::string_view require_string(std::string_view key) const {
        return required(key, "a string", find_string(key));
    }
    [[nodiscard]] std::vector<std::string_view> require_strings(std::string_view key) const {
        return required(key, "an array of strings", find_strings(key));
    }
    [[nodiscard]] std::vector<double> require_floats(std::string_view key) const {
        return required(key, "an array of floats", find_floats(key));
    }
    [[nodiscard]] std::vector<std::int64_t> require_ints(std::string_view key) const {
        return required(key, "an array of integers", find_ints(key));
    }
    [[nodiscard]] std::vector<bool> require_bools(std::string_view key) const {
        return required(key, "an array of bools", find_bools(key));
    }

    /// All tensors, part by part, each in its file's order.
    [[nodiscard]] std::span<const TensorInfo> tensors() const noexcept { return tensors_; }
    /// The tensor of that name; nullptr where there is none.
    [[nodiscard]] const TensorInfo* find(std::string_view tensor) const noexcept {
        return names_.find(tensors_, tensor);
    }
    /// The tensor of that name; corrupt where there is none.
    [[nodiscard]] const TensorInfo& require(std::string_view tensor) const {
        const TensorInfo* const found = find(tensor);
        if (found == nullptr) {
            throw Error(ErrorCode::corrupt, text(name_, ": expected a tensor ", detail::in_quotes(tensor),
                                                 ", found none; convert the model again"));
        }
        return *found;
    }
    /// Sum of all tensors' bytes, without padding.
    [[nodiscard]] Bytes tensor_bytes() const noexcept {
        Bytes sum = 0;
        for (const TensorInfo& tensor : tensors_) sum += tensor.bytes;
        return sum;
    }

    /// Bytes of all files of the model; 0 for an image in memory.
    [[nodiscard]] Bytes file_bytes() const noexcept {
        Bytes sum = 0;
        for (const MappedFile& file : files_) sum += file.size();
        return sum;
    }

    /// Gives the pages of a tensor that has been copied back to the system (MappedFile::release).
    void release(const TensorInfo& tensor) const noexcept {
        if (tensor.part < files_.size()) files_[tensor.part].release(tensor.data);
    }

private:
    Gguf(std::vector<MappedFile> files, std::vector<detail::GgufPart> parts, std::string_view name)
        : name_(detail::printable(name)), files_(std::move(files)) {
        detail::check_parts(parts);
        version_ = parts.front().version;
        alignment_ = parts.front().alignment;
        entries_ = std::move(parts.front().entries);
        keys_ = std::move(parts.front().keys);
        std::size_t count = 0;
        for (const detail::GgufPart& part : parts) count += part.tensors.size();
        tensors_.reserve(count);
        for (std::size_t i = 0; i < parts.size(); ++i) {
            for (TensorInfo& tensor : parts[i].tensors) {
                tensor.part = i;
                tensors_.push_back(std::move(tensor));
            }
        }
        names_.build(tensors_);
        if (const TensorInfo* const twice = names_.duplicate(tensors_)) {
            throw Error(ErrorCode::corrupt,
                        text(parts[twice->part].file, ": tensor ", detail::in_quotes(twice->name),
                             ": expected each name once, found it twice; convert the model again"));
        }
    }

    /// The part of the name before "-00001-of-00003.gguf", where the name agrees with the metadata.
    static std::string checked_stem(const std::filesystem::path& path, const std::string& shown,
                                    std::uint64_t number, std::uint64_t count) {
        const auto name = detail::parse_split_name(path.filename().string());
        if (!name) {
            throw Error(ErrorCode::not_found,
                        text(shown, ": expected a name such as '",
                             detail::split_file_name("name", number + 1, count), "' for part ", number + 1,
                             " of ", count, ", by which to find the other parts; rename the file"));
        }
        if (name->number != number + 1 || name->count != count) {
            throw Error(ErrorCode::corrupt, text(shown, ": expected part ", name->number, " of ", name->count,
                                                 " by its name, found part ", number + 1, " of ", count,
                                                 " by its metadata; give the file its own name back"));
        }
        return name->stem;
    }

    static MappedFile open_sibling(const std::filesystem::path& path, std::uint64_t number,
                                   std::uint64_t count) {
        try {
            return MappedFile::open(path);
        } catch (const Error& error) {
            if (error.code() != ErrorCode::not_found) throw;
            throw Error(ErrorCode::not_found,
                        text(detail::printable(path.string()), ": expected part ", number + 1, " of ", count,
                             " of a split model here, found no such file; put all parts into one directory"));
        }
    }

    template <class T>
    std::optional<T> converted(std::string_view key, const char* expected,
                               std::optional<T> (Value::*convert)() const) const {
        const Value* const value = find_value(key);
        if (value == nullptr) return std::nullopt;
        std::optional<T> result = (value->*convert)();
        if (!result) {
            throw Error(ErrorCode::corrupt,
                        text(name_, ": metadata: expected ", detail::in_quotes(key), " to be ", expected,
                             ", found ", value->describe(), "; convert the model again"));
        }
        return result;
    }

    // A pointer to a noexcept member function is a type of its own.
    template <class T>
    std::optional<T> converted(std::string_view key, const char* expected,
                               std::optional<T> (Value::*convert)() const noexcept) const {
        using Plain = std::optional<T> (Value::*)() const;
        return converted(key, expected, static_cast<Plain>(convert));
    }

    template <class T>
    T required(std::string_view key, const char* expected, std::optional<T> value) const {
        if (!value) {
            throw Error(ErrorCode::corrupt,
                        text(name_, ": metadata: expected ", detail::in_quotes(key), " to be ", expected,
                             ", found no such key; convert the model again"));
        }
        return *std::move(value);
    }

    std::string name_;
    std::vector<MappedFile> files_;
    std::uint32_t version_ = 0;
    Bytes alignment_ = 0;
    std::vector<Entry> entries_;
    detail::NameIndex keys_;
    std::vector<TensorInfo> tensors_;
    detail::NameIndex names_;
};

}  // namespace io
}  // namespace zse::inline v1

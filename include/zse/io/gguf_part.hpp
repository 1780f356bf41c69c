// SPDX-License-Identifier: Apache-2.0
// Parses one GGUF file (version 2 or 3, little-endian) in memory: header, metadata, tensor table, and every
// check that needs no other file. Format: the GGUF specification in the ggml project, docs/gguf.md.
#pragma once

#include <zse/core/bytes.hpp>
#include <zse/core/error.hpp>
#include <zse/io/ggml_type.hpp>
#include <zse/io/gguf_cursor.hpp>
#include <zse/io/gguf_value.hpp>
#include <zse/io/printable.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <numeric>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace zse::inline v1 {
namespace io {

/// One key of the metadata and its value, both views into the file.
struct Entry {
    std::string_view key;
    Value value;
};

/// One tensor of a file. All of it has been checked: `data` lies inside the file, overlaps no other tensor
/// and holds exactly the elements of `shape`.
struct TensorInfo {
    std::string name;
    GgmlType type{};
    std::array<std::uint64_t, 4> shape{1, 1, 1, 1};  ///< ggml's order: shape[0] runs fastest; 1 past `dims`
    unsigned dims = 0;                               ///< 1 to 4
    Bytes offset = 0;                                ///< of the first byte, from the start of its file
    Bytes bytes = 0;
    std::span<const std::byte> data;
    std::size_t part = 0;  ///< which file of a split model, from 0

    [[nodiscard]] std::uint64_t elements() const noexcept { return shape[0] * rows(); }
    /// Rows of shape[0] elements.
    [[nodiscard]] std::uint64_t rows() const noexcept { return shape[1] * shape[2] * shape[3]; }
};

namespace detail {

// Limits, and why. The specification allows keys of 65,535 bytes. It allows tensor names of 64 bytes; ggml
// enforces that, but other writers of long module paths exist and a longer name does no harm, so 1,024 is
// where a name is taken for damage. Alignment: a multiple of 8 by the specification, so that any element may
// be read in place; 2 MiB is the largest page that a tensor could usefully be aligned to.
inline constexpr std::size_t longest_key = 65'535;
inline constexpr std::size_t longest_tensor_name = 1'024;
inline constexpr Bytes default_alignment = 32;
inline constexpr Bytes least_alignment = 8;
inline constexpr Bytes most_alignment = MiB(2);

// The fewest bytes that an entry can take, so that a count can be refused before memory is reserved for it.
inline constexpr Bytes least_metadata_bytes = 8 + 1 + 4 + 1;  // key length, key, type, value
inline constexpr Bytes least_tensor_bytes =
    8 + 1 + 4 + 8 + 4 + 8;  // name length, name, dims, shape, type, offset

inline std::string_view name_of(const Entry& entry) noexcept {
    return entry.key;
}
inline std::string_view name_of(const TensorInfo& tensor) noexcept {
    return tensor.name;
}

/// Positions of a vector's items in the order of their names. A sorted index, not a hash table: the names
/// come from outside, and no choice of names makes sorting slow.
class NameIndex {
public:
    template <class Item>
    void build(const std::vector<Item>& items) {
        order_.resize(items.size());
        std::iota(order_.begin(), order_.end(), std::size_t{0});
        std::sort(order_.begin(), order_.end(), [&items](std::size_t a, std::size_t b) {
            const int order = name_of(items[a]).compare(name_of(items[b]));
            return order != 0 ? order < 0 : a < b;
        });
    }

    /// An item whose name an earlier one has too; nullptr where all differ.
    template <class Item>
    [[nodiscard]] const Item* duplicate(const std::vector<Item>& items) const noexcept {
        for (std::size_t i = 1; i < order_.size(); ++i) {
            if (name_of(items[order_[i]]) == name_of(items[order_[i - 1]])) return &items[order_[i]];
        }
        return nullptr;
    }

    template <class Item>
    [[nodiscard]] const Item* find(const std::vector<Item>& items, std::string_view wanted) const noexcept {
        const auto found = std::lower_bound(
            order_.begin(), order_.end(), wanted,
            [&items](std::size_t at, std::string_view name) { return name_of(items[at]) < name; });
        if (found == order_.end() || name_of(items[*found]) != wanted) return nullptr;
        return &items[*found];
    }

private:
    std::vector<std::size_t> order_;
};

/// What one file holds.
struct GgufPart {
    std::string file;  ///< its name, printable
    std::uint32_t version = 0;
    Bytes alignment = default_alignment;
    std::vector<Entry> entries;
    NameIndex keys;
    std::vector<TensorInfo> tensors;

    [[nodiscard]] const Value* find(std::string_view key) const noexcept {
        const Entry* const entry = keys.find(entries, key);
        return entry != nullptr ? &entry->value : nullptr;
    }
};

inline void check_magic(GgufCursor& cursor) {
    const auto magic = cursor.take_bytes(4);
    if (std::memcmp(magic.data(), "GGUF", 4) != 0) {
        cursor.fail(ErrorCode::corrupt, text("expected a GGUF file, which begins with 'GGUF', found ",
                                             in_quotes(characters(magic.data(), magic.size())),
                                             "; check that it is a model and was downloaded whole"));
    }
}

inline std::uint32_t take_version(GgufCursor& cursor) {
    const auto version = cursor.take<std::uint32_t>();
    if (version == 2 || version == 3) return version;
    // The magic has no byte order of its own; a small version number with its bytes swapped gives it away.
    if (version != 0 && (version & 0xffffu) == 0) {
        cursor.fail(
            ErrorCode::unsupported,
            "expected a little-endian GGUF file, found a big-endian one; convert it for this machine");
    }
    cursor.fail(ErrorCode::unsupported, text("expected GGUF version 2 or 3, found version ", version,
                                             "; convert the model again with current tools"));
}

inline void check_count(const GgufCursor& cursor, const char* what, std::uint64_t count, Bytes least) {
    const std::uint64_t most = cursor.remaining() / least;
    if (count > most) {
        cursor.fail(ErrorCode::corrupt,
                    text("the file claims ", count, " ", what, ", but its remaining ", cursor.remaining(),
                         " bytes have room for at most ", most, "; download or copy it again"));
    }
}

inline ValueType take_value_type(GgufCursor& cursor) {
    const auto id = cursor.take<std::uint32_t>();
    if (id > static_cast<std::uint32_t>(ValueType::f64)) {
        cursor.fail(ErrorCode::corrupt, text("expected a value type from 0 to 12, found ", id,
                                             "; download or copy the file again"));
    }
    return static_cast<ValueType>(id);
}

inline void check_bools(const GgufCursor& cursor, std::span<const std::byte> values) {
    for (const std::byte value : values) {
        if (value > std::byte{1}) {
            cursor.fail(ErrorCode::corrupt,
                        text("expected a bool of 0 or 1, found ", std::to_integer<int>(value),
                             "; download or copy the file again"));
        }
    }
}

inline Value take_array(GgufCursor& cursor) {
    const ValueType element = take_value_type(cursor);
    const auto count = cursor.take<std::uint64_t>();
    if (element == ValueType::array) {
        cursor.fail(ErrorCode::unsupported,
                    "expected an array of numbers, bools or strings, found an array of arrays, "
                    "which zse does not read; flatten it");
    }
    const bool strings = element == ValueType::string;
    // Compared by division: a product could wrap.
    const Bytes least = strings ? sizeof(std::uint64_t) : fixed_size(element);
    if (count > cursor.remaining() / least) {
        cursor.fail(ErrorCode::corrupt,
                    text("an array claims ", count, " elements of at least ", least, " bytes, ",
                         cursor.remaining(), " bytes are left in the file; download or copy it again"));
    }
    if (!strings) {
        const auto payload = cursor.take_bytes(count * least);
        if (element == ValueType::boolean) check_bools(cursor, payload);
        return {element, true, count, payload};
    }
    // Walking the strings now is what lets each later walk go unchecked.
    GgufCursor begin = cursor;
    const std::size_t from = cursor.position();
    for (std::uint64_t i = 0; i < count; ++i) cursor.take_string();
    return {element, true, count, begin.take_bytes(cursor.position() - from)};
}

inline Value take_value(GgufCursor& cursor) {
    const ValueType type = take_value_type(cursor);
    if (type == ValueType::array) return take_array(cursor);
    if (type == ValueType::string) {
        const std::string_view string = cursor.take_string();
        return {type, false, 1, std::as_bytes(std::span(string))};
    }
    const auto payload = cursor.take_bytes(fixed_size(type));
    if (type == ValueType::boolean) check_bools(cursor, payload);
    return {type, false, 1, payload};
}

inline std::string_view take_name(GgufCursor& cursor, const char* what, std::size_t longest) {
    const std::string_view name = cursor.take_string();
    if (name.empty()) {
        cursor.fail(ErrorCode::corrupt,
                    text("expected ", what, ", found an empty one; convert the model again"));
    }
    if (name.size() > longest) {
        cursor.fail(ErrorCode::corrupt,
                    text("expected ", what, " of at most ", longest, " bytes, found ", name.size(), " (",
                         in_quotes(name.substr(0, 32)), "...); download or copy the file again"));
    }
    cursor.subject(name);
    return name;
}

inline void take_metadata(GgufCursor& cursor, std::uint64_t count, GgufPart& part) {
    part.entries.reserve(static_cast<std::size_t>(count));
    for (std::uint64_t i = 0; i < count; ++i) {
        cursor.enter("metadata entry", i);
        const std::string_view key = take_name(cursor, "a key", longest_key);
        part.entries.push_back({key, take_value(cursor)});
    }
    part.keys.build(part.entries);
    if (const Entry* const twice = part.keys.duplicate(part.entries)) {
        throw Error(ErrorCode::corrupt, text(part.file, ": metadata: expected each key once, found ",
                                             in_quotes(twice->key), " twice; convert the model again"));
    }
}

inline void set_alignment(GgufPart& part) {
    const Value* const value = part.find("general.alignment");
    if (value == nullptr) return;
    const auto alignment = value->to_unsigned();
    if (!alignment || !std::has_single_bit(*alignment) || *alignment < least_alignment ||
        *alignment > most_alignment) {
        throw Error(ErrorCode::corrupt,
                    text(part.file, ": metadata: expected 'general.alignment' to be a power of two from ",
                         least_alignment, " to ", most_alignment, ", found ", value->describe(),
                         "; convert the model again"));
    }
    part.alignment = *alignment;
}

/// Reads one entry of the tensor table; `offset` is still relative to the data section.
inline TensorInfo take_tensor(GgufCursor& cursor) {
    TensorInfo tensor;
    tensor.name = take_name(cursor, "a tensor name", longest_tensor_name);
    tensor.dims = cursor.take<std::uint32_t>();
    if (tensor.dims < 1 || tensor.dims > tensor.shape.size()) {
        cursor.fail(ErrorCode::corrupt,
                    text("expected 1 to 4 dimensions, found ", tensor.dims, "; convert the model again"));
    }
    std::uint64_t elements = 1;
    for (unsigned i = 0; i < tensor.dims; ++i) {
        tensor.shape[i] = cursor.take<std::uint64_t>();
        elements = saturating_mul(elements, tensor.shape[i]);
        if (tensor.shape[i] == 0) {
            cursor.fail(ErrorCode::corrupt, text("expected a positive size, found dimension ", i,
                                                 " of size 0; convert the model again"));
        }
    }
    // Signed 64 bits is what all readers can count in; nothing near it exists.
    if (elements > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) {
        cursor.fail(ErrorCode::corrupt, text("expected a shape of fewer than 2^63 elements, found ",
                                             tensor.shape[0], " x ", tensor.shape[1], " x ", tensor.shape[2],
                                             " x ", tensor.shape[3], "; download or copy the file again"));
    }
    const auto id = cursor.take<std::uint32_t>();
    const GgmlTypeInfo* const type = find_ggml_type(id);
    if (type == nullptr) {
        cursor.fail(ErrorCode::unsupported,
                    text("expected a tensor type that zse knows, found type id ", id,
                         ", which is newer than zse or was withdrawn; convert the model to another type"));
    }
    tensor.type = type->type;
    const auto row = row_bytes(tensor.type, tensor.shape[0]);
    if (!row) {
        cursor.fail(ErrorCode::corrupt,
                    text("expected rows of a multiple of ", type->block_elements, " elements for type ",
                         type->name, ", found rows of ", tensor.shape[0], "; convert the model again"));
    }
    tensor.bytes = saturating_mul(*row, elements / tensor.shape[0]);
    tensor.offset = cursor.take<std::uint64_t>();
    return tensor;
}

/// Turns the tensors' offsets into places in the file and checks each place.
inline void place_tensors(GgufPart& part, std::span<const std::byte> image, std::size_t table_end) {
    const Bytes data_begin = round_up(table_end, part.alignment);
    const auto fail = [&part](const TensorInfo& tensor, const std::string& sentence) {
        throw Error(ErrorCode::corrupt, text(part.file, ": tensor ", in_quotes(tensor.name), ": ", sentence));
    };
    for (TensorInfo& tensor : part.tensors) {
        if (tensor.offset % part.alignment != 0) {
            fail(tensor, text("expected an offset that is a multiple of the alignment ", part.alignment,
                              ", found ", tensor.offset, "; convert the model again"));
        }
        tensor.offset = saturating_add(data_begin, tensor.offset);
        if (tensor.offset > image.size() || tensor.bytes > image.size() - tensor.offset) {
            fail(tensor, text("expected its ", tensor.bytes, " bytes at offset ", tensor.offset,
                              " inside the file, found a file of ", image.size(),
                              " bytes; download or copy it again"));
        }
        tensor.data =
            image.subspan(static_cast<std::size_t>(tensor.offset), static_cast<std::size_t>(tensor.bytes));
    }
    std::vector<const TensorInfo*> by_offset;
    by_offset.reserve(part.tensors.size());
    for (const TensorInfo& tensor : part.tensors) by_offset.push_back(&tensor);
    std::sort(by_offset.begin(), by_offset.end(),
              [](const TensorInfo* a, const TensorInfo* b) { return a->offset < b->offset; });
    for (std::size_t i = 1; i < by_offset.size(); ++i) {
        const TensorInfo& before = *by_offset[i - 1];
        if (before.offset + before.bytes > by_offset[i]->offset) {
            fail(*by_offset[i],
                 text("expected data of its own, found it overlapping tensor ", in_quotes(before.name),
                      " at offset ", by_offset[i]->offset, "; convert the model again"));
        }
    }
}

/// Parses one file. Everything in the result but names of tensors is a view into `image`. Memory: a small
/// multiple of the image's size at worst, as each count is checked against the bytes that it needs.
inline GgufPart parse_part(std::span<const std::byte> image, std::string_view file) {
    GgufPart part;
    part.file = printable(file);
    GgufCursor cursor(image, part.file);
    check_magic(cursor);
    part.version = take_version(cursor);
    const auto tensors = cursor.take<std::uint64_t>();
    const auto entries = cursor.take<std::uint64_t>();
    check_count(cursor, "metadata entries", entries, least_metadata_bytes);
    check_count(cursor, "tensors", tensors, least_tensor_bytes);
    take_metadata(cursor, entries, part);
    set_alignment(part);
    part.tensors.reserve(static_cast<std::size_t>(tensors));
    for (std::uint64_t i = 0; i < tensors; ++i) {
        cursor.enter("tensor", i);
        part.tensors.push_back(take_tensor(cursor));
    }
    place_tensors(part, image, cursor.position());
    return part;
}

}  // namespace detail
}  // namespace io
}  // namespace zse::inline v1

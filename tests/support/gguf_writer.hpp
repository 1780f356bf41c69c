// SPDX-License-Identifier: Apache-2.0
// Writes small GGUF files for tests: any metadata, any tensors, and damage where a test asks for it.
#pragma once

#include <zse/io/ggml_type.hpp>
#include <zse/io/gguf_value.hpp>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace support {

/// Bytes in the order in which they are put.
class ByteSink {
public:
    template <class T>
    requires std::is_arithmetic_v<T> ByteSink& put(T value) {
        const auto* const from = reinterpret_cast<const std::byte*>(&value);
        bytes_.insert(bytes_.end(), from, from + sizeof value);
        return *this;
    }
    ByteSink& put(std::span<const std::byte> bytes) {
        bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
        return *this;
    }
    /// A string as GGUF writes it: 64-bit length, then the characters.
    ByteSink& string(std::string_view characters) {
        put(static_cast<std::uint64_t>(characters.size()));
        return put(std::as_bytes(std::span(characters)));
    }
    ByteSink& pad_to(std::size_t multiple) {
        while (bytes_.size() % multiple != 0) bytes_.push_back(std::byte{0});
        return *this;
    }
    [[nodiscard]] std::size_t size() const { return bytes_.size(); }
    [[nodiscard]] std::vector<std::byte>& bytes() { return bytes_; }

private:
    std::vector<std::byte> bytes_;
};

/// The GGUF value type of a C++ type.
template <class T>
constexpr zse::io::ValueType value_type_of() {
    if constexpr (std::same_as<T, bool>) return zse::io::ValueType::boolean;
    if constexpr (std::same_as<T, std::uint8_t>) return zse::io::ValueType::u8;
    if constexpr (std::same_as<T, std::int8_t>) return zse::io::ValueType::i8;
    if constexpr (std::same_as<T, std::uint16_t>) return zse::io::ValueType::u16;
    if constexpr (std::same_as<T, std::int16_t>) return zse::io::ValueType::i16;
    if constexpr (std::same_as<T, std::uint32_t>) return zse::io::ValueType::u32;
    if constexpr (std::same_as<T, std::int32_t>) return zse::io::ValueType::i32;
    if constexpr (std::same_as<T, std::uint64_t>) return zse::io::ValueType::u64;
    if constexpr (std::same_as<T, std::int64_t>) return zse::io::ValueType::i64;
    if constexpr (std::same_as<T, float>) return zse::io::ValueType::f32;
    if constexpr (std::same_as<T, double>) return zse::io::ValueType::f64;
    return zse::io::ValueType::string;
}

/// Builds a file in memory. Counts, offsets and padding come right by themselves; the `claim_` functions and
/// `raw` lie on purpose.
///
///     auto image = GgufWriter().set("llama.block_count", std::uint32_t{2})
///                      .tensor_f32("output.weight", {4, 2}, values).bytes();
class GgufWriter {
public:
    /// An alignment other than 32 is written as `general.alignment` too.
    explicit GgufWriter(std::uint32_t version = 3, std::uint32_t alignment = 32)
        : version_(version), alignment_(alignment) {
        if (alignment != 32) set("general.alignment", alignment);
    }

    template <class T>
    requires std::is_arithmetic_v<T> GgufWriter& set(std::string_view key, T value) {
        begin(key, value_type_of<T>()).put(value);
        return *this;
    }
    GgufWriter& set(std::string_view key, std::string_view value) {
        begin(key, zse::io::ValueType::string).string(value);
        return *this;
    }
    GgufWriter& set(std::string_view key, const char* value) { return set(key, std::string_view(value)); }

    template <class T>
    requires std::is_arithmetic_v<T> GgufWriter& set(std::string_view key, const std::vector<T>& values) {
        array(key, value_type_of<T>(), values.size());
        for (const T value : values) metadata_.put(value);
        return *this;
    }
    GgufWriter& set(std::string_view key, const std::vector<std::string>& values) {
        array(key, zse::io::ValueType::string, values.size());
        for (const std::string& value : values) metadata_.string(value);
        return *this;
    }

    /// An entry of any type id with any bytes after it.
    GgufWriter& raw(std::string_view key, std::uint32_t type_id, ByteSink value) {
        begin(key, static_cast<zse::io::ValueType>(type_id)).put(value.bytes());
        return *this;
    }

    /// A tensor of any type id; the data follow the previous tensor's at the next aligned place.
    GgufWriter& tensor(std::string_view name, std::uint32_t type_id, std::vector<std::uint64_t> shape,
                       std::span<const std::byte> data) {
        data_.pad_to(alignment_);
        tensors_.push_back({std::string(name), type_id, std::move(shape), data_.size()});
        data_.put(data);
        return *this;
    }
    GgufWriter& tensor(std::string_view name, zse::io::GgmlType type, std::vector<std::uint64_t> shape,
                       std::span<const std::byte> data) {
        return tensor(name, static_cast<std::uint32_t>(type), std::move(shape), data);
    }
    GgufWriter& tensor_f32(std::string_view name, std::vector<std::uint64_t> shape,
                           const std::vector<float>& data) {
        return tensor(name, zse::io::GgmlType::f32, std::move(shape), std::as_bytes(std::span(data)));
    }
    /// A tensor of whole blocks with byte i of the data being i modulo 251.
    GgufWriter& pattern(std::string_view name, zse::io::GgmlType type, std::vector<std::uint64_t> shape) {
        std::uint64_t elements = 1;
        for (const std::uint64_t size : shape) elements *= size;
        std::vector<std::byte> data(elements / zse::io::block_elements(type) * zse::io::block_bytes(type));
        for (std::size_t i = 0; i < data.size(); ++i) data[i] = static_cast<std::byte>(i % 251);
        return tensor(name, type, std::move(shape), data);
    }

    GgufWriter& claim_magic(std::string_view magic) { return magic_ = magic, *this; }
    GgufWriter& claim_metadata(std::uint64_t count) { return metadata_claim_ = count, *this; }
    GgufWriter& claim_tensors(std::uint64_t count) { return tensor_claim_ = count, *this; }
    /// The dimension count of the last tensor, whatever its shape is.
    GgufWriter& claim_dims(std::uint32_t dims) { return tensors_.back().dims_claim = dims, *this; }
    /// The offset of the last tensor within the data section.
    GgufWriter& claim_offset(std::uint64_t offset) { return tensors_.back().offset = offset, *this; }

    [[nodiscard]] std::vector<std::byte> bytes() const {
        ByteSink file;
        file.put(std::as_bytes(std::span(magic_)));
        file.put(version_);
        file.put(tensor_claim_.value_or(tensors_.size()));
        file.put(metadata_claim_.value_or(metadata_count_));
        ByteSink metadata = metadata_;
        file.put(metadata.bytes());
        for (const Tensor& tensor : tensors_) {
            file.string(tensor.name);
            file.put(tensor.dims_claim.value_or(static_cast<std::uint32_t>(tensor.shape.size())));
            for (const std::uint64_t size : tensor.shape) file.put(size);
            file.put(tensor.type_id);
            file.put(tensor.offset);
        }
        file.pad_to(alignment_);
        ByteSink data = data_;
        file.put(data.bytes());
        return file.bytes();
    }

    void write(const std::filesystem::path& path) const { write_bytes(path, bytes()); }

    static void write_bytes(const std::filesystem::path& path, std::span<const std::byte> bytes) {
        std::ofstream file(path, std::ios::binary);
        file.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
        file.close();
        if (!file) throw std::runtime_error("cannot write " + path.string());
    }

private:
    struct Tensor {
        std::string name;
        std::uint32_t type_id;
        std::vector<std::uint64_t> shape;
        std::uint64_t offset;
        std::optional<std::uint32_t> dims_claim{};
    };

    ByteSink& begin(std::string_view key, zse::io::ValueType type) {
        ++metadata_count_;
        return metadata_.string(key).put(static_cast<std::uint32_t>(type));
    }
    void array(std::string_view key, zse::io::ValueType element, std::uint64_t count) {
        begin(key, zse::io::ValueType::array).put(static_cast<std::uint32_t>(element)).put(count);
    }

    std::string magic_ = "GGUF";
    std::uint32_t version_;
    std::uint32_t alignment_;
    ByteSink metadata_;
    std::uint64_t metadata_count_ = 0;
    std::vector<Tensor> tensors_;
    ByteSink data_;
    std::optional<std::uint64_t> metadata_claim_;
    std::optional<std::uint64_t> tensor_claim_;
};

}  // namespace support

// SPDX-License-Identifier: Apache-2.0
// Feeds any bytes to the GGUF reader and checks what it promises of each file that it accepts.
#include <zse/io/gguf.hpp>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <span>
#include <vector>

namespace {

using zse::io::Gguf;
using Span = std::span<const std::byte>;

void require(bool condition) {
    if (!condition) std::abort();
}

void check(const Gguf& gguf, std::span<const Span> images) {
    volatile std::size_t sink = 0;
    for (const auto& [key, value] : gguf.metadata()) {
        require(gguf.find_value(key) == &value);
        sink = sink + value.describe().size() + value.to_unsigned().has_value() +
               value.to_signed().has_value() + value.to_float().has_value() + value.to_bool().has_value();
        if (const auto string = value.to_string()) {
            for (const char c : *string) sink = sink + static_cast<unsigned char>(c);
        }
        if (const auto strings = value.to_strings()) {
            require(strings->size() == value.size());
            for (const auto string : *strings) {
                for (const char c : string) sink = sink + static_cast<unsigned char>(c);
            }
        }
        if (const auto numbers = value.to_ints()) require(numbers->size() == value.size());
        if (const auto numbers = value.to_floats()) require(numbers->size() == value.size());
        if (const auto flags = value.to_bools()) require(flags->size() == value.size());
        try {
            (void)gguf.require_unsigned(key);
        } catch (const zse::Error&) {
        }
    }
    std::size_t taken = 0;
    for (const auto& tensor : gguf.tensors()) {
        require(gguf.find(tensor.name) == &tensor);
        const Span image = images[tensor.part];
        require(tensor.dims >= 1 && tensor.dims <= 4 && !tensor.name.empty());
        require(tensor.bytes == tensor.data.size() && tensor.bytes > 0);
        require(tensor.offset + tensor.bytes <= image.size());
        require(tensor.data.data() == image.data() + tensor.offset);
        const auto row = zse::io::row_bytes(tensor.type, tensor.shape[0]);
        require(row && *row * tensor.rows() == tensor.bytes);
        sink = sink + std::to_integer<unsigned>(tensor.data.front()) +
               std::to_integer<unsigned>(tensor.data.back());
        taken += tensor.data.size();
    }
    // Tensors do not overlap, so together they cannot hold more than the files.
    std::size_t whole = 0;
    for (const Span image : images) whole += image.size();
    require(taken <= whole && taken == gguf.tensor_bytes());
}

/// The input is one file, or "PARTS", a 16-bit length, a first part of that length and a second part.
std::vector<Span> cut(Span input) {
    constexpr std::size_t head = 7;
    if (input.size() < head || std::memcmp(input.data(), "PARTS", 5) != 0) return {input};
    std::uint16_t length = 0;
    std::memcpy(&length, input.data() + 5, sizeof length);
    const Span rest = input.subspan(head);
    const std::size_t first = length < rest.size() ? length : rest.size();
    return {rest.first(first), rest.subspan(first)};
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::vector<Span> images = cut(std::as_bytes(std::span(data, size)));
    try {
        check(Gguf::parse_parts(images, "fuzz"), images);
    } catch (const zse::Error&) {
    }
    return 0;
}

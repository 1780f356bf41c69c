// SPDX-License-Identifier: Apache-2.0
// The element types of GGUF tensors: ids, names, and the size of a block. How to decode them is weights/.
#pragma once

#include <zse/core/bytes.hpp>

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

namespace zse::inline v1 {
namespace io {

/// Ids as they stand in files. Gaps are types that ggml removed (4, 5, 31-33, 36-38).
enum class GgmlType : std::uint32_t {
    f32 = 0,
    f16 = 1,
    q4_0 = 2,
    q4_1 = 3,
    q5_0 = 6,
    q5_1 = 7,
    q8_0 = 8,
    q8_1 = 9,
    q2_k = 10,
    q3_k = 11,
    q4_k = 12,
    q5_k = 13,
    q6_k = 14,
    q8_k = 15,
    iq2_xxs = 16,
    iq2_xs = 17,
    iq3_xxs = 18,
    iq1_s = 19,
    iq4_nl = 20,
    iq3_s = 21,
    iq2_s = 22,
    iq4_xs = 23,
    i8 = 24,
    i16 = 25,
    i32 = 26,
    i64 = 27,
    f64 = 28,
    iq1_m = 29,
    bf16 = 30,
    tq1_0 = 34,
    tq2_0 = 35,
    mxfp4 = 39,
    nvfp4 = 40,
    q1_0 = 41,
};

/// A type's name as ggml writes it, and its block: the elements that are coded together, and their bytes.
struct GgmlTypeInfo {
    GgmlType type;
    std::string_view name;
    std::uint32_t block_elements;
    std::uint32_t block_bytes;
};

// Block bytes are written as the sum of a block's fields where a block has fields.
inline constexpr std::array ggml_types{
    GgmlTypeInfo{GgmlType::f32, "F32", 1, 4},
    GgmlTypeInfo{GgmlType::f16, "F16", 1, 2},
    GgmlTypeInfo{GgmlType::q4_0, "Q4_0", 32, 2 + 16},
    GgmlTypeInfo{GgmlType::q4_1, "Q4_1", 32, 2 + 2 + 16},
    GgmlTypeInfo{GgmlType::q5_0, "Q5_0", 32, 2 + 4 + 16},
    GgmlTypeInfo{GgmlType::q5_1, "Q5_1", 32, 2 + 2 + 4 + 16},
    GgmlTypeInfo{GgmlType::q8_0, "Q8_0", 32, 2 + 32},
    // Q8_1 and Q8_K are activation formats, never weights; Q8_1 counts 40 bytes in the format's Python
    // package and 36 in newer ggml. A file that holds one is not known, so the package is followed.
    GgmlTypeInfo{GgmlType::q8_1, "Q8_1", 32, 4 + 4 + 32},
    GgmlTypeInfo{GgmlType::q2_k, "Q2_K", 256, 16 + 64 + 2 + 2},
    GgmlTypeInfo{GgmlType::q3_k, "Q3_K", 256, 32 + 64 + 12 + 2},
    GgmlTypeInfo{GgmlType::q4_k, "Q4_K", 256, 2 + 2 + 12 + 128},
    GgmlTypeInfo{GgmlType::q5_k, "Q5_K", 256, 2 + 2 + 12 + 32 + 128},
    GgmlTypeInfo{GgmlType::q6_k, "Q6_K", 256, 128 + 64 + 16 + 2},
    GgmlTypeInfo{GgmlType::q8_k, "Q8_K", 256, 4 + 256 + 32},
    GgmlTypeInfo{GgmlType::iq2_xxs, "IQ2_XXS", 256, 2 + 64},
    GgmlTypeInfo{GgmlType::iq2_xs, "IQ2_XS", 256, 2 + 64 + 8},
    GgmlTypeInfo{GgmlType::iq3_xxs, "IQ3_XXS", 256, 2 + 96},
    GgmlTypeInfo{GgmlType::iq1_s, "IQ1_S", 256, 2 + 32 + 16},
    GgmlTypeInfo{GgmlType::iq4_nl, "IQ4_NL", 32, 2 + 16},
    GgmlTypeInfo{GgmlType::iq3_s, "IQ3_S", 256, 2 + 64 + 8 + 32 + 4},
    GgmlTypeInfo{GgmlType::iq2_s, "IQ2_S", 256, 2 + 64 + 8 + 8},
    GgmlTypeInfo{GgmlType::iq4_xs, "IQ4_XS", 256, 2 + 2 + 4 + 128},
    GgmlTypeInfo{GgmlType::i8, "I8", 1, 1},
    GgmlTypeInfo{GgmlType::i16, "I16", 1, 2},
    GgmlTypeInfo{GgmlType::i32, "I32", 1, 4},
    GgmlTypeInfo{GgmlType::i64, "I64", 1, 8},
    GgmlTypeInfo{GgmlType::f64, "F64", 1, 8},
    GgmlTypeInfo{GgmlType::iq1_m, "IQ1_M", 256, 32 + 16 + 8},
    GgmlTypeInfo{GgmlType::bf16, "BF16", 1, 2},
    GgmlTypeInfo{GgmlType::tq1_0, "TQ1_0", 256, 48 + 4 + 2},
    GgmlTypeInfo{GgmlType::tq2_0, "TQ2_0", 256, 64 + 2},
    GgmlTypeInfo{GgmlType::mxfp4, "MXFP4", 32, 1 + 16},
    GgmlTypeInfo{GgmlType::nvfp4, "NVFP4", 64, 4 + 32},
    GgmlTypeInfo{GgmlType::q1_0, "Q1_0", 128, 2 + 16},
};

/// The entry of a type id as it stands in a file; nullptr for an id that zse does not know.
constexpr const GgmlTypeInfo* find_ggml_type(std::uint32_t id) noexcept {
    for (const GgmlTypeInfo& info : ggml_types) {
        if (static_cast<std::uint32_t>(info.type) == id) return &info;
    }
    return nullptr;
}

/// The entry of a type; a value that is no enumerator gives a nameless type of zero elements and bytes.
constexpr GgmlTypeInfo info(GgmlType type) noexcept {
    // Not through find_ggml_type: under UBSan, GCC takes no pointer comparison for a constant.
    for (const GgmlTypeInfo& entry : ggml_types) {
        if (entry.type == type) return entry;
    }
    return {type, "unknown", 0, 0};
}

/// The name as ggml and its users write it: "Q4_1".
constexpr std::string_view name(GgmlType type) noexcept {
    return info(type).name;
}

/// Elements coded together; a row's length is a multiple of it.
constexpr std::uint32_t block_elements(GgmlType type) noexcept {
    return info(type).block_elements;
}

/// Bytes of one block.
constexpr std::uint32_t block_bytes(GgmlType type) noexcept {
    return info(type).block_bytes;
}

/// Bytes of `elements` consecutive elements, saturating; nothing where they do not fill whole blocks.
constexpr std::optional<Bytes> row_bytes(GgmlType type, std::uint64_t elements) noexcept {
    const GgmlTypeInfo entry = info(type);
    if (entry.block_elements == 0 || elements % entry.block_elements != 0) return std::nullopt;
    return saturating_mul(elements / entry.block_elements, entry.block_bytes);
}

}  // namespace io
}  // namespace zse::inline v1

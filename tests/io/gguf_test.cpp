// SPDX-License-Identifier: Apache-2.0
// Reading GGUF: every value type, tensors as views, both versions, and a file that another writer made.
#include <zse/io/gguf.hpp>

#include <support/expect_error.hpp>
#include <support/gguf_writer.hpp>
#include <support/temporary_directory.hpp>

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <map>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

namespace {

using support::expect_error;
using support::GgufWriter;
using support::TemporaryDirectory;
using zse::ErrorCode;
using zse::io::GgmlType;
using zse::io::Gguf;
using zse::io::TensorInfo;
using zse::io::ValueType;
using Image = std::vector<std::byte>;

template <class T>
std::vector<T> values(const TensorInfo& tensor) {
    std::vector<T> copied(tensor.data.size() / sizeof(T));
    std::memcpy(copied.data(), tensor.data.data(), tensor.data.size());
    return copied;
}

Image from_hex(std::string_view hex) {
    const auto digit = [](char c) { return c <= '9' ? c - '0' : c - 'a' + 10; };
    Image bytes;
    for (std::size_t i = 0; i < hex.size(); i += 2) {
        bytes.push_back(static_cast<std::byte>(digit(hex[i]) * 16 + digit(hex[i + 1])));
    }
    return bytes;
}

// Made by the Python package gguf (GGUFWriter), so that reader and writer here cannot share a mistake.
TEST(Gguf, ReadsAFileOfAnotherWriter) {
    const Image image = from_hex(
        "474755460300000002000000000000000500000000000000140000000000000067656e6572616c2e61726368697465637475"
        "72650800000005000000000000006c6c616d6111000000000000006c6c616d612e626c6f636b5f636f756e74040000000200"
        "0000010000000000000066060000000000003f01000000000000007409000000080000000200000000000000010000000000"
        "0000610300000000000000c4a06201000000000000006e0900000005000000020000000000000001000000feffffff010000"
        "0000000000770200000003000000000000000200000000000000000000000000000000000000010000000000000068010000"
        "00010000000000000001000000200000000000000000000000000000000000000000000000000000803f0000004000004040"
        "000080400000a0400000c0400000000000000000003c00000000000000000000000000000000000000000000000000000000"
        "0000");
    const Gguf gguf = Gguf::parse(image, "reference");
    EXPECT_EQ(gguf.version(), 3u);
    EXPECT_EQ(gguf.alignment(), 32u);
    EXPECT_EQ(gguf.require_string("general.architecture"), "llama");
    EXPECT_EQ(gguf.require_unsigned("llama.block_count"), 2u);
    EXPECT_EQ(gguf.require_float("f"), 0.5);
    EXPECT_EQ(gguf.require_strings("t"), (std::vector<std::string_view>{"a",
                                                                        "\xc4\xa0"
                                                                        "b"}));
    EXPECT_EQ(gguf.require_ints("n"), (std::vector<std::int64_t>{1, -2}));
    ASSERT_EQ(gguf.tensors().size(), 2u);
    const TensorInfo& matrix = gguf.require("w");
    EXPECT_EQ(matrix.type, GgmlType::f32);
    EXPECT_EQ(matrix.dims, 2u);
    EXPECT_EQ(matrix.shape, (std::array<std::uint64_t, 4>{3, 2, 1, 1}));
    EXPECT_EQ(matrix.rows(), 2u);
    EXPECT_EQ(matrix.elements(), 6u);
    EXPECT_EQ(matrix.offset, 288u);
    EXPECT_EQ(values<float>(matrix), (std::vector<float>{1, 2, 3, 4, 5, 6}));
    EXPECT_EQ(gguf.require("h").type, GgmlType::f16);
    EXPECT_EQ(values<std::uint16_t>(gguf.require("h")), std::vector<std::uint16_t>{0x3c00});
    EXPECT_EQ(gguf.tensor_bytes(), 26u);
}

TEST(Gguf, ReadsVersionTwo) {
    const Image image = GgufWriter(2).set("key", "value").tensor_f32("t", {2}, {1, 2}).bytes();
    const Gguf gguf = Gguf::parse(image, "v2");
    EXPECT_EQ(gguf.version(), 2u);
    EXPECT_EQ(gguf.require_string("key"), "value");
    EXPECT_EQ(values<float>(gguf.require("t")), (std::vector<float>{1, 2}));
}

TEST(Gguf, ReadsAFileWithNothingInIt) {
    const Gguf gguf = Gguf::parse(GgufWriter().bytes(), "nothing");
    EXPECT_TRUE(gguf.metadata().empty());
    EXPECT_TRUE(gguf.tensors().empty());
    EXPECT_EQ(gguf.find_unsigned("x"), std::nullopt);
    EXPECT_EQ(gguf.find("x"), nullptr);
}

template <class T>
class Integers : public testing::Test {};
using IntegerTypes = testing::Types<std::uint8_t, std::int8_t, std::uint16_t, std::int16_t, std::uint32_t,
                                    std::int32_t, std::uint64_t, std::int64_t>;
TYPED_TEST_SUITE(Integers, IntegerTypes);

TYPED_TEST(Integers, ConvertExactlyOrNotAtAll) {
    using Limits = std::numeric_limits<TypeParam>;
    const Image image = GgufWriter()
                            .set("most", Limits::max())
                            .set("least", Limits::min())
                            .set("some", std::vector<TypeParam>{Limits::min(), 5, Limits::max()})
                            .bytes();
    const Gguf gguf = Gguf::parse(image, "integers");
    EXPECT_EQ(gguf.require_unsigned("most"), static_cast<std::uint64_t>(Limits::max()));
    EXPECT_EQ(gguf.find_value("most")->type(), support::value_type_of<TypeParam>());
    if constexpr (Limits::is_signed) {
        expect_error([&] { (void)gguf.find_unsigned("least"); }, ErrorCode::corrupt,
                     {"'least'", "an unsigned integer", std::to_string(Limits::min())});
    } else {
        EXPECT_EQ(gguf.require_unsigned("least"), 0u);
    }
    EXPECT_EQ(gguf.require_signed("least"), static_cast<std::int64_t>(Limits::min()));
    if constexpr (std::is_same_v<TypeParam, std::uint64_t>) {
        expect_error([&] { (void)gguf.find_signed("most"); }, ErrorCode::corrupt,
                     {"'most'", "18446744073709551615"});
        expect_error([&] { (void)gguf.find_ints("some"); }, ErrorCode::corrupt, {"'some'", "array of 3 u64"});
    } else {
        EXPECT_EQ(gguf.require_ints("some"), (std::vector<std::int64_t>{Limits::min(), 5, Limits::max()}));
    }
}

TEST(Gguf, ReadsFloatsBoolsAndStrings) {
    const std::string awkward("a\0\xff\n", 4);
    const Image image = GgufWriter()
                            .set("f32", 0.1f)
                            .set("f64", 0.1)
                            .set("f32s", std::vector<float>{0.1f, -2})
                            .set("f64s", std::vector<double>{0.1})
                            .set("yes", true)
                            .set("no", false)
                            .set("bools", std::vector<bool>{true, false, true})
                            .set("empty", "")
                            .set("awkward", awkward)
                            .set("strings", std::vector<std::string>{"", awkward, "c"})
                            .bytes();
    const Gguf gguf = Gguf::parse(image, "values");
    EXPECT_EQ(gguf.require_float("f32"), static_cast<double>(0.1f));
    EXPECT_EQ(gguf.require_float("f64"), 0.1);
    EXPECT_EQ(gguf.require_floats("f32s"), (std::vector<double>{static_cast<double>(0.1f), -2}));
    EXPECT_EQ(gguf.require_floats("f64s"), std::vector<double>{0.1});
    EXPECT_TRUE(gguf.require_bool("yes"));
    EXPECT_FALSE(gguf.require_bool("no"));
    EXPECT_EQ(gguf.require_bools("bools"), (std::vector<bool>{true, false, true}));
    EXPECT_EQ(gguf.require_string("empty"), "");
    EXPECT_EQ(gguf.require_string("awkward"), awkward);
    EXPECT_EQ(gguf.require_strings("strings"), (std::vector<std::string_view>{"", awkward, "c"}));
    EXPECT_EQ(gguf.find_string("absent"), std::nullopt);
    EXPECT_EQ(gguf.find_bool("absent"), std::nullopt);
    EXPECT_EQ(gguf.find_floats("absent"), std::nullopt);
}

TEST(Gguf, AnEmptyArrayIsEmptyOfAnyType) {
    const Image image = GgufWriter().set("none", std::vector<std::int32_t>{}).bytes();
    const Gguf gguf = Gguf::parse(image, "empty");
    EXPECT_TRUE(gguf.require_ints("none").empty());
    EXPECT_TRUE(gguf.require_strings("none").empty());
    EXPECT_TRUE(gguf.require_floats("none").empty());
}

TEST(Gguf, ListsAllMetadataInTheOrderOfTheFile) {
    const Image image =
        GgufWriter().set("z", std::uint8_t{1}).set("a", "text").set("m", std::vector<float>{1, 2}).bytes();
    const Gguf gguf = Gguf::parse(image, "order");
    std::vector<std::pair<std::string, std::string>> seen;
    for (const auto& [key, value] : gguf.metadata()) seen.emplace_back(key, value.describe());
    const std::vector<std::pair<std::string, std::string>> expected{
        {"z", "u8 1"}, {"a", "string"}, {"m", "array of 2 f32"}};
    EXPECT_EQ(seen, expected);
}

TEST(Gguf, AWrongTypeIsNamedWithItsKey) {
    const Image image = GgufWriter()
                            .set("text", "9")
                            .set("float", 9.0f)
                            .set("yes", true)
                            .set("number", std::uint32_t{9})
                            .set("strings", std::vector<std::string>{"a"})
                            .bytes();
    const Gguf gguf = Gguf::parse(image, "model.gguf");
    const auto corrupt = [](auto action, std::initializer_list<std::string_view> words) {
        expect_error(action, ErrorCode::corrupt, words);
    };
    corrupt([&] { (void)gguf.require_unsigned("text"); },
            {"model.gguf", "'text'", "expected", "an unsigned integer", "found string"});
    corrupt([&] { (void)gguf.find_unsigned("float"); }, {"'float'", "an unsigned integer", "found f32"});
    corrupt([&] { (void)gguf.find_unsigned("yes"); }, {"'yes'", "an unsigned integer", "found bool"});
    corrupt([&] { (void)gguf.find_unsigned("strings"); }, {"'strings'", "found array of 1 string"});
    corrupt([&] { (void)gguf.find_float("number"); }, {"'number'", "a float", "found u32 9"});
    corrupt([&] { (void)gguf.find_bool("number"); }, {"'number'", "a bool", "found u32 9"});
    corrupt([&] { (void)gguf.find_string("number"); }, {"'number'", "a string", "found u32 9"});
    corrupt([&] { (void)gguf.find_strings("text"); }, {"'text'", "an array of strings", "found string"});
    corrupt([&] { (void)gguf.find_ints("strings"); },
            {"'strings'", "an array of integers", "array of 1 string"});
    corrupt([&] { (void)gguf.find_floats("number"); }, {"'number'", "an array of floats", "found u32 9"});
    corrupt([&] { (void)gguf.find_bools("yes"); }, {"'yes'", "an array of bools", "found bool"});
}

TEST(Gguf, AMissingKeyOrTensorIsNamed) {
    const Gguf gguf = Gguf::parse(GgufWriter().bytes(), "model.gguf");
    expect_error([&] { (void)gguf.require_unsigned("llama.block_count"); }, ErrorCode::corrupt,
                 {"model.gguf", "'llama.block_count'", "an unsigned integer", "no such key"});
    expect_error([&] { (void)gguf.require_strings("tokens"); }, ErrorCode::corrupt,
                 {"'tokens'", "an array of strings", "no such key"});
    expect_error([&] { (void)gguf.require("output.weight"); }, ErrorCode::corrupt,
                 {"model.gguf", "'output.weight'", "found none"});
}

// id, elements and bytes of a block, as the format's Python package lists them.
TEST(Gguf, BlockSizesAreThoseOfTheFormat) {
    const std::map<std::string_view, std::tuple<std::uint32_t, std::uint32_t, std::uint32_t>> expected{
        {"F32", {0, 1, 4}},         {"F16", {1, 1, 2}},         {"Q4_0", {2, 32, 18}},
        {"Q4_1", {3, 32, 20}},      {"Q5_0", {6, 32, 22}},      {"Q5_1", {7, 32, 24}},
        {"Q8_0", {8, 32, 34}},      {"Q8_1", {9, 32, 40}},      {"Q2_K", {10, 256, 84}},
        {"Q3_K", {11, 256, 110}},   {"Q4_K", {12, 256, 144}},   {"Q5_K", {13, 256, 176}},
        {"Q6_K", {14, 256, 210}},   {"Q8_K", {15, 256, 292}},   {"IQ2_XXS", {16, 256, 66}},
        {"IQ2_XS", {17, 256, 74}},  {"IQ3_XXS", {18, 256, 98}}, {"IQ1_S", {19, 256, 50}},
        {"IQ4_NL", {20, 32, 18}},   {"IQ3_S", {21, 256, 110}},  {"IQ2_S", {22, 256, 82}},
        {"IQ4_XS", {23, 256, 136}}, {"I8", {24, 1, 1}},         {"I16", {25, 1, 2}},
        {"I32", {26, 1, 4}},        {"I64", {27, 1, 8}},        {"F64", {28, 1, 8}},
        {"IQ1_M", {29, 256, 56}},   {"BF16", {30, 1, 2}},       {"TQ1_0", {34, 256, 54}},
        {"TQ2_0", {35, 256, 66}},   {"MXFP4", {39, 32, 17}},    {"NVFP4", {40, 64, 36}},
        {"Q1_0", {41, 128, 18}}};
    EXPECT_EQ(zse::io::ggml_types.size(), expected.size());
    for (const auto& entry : zse::io::ggml_types) {
        const auto found = expected.find(entry.name);
        ASSERT_NE(found, expected.end()) << entry.name;
        EXPECT_EQ(std::tuple(static_cast<std::uint32_t>(entry.type), entry.block_elements, entry.block_bytes),
                  found->second)
            << entry.name;
    }
    static_assert(zse::io::row_bytes(GgmlType::q4_1, 576) == 18 * 20);
    static_assert(!zse::io::row_bytes(GgmlType::q4_1, 577));
    static_assert(zse::io::name(GgmlType::q6_k) == "Q6_K");
}

TEST(Gguf, ATensorOfEachTypeIsAViewOfItsBytes) {
    GgufWriter writer;
    for (const auto& entry : zse::io::ggml_types) {
        writer.pattern(entry.name, entry.type, {2ull * entry.block_elements, 3, 1, 2});
    }
    const Image image = writer.bytes();
    const Gguf gguf = Gguf::parse(image, "types");
    ASSERT_EQ(gguf.tensors().size(), zse::io::ggml_types.size());
    for (std::size_t i = 0; i < gguf.tensors().size(); ++i) {
        const auto& entry = zse::io::ggml_types[i];
        const TensorInfo& tensor = gguf.tensors()[i];
        EXPECT_EQ(tensor.name, entry.name);
        EXPECT_EQ(gguf.find(entry.name), &tensor);
        EXPECT_EQ(tensor.type, entry.type);
        EXPECT_EQ(tensor.dims, 4u);
        EXPECT_EQ(tensor.shape, (std::array<std::uint64_t, 4>{2ull * entry.block_elements, 3, 1, 2}));
        ASSERT_EQ(tensor.bytes, 2u * entry.block_bytes * 6) << entry.name;
        ASSERT_EQ(tensor.data.size(), tensor.bytes);
        EXPECT_EQ(tensor.data.data(), image.data() + tensor.offset) << "copied";
        for (std::size_t at = 0; at < tensor.data.size(); ++at) {
            ASSERT_EQ(tensor.data[at], static_cast<std::byte>(at % 251)) << entry.name;
        }
    }
}

TEST(Gguf, HonoursTheAlignment) {
    for (const std::uint32_t alignment : {8u, 16u, 64u, 4096u}) {
        const Image image =
            GgufWriter(3, alignment).tensor_f32("a", {1}, {1}).tensor_f32("b", {3}, {2, 3, 4}).bytes();
        const Gguf gguf = Gguf::parse(image, "aligned");
        EXPECT_EQ(gguf.alignment(), alignment);
        EXPECT_EQ(gguf.require("b").offset % alignment, 0u);
        EXPECT_EQ(gguf.require("b").offset - gguf.require("a").offset, alignment);
        EXPECT_EQ(values<float>(gguf.require("b")), (std::vector<float>{2, 3, 4}));
    }
}

TEST(Gguf, StringsOfAnArrayStayInTheFile) {
    const Image image = GgufWriter().set("tokens", std::vector<std::string>(1000, "token")).bytes();
    const Gguf gguf = Gguf::parse(image, "views");
    for (const std::string_view token : gguf.require_strings("tokens")) {
        ASSERT_GE(token.data(), reinterpret_cast<const char*>(image.data()));
        ASSERT_LE(token.data() + token.size(), reinterpret_cast<const char*>(image.data() + image.size()));
    }
}

TEST(Gguf, OpensAFileAndMovesWithItsViews) {
    const TemporaryDirectory directory;
    GgufWriter().set("key", "value").tensor_f32("t", {2}, {1, 2}).write(directory / "m.gguf");
    Gguf first = Gguf::open(directory / "m.gguf");
    const std::string_view value = first.require_string("key");
    const auto data = first.require("t").data;
    Gguf second = std::move(first);
    const Gguf third(std::move(second));
    EXPECT_EQ(third.require_string("key").data(), value.data());
    EXPECT_EQ(value, "value");
    EXPECT_EQ(third.require("t").data.data(), data.data());
    ASSERT_EQ(third.files().size(), 1u);
    EXPECT_EQ(third.files()[0].path(), directory / "m.gguf");
    EXPECT_EQ(third.file_name(), (directory / "m.gguf").string());
    third.release(third.require("t"));
    EXPECT_EQ(values<float>(third.require("t")), (std::vector<float>{1, 2}));
}

TEST(Gguf, OpeningPassesTheErrorsOfTheFileOn) {
    const TemporaryDirectory directory;
    expect_error([&] { Gguf::open(directory / "absent.gguf"); }, ErrorCode::not_found, {"absent.gguf"});
    expect_error([&] { Gguf::open(directory.path()); }, ErrorCode::unreadable, {"found a directory"});
    GgufWriter::write_bytes(directory / "empty.gguf", {});
    expect_error([&] { Gguf::open(directory / "empty.gguf"); }, ErrorCode::corrupt, {"empty.gguf", "empty"});
}

}  // namespace

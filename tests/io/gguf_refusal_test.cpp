// SPDX-License-Identifier: Apache-2.0
// Broken GGUF files: each kind of damage has its own error, and none costs memory beyond the file's size.
#include <zse/io/gguf.hpp>

#include <support/counted_new.hpp>
#include <support/expect_error.hpp>
#include <support/gguf_writer.hpp>

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace {

using support::ByteSink;
using support::GgufWriter;
using zse::Error;
using zse::ErrorCode;
using zse::io::GgmlType;
using zse::io::Gguf;
using Image = std::vector<std::byte>;

constexpr std::uint64_t huge = ~std::uint64_t{0};
constexpr std::uint32_t array_id = 9;
constexpr std::uint32_t string_id = 8;

Image cut(Image image, std::size_t size) {
    image.resize(size);
    return image;
}

ByteSink array_head(std::uint32_t element, std::uint64_t count) {
    ByteSink sink;
    sink.put(element).put(count);
    return sink;
}

GgufWriter f32_tensor(std::string_view name, std::vector<std::uint64_t> shape) {
    return GgufWriter().tensor(name, GgmlType::f32, std::move(shape), Image(64));
}

struct Refusal {
    const char* name;
    Image image;
    ErrorCode code;
    std::vector<std::string> words;  // all of them stand in the message
};

std::vector<Refusal> refusals() {
    const auto corrupt = ErrorCode::corrupt;
    const auto unsupported = ErrorCode::unsupported;
    const Image whole = GgufWriter().set("key", "value").tensor_f32("weight", {4}, {1, 2, 3, 4}).bytes();
    std::vector<Refusal> list{
        {"Empty", {}, corrupt, {"header", "truncated", "4 bytes are needed at offset 0"}},
        {"HalfAMagic", cut(whole, 2), corrupt, {"header", "truncated", "2 are left"}},
        {"HalfAHeader",
         cut(whole, 20),
         corrupt,
         {"header", "truncated", "8 bytes are needed at offset 16, 4 are"}},
        {"WrongMagic",
         GgufWriter().claim_magic("GGML").bytes(),
         corrupt,
         {"begins with 'GGUF'", "found 'GGML'"}},
        {"BinaryMagic",
         GgufWriter()
             .claim_magic("\x7f"
                          "E\nF")
             .bytes(),
         corrupt,
         {"found '\\x7fE\\x0aF'"}},
        {"VersionZero",
         GgufWriter(0).bytes(),
         unsupported,
         {"expected GGUF version 2 or 3", "found version 0"}},
        {"VersionOne",
         GgufWriter(1).bytes(),
         unsupported,
         {"expected GGUF version 2 or 3", "found version 1;"}},
        {"VersionFour", GgufWriter(4).bytes(), unsupported, {"found version 4"}},
        {"BigEndian",
         GgufWriter(0x03000000).bytes(),
         unsupported,
         {"expected a little-endian", "big-endian"}},
        {"MetadataCount",
         GgufWriter().set("key", "value").claim_metadata(huge).bytes(),
         corrupt,
         {"claims 18446744073709551615 metadata entries", "room for at most"}},
        {"MetadataCountByOne",
         GgufWriter().set("key", "value").claim_metadata(2).bytes(),
         corrupt,
         {"metadata"}},
        {"TensorCount",
         GgufWriter().set("key", "value").claim_tensors(1ull << 40).bytes(),
         corrupt,
         {"claims 1099511627776 tensors", "room for at most"}},
        {"TensorCountByOne", f32_tensor("weight", {4}).claim_tensors(2).bytes(), corrupt, {"tensor 1"}},
        {"KeyBeyondFile",
         GgufWriter().raw(std::string_view("k\0", 1), 4, ByteSink().put(1u)).bytes(),
         corrupt,
         {}},
        {"EmptyKey",
         GgufWriter().set("", std::uint32_t{1}).bytes(),
         corrupt,
         {"metadata entry 0", "a key", "empty"}},
        {"LongKey",
         GgufWriter().set(std::string(65'536, 'k'), std::uint32_t{1}).bytes(),
         corrupt,
         {"metadata entry 0", "at most 65535 bytes", "found 65536"}},
        {"DuplicateKey",
         GgufWriter().set("a", "1").set("twin", "2").set("twin", std::uint8_t{3}).bytes(),
         corrupt,
         {"'twin' twice"}},
        {"ValueType",
         GgufWriter().raw("odd", 13, ByteSink().put(huge)).bytes(),
         corrupt,
         {"'odd'", "value type from 0 to 12", "found 13"}},
        {"StringBeyondFile",
         GgufWriter().raw("text", string_id, ByteSink().put(std::uint64_t{1000})).bytes(),
         corrupt,
         {"'text'", "claims 1000 bytes"}},
        {"StringOfHugeLength",
         GgufWriter().raw("text", string_id, ByteSink().put(huge)).bytes(),
         corrupt,
         {"'text'", "claims 18446744073709551615 bytes"}},
        {"BoolOfTwo",
         GgufWriter().raw("flag", 7, ByteSink().put(std::uint8_t{2})).bytes(),
         corrupt,
         {"'flag'", "a bool of 0 or 1", "found 2"}},
        {"BoolOfTwoInArray",
         GgufWriter()
             .raw("flags", array_id, array_head(7, 2).put(std::uint8_t{1}).put(std::uint8_t{9}))
             .bytes(),
         corrupt,
         {"'flags'", "found 9"}},
        {"ArrayElementType",
         GgufWriter().raw("list", array_id, array_head(77, 1).put(huge)).bytes(),
         corrupt,
         {"'list'", "found 77"}},
        {"ArrayCount",
         GgufWriter().raw("list", array_id, array_head(4, 1000)).bytes(),
         corrupt,
         {"'list'", "claims 1000 elements of at least 4 bytes"}},
        // 2^62 elements of 4 bytes: the product wraps to zero.
        {"ArrayCountThatWraps",
         GgufWriter().raw("list", array_id, array_head(4, 1ull << 62)).bytes(),
         corrupt,
         {"'list'", "claims 4611686018427387904 elements"}},
        {"StringArrayCount",
         GgufWriter().raw("list", array_id, array_head(string_id, huge)).bytes(),
         corrupt,
         {"'list'", "claims 18446744073709551615 elements"}},
        {"StringInArrayBeyondFile",
         GgufWriter()
             .raw("list", array_id, array_head(string_id, 2).string("a").put(std::uint64_t{500}))
             .bytes(),
         corrupt,
         {"'list'", "claims 500 bytes"}},
        {"NestedArray",
         GgufWriter().raw("list", array_id, array_head(array_id, 1).put(huge).put(huge)).bytes(),
         unsupported,
         {"'list'", "array of arrays"}},

        {"EmptyTensorName", f32_tensor("", {4}).bytes(), corrupt, {"tensor 0", "a tensor name", "empty"}},
        {"LongTensorName",
         f32_tensor(std::string(1025, 'n'), {4}).bytes(),
         corrupt,
         {"tensor 0", "at most 1024 bytes", "found 1025"}},
        {"DuplicateTensor",
         GgufWriter().tensor_f32("twin", {1}, {1}).tensor_f32("twin", {1}, {2}).bytes(),
         corrupt,
         {"tensor 'twin'", "twice"}},
        {"NoDimensions",
         f32_tensor("weight", {}).bytes(),
         corrupt,
         {"'weight'", "1 to 4 dimensions", "found 0"}},
        {"FiveDimensions",
         f32_tensor("weight", {1, 1, 1, 1, 1}).bytes(),
         corrupt,
         {"'weight'", "1 to 4 dimensions", "found 5"}},
        {"HugeDimensionCount",
         f32_tensor("weight", {4}).claim_dims(0xffffffffu).bytes(),
         corrupt,
         {"'weight'", "1 to 4 dimensions", "found 4294967295"}},
        {"ZeroSize", f32_tensor("weight", {4, 0, 2}).bytes(), corrupt, {"'weight'", "dimension 1 of size 0"}},
        // 2^32 * 2^32 elements: the product wraps to zero.
        {"ShapeThatWraps",
         f32_tensor("weight", {1ull << 32, 1ull << 32}).bytes(),
         corrupt,
         {"'weight'", "fewer than 2^63 elements", "4294967296 x 4294967296 x 1 x 1"}},
        {"ShapeOfHugeSize", f32_tensor("weight", {huge}).bytes(), corrupt, {"'weight'", "fewer than 2^63"}},
        // Elements fit into 64 bits, their bytes do not.
        {"BytesThatWrap",
         f32_tensor("weight", {1ull << 62}).bytes(),
         corrupt,
         {"'weight'", "inside the file"}},
        {"UnknownType",
         GgufWriter().tensor("weight", 999u, {4}, Image(64)).bytes(),
         unsupported,
         {"'weight'", "type id 999"}},
        {"WithdrawnType",
         GgufWriter().tensor("weight", 4u, {32}, Image(64)).bytes(),
         unsupported,
         {"'weight'", "type id 4"}},
        {"PartialBlock",
         GgufWriter().tensor("weight", GgmlType::q4_1, {33, 32}, Image(2000)).bytes(),
         corrupt,
         {"'weight'", "a multiple of 32 elements", "Q4_1", "rows of 33"}},
        {"PartialSuperBlock",
         GgufWriter().tensor("weight", GgmlType::q6_k, {128, 2}, Image(2000)).bytes(),
         corrupt,
         {"'weight'", "a multiple of 256 elements", "Q6_K", "rows of 128"}},
        {"MisalignedOffset",
         f32_tensor("weight", {4}).claim_offset(16).bytes(),
         corrupt,
         {"'weight'", "a multiple of the alignment 32", "found 16"}},
        {"OffsetBeyondFile",
         f32_tensor("weight", {4}).claim_offset(1ull << 40).bytes(),
         corrupt,
         {"'weight'", "inside the file"}},
        {"OffsetThatWraps",
         f32_tensor("weight", {4}).claim_offset(huge - 31).bytes(),
         corrupt,
         {"'weight'", "inside the file"}},
        {"DataOneByteShort",
         cut(whole, whole.size() - 1),
         corrupt,
         {"'weight'", "its 16 bytes", "inside the file"}},
        {"Overlap",
         GgufWriter()
             .tensor_f32("first", {9}, std::vector<float>(9))
             .tensor_f32("second", {1}, {1})
             .claim_offset(32)
             .bytes(),
         corrupt,
         {"tensor 'second'", "overlapping tensor 'first'"}},
        {"SamePlace",
         GgufWriter().tensor_f32("a", {1}, {1}).tensor_f32("b", {1}, {1}).claim_offset(0).bytes(),
         corrupt,
         {"overlapping tensor"}},
        {"PartOfASplitModel",
         GgufWriter().set("split.no", std::uint16_t{1}).set("split.count", std::uint16_t{3}).bytes(),
         ErrorCode::not_found,
         {"all 3 parts", "found 1"}},
    };
    for (const std::uint64_t alignment : {0ull, 1ull, 4ull, 24ull, 33ull, 1ull << 22, 1ull << 63}) {
        list.push_back({"Alignment",
                        GgufWriter().set("general.alignment", alignment).tensor_f32("t", {1}, {1}).bytes(),
                        corrupt,
                        {"'general.alignment'", "a power of two", "found u64 " + std::to_string(alignment)}});
    }
    list.push_back({"AlignmentType",
                    GgufWriter().set("general.alignment", "32").bytes(),
                    corrupt,
                    {"'general.alignment'", "found string"}});
    // A key whose length lies: the writer cannot say that, so the length is patched.
    for (Refusal& refusal : list) {
        if (std::string_view(refusal.name) != "KeyBeyondFile") continue;
        refusal.image[24 + 6] = std::byte{1};  // the key's length becomes 2^48 + 1
        refusal.words = {"metadata entry 0", "claims 281474976710657 bytes"};
    }
    return list;
}

TEST(GgufRefusal, EachDamageHasItsError) {
    for (const Refusal& refusal : refusals()) {
        SCOPED_TRACE(refusal.name);
        const std::size_t before = support::allocated_bytes;
        try {
            Gguf::parse(refusal.image, "model.gguf");
            ADD_FAILURE() << "no error";
        } catch (const Error& error) {
            const std::size_t used = support::allocated_bytes - before;
            const std::string message = error.what();
            EXPECT_EQ(zse::name(error.code()), zse::name(refusal.code)) << message;
            EXPECT_EQ(message.find("model.gguf: "), 0u) << message;
            for (const std::string& word : refusal.words) {
                EXPECT_NE(message.find(word), std::string::npos) << "'" << word << "' is not in: " << message;
            }
            for (const char character : message)
                EXPECT_TRUE(character >= 0x20 && character < 0x7f) << message;
            // A header entry is at least 14 bytes and becomes at most about 200; messages are a few hundred.
            EXPECT_LE(used, 8192 + 16 * refusal.image.size()) << message;
        }
    }
}

GgufWriter one_of_everything() {
    return GgufWriter(3, 64)
        .set("u8", std::uint8_t{1})
        .set("i64", std::int64_t{-1})
        .set("f32", 1.0f)
        .set("flag", true)
        .set("text", "text")
        .set("numbers", std::vector<std::uint16_t>{1, 2, 3})
        .set("strings", std::vector<std::string>{"a", "", "bc"})
        .pattern("matrix", GgmlType::q4_0, {64, 3})
        .pattern("vector", GgmlType::f32, {5});
}

TEST(GgufRefusal, TruncationIsFoundWhereverItIs) {
    const Image whole = one_of_everything().bytes();
    ASSERT_NO_THROW(Gguf::parse(whole, "whole"));
    for (std::size_t size = 0; size < whole.size(); ++size) {
        // A copy of exactly that size, so that the address sanitizer sees a read past its end.
        const Image part(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size));
        support::expect_error([&] { Gguf::parse(part, "model.gguf"); }, ErrorCode::corrupt, {"model.gguf"});
    }
}

TEST(GgufRefusal, NoSingleWrongByteDoesHarm) {
    const Image whole = one_of_everything().bytes();
    std::size_t refused = 0;
    for (std::size_t at = 0; at < whole.size(); ++at) {
        for (const int value : {0x00, 0x01, 0x7f, 0x80, 0xff}) {
            Image damaged = whole;
            damaged[at] = static_cast<std::byte>(value);
            const std::size_t before = support::allocated_bytes;
            try {
                const Gguf gguf = Gguf::parse(damaged, "model.gguf");
                std::size_t sum = 0;
                for (const auto& entry : gguf.metadata())
                    sum += entry.value.to_strings().value_or(std::vector<std::string_view>{}).size();
                for (const auto& tensor : gguf.tensors()) {
                    for (const std::byte byte : tensor.data) sum += std::to_integer<std::size_t>(byte);
                }
                EXPECT_LT(sum, std::size_t{1} << 20);
            } catch (const Error& error) {
                ++refused;
                EXPECT_TRUE(error.code() == ErrorCode::corrupt || error.code() == ErrorCode::unsupported)
                    << error.what();
            }
            EXPECT_LE(support::allocated_bytes - before, 8192 + 16 * whole.size());
        }
    }
    EXPECT_GT(refused, 500u);
}

TEST(GgufRefusal, LimitsThemselvesAreAccepted) {
    const Image image = GgufWriter()
                            .set(std::string(65'535, 'k'), std::uint32_t{7})
                            .tensor_f32(std::string(1024, 'n'), {1, 1, 1, 1}, {1})
                            .bytes();
    const Gguf gguf = Gguf::parse(image, "limits");
    EXPECT_EQ(gguf.require_unsigned(std::string(65'535, 'k')), 7u);
    EXPECT_NE(gguf.find(std::string(1024, 'n')), nullptr);
    for (const std::uint32_t alignment : {8u, 1u << 21}) {
        EXPECT_EQ(Gguf::parse(GgufWriter(3, alignment).bytes(), "a").alignment(), alignment);
    }
    // Merged models keep the split keys of their first part with a count of zero.
    const Image merged =
        GgufWriter().set("split.no", std::uint16_t{0}).set("split.count", std::uint16_t{0}).bytes();
    EXPECT_NO_THROW(Gguf::parse(merged, "merged"));
}

TEST(GgufRefusal, NamesFromTheFileAreEscapedInMessages) {
    const Image image = GgufWriter().raw("evil\n\x1b[2J", 13, ByteSink().put(huge)).bytes();
    support::expect_error([&] { Gguf::parse(image, "a\nb"); }, ErrorCode::corrupt,
                          {"a\\x0ab: metadata entry 0 'evil\\x0a\\x1b[2J'"});
}

}  // namespace

// SPDX-License-Identifier: Apache-2.0
// Split GGUF models: any part opens all, and parts that are missing or do not belong together are refused.
#include <zse/io/gguf.hpp>

#include <support/expect_error.hpp>
#include <support/gguf_writer.hpp>
#include <support/temporary_directory.hpp>

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace {

using support::expect_error;
using support::GgufWriter;
using support::TemporaryDirectory;
using zse::ErrorCode;
using zse::io::Gguf;
using Image = std::vector<std::byte>;

/// Part `number` (from 0) of three with one tensor, "t<number>", that holds its number; types of the keys as
/// ggml's tools write them.
GgufWriter part(unsigned number, unsigned count = 3, int tensors = 3) {
    GgufWriter writer;
    if (number == 0) writer.set("general.architecture", "llama").set("llama.block_count", std::uint32_t{7});
    writer.set("split.no", static_cast<std::uint16_t>(number))
        .set("split.count", static_cast<std::uint16_t>(count))
        .set("split.tensors.count", static_cast<std::int32_t>(tensors))
        .tensor_f32("t" + std::to_string(number), {1}, {static_cast<float>(number)});
    return writer;
}

void write_model(const TemporaryDirectory& directory) {
    part(0).write(directory / "m-00001-of-00003.gguf");
    part(1).write(directory / "m-00002-of-00003.gguf");
    part(2).write(directory / "m-00003-of-00003.gguf");
}

void expect_whole(const Gguf& gguf) {
    EXPECT_EQ(gguf.require_string("general.architecture"), "llama");
    EXPECT_EQ(gguf.require_unsigned("llama.block_count"), 7u);
    EXPECT_EQ(gguf.require_unsigned("split.no"), 0u);
    ASSERT_EQ(gguf.tensors().size(), 3u);
    for (std::size_t i = 0; i < 3; ++i) {
        const auto& tensor = gguf.tensors()[i];
        EXPECT_EQ(tensor.name, "t" + std::to_string(i));
        EXPECT_EQ(tensor.part, i);
        float value = -1;
        std::memcpy(&value, tensor.data.data(), sizeof value);
        EXPECT_EQ(value, static_cast<float>(i));
        EXPECT_EQ(gguf.find(tensor.name), &tensor);
    }
}

TEST(GgufSplit, AnyPartOpensTheModel) {
    const TemporaryDirectory directory;
    write_model(directory);
    for (const char* const name :
         {"m-00001-of-00003.gguf", "m-00002-of-00003.gguf", "m-00003-of-00003.gguf"}) {
        SCOPED_TRACE(name);
        const Gguf gguf = Gguf::open(directory / name);
        expect_whole(gguf);
        ASSERT_EQ(gguf.files().size(), 3u);
        EXPECT_EQ(gguf.files()[2].path(), directory / "m-00003-of-00003.gguf");
        for (const auto& tensor : gguf.tensors()) gguf.release(tensor);
        expect_whole(gguf);
    }
}

TEST(GgufSplit, OpensByARelativeName) {
    const TemporaryDirectory directory;
    write_model(directory);
    const auto before = std::filesystem::current_path();
    std::filesystem::current_path(directory.path());
    EXPECT_NO_THROW(expect_whole(Gguf::open("m-00002-of-00003.gguf")));
    std::filesystem::current_path(before);
}

TEST(GgufSplit, ReadsPartsFromMemory) {
    const std::vector<Image> images{part(0).bytes(), part(1).bytes(), part(2).bytes()};
    const std::vector<std::span<const std::byte>> spans(images.begin(), images.end());
    expect_whole(Gguf::parse_parts(spans, "m"));
    expect_error([&] { Gguf::parse_parts({}, "m"); }, ErrorCode::usage, {"at least one part"});
}

TEST(GgufSplit, OneOfOneIsAWholeModelUnderAnyName) {
    const TemporaryDirectory directory;
    part(0, 1, 1).write(directory / "anything.gguf");
    EXPECT_EQ(Gguf::open(directory / "anything.gguf").tensors().size(), 1u);
}

TEST(GgufSplit, AMissingPartIsNamed) {
    const TemporaryDirectory directory;
    write_model(directory);
    std::filesystem::remove(directory / "m-00002-of-00003.gguf");
    expect_error([&] { Gguf::open(directory / "m-00003-of-00003.gguf"); }, ErrorCode::not_found,
                 {"m-00002-of-00003.gguf", "part 2 of 3", "no such file"});
    std::filesystem::create_directory(directory / "m-00002-of-00003.gguf");
    expect_error([&] { Gguf::open(directory / "m-00003-of-00003.gguf"); }, ErrorCode::unreadable,
                 {"m-00002-of-00003.gguf", "directory"});
}

TEST(GgufSplit, ADamagedPartIsNamed) {
    const TemporaryDirectory directory;
    write_model(directory);
    part(1).claim_magic("HTML").write(directory / "m-00002-of-00003.gguf");
    expect_error([&] { Gguf::open(directory / "m-00001-of-00003.gguf"); }, ErrorCode::corrupt,
                 {"m-00002-of-00003.gguf", "'HTML'"});
}

TEST(GgufSplit, ANameThatDoesNotLeadToTheOthersIsRefused) {
    const TemporaryDirectory directory;
    for (const char* const name :
         {"m.gguf", "m-1-of-3.gguf", "m-00001-of-0000x.gguf", "m-00001-of-00003.bin"}) {
        part(0).write(directory / name);
        expect_error([&] { Gguf::open(directory / name); }, ErrorCode::not_found,
                     {name, "'name-00001-of-00003.gguf'", "part 1 of 3"});
    }
}

TEST(GgufSplit, ANameThatContradictsTheMetadataIsRefused) {
    const TemporaryDirectory directory;
    part(1).write(directory / "m-00001-of-00003.gguf");
    expect_error([&] { Gguf::open(directory / "m-00001-of-00003.gguf"); }, ErrorCode::corrupt,
                 {"part 1 of 3 by its name", "part 2 of 3 by its metadata"});
    part(0).write(directory / "m-00001-of-00004.gguf");
    expect_error([&] { Gguf::open(directory / "m-00001-of-00004.gguf"); }, ErrorCode::corrupt,
                 {"part 1 of 4 by its name", "part 1 of 3 by its metadata"});
}

TEST(GgufSplit, CountsAndNumbersAreChecked) {
    const auto refuse = [](const GgufWriter& writer, std::initializer_list<std::string_view> words) {
        const Image image = writer.bytes();
        expect_error([&] { Gguf::parse(image, "m"); }, ErrorCode::corrupt, words);
        const TemporaryDirectory directory;
        writer.write(directory / "m-00001-of-00003.gguf");
        expect_error([&] { Gguf::open(directory / "m-00001-of-00003.gguf"); }, ErrorCode::corrupt, words);
    };
    refuse(GgufWriter().set("split.count", std::uint32_t{4097}),
           {"'split.count' of at most 4096", "found 4097"});
    refuse(GgufWriter().set("split.count", std::uint64_t{1} << 63),
           {"'split.count'", "found 9223372036854775808"});
    refuse(GgufWriter().set("split.count", "3"), {"'split.count'", "an unsigned integer", "found string"});
    refuse(GgufWriter().set("split.count", std::int32_t{-3}), {"'split.count'", "found i32 -3"});

    const TemporaryDirectory directory;
    const auto path = directory / "m-00001-of-00003.gguf";
    GgufWriter().set("split.count", std::uint16_t{3}).write(path);
    expect_error([&] { Gguf::open(path); }, ErrorCode::corrupt,
                 {"'split.no'", "'split.count' of 3", "found none"});
    part(3).write(path);
    expect_error([&] { Gguf::open(path); }, ErrorCode::corrupt,
                 {"'split.no'", "'split.count' of 3", "found 3"});
}

/// The model with its second part replaced has to be refused with these words.
void refuse_second(const GgufWriter& second, std::initializer_list<std::string_view> words) {
    const TemporaryDirectory directory;
    write_model(directory);
    second.write(directory / "m-00002-of-00003.gguf");
    expect_error([&] { Gguf::open(directory / "m-00001-of-00003.gguf"); }, ErrorCode::corrupt, words);
}

TEST(GgufSplit, PartsHaveToAgree) {
    refuse_second(part(1, 2), {"m-00002-of-00003.gguf", "'split.count' 3", "found 2"});
    refuse_second(part(2), {"m-00002-of-00003.gguf", "'split.no' 1", "found 2"});
    refuse_second(part(1, 3, 4), {"m-00002-of-00003.gguf", "'split.tensors.count' 3", "found 4"});
    refuse_second(part(1).set("general.architecture", "gemma"),
                  {"m-00002-of-00003.gguf", "'general.architecture' 'llama'", "found 'gemma'"});
    refuse_second(GgufWriter().tensor_f32("t1", {1}, {1}),
                  {"m-00002-of-00003.gguf", "'split.count' 3", "found 1"});
    refuse_second(part(1).tensor_f32("extra", {1}, {1}), {"expected 3 tensors in its 3 parts", "found 4"});
}

TEST(GgufSplit, ATensorInTwoPartsIsRefused) {
    GgufWriter second;
    second.set("split.no", std::uint16_t{1}).set("split.count", std::uint16_t{3}).tensor_f32("t0", {1}, {5});
    refuse_second(second, {"m-00002-of-00003.gguf", "'t0'", "twice"});
}

TEST(GgufSplit, FileNamesAreReadAndWritten) {
    using zse::io::detail::parse_split_name;
    using zse::io::detail::split_file_name;
    EXPECT_EQ(split_file_name("a-b", 2, 31), "a-b-00002-of-00031.gguf");
    const auto name = parse_split_name("a-b-00002-of-00031.gguf");
    ASSERT_TRUE(name);
    EXPECT_EQ(name->stem, "a-b");
    EXPECT_EQ(name->number, 2u);
    EXPECT_EQ(name->count, 31u);
    EXPECT_TRUE(parse_split_name("-00001-of-00002.gguf"));
    EXPECT_FALSE(parse_split_name("00001-of-00002.gguf"));
    EXPECT_FALSE(parse_split_name("m-0000a-of-00002.gguf"));
    EXPECT_FALSE(parse_split_name("m-00001-of-00002.GGUF"));
}

}  // namespace

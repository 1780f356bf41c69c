// SPDX-License-Identifier: Apache-2.0
// Writes the first inputs of gguf_fuzz: small files with every feature of the format. gguf_corpus DIRECTORY
#include <support/gguf_writer.hpp>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <string>
#include <vector>

namespace {

using support::ByteSink;
using support::GgufWriter;
using zse::io::GgmlType;

GgufWriter all_values(std::uint32_t version) {
    GgufWriter writer(version);
    writer.set("u8", std::uint8_t{8}).set("i8", std::int8_t{-8}).set("u16", std::uint16_t{16});
    writer.set("i16", std::int16_t{-16}).set("u32", std::uint32_t{32}).set("i32", std::int32_t{-32});
    writer.set("u64", std::uint64_t{64}).set("i64", std::int64_t{-64}).set("f32", 0.5f).set("f64", 0.25);
    writer.set("yes", true).set("text", "text");
    return writer;
}

GgufWriter all_arrays() {
    GgufWriter writer;
    writer.set("u8s", std::vector<std::uint8_t>{1, 2}).set("i32s", std::vector<std::int32_t>{-1, 1});
    writer.set("u64s", std::vector<std::uint64_t>{1}).set("f32s", std::vector<float>{0, 1, 2});
    writer.set("f64s", std::vector<double>{0.5}).set("bools", std::vector<bool>{true, false});
    writer.set("strings", std::vector<std::string>{"a", "", "token"}).set("none", std::vector<float>{});
    return writer;
}

GgufWriter all_types() {
    GgufWriter writer;
    for (const auto& type : zse::io::ggml_types)
        writer.pattern(type.name, type.type, {type.block_elements, 2});
    return writer;
}

GgufWriter part(std::uint16_t number) {
    GgufWriter writer;
    if (number == 0) writer.set("general.architecture", "llama");
    writer.set("split.no", number)
        .set("split.count", std::uint16_t{2})
        .set("split.tensors.count", std::int32_t{2});
    return writer.tensor_f32("t" + std::to_string(number), {1}, {1});
}

std::vector<std::byte> two_parts() {
    const auto first = part(0).bytes();
    const auto second = part(1).bytes();
    ByteSink input;
    for (const char character : {'P', 'A', 'R', 'T', 'S'}) input.put(character);
    input.put(static_cast<std::uint16_t>(first.size())).put(first).put(second);
    return input.bytes();
}

void write_all(const std::filesystem::path& directory) {
    std::filesystem::create_directories(directory);
    all_values(2).write(directory / "values-v2");
    all_values(3).write(directory / "values-v3");
    all_arrays().write(directory / "arrays");
    all_types().write(directory / "types");
    GgufWriter().write(directory / "nothing");
    GgufWriter(3, 8)
        .tensor_f32("a", {1}, {1})
        .tensor_f32("b", {1, 2, 1, 1}, {1, 2})
        .write(directory / "aligned-8");
    GgufWriter(3, 64).pattern("m", GgmlType::q4_1, {32, 3, 2}).write(directory / "aligned-64");
    GgufWriter::write_bytes(directory / "parts", two_parts());
    part(1).write(directory / "part-alone");
    GgufWriter(0x03000000).set("key", "value").write(directory / "big-endian");
    GgufWriter()
        .raw("nested", 9, ByteSink().put(std::uint32_t{9}).put(std::uint64_t{1}))
        .write(directory / "nested");
    GgufWriter().set("twin", true).set("twin", true).write(directory / "duplicate-key");
    GgufWriter()
        .tensor_f32("a", {9}, std::vector<float>(9))
        .tensor_f32("b", {1}, {1})
        .claim_offset(32)
        .write(directory / "overlap");
}

}  // namespace

int main(int count, char** arguments) {
    if (count != 2) {
        std::fprintf(stderr, "usage: gguf_corpus DIRECTORY\n");
        return 2;
    }
    try {
        write_all(arguments[1]);
    } catch (const std::exception& error) {
        std::fprintf(stderr, "gguf_corpus: %s\n", error.what());
        return 1;
    }
    return 0;
}

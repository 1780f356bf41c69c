// SPDX-License-Identifier: Apache-2.0
// Model files that contradict themselves or are not known: each a sentence, none a crash.
// rows: 16
#include <gtest/gtest.h>
#include <support/expect_error.hpp>
#include <support/tiny_engine.hpp>

#include <tuple>

namespace {

using support::Tiny;
using support::TinySpec;
using zse::ErrorCode;

TEST(FromGguf, TheSpecIsTheWritersConfiguration) {
    const TinySpec wanted{
        .layers = 3, .hidden = 96, .heads = 6, .kv_heads = 3, .head_dim = 32, .ffn = 200, .context = 77};
    const Tiny tiny(wanted);
    EXPECT_EQ(tiny.spec.layers, 3u);
    EXPECT_EQ(tiny.spec.hidden, 96u);
    EXPECT_EQ(tiny.spec.heads, 6u);
    EXPECT_EQ(tiny.spec.kv_heads, 3u);
    EXPECT_EQ(tiny.spec.head_dim, 32u);
    EXPECT_EQ(tiny.spec.feed_forward, 200u);
    EXPECT_EQ(tiny.spec.trained_context, 77u);
    EXPECT_EQ(tiny.spec.vocabulary, wanted.vocab);
    EXPECT_FALSE(tiny.spec.tied_output);
    EXPECT_EQ(tiny.spec.run_count, 1u);
    EXPECT_EQ(tiny.spec.runs[0].count, 3u);
}

TEST(FromGguf, ParametersAreTheElementsOfTheFile) {
    for (const bool tied : {false, true}) {
        const Tiny tiny({.tied = tied, .rope_freqs = std::vector<float>(8, 1.0f)});
        std::uint64_t elements = 0;
        for (const auto& tensor : tiny.file.tensors()) elements += tensor.elements();
        EXPECT_EQ(tiny.spec.parameters(), elements);
    }
}

TEST(FromGguf, WeightsOfTheFileAreHeldToTheByte) {
    // Every width is a multiple of 64 bytes here, so that no tensor is padded.
    const Tiny tiny({.ffn = 128, .vocab = 288});
    EXPECT_EQ(zse::Engine<>::plan(tiny.spec, {.context = 16}).host[zse::memory::Kind::weights],
              tiny.file.tensor_bytes());
}

TEST(FromGguf, MissingTensorsAndKeysAreNamed) {
    for (const char* name : {"token_embd.weight", "output_norm.weight", "blk.0.attn_q.weight",
                             "blk.1.ffn_down.weight", "blk.1.attn_norm.weight"}) {
        support::expect_error([&] { std::ignore = Tiny(TinySpec{.without = {name}}).open({.context = 16}); },
                              ErrorCode::corrupt, {name});
    }
    for (const char* key :
         {"general.architecture", "llama.block_count", "llama.embedding_length", "llama.attention.head_count",
          "llama.context_length", "tokenizer.ggml.model", "tokenizer.ggml.tokens"}) {
        support::expect_error([&] { Tiny(TinySpec{.without = {key}}); }, ErrorCode::corrupt, {key});
    }
}

/// A tiny model whose metadata is set again, after what the writer set; refused for it.
void refuses(const std::function<void(support::GgufWriter&)>& change, const TinySpec& spec, ErrorCode code,
             std::initializer_list<std::string_view> words) {
    support::expect_error(
        [&] {
            auto writer = support::tiny_writer(spec);
            change(writer);
            const auto image = writer.bytes();
            const auto file = zse::io::Gguf::parse(image, "tiny.gguf");
            const auto found = zse::model::spec_from_gguf(file);
            zse::engine::vocabulary_from_gguf(file, found.vocabulary);
        },
        code, words);
}

TEST(FromGguf, ShapesThatMakeNoModelAreRefused) {
    const auto with = [](const char* key, auto value) {
        return [=](support::GgufWriter& w) { w.set(key, value); };
    };
    const auto without = [](const char* key) { return TinySpec{.without = {key}}; };
    refuses(with("general.architecture", "mamba"), without("general.architecture"), ErrorCode::unsupported,
            {"mamba", "llama"});
    refuses(with("llama.block_count", 0u), without("llama.block_count"), ErrorCode::corrupt, {"layers"});
    refuses(with("llama.block_count", 4'000'000'000u), without("llama.block_count"), ErrorCode::corrupt,
            {"block_count"});
    refuses(with("llama.block_count", 3u), without("llama.block_count"), ErrorCode::corrupt, {"blk.2."});
    refuses(with("llama.embedding_length", 128u), without("llama.embedding_length"), ErrorCode::corrupt,
            {"token_embd.weight"});
    refuses(with("llama.attention.head_count", 0u), without("llama.attention.head_count"), ErrorCode::corrupt,
            {"head_count"});
    refuses(with("llama.attention.head_count_kv", 3u), without("llama.attention.head_count_kv"),
            ErrorCode::corrupt, {"key heads"});
    refuses(with("llama.context_length", 0u), without("llama.context_length"), ErrorCode::corrupt,
            {"context"});
    refuses(with("llama.expert_count", 8u), {}, ErrorCode::unsupported, {"mixture"});
    refuses(with("llama.rope.scaling.type", "yarn"), {}, ErrorCode::unsupported, {"yarn"});
    refuses(with("tokenizer.ggml.model", "bert"), without("tokenizer.ggml.model"), ErrorCode::unsupported,
            {"bert"});
}

TEST(FromGguf, AVocabularyOfTheWrongSizeIsRefused) {
    refuses(
        [](support::GgufWriter& w) {
            w.set("tokenizer.ggml.tokens", std::vector<std::string>{"a", "b"});
        },
        TinySpec{.without = {"tokenizer.ggml.tokens", "tokenizer.ggml.merges", "tokenizer.ggml.token_type",
                             "tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id"}},
        ErrorCode::corrupt, {"2 tokens", "288"});
}

TEST(FromGguf, FormatsThatAreNotReadAreNamed) {
    auto writer = support::tiny_writer(TinySpec{.without = {"blk.0.attn_q.weight"}});
    writer.tensor("blk.0.attn_q.weight", static_cast<std::uint32_t>(zse::io::GgmlType::q5_0), {64, 64},
                  std::vector<std::byte>(64 * 2 * 22));
    const auto image = writer.bytes();
    const auto file = zse::io::Gguf::parse(image, "tiny.gguf");
    support::expect_error([&] { zse::model::spec_from_gguf(file); }, ErrorCode::unsupported,
                          {"blk.0.attn_q.weight", "Q5_0", "Q8_0"});
}

}  // namespace

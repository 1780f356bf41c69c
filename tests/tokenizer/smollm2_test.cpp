// SPDX-License-Identifier: Apache-2.0
// The ids of the demo model's real vocabulary against those that llama.cpp gives (make_references.py).
#include <zse/io/gguf.hpp>
#include <zse/tokenizer/tokenizer.hpp>

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace zse {
namespace {

using tokenizer::Tokenizer;
using Ids = std::vector<std::int32_t>;

std::filesystem::path model_path() {
    if (const char* path = std::getenv("ZSE_MODEL")) return path;
    const char* home = std::getenv("HOME");
    return std::filesystem::path(home == nullptr ? "" : home) /
           ".cache/zse/models/SmolLM2-135M-Instruct.Q4_1.gguf";
}

Tokenizer open_tokenizer() {
    const auto file = io::Gguf::open(model_path());
    tokenizer::VocabularyData data;
    data.model = file.require_string("tokenizer.ggml.model");
    data.pre = file.find_string("tokenizer.ggml.pre").value_or("");
    data.tokens = file.require_strings("tokenizer.ggml.tokens");
    data.merges = file.require_strings("tokenizer.ggml.merges");
    data.token_types = file.find_ints("tokenizer.ggml.token_type").value_or(std::vector<std::int64_t>{});
    data.bos = file.find_unsigned("tokenizer.ggml.bos_token_id");
    data.eos = file.find_unsigned("tokenizer.ggml.eos_token_id");
    data.unknown = file.find_unsigned("tokenizer.ggml.unknown_token_id");
    data.padding = file.find_unsigned("tokenizer.ggml.padding_token_id");
    data.add_bos = file.find_bool("tokenizer.ggml.add_bos_token");
    return Tokenizer(data);  // the file is closed here: the tokenizer keeps nothing of it
}

TEST(SmolLM2, IdsAreThoseOfLlamaCpp) {
    const Tokenizer tokenizer = open_tokenizer();
    std::ifstream file(ZSE_TEST_DATA "/tokenizer_smollm2.json");
    const auto cases = nlohmann::json::parse(file);
    ASSERT_GE(cases.size(), 70u);
    for (const auto& item : cases) {
        const auto text = item.at("text").get<std::string>();
        const bool parse = item.at("parse_special").get<bool>();
        const Ids ids = tokenizer.encode(text, {.parse_special = parse});
        EXPECT_EQ(ids, item.at("ids").get<Ids>()) << text << (parse ? "" : " (special tokens as text)");
    }
}

TEST(SmolLM2, TextComesBackButForBytesWithoutAToken) {
    const Tokenizer tokenizer = open_tokenizer();
    std::ifstream file(ZSE_TEST_DATA "/tokenizer_smollm2.json");
    for (const auto& item : nlohmann::json::parse(file)) {
        const auto text = item.at("text").get<std::string>();
        std::string kept;
        for (const char c : text) {
            if (tokenizer.vocabulary().byte_id(static_cast<std::uint8_t>(c)) >= 0) kept += c;
        }
        const auto ids = item.at("ids").get<Ids>();
        std::string bytes;
        for (const std::int32_t id : ids) bytes += tokenizer.token_bytes(id);
        EXPECT_EQ(bytes, kept);
        if (kept == text) {
            EXPECT_EQ(tokenizer.decode(ids, true), text);
        }
    }
}

TEST(SmolLM2, EveryTokenSpellsItself) {
    const Tokenizer tokenizer = open_tokenizer();
    ASSERT_EQ(tokenizer.vocabulary_size(), 49152u);
    for (std::int32_t id = 0; id < 49152; ++id) ASSERT_EQ(tokenizer.find(tokenizer.token_text(id)), id);
    EXPECT_EQ(tokenizer.special().bos, 1);
    EXPECT_EQ(tokenizer.special().eos, 2);
    std::vector<std::int32_t> ends;
    for (std::int32_t id = 0; id < 49152; ++id) {
        if (tokenizer.is_end_of_generation(id)) ends.push_back(id);
    }
    // <|endoftext|>, <|im_end|> and <reponame>, a separator of its training files: llama.cpp's list too.
    EXPECT_EQ(ends, (std::vector<std::int32_t>{0, 2, 4}));
    EXPECT_LT(tokenizer.bytes_held(), 4u << 20);
}

}  // namespace
}  // namespace zse

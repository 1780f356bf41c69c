// SPDX-License-Identifier: Apache-2.0
// The word-splitting expressions of byte-level tokenizers, under the names that GGUF files give them.
#pragma once

#include <zse/core/version.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace zse::inline v1 {
namespace tokenizer {

/// What a family of tokenizers does before merging.
struct PreTokenizerFamily {
    /// Applied one after the other, each to the pieces that the former left; empty ones do not count.
    /// In them \s is exactly the Unicode property White_Space.
    std::array<std::string_view, 6> expressions;
    /// A word that is a token as a whole is taken so, although merges might lead elsewhere.
    bool whole_words = false;
    /// Whether a text begins with BOS where the file does not say.
    bool add_bos = false;
};

namespace detail {

// Facts about published tokenizers (their tokenizer.json), as llama.cpp names and applies them. Two kinds of
// change: (?i:...) is spelled out in letters, because case-insensitive matching would let U+017F pass for
// an s, which neither does; and a whitespace run at the end is anchored at its start, which finds the
// same places in linear time.
#define ZSE_CONTRACTIONS "'(?:[sStTmMdD]|[rR][eE]|[vV][eE]|[lL][lL])"
#define ZSE_NEWLINES R"(\s*[\r\n]+|)"
#define ZSE_SPACES R"(\s+(?!\S)|\s+)"
#define ZSE_CASED_HEAD R"([^\r\n\p{L}\p{N}]?)"
#define ZSE_UPPER R"([\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}])"
#define ZSE_LOWER R"([\p{Ll}\p{Lm}\p{Lo}\p{M}])"
// Words that end where a capital begins, with an optional tail.
#define ZSE_CASED(tail) \
    ZSE_CASED_HEAD ZSE_UPPER "*" ZSE_LOWER "+" tail "|" ZSE_CASED_HEAD ZSE_UPPER "+" ZSE_LOWER "*" tail "|"
#define ZSE_PUNCTUATION R"( ?[^\s\p{L}\p{N}]+)"

inline constexpr std::string_view gpt2 =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

// The GPT-4 shape; families differ in how many digits go together.
#define ZSE_GPT4(digits)                                                        \
    ZSE_CONTRACTIONS R"(|[^\r\n\p{L}\p{N}]?\p{L}+|)" digits "|" ZSE_PUNCTUATION \
                     R"([\r\n]*|)" ZSE_NEWLINES ZSE_SPACES
inline constexpr std::string_view gpt4_triples = ZSE_GPT4(R"(\p{N}{1,3})");
inline constexpr std::string_view gpt4_digits = ZSE_GPT4(R"(\p{N})");
inline constexpr std::string_view gpt4_numbers = ZSE_GPT4(R"(\p{N}+)");
#undef ZSE_GPT4

// As above, with combining marks as part of words.
inline constexpr std::string_view qwen35 = ZSE_CONTRACTIONS
    R"(|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|)" ZSE_NEWLINES ZSE_SPACES;

inline constexpr std::string_view tekken =
    ZSE_CASED("") R"(\p{N}|)" ZSE_PUNCTUATION R"([\r\n/]*|)" ZSE_NEWLINES ZSE_SPACES;
inline constexpr std::string_view gpt4o =
    ZSE_CASED("(?:" ZSE_CONTRACTIONS ")?") R"(\p{N}{1,3}|)" ZSE_PUNCTUATION
                                           R"([\r\n/]*|)" ZSE_NEWLINES ZSE_SPACES;
inline constexpr std::string_view youtu_words =
    ZSE_CASED("(?:" ZSE_CONTRACTIONS ")?") R"(\p{N}|)" ZSE_PUNCTUATION R"([\r\n/]*|)" ZSE_NEWLINES ZSE_SPACES;
inline constexpr std::string_view youtu_scripts =
    R"([\x{AC00}-\x{D7A3}\x{3131}-\x{318E}]+|[\x{FF01}\x{2026}\x{201C}\x{201D}\x{2018}\x{2019}\x{2014})"
    R"(\x{FF1A}\x{FF1B}\x{FF0C}\x{3001}-\x{303F}\x{FE30}-\x{FE4F}]+|[\x{3105}-\x{312F}]+|)"
    R"([\x{4E00}-\x{9FA5}\x{3040}-\x{309F}\x{30A0}-\x{30FF}]+)";

inline constexpr std::string_view bailing =
    ZSE_CONTRACTIONS R"(|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|)" ZSE_SPACES;
inline constexpr std::string_view seed_coder =
    ZSE_CONTRACTIONS R"(|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}\r\n]+|)" ZSE_NEWLINES ZSE_SPACES;
inline constexpr std::string_view bloom =
    R"( ?[^(\s|.,!?\x{2026}\x{3002}\x{FF0C}\x{3001}\x{964}\x{6D4}\x{60C})]+)";

inline constexpr std::string_view deepseek3_words =
    R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+|)"
    R"( ?[\p{P}\p{S}]+[\r\n]*|)" ZSE_NEWLINES ZSE_SPACES;
inline constexpr std::string_view han_and_kana = R"([\x{4E00}-\x{9FA5}\x{3040}-\x{309F}\x{30A0}-\x{30FF}]+)";

// Letters of the scripts that have case, as listed by the tokenizer itself.
inline constexpr std::string_view deepseek_letters =
    R"(\s?[A-Za-z)"
    R"(\x{B5}\x{C0}-\x{D6}\x{D8}-\x{F6}\x{F8}-\x{1BA}\x{1BC}-\x{1BF}\x{1C4}-\x{293}\x{295}-\x{2AF})"
    R"(\x{370}-\x{373}\x{376}\x{377}\x{37B}-\x{37D}\x{37F}\x{386}\x{388}-\x{38A}\x{38C})"
    R"(\x{38E}-\x{3A1}\x{3A3}-\x{3F5}\x{3F7}-\x{481}\x{48A}-\x{52F}\x{531}-\x{556}\x{10A0}-\x{10C5})"
    R"(\x{13A0}-\x{13F5}\x{13F8}-\x{13FD}\x{1C90}-\x{1CBA}\x{1CBD}-\x{1CBF}\x{1D00}-\x{1D2B})"
    R"(\x{1D6B}-\x{1D77}\x{1D79}-\x{1D9A}\x{1E00}-\x{1F15}\x{1F18}-\x{1F1D}\x{1F20}-\x{1F45})"
    R"(\x{1F48}-\x{1F4D}\x{1F50}-\x{1F57}\x{1F59}\x{1F5B}\x{1F5D}\x{1F5F}-\x{1F7D}\x{1F80}-\x{1FB4})"
    R"(\x{1FB6}-\x{1FBC}\x{1FBE}\x{1FC2}-\x{1FC4}\x{1FC6}-\x{1FCC}\x{1FD0}-\x{1FD3})"
    R"(\x{1FD6}-\x{1FDB}\x{1FE0}-\x{1FEC}\x{1FF2}-\x{1FF4}\x{1FF6}-\x{1FFC}\x{2102}\x{2107})"
    R"(\x{210A}-\x{2113}\x{2115}\x{2119}-\x{211D}\x{2124}\x{2126}\x{2128}\x{212A}-\x{212D})"
    R"(\x{212F}-\x{2134}\x{2139}\x{213C}-\x{213F}\x{2145}-\x{2149}\x{214E}\x{2183}\x{2184})"
    R"(\x{2C00}-\x{2C7B}\x{2C7E}-\x{2CE4}\x{2CEB}-\x{2CEE}\x{2CF2}\x{2CF3}\x{A640}-\x{A66D})"
    R"(\x{A680}-\x{A69B}\x{A722}-\x{A76F}\x{A771}-\x{A787}\x{A78B}-\x{A78E}\x{AB70}-\x{ABBF})"
    R"(\x{FB00}-\x{FB06}\x{FB13}-\x{FB17}\x{FF21}-\x{FF3A}\x{FF41}-\x{FF5A}\x{10400}-\x{1044F})"
    R"(\x{104B0}-\x{104D3}\x{104D8}-\x{104FB}\x{10C80}-\x{10CB2}\x{10CC0}-\x{10CF2})"
    R"(\x{118A0}-\x{118DF}\x{1E900}-\x{1E943})"
    R"(]+)";
inline constexpr std::string_view deepseek_punctuation =
    R"(\s?[!-/:-~\x{FF01}-\x{FF0F}\x{FF1A}-\x{FF5E}\x{2018}-\x{201F}\x{3000}-\x{3002}]+)";
inline constexpr std::string_view east_asian = R"([\x{4E00}-\x{9FA5}\x{800}-\x{4E00}\x{AC00}-\x{D7FF}]+)";
inline constexpr std::string_view trailing_spaces = R"((?<!\s)\s++\z)";
inline constexpr std::string_view digit_triples = "[0-9][0-9][0-9]";

#undef ZSE_CONTRACTIONS
#undef ZSE_NEWLINES
#undef ZSE_SPACES
#undef ZSE_CASED_HEAD
#undef ZSE_UPPER
#undef ZSE_LOWER
#undef ZSE_CASED
#undef ZSE_PUNCTUATION

inline constexpr PreTokenizerFamily default_family{
    {R"([\p{P}\$\+<=>\^~\|]+)", gpt2, R"(\p{N}+)", digit_triples}};
inline constexpr PreTokenizerFamily gpt2_family{{gpt2}};
inline constexpr PreTokenizerFamily single_digits_family{{R"(\p{N})", gpt2}};
inline constexpr PreTokenizerFamily falcon_family{{R"([\p{P}\$\+<=>\^~\|`]+)", gpt2, digit_triples}};
inline constexpr PreTokenizerFamily llama3_family{{gpt4_triples}, true, true};
inline constexpr PreTokenizerFamily triples_family{{gpt4_triples}};
inline constexpr PreTokenizerFamily qwen2_family{{gpt4_digits}};
inline constexpr PreTokenizerFamily qwen35_family{{qwen35}};
inline constexpr PreTokenizerFamily minicpm5_family{{R"(\p{N}{1,3})", gpt4_numbers}, true};
inline constexpr PreTokenizerFamily deepseek_llm_family{
    {R"([\r\n])", deepseek_letters, deepseek_punctuation, trailing_spaces, east_asian, R"(\p{N}+)"}};
inline constexpr PreTokenizerFamily deepseek_coder_family{
    {R"([\r\n])", R"(\s?\p{L}+)", R"(\s?\p{P}+)", east_asian, R"(\p{N})"}};
inline constexpr PreTokenizerFamily deepseek3_family{{R"(\p{N}{1,3})", han_and_kana, deepseek3_words}};
inline constexpr PreTokenizerFamily youtu_family{{youtu_scripts, youtu_words}, true};
inline constexpr PreTokenizerFamily tekken_family{{tekken}, true, true};
inline constexpr PreTokenizerFamily gpt4o_family{{gpt4o}};
inline constexpr PreTokenizerFamily bailing_family{{bailing}};
inline constexpr PreTokenizerFamily seed_coder_family{{seed_coder}};
inline constexpr PreTokenizerFamily bloom_family{{bloom}};
inline constexpr PreTokenizerFamily viking_family{{bloom, R"(\p{N})"}};

}  // namespace detail

/// A name in `tokenizer.ggml.pre` and the family it means.
struct NamedPreTokenizer {
    std::string_view name;
    const PreTokenizerFamily* family;
};

/// All names known. "default" is what llama.cpp takes for files that name none.
inline constexpr std::array named_pre_tokenizers{
    NamedPreTokenizer{"default", &detail::default_family},
    NamedPreTokenizer{"gpt-2", &detail::gpt2_family},
    NamedPreTokenizer{"phi-2", &detail::gpt2_family},
    NamedPreTokenizer{"mpt", &detail::gpt2_family},
    NamedPreTokenizer{"olmo", &detail::gpt2_family},
    NamedPreTokenizer{"jais", &detail::gpt2_family},
    NamedPreTokenizer{"trillion", &detail::gpt2_family},
    NamedPreTokenizer{"granite-docling", &detail::gpt2_family},
    NamedPreTokenizer{"exaone4", &detail::gpt2_family},
    NamedPreTokenizer{"jina-es", &detail::gpt2_family},
    NamedPreTokenizer{"jina-de", &detail::gpt2_family},
    NamedPreTokenizer{"jina-v2-es", &detail::gpt2_family},
    NamedPreTokenizer{"jina-v2-de", &detail::gpt2_family},
    NamedPreTokenizer{"gigachat", &detail::gpt2_family},
    NamedPreTokenizer{"a.x-4.0", &detail::gpt2_family},
    NamedPreTokenizer{"mellum", &detail::gpt2_family},
    NamedPreTokenizer{"modern-bert", &detail::gpt2_family},
    NamedPreTokenizer{"smollm", &detail::single_digits_family},
    NamedPreTokenizer{"starcoder", &detail::single_digits_family},
    NamedPreTokenizer{"refact", &detail::single_digits_family},
    NamedPreTokenizer{"command-r", &detail::single_digits_family},
    NamedPreTokenizer{"codeshell", &detail::single_digits_family},
    NamedPreTokenizer{"exaone", &detail::single_digits_family},
    NamedPreTokenizer{"minerva-7b", &detail::single_digits_family},
    NamedPreTokenizer{"mellum2", &detail::single_digits_family},
    NamedPreTokenizer{"falcon", &detail::falcon_family},
    NamedPreTokenizer{"llama-bpe", &detail::llama3_family},
    NamedPreTokenizer{"llama3", &detail::llama3_family},
    NamedPreTokenizer{"llama-v3", &detail::llama3_family},
    NamedPreTokenizer{"falcon3", &detail::llama3_family},
    NamedPreTokenizer{"falcon-h1", &detail::llama3_family},
    NamedPreTokenizer{"pixtral", &detail::llama3_family},
    NamedPreTokenizer{"midm-2.0", &detail::llama3_family},
    NamedPreTokenizer{"lfm2", &detail::llama3_family},
    NamedPreTokenizer{"jina-v5-nano", &detail::llama3_family},
    NamedPreTokenizer{"dbrx", &detail::triples_family},
    NamedPreTokenizer{"smaug-bpe", &detail::triples_family},
    NamedPreTokenizer{"glm4", &detail::triples_family},
    NamedPreTokenizer{"chatglm-bpe", &detail::triples_family},
    NamedPreTokenizer{"qwen2", &detail::qwen2_family},
    NamedPreTokenizer{"deepseek-r1-qwen", &detail::qwen2_family},
    NamedPreTokenizer{"kormo", &detail::qwen2_family},
    NamedPreTokenizer{"f2llmv2", &detail::qwen2_family},
    NamedPreTokenizer{"megrez", &detail::qwen2_family},
    NamedPreTokenizer{"stablelm2", &detail::qwen2_family},
    NamedPreTokenizer{"hunyuan", &detail::qwen2_family},
    NamedPreTokenizer{"solar-open", &detail::qwen2_family},
    NamedPreTokenizer{"grok-2", &detail::qwen2_family},
    NamedPreTokenizer{"qwen35", &detail::qwen35_family},
    NamedPreTokenizer{"minicpm5", &detail::minicpm5_family},
    NamedPreTokenizer{"deepseek-llm", &detail::deepseek_llm_family},
    NamedPreTokenizer{"deepseek-coder", &detail::deepseek_coder_family},
    NamedPreTokenizer{"deepseek-v3", &detail::deepseek3_family},
    NamedPreTokenizer{"hunyuan-dense", &detail::deepseek3_family},
    NamedPreTokenizer{"joyai-llm", &detail::deepseek3_family},
    NamedPreTokenizer{"youtu", &detail::youtu_family},
    NamedPreTokenizer{"tekken", &detail::tekken_family},
    NamedPreTokenizer{"gpt-4o", &detail::gpt4o_family},
    NamedPreTokenizer{"llama4", &detail::gpt4o_family},
    NamedPreTokenizer{"kanana2", &detail::gpt4o_family},
    NamedPreTokenizer{"minimax-m2", &detail::gpt4o_family},
    NamedPreTokenizer{"bailingmoe", &detail::bailing_family},
    NamedPreTokenizer{"bailingmoe2", &detail::bailing_family},
    NamedPreTokenizer{"llada-moe", &detail::bailing_family},
    NamedPreTokenizer{"seed-coder", &detail::seed_coder_family},
    NamedPreTokenizer{"poro-chat", &detail::bloom_family},
    NamedPreTokenizer{"bloom", &detail::bloom_family},
    NamedPreTokenizer{"gpt3-finnish", &detail::bloom_family},
    NamedPreTokenizer{"viking", &detail::viking_family},
};

}  // namespace tokenizer
}  // namespace zse::inline v1

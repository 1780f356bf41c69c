// SPDX-License-Identifier: Apache-2.0
// Arbitrary bytes through every pre-tokenizer, the merges, both decoders, and the vocabulary's checks.
#include <support/tiny_vocabulary.hpp>
#include <zse/tokenizer/tokenizer.hpp>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace {

using zse::test::TinyVocabulary;
using zse::tokenizer::Tokenizer;

void require(bool holds) {
    if (!holds) std::abort();
}

const Tokenizer& tokenizer_of(std::size_t family) {
    static std::array<std::unique_ptr<Tokenizer>, zse::tokenizer::named_pre_tokenizers.size()> made;
    auto& one = made[family % made.size()];
    if (!one) {
        TinyVocabulary tiny(zse::tokenizer::named_pre_tokenizers[family % made.size()].name);
        one = std::make_unique<Tokenizer>(tiny.data());
    }
    return *one;
}

void encode(const Tokenizer& tokenizer, std::string_view text, bool parse) {
    const bool valid = zse::tokenizer::find_invalid_utf8(text) == std::string_view::npos;
    try {
        const auto ids = tokenizer.encode(text, {.add_special = false, .parse_special = parse});
        require(valid && tokenizer.decode(ids, true) == text);
    } catch (const zse::Error& error) {
        require(!valid && error.code() == zse::ErrorCode::invalid_input);
    }
}

void decode(const Tokenizer& tokenizer, std::string_view bytes, bool show) {
    std::vector<std::int32_t> ids;
    for (std::size_t i = 0; i + 1 < bytes.size(); i += 2) {
        const auto wide = static_cast<std::uint32_t>(static_cast<std::uint8_t>(bytes[i]) |
                                                     (static_cast<std::uint8_t>(bytes[i + 1]) << 8));
        ids.push_back(static_cast<std::int32_t>(wide % tokenizer.vocabulary_size()));
    }
    auto decoder = tokenizer.stream_decoder(show);
    std::string streamed;
    for (const std::int32_t id : ids) {
        const std::string_view piece = decoder.push(id);
        require(zse::tokenizer::find_invalid_utf8(piece) == std::string_view::npos);
        streamed += piece;
    }
    streamed += decoder.flush();
    require(streamed == tokenizer.decode(ids, show));
}

/// Lines become tokens, types and merges of a vocabulary, which is refused or works.
void build(std::string_view bytes) {
    TinyVocabulary tiny;
    auto& data = tiny.data();
    std::deque<std::string> lines;
    while (!bytes.empty()) {
        const auto kind = static_cast<std::uint8_t>(bytes.front());
        const std::size_t end = std::min(bytes.find('\n'), bytes.size());
        const std::string_view line = lines.emplace_back(bytes.substr(1, end == 0 ? 0 : end - 1));
        bytes.remove_prefix(std::min(end + 1, bytes.size()));
        switch (kind % 16) {
            case 0: data.merges.push_back(line); break;
            case 1: tiny.add_merge(line.substr(0, line.size() / 2), line.substr(line.size() / 2)); break;
            case 2: data.bos = line.size() * 40; break;
            case 3: data.eos = line.size() * 40; break;
            case 4: data.add_bos = !line.empty(); break;
            case 5: data.pre = line; break;
            case 6: data.tokens[line.size() % 256] = line; break;
            case 7: data.token_types.pop_back(); break;
            default: tiny.add_token(std::string(line), kind % 8); break;
        }
    }
    try {
        const Tokenizer tokenizer(data);
        for (const std::string& line : lines) {
            if (zse::tokenizer::find_invalid_utf8(line) == std::string_view::npos) {
                const auto ids = tokenizer.encode(line);
                (void)tokenizer.decode(ids);
            }
            if (const auto id = tokenizer.find(line)) require(tokenizer.token_text(*id) == line);
        }
        for (std::size_t i = 0; i < tokenizer.vocabulary_size(); ++i) {
            require(tokenizer.token_text(static_cast<std::int32_t>(i)) == data.tokens[i]);
        }
    } catch (const zse::Error&) {
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size < 2) return 0;
    const std::string_view rest(reinterpret_cast<const char*>(data) + 2, size - 2);
    const bool flag = (data[0] & 0x80) != 0;
    switch (data[0] % 3) {
        case 0: encode(tokenizer_of(data[1]), rest, flag); break;
        case 1: decode(tokenizer_of(data[1]), rest, flag); break;
        default: build(rest); break;
    }
    return 0;
}

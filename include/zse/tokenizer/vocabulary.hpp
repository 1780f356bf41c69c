// SPDX-License-Identifier: Apache-2.0
// The tokens of a byte-level vocabulary: bytes, types and special ids, each byte string held once.
#pragma once

#include <zse/core/error.hpp>
#include <zse/tokenizer/byte_level.hpp>
#include <zse/tokenizer/flat_map.hpp>
#include <zse/tokenizer/vocabulary_data.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory_resource>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace zse::inline v1 {
namespace tokenizer {

/// Immutable after construction; every const function may be called from several threads at once.
class Vocabulary {
public:
    /// No model has more; ids also stay far inside 32 bits.
    static constexpr std::size_t most_tokens = std::size_t{1} << 24;

    /// Copies the tokens out of `data`. Throws Error(corrupt) for no or too many tokens, types that do not
    /// match, two tokens with one text, and special ids out of range. An empty token is kept, and is
    /// never found in a text.
    explicit Vocabulary(const VocabularyData& data,
                        std::pmr::memory_resource* memory = std::pmr::get_default_resource());

    /// Memory that the tables of such a vocabulary take, in bytes, at most.
    static std::size_t footprint(const VocabularyData& data) noexcept {
        std::size_t text = 0;
        for (const std::string_view token : data.tokens) text += token.size();
        const std::size_t count = data.tokens.size();
        return text + 1 + count * (sizeof(std::uint32_t) + 1) +
               detail::slots_for(count) * sizeof(std::int32_t) + 4 * alignof(std::max_align_t);
    }

    [[nodiscard]] std::size_t size() const noexcept { return flags_.size(); }
    [[nodiscard]] const SpecialIds& special() const noexcept { return special_; }

    /// The bytes that a token stands for. Throws Error(invalid_input) for an id out of range, as the
    /// other functions that take an id do.
    [[nodiscard]] std::string_view bytes(std::int32_t id) const {
        check(id);
        return view(static_cast<std::size_t>(id));
    }
    /// The token as the file spells it.
    [[nodiscard]] std::string text(std::int32_t id) const;
    [[nodiscard]] TokenType type(std::int32_t id) const {
        check(id);
        return type_at(static_cast<std::size_t>(id));
    }
    /// Whether decoding leaves the token out unless special tokens are asked for.
    [[nodiscard]] bool hidden(std::int32_t id) const {
        const TokenType kind = type(id);
        return kind == TokenType::control || kind == TokenType::unknown;
    }
    /// Whether a generation ends with this token: the file's eos, eot and eom, and the added tokens that
    /// are known to end a turn.
    [[nodiscard]] bool is_end_of_generation(std::int32_t id) const {
        check(id);
        return (flags_[static_cast<std::size_t>(id)] & ends_bit) != 0;
    }

    /// The token that the file spells so.
    [[nodiscard]] std::optional<std::int32_t> find(std::string_view text) const;
    /// The ordinary token that stands for exactly these bytes; -1 where there is none.
    [[nodiscard]] std::int32_t find_bytes(std::string_view bytes) const noexcept {
        return lookup(detail::Spelling::byte_level, bytes);
    }
    /// The token of one byte, -1 where the vocabulary lacks it (bytes that UTF-8 never uses, usually).
    [[nodiscard]] std::int32_t byte_id(std::uint8_t byte) const noexcept { return byte_ids_[byte]; }
    [[nodiscard]] std::size_t longest_token() const noexcept { return longest_; }

    /// Memory held, in bytes.
    [[nodiscard]] std::size_t bytes_held() const noexcept {
        return bytes_.capacity() + (ends_.capacity() + index_.capacity()) * 4 + flags_.capacity();
    }

private:
    using Spelling = detail::Spelling;
    static constexpr std::uint8_t type_mask = 0x07;
    static constexpr unsigned spelling_shift = 3;
    static constexpr std::uint8_t ends_bit = 0x20;

    void check(std::int32_t id) const {
        if (id < 0 || static_cast<std::size_t>(id) >= flags_.size()) {
            throw Error(ErrorCode::invalid_input,
                        zse::text("token id ", id, " is not one of this vocabulary's ", flags_.size(),
                                  "; ids start at 0"));
        }
    }
    [[nodiscard]] TokenType type_at(std::size_t i) const noexcept {
        return static_cast<TokenType>(flags_[i] & type_mask);
    }
    [[nodiscard]] Spelling spelling_at(std::size_t i) const noexcept {
        return static_cast<Spelling>((flags_[i] >> spelling_shift) & 3u);
    }
    [[nodiscard]] std::string_view view(std::size_t i) const noexcept {
        const std::size_t begin = i == 0 ? 0 : ends_[i - 1];
        return std::string_view(bytes_).substr(begin, ends_[i] - begin);
    }

    [[nodiscard]] std::size_t slot(Spelling spelling, std::string_view bytes) const noexcept;
    [[nodiscard]] std::int32_t lookup(Spelling spelling, std::string_view bytes) const noexcept {
        return index_[slot(spelling, bytes)];
    }
    void add(std::string_view text, TokenType type);
    [[nodiscard]] std::int32_t checked(std::optional<std::uint64_t> id, std::string_view name) const;
    void mark_endings(bool types_known);

    std::pmr::string bytes_;                // of all tokens, one after the other
    std::pmr::vector<std::uint32_t> ends_;  // of each token in bytes_
    std::pmr::vector<std::uint8_t> flags_;  // type, spelling, whether it ends a generation
    std::pmr::vector<std::int32_t> index_;  // open addressing by (spelling, bytes); -1: free
    std::uint64_t seed_;
    std::array<std::int32_t, 256> byte_ids_{};
    SpecialIds special_;
    std::size_t longest_ = 0;
};

inline Vocabulary::Vocabulary(const VocabularyData& data, std::pmr::memory_resource* memory)
    : bytes_(memory), ends_(memory), flags_(memory), index_(memory), seed_(detail::random_seed()) {
    const std::size_t count = data.tokens.size();
    if (count == 0 || count > most_tokens) {
        throw Error(ErrorCode::corrupt, zse::text("expected 1 to ", most_tokens, " tokens, found ", count,
                                                  "; the file's token list is damaged"));
    }
    if (!data.token_types.empty() && data.token_types.size() != count) {
        throw Error(ErrorCode::corrupt,
                    zse::text("expected one type for each of ", count, " tokens, found ",
                              data.token_types.size(), "; the file's token lists disagree"));
    }
    std::uint64_t total = 0;
    for (const std::string_view token : data.tokens) total += token.size();
    if (total > std::numeric_limits<std::uint32_t>::max()) {
        throw Error(ErrorCode::corrupt, zse::text("expected under 4 GiB of token text, found ", total,
                                                  " bytes; the file's token list is damaged"));
    }
    bytes_.reserve(total);
    ends_.reserve(count);
    flags_.reserve(count);
    index_.assign(detail::slots_for(count), -1);
    for (std::size_t i = 0; i < count; ++i) {
        const std::int64_t type = data.token_types.empty() ? 1 : data.token_types[i];
        if (type < 0 || type > 6) {
            throw Error(ErrorCode::corrupt, zse::text("expected a token type from 0 to 6, found ", type,
                                                      " for token ", i, "; the file is damaged"));
        }
        add(data.tokens[i], static_cast<TokenType>(type));
    }

    std::string spelled;
    for (unsigned byte = 0; byte < 256; ++byte) {
        spelled.clear();
        const char value = static_cast<char>(byte);
        append_byte_level(spelled, std::string_view(&value, 1));
        byte_ids_[byte] = find(spelled).value_or(-1);
    }
    special_.bos = checked(data.bos, "bos");
    special_.eos = checked(data.eos, "eos");
    special_.eot = checked(data.eot, "eot");
    special_.eom = checked(data.eom, "eom");
    special_.unknown = checked(data.unknown, "unknown");
    special_.padding = checked(data.padding, "padding");
    mark_endings(!data.token_types.empty());
}

inline void Vocabulary::add(std::string_view text, TokenType type) {
    const std::size_t id = flags_.size();
    if (!text.empty() && find(text)) {
        throw Error(ErrorCode::corrupt,
                    zse::text("expected distinct tokens, found token ", id, " spelled as token ", *find(text),
                              "; convert the model again with distinct names"));
    }
    const std::size_t begin = bytes_.size();
    Spelling spelling = Spelling::verbatim;
    if (type == TokenType::byte && detail::hex_byte(text)) {
        spelling = Spelling::hex;
        bytes_ += static_cast<char>(*detail::hex_byte(text));
    } else if (type == TokenType::normal || type == TokenType::undefined || type == TokenType::unused) {
        if (append_spelled_bytes(bytes_, text)) {
            spelling = Spelling::byte_level;
        } else {
            bytes_.resize(begin);
        }
    }
    if (spelling == Spelling::verbatim) bytes_ += text;

    ends_.push_back(static_cast<std::uint32_t>(bytes_.size()));
    flags_.push_back(static_cast<std::uint8_t>(static_cast<unsigned>(type) |
                                               (static_cast<unsigned>(spelling) << spelling_shift)));
    longest_ = std::max(longest_, bytes_.size() - begin);
    if (!text.empty()) index_[slot(spelling, view(id))] = static_cast<std::int32_t>(id);
}

inline std::size_t Vocabulary::slot(Spelling spelling, std::string_view bytes) const noexcept {
    std::uint64_t hash = seed_ ^ (std::uint64_t{bytes.size()} << 2) ^ static_cast<std::uint64_t>(spelling);
    for (std::size_t i = 0; i < bytes.size(); i += 8) {
        std::uint64_t word = 0;
        std::memcpy(&word, bytes.data() + i, std::min<std::size_t>(8, bytes.size() - i));
        hash = detail::mix(hash ^ word);
    }
    const std::size_t mask = index_.size() - 1;
    std::size_t at = static_cast<std::size_t>(detail::mix(hash ^ seed_)) & mask;
    while (index_[at] >= 0) {
        const auto held = static_cast<std::size_t>(index_[at]);
        if (spelling_at(held) == spelling && view(held) == bytes) break;
        at = (at + 1) & mask;
    }
    return at;
}

inline std::optional<std::int32_t> Vocabulary::find(std::string_view text) const {
    if (text.empty()) return std::nullopt;
    std::int32_t id = lookup(Spelling::verbatim, text);
    if (id < 0) {
        std::string decoded;
        if (append_spelled_bytes(decoded, text)) id = lookup(Spelling::byte_level, decoded);
    }
    if (const auto byte = detail::hex_byte(text); id < 0 && byte) {
        const char value = static_cast<char>(*byte);
        id = lookup(Spelling::hex, std::string_view(&value, 1));
    }
    return id < 0 ? std::nullopt : std::optional(id);
}

inline std::string Vocabulary::text(std::int32_t id) const {
    const std::string_view held = bytes(id);
    std::string spelled;
    switch (spelling_at(static_cast<std::size_t>(id))) {
        case Spelling::byte_level: append_byte_level(spelled, held); break;
        case Spelling::verbatim: spelled = held; break;
        case Spelling::hex: {
            constexpr std::string_view digits = "0123456789ABCDEF";
            const auto value = static_cast<std::uint8_t>(held[0]);
            spelled = zse::text("<0x", std::string_view(&digits[value >> 4], 1),
                                std::string_view(&digits[value & 15u], 1), ">");
            break;
        }
    }
    return spelled;
}

inline std::int32_t Vocabulary::checked(std::optional<std::uint64_t> id, std::string_view name) const {
    if (!id) return -1;
    if (*id >= size()) {
        throw Error(ErrorCode::corrupt, zse::text("expected the ", name, " token's id below ", size(),
                                                  ", found ", *id, "; the file's metadata is damaged"));
    }
    return static_cast<std::int32_t>(*id);
}

inline void Vocabulary::mark_endings(bool types_known) {
    const auto mark = [this](std::int32_t id) {
        if (id >= 0) flags_[static_cast<std::size_t>(id)] |= ends_bit;
    };
    // A normal token that happens to be spelled like a control token is text and ends nothing; a file
    // without types cannot tell, and stopping is the safer error.
    const auto added = [this, types_known](std::string_view name) -> std::int32_t {
        const std::int32_t id = find(name).value_or(-1);
        if (id < 0 || !types_known) return id;
        const TokenType kind = type(id);
        return kind == TokenType::control || kind == TokenType::user_defined ? id : -1;
    };
    // Where turns end with <|return|> or <|flush|> and calls with <|call|>, <|end|> closes only a message.
    const bool calls = added("<|call|>") >= 0 || added("<|calls|>") >= 0;
    const bool end_is_inner = calls && (added("<|return|>") >= 0 || added("<|flush|>") >= 0);
    // Declared user-defined, such a token would be found in the text of strangers too; it is control.
    const auto promote = [this](std::int32_t id) {
        if (id < 0 || type(id) != TokenType::user_defined) return;
        std::uint8_t& flags = flags_[static_cast<std::size_t>(id)];
        flags = static_cast<std::uint8_t>((flags & ~unsigned{type_mask}) |
                                          static_cast<unsigned>(TokenType::control));
    };
    for (const std::string_view name : detail::ending_names) {
        if (name == "<|end|>" && end_is_inner) continue;
        mark(added(name));
        promote(added(name));
    }
    for (const std::string_view name : detail::middle_names) promote(added(name));
    mark(special_.eos);
    mark(special_.eot);
    mark(special_.eom);
}

}  // namespace tokenizer
}  // namespace zse::inline v1

// SPDX-License-Identifier: Apache-2.0
// Split GGUF models: how the files are named, what their metadata say, and whether parts belong together.
#pragma once

#include <zse/core/bytes.hpp>
#include <zse/core/error.hpp>
#include <zse/io/gguf_part.hpp>
#include <zse/io/printable.hpp>

#include <cstdint>
#include <cstdio>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace zse::inline v1 {
namespace io {
namespace detail {

// A part is made per so many tensors or gigabytes; the largest known models have a few thousand tensors, and
// a process may hold 65,530 mappings.
inline constexpr std::uint64_t most_parts = 4'096;

/// The pieces of "name-00002-of-00003.gguf".
struct SplitName {
    std::string stem;     ///< "name"
    unsigned number = 0;  ///< 2: counted from 1, where `split.no` counts from 0
    unsigned count = 0;   ///< 3
};

inline std::string split_file_name(std::string_view stem, std::uint64_t number, std::uint64_t count) {
    char suffix[64];
    std::snprintf(suffix, sizeof suffix, "-%05llu-of-%05llu.gguf", static_cast<unsigned long long>(number),
                  static_cast<unsigned long long>(count));
    return std::string(stem) + suffix;
}

/// Reads a file name (without directory); nothing where it does not follow the pattern.
inline std::optional<SplitName> parse_split_name(std::string_view file_name) {
    constexpr std::string_view pattern = "-ddddd-of-ddddd.gguf";  // d: a digit
    if (file_name.size() < pattern.size()) return std::nullopt;
    const std::string_view suffix = file_name.substr(file_name.size() - pattern.size());
    unsigned numbers[2] = {0, 0};
    for (std::size_t i = 0; i < pattern.size(); ++i) {
        if (pattern[i] != 'd') {
            if (suffix[i] != pattern[i]) return std::nullopt;
            continue;
        }
        if (suffix[i] < '0' || suffix[i] > '9') return std::nullopt;
        unsigned& number = numbers[i < 6 ? 0 : 1];
        number = number * 10 + static_cast<unsigned>(suffix[i] - '0');
    }
    return SplitName{std::string(file_name.substr(0, file_name.size() - pattern.size())), numbers[0],
                     numbers[1]};
}

inline std::optional<std::uint64_t> split_value(const GgufPart& part, std::string_view key) {
    const Value* const value = part.find(key);
    if (value == nullptr) return std::nullopt;
    const auto number = value->to_unsigned();
    if (!number) {
        throw Error(ErrorCode::corrupt,
                    text(part.file, ": metadata: expected ", in_quotes(key),
                         " to be an unsigned integer, found ", value->describe(), "; split the model again"));
    }
    return number;
}

/// Of how many files this one is a part: 1 for a whole model. Merged models keep a `split.count` of 0.
inline std::uint64_t part_count(const GgufPart& part) {
    const std::uint64_t count = split_value(part, "split.count").value_or(1);
    if (count > most_parts) {
        throw Error(ErrorCode::corrupt,
                    text(part.file, ": metadata: expected 'split.count' of at most ", most_parts, ", found ",
                         count, "; download or copy the file again"));
    }
    return count == 0 ? 1 : count;
}

/// Which part this is, from 0; checked to be below `count`.
inline std::uint64_t part_number(const GgufPart& part, std::uint64_t count) {
    const auto number = split_value(part, "split.no");
    if (!number || *number >= count) {
        throw Error(
            ErrorCode::corrupt,
            text(part.file, ": metadata: expected 'split.no' below the 'split.count' of ", count, ", found ",
                 number ? std::to_string(*number) : std::string("none"), "; split the model again"));
    }
    return *number;
}

/// Checks that the parts, in order, are the parts of one model. Metadata other than `split.*` stand in the
/// first; where another part names an architecture too, it has to be the same.
inline void check_parts(const std::vector<GgufPart>& parts) {
    const std::uint64_t count = part_count(parts.front());
    if (count != parts.size()) {
        throw Error(ErrorCode::not_found,
                    text(parts.front().file, ": expected all ", count, " parts of a split model, found ",
                         parts.size(), "; open the model by a file name with its parts beside it"));
    }
    if (count == 1) return;
    const auto disagree = [](const GgufPart& part, const char* what, const std::string& expected,
                             const std::string& found) {
        throw Error(ErrorCode::corrupt, text(part.file, ": metadata: expected ", what, " ", expected,
                                             " as in the other parts, found ", found,
                                             "; keep only parts of one model under one name"));
    };
    const auto describe = [](const Value* value) {
        if (value == nullptr) return std::string("none");
        const auto string = value->to_string();
        return string ? in_quotes(*string) : value->describe();
    };
    const auto promised = split_value(parts.front(), "split.tensors.count");
    const Value* const architecture = parts.front().find("general.architecture");
    std::uint64_t tensors = 0;
    for (std::uint64_t i = 0; i < count; ++i) {
        const GgufPart& part = parts[static_cast<std::size_t>(i)];
        const std::uint64_t own_count = part_count(part);
        if (own_count != count) {
            disagree(part, "'split.count'", std::to_string(count), std::to_string(own_count));
        }
        const std::uint64_t number = part_number(part, count);
        if (number != i) {
            throw Error(ErrorCode::corrupt, text(part.file, ": metadata: expected 'split.no' ", i,
                                                 " for the place of this part, found ", number,
                                                 "; give the parts their own names back"));
        }
        const auto own_promise = split_value(part, "split.tensors.count");
        if (own_promise && own_promise != promised) {
            disagree(part, "'split.tensors.count'",
                     promised ? std::to_string(*promised) : std::string("none"),
                     std::to_string(*own_promise));
        }
        const Value* const own_architecture = part.find("general.architecture");
        if (own_architecture != nullptr && describe(own_architecture) != describe(architecture)) {
            disagree(part, "'general.architecture'", describe(architecture), describe(own_architecture));
        }
        tensors += part.tensors.size();
    }
    if (promised && *promised != tensors) {
        throw Error(ErrorCode::corrupt,
                    text(parts.front().file, ": expected ", *promised, " tensors in its ", count,
                         " parts ('split.tensors.count'), found ", tensors, "; download the parts again"));
    }
}

}  // namespace detail
}  // namespace io
}  // namespace zse::inline v1

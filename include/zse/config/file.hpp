// SPDX-License-Identifier: Apache-2.0
// What a configuration file states: keys of this program, nested or not, and those of vLLM's files.
#pragma once

#include <zse/config/tier.hpp>
#include <zse/config/value.hpp>
#include <zse/config/yaml.hpp>
#include <zse/io/file.hpp>

#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace zse::inline v1 {
namespace config {
namespace detail {

/// Walks a tree and collects settings.
class FileReader {
public:
    void read(const YamlNode& map, const std::string& prefix) {
        for (std::size_t i = 0; i < map.keys.size(); ++i) {
            const YamlNode& key = map.keys[i];
            const std::string path = prefix + plain_key(key.scalar);
            if (const Option* option = option_of_key(path)) {
                state(*option, path, key, map.items[i]);
            } else if (is_section(path)) {
                section(path, map.items[i]);
            } else {
                refuse(key.origin, text(v1::detail::shown(path), " is no option", did_you_mean(path)));
            }
        }
    }
    [[nodiscard]] Source take() { return std::move(settings_); }

private:
    void section(const std::string& path, const YamlNode& value) {
        if (value.type != YamlNode::Type::map) {
            refuse(value.origin,
                   text("'", path, "' holds options: expected keys below it, found ", name(value.type)));
        }
        read(value, path + ".");
    }

    void state(const Option& option, const std::string& path, const YamlNode& key, const YamlNode& value) {
        const auto [before, is_new] = seen_.emplace(&option, Seen{path, key.origin.line});
        if (!is_new) {
            refuse(key.origin, text("'", path, "' states the same option as '", before->second.path,
                                    "' in line ", before->second.line));
        }
        if (option.kind == Kind::tiers) return tiers(option, path, value);
        if (option.kind == Kind::anything) {
            settings_.push_back({&option, path, "", std::string(option.note), key.origin});
            return;
        }
        const std::string& raw = scalar(path, value);
        const Result<Value> read = value_of(option, raw);
        if (!read) refuse(value.origin, text("'", path, "': ", read.error().what()));
        settings_.push_back({&option, path, read.value().flag, read.value().note, value.origin});
    }

    /// [{type, size, path}].
    void tiers(const Option& option, const std::string& path, const YamlNode& list) {
        if (list.type != YamlNode::Type::sequence || list.items.empty()) {
            refuse(list.origin, text("'", path, "': expected a list of tiers such as '- type: gpu', found ",
                                     name(list.type)));
        }
        std::vector<TierConfig> tiers;
        for (const YamlNode& item : list.items) {
            TierConfig tier = read_tier(path, item);
            if (const std::string why = defect(tiers, tier); !why.empty()) refuse(item.origin, why);
            settings_.push_back({&option, path, flag_of(tier), "", item.origin});
            tiers.push_back(std::move(tier));
        }
    }

    static TierConfig read_tier(const std::string& path, const YamlNode& item) {
        if (item.type != YamlNode::Type::map) {
            refuse(item.origin,
                   text("'", path, "': a tier has the keys type, size and path, found ", name(item.type)));
        }
        TierConfig tier;
        bool has_type = false;
        bool has_size = false;
        for (std::size_t i = 0; i < item.keys.size(); ++i) {
            const std::string key = plain_key(item.keys[i].scalar);
            const YamlNode& value = item.items[i];
            const auto taken = [&](const auto& result) {
                if (!result) refuse(value.origin, text("'", key, "': ", result.error().what()));
                return result.value();
            };
            if (key == "type") {
                tier.type = taken(tier_called(lowered(scalar(key, value))));
                has_type = true;
            } else if (key == "size") {
                tier.size = taken(parse_size(scalar(key, value)));
                has_size = true;
            } else if (key == "path") {
                tier.path = scalar(key, value);
                if (tier.path.empty()) refuse(value.origin, "'path': expected a directory, found ''");
            } else {
                constexpr std::array<std::string_view, 3> known{"type", "size", "path"};
                const auto near = near_match(known, key);
                refuse(item.keys[i].origin,
                       text(v1::detail::shown(key), " is no key of a tier",
                            near ? text("; did you mean '", *near, "'?") : "; it has type, size and path"));
            }
        }
        if (!has_type) refuse(item.origin, "a tier needs a type: gpu, cpu or disk");
        if (!has_size) refuse(item.origin, "a tier needs a size, such as 32GB; gpu and cpu may have auto");
        return tier;
    }

    static const std::string& scalar(const std::string& path, const YamlNode& value) {
        if (value.type == YamlNode::Type::scalar) return value.scalar;
        if (value.type == YamlNode::Type::null)
            refuse(value.origin, text("'", path, "' has no value; state one, or leave the line out"));
        refuse(value.origin, text("'", path, "': expected one value, found ", name(value.type)));
    }

    struct Seen {
        std::string path;
        std::uint32_t line;
    };
    Source settings_;
    std::map<const Option*, Seen> seen_;
};

}  // namespace detail

/// What the text of a file states. Throws usage: `file`, line, column, and what is wrong there.
inline Source read_text(const std::string& file, std::string_view text) {
    const YamlNode root = read_yaml(file, text);
    if (root.type == YamlNode::Type::null)
        refuse({file}, "the file states nothing; write options such as 'max_context: 4096'");
    if (root.type != YamlNode::Type::map) {
        refuse(root.origin,
               zse::text("expected options such as 'max_context: 4096', found ", name(root.type)));
    }
    detail::FileReader reader;
    reader.read(root, "");
    return reader.take();
}

/// The same of a file. What hinders reading it is the user's choice of file, and so wrong usage.
inline Source read_file(const std::string& path) {
    const std::string shown = io::printable(path);
    std::error_code none;
    if (std::filesystem::is_regular_file(path, none) && std::filesystem::file_size(path, none) == 0)
        return read_text(shown, "");
    try {
        const io::MappedFile file = io::MappedFile::open(path);
        const auto bytes = file.bytes();
        return read_text(shown, {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
    } catch (const Error& error) {
        if (error.code() == ErrorCode::usage) throw;
        throw Error(ErrorCode::usage, text("--config ", error.what()));
    }
}

}  // namespace config
}  // namespace zse::inline v1

// SPDX-License-Identifier: Apache-2.0
// A YAML text as a tree of keys and values that know where they stand. What configuration has no use for is refused:
// anchors and aliases (and with them texts that grow without bound), tags, several documents, depth. The only header
// that includes yaml-cpp: a program that includes it links that library.
#pragma once

#include <zse/config/setting.hpp>
#include <zse/core/size.hpp>
#include <zse/tokenizer/utf8.hpp>

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <map>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace zse::inline v1 {
namespace config {

/// Far more than any configuration has. yaml-cpp takes the square of the length of a list in brackets: a moment for a
/// text of 64 KiB, minutes for one of 1 MiB.
inline constexpr std::size_t most_yaml_bytes = std::size_t{1} << 16;
inline constexpr std::size_t most_yaml_depth = 16;

/// A value of a YAML text.
struct YamlNode {
    enum class Type : std::uint8_t { null, scalar, sequence, map };
    Type type = Type::null;
    Origin origin;
    std::string scalar;           ///< of a scalar
    std::vector<YamlNode> keys;   ///< of a map: scalars, in the order of the text, each once
    std::vector<YamlNode> items;  ///< of a sequence, or of a map beside its keys
};

/// "a list", for sentences.
constexpr std::string_view name(YamlNode::Type type) noexcept {
    switch (type) {
        case YamlNode::Type::null: return "nothing";
        case YamlNode::Type::scalar: return "a value";
        case YamlNode::Type::sequence: return "a list";
        case YamlNode::Type::map: return "keys";
    }
    return "nothing";
}

namespace detail {

/// Turns bytes of a text into lines and columns of characters.
class Lines {
public:
    Lines(std::string file, std::string_view text) : file_(std::move(file)), text_(text), starts_{0} {
        for (std::size_t at = 0; at < text.size(); ++at) {
            if (text[at] == '\n') starts_.push_back(at + 1);
        }
    }
    /// Of a byte of the text.
    [[nodiscard]] Origin at(std::size_t byte) const {
        const auto next = std::upper_bound(starts_.begin(), starts_.end(), byte);
        const auto line = static_cast<std::size_t>(next - starts_.begin()) - 1;
        return place(line, byte - starts_[line]);
    }
    /// Of yaml-cpp's mark, whose columns are bytes; all of the file where it has no place.
    [[nodiscard]] Origin at(const YAML::Mark& mark) const {
        if (mark.is_null()) return {file_};
        const auto line = std::min(static_cast<std::size_t>(std::max(mark.line, 0)), starts_.size() - 1);
        return place(line, static_cast<std::size_t>(std::max(mark.column, 0)));
    }
    [[nodiscard]] Origin all() const { return {file_}; }

private:
    [[nodiscard]] Origin place(std::size_t line, std::size_t bytes) const {
        std::uint32_t column = 1;
        for (const char c : text_.substr(starts_[line], bytes)) {
            if ((static_cast<unsigned char>(c) & 0xC0u) != 0x80u) ++column;
        }
        return {file_, static_cast<std::uint32_t>(line + 1), column};
    }

    std::string file_;
    std::string_view text_;
    std::vector<std::size_t> starts_;
};

/// Ends each text, as a comment. A quote that is left open, which yaml-cpp closes in silence, takes it in.
inline constexpr char end_mark = '\x01';

/// Builds the tree while yaml-cpp reads, and stops it at the first thing that is refused.
class Builder : public YAML::EventHandler {
public:
    explicit Builder(const Lines& lines) : lines_(lines) {}
    [[nodiscard]] YamlNode take() { return std::move(root_); }

    void OnDocumentStart(const YAML::Mark& mark) override {
        if (begun_) refuse(lines_.at(mark), "a second document begins here; configuration is one");
        begun_ = true;
    }
    void OnDocumentEnd() override {}
    void OnAnchor(const YAML::Mark& mark, const std::string& /*name*/) override { refuse_alias(mark); }
    void OnAlias(const YAML::Mark& mark, YAML::anchor_t /*anchor*/) override { refuse_alias(mark); }
    void OnNull(const YAML::Mark& mark, YAML::anchor_t /*anchor*/) override {
        add(node(YamlNode::Type::null, mark));
    }
    void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t /*anchor*/,
                  const std::string& value) override {
        YamlNode scalar = node(YamlNode::Type::scalar, mark, tag);
        if (value.find(end_mark) != std::string::npos) refuse(scalar.origin, "this quote is not closed");
        scalar.scalar = value;
        add(std::move(scalar));
    }
    void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t /*anchor*/,
                         YAML::EmitterStyle::value /*style*/) override {
        begin(node(YamlNode::Type::sequence, mark, tag));
    }
    void OnSequenceEnd() override { end(); }
    void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t /*anchor*/,
                    YAML::EmitterStyle::value /*style*/) override {
        begin(node(YamlNode::Type::map, mark, tag));
    }
    void OnMapEnd() override { end(); }

private:
    /// A list or map whose end has not come, with its keys so far and their lines.
    struct Open {
        YamlNode node;
        std::map<std::string, std::uint32_t> seen;
    };

    [[noreturn]] void refuse_alias(const YAML::Mark& mark) const {
        refuse(lines_.at(mark),
               "anchors (&) and aliases (*) are not read; write the value again, or in quotes");
    }
    [[nodiscard]] YamlNode node(YamlNode::Type type, const YAML::Mark& mark,
                                const std::string& tag = "?") const {
        // "?" and "!" are what yaml-cpp calls plain and quoted values without a tag.
        if (!tag.empty() && tag != "?" && tag != "!")
            refuse(lines_.at(mark), "tags (!) are not read; write the value alone, or in quotes");
        YamlNode made;
        made.type = type;
        made.origin = lines_.at(mark);
        return made;
    }
    void begin(YamlNode node) {
        if (open_.size() == most_yaml_depth)
            refuse(node.origin, text("nested more than ", most_yaml_depth, " deep; no option is"));
        if (at_key())
            refuse(node.origin,
                   "expected a key, which is a word, found a list or keys; is a bracket left open?");
        open_.push_back({std::move(node), {}});
    }
    void end() {
        YamlNode whole = std::move(open_.back().node);
        open_.pop_back();
        add(std::move(whole));
    }
    [[nodiscard]] bool at_key() const {
        if (open_.empty() || open_.back().node.type != YamlNode::Type::map) return false;
        return open_.back().node.keys.size() == open_.back().node.items.size();
    }
    void add(YamlNode added) {
        if (open_.empty()) {
            root_ = std::move(added);
            return;
        }
        Open& parent = open_.back();
        if (!at_key()) {
            // Where nothing is written, yaml-cpp marks what comes after it.
            if (added.type == YamlNode::Type::null && parent.node.type == YamlNode::Type::map)
                added.origin = parent.node.keys.back().origin;
            parent.node.items.push_back(std::move(added));
            return;
        }
        if (added.type != YamlNode::Type::scalar) refuse(added.origin, "expected a key, found nothing");
        const auto [seen, is_new] = parent.seen.emplace(added.scalar, added.origin.line);
        if (!is_new) {
            refuse(added.origin, text("the key ", v1::detail::shown(added.scalar),
                                      " is there twice, first in line ", seen->second));
        }
        parent.node.keys.push_back(std::move(added));
    }

    const Lines& lines_;
    bool begun_ = false;
    YamlNode root_;
    std::vector<Open> open_;
};

/// Refuses what is no text, tabs where YAML wants blanks, and directives, which yaml-cpp passes over in silence.
inline void check_characters(const Lines& lines, std::string_view text) {
    if (const std::size_t bad = tokenizer::find_invalid_utf8(text); bad != std::string_view::npos)
        refuse(lines.at(bad), "the text is no UTF-8 from here on; save it as UTF-8");
    bool indentation = true;
    for (std::size_t at = 0; at < text.size(); ++at) {
        const auto c = static_cast<unsigned char>(text[at]);
        const bool carriage_return = c == '\r' && at + 1 < text.size() && text[at + 1] == '\n';
        if (c == '%' && (at == 0 || text[at - 1] == '\n'))
            refuse(lines.at(at), "directives (%) are not read; leave the line out, or put it in quotes");
        if (c == '\t' && indentation) refuse(lines.at(at), "a tab in the indentation; YAML wants blanks");
        if ((c < 0x20 && c != '\t' && c != '\n' && !carriage_return) || c == 0x7f)
            refuse(lines.at(at), "a control character; configuration is plain text");
        indentation = c == '\n' || (indentation && (c == ' ' || c == '\t'));
    }
}

}  // namespace detail

/// The tree of a text; of a text without any value its type is null. Throws usage, with line and column in `file`.
inline YamlNode read_yaml(const std::string& file, std::string_view text) {
    const detail::Lines lines(file, text);
    if (text.size() > most_yaml_bytes) {
        refuse(lines.all(), zse::text("the file has ", text.size(), " bytes; configuration has at most ",
                                      most_yaml_bytes));
    }
    detail::check_characters(lines, text);
    detail::Builder builder(lines);
    try {
        std::istringstream stream{zse::text(text, "\n#", std::string(1, detail::end_mark), "\n")};
        YAML::Parser parser(stream);
        while (parser.HandleNextDocument(builder)) {
        }
    } catch (const YAML::Exception& error) {
        refuse(lines.at(error.mark), zse::text("no YAML: ", error.msg,
                                               "; look at the indentation, the colons and the "
                                               "quotes here and in the line before"));
    }
    return builder.take();
}

}  // namespace config
}  // namespace zse::inline v1

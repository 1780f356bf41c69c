// SPDX-License-Identifier: Apache-2.0
// Templates in the part of Jinja that chat templates use, with the settings that they expect: trim_blocks,
// lstrip_blocks, break and continue, JSON without HTML escapes, and no changing of lists and dicts.
// Left out: inheritance, imports, autoescape and recursive loops; each is an error, never ignored.
//
// Two habits of Python's Jinja are not followed. Filters such as map and select do their work at once, so
// that their errors come even where nobody looks at the result. And a name that a template sets at the end
// of a block can be read from outside by an inner block before that, where Jinja takes it for undefined.
#pragma once

#include <zse/tokenizer/template/evaluator.hpp>
#include <zse/tokenizer/template/parser.hpp>

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace zse::inline v1 {
namespace tokenizer::jinja {

/// A parsed template. Immutable: several threads may render it at once.
class Template {
public:
    /// Errors: corrupt (syntax, not UTF-8), unsupported (an unknown tag), invalid_input (too large or too
    /// deep); each names the line.
    explicit Template(std::string_view source, Limits limits = {})
        : limits_(limits),
          block_(std::make_shared<const detail::Block>(detail::Parser::parse(source, limits.source))) {}

    /// The text for a context, a dict from names to values. `now` is what strftime_now shows, the machine's
    /// local time where it is absent.
    /// Errors: invalid_input (the template's own raise_exception with its words, a value of the wrong type,
    /// an undefined value used, a limit exceeded), unsupported (an unknown filter, test, method or function).
    [[nodiscard]] std::string render(const Value& context, std::optional<LocalSeconds> now = {}) const {
        if (!context.is_dict()) {
            detail::fail_input("the context of a template is a dict, but was a ", detail::type_name(context));
        }
        return detail::Renderer::render(*block_, context, limits_, now);
    }

private:
    Limits limits_;
    std::shared_ptr<const detail::Block> block_;
};

}  // namespace tokenizer::jinja
}  // namespace zse::inline v1

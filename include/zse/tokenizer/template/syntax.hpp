// SPDX-License-Identifier: Apache-2.0
// The syntax tree. Chains of operators and of postfixes are flat lists, so that the depth of a tree, and with
// it the stack that walks it, grows with nesting only and not with length.
#pragma once

#include <zse/tokenizer/template/value.hpp>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace zse::inline v1 {
namespace tokenizer::jinja::detail {

struct Expression;
using ExpressionPtr = std::unique_ptr<Expression>;

struct LiteralNode {
    Value value;
};

struct NameNode {
    std::string name;
};

struct ListNode {
    bool is_tuple;
    std::vector<Expression> items;
};

struct DictNode {
    std::vector<Expression> keys;
    std::vector<Expression> values;
};

struct ArgumentNodes {
    std::vector<Expression> positional;
    std::vector<std::string> names;
    std::vector<Expression> named;  ///< as many as names
    ExpressionPtr more_positional;  ///< *list
    ExpressionPtr more_named;       ///< **dict
};

/// What follows a value: .name, [index], [a:b:c], (arguments), |filter, is test.
struct Postfix {
    enum class Kind { attribute, item, slice, call, filter, test };
    Kind kind = Kind::attribute;
    int line = 0;
    std::string name;      ///< of an attribute, filter or test
    bool negated = false;  ///< is not
    ExpressionPtr index;   ///< or the start of a slice; absent parts of a slice are null
    ExpressionPtr stop;
    ExpressionPtr step;
    ArgumentNodes arguments;
};

struct PostfixNode {
    ExpressionPtr base;  ///< null in a {% filter %} block and behind {% set x | filter %}
    std::vector<Postfix> postfixes;
};

enum class Operator {
    or_,
    and_,
    concatenate,
    add,
    subtract,
    multiply,
    divide,
    floor_divide,
    modulo,
    power,
    equal,
    not_equal,
    less,
    less_equal,
    greater,
    greater_equal,
    in,
    not_in,
};

/// Operators of one precedence, from left to right; comparisons chain as in Python.
struct ChainNode {
    enum class Kind { logic, compare, concatenate, arithmetic };
    Kind kind;
    std::vector<Operator> operators;
    std::vector<Expression> operands;  ///< one more than operators
};

struct UnaryNode {
    enum class Kind { not_, minus, plus };
    Kind kind;
    ExpressionPtr operand;
};

/// then if conditions[0] if conditions[1] ... else otherwise: the last condition is asked first.
struct ConditionalNode {
    ExpressionPtr then;
    std::vector<Expression> conditions;
    ExpressionPtr otherwise;  ///< where the last condition fails; null, and for the others: undefined
};

struct Expression {
    int line = 0;
    std::variant<LiteralNode, NameNode, ListNode, DictNode, PostfixNode, ChainNode, UnaryNode,
                 ConditionalNode>
        node;
};

/// Where a value goes: a name, an attribute of a namespace, or several of them.
struct Target {
    std::string name{};
    std::string attribute{};
    std::vector<Target> parts{};
    bool is_tuple = false;
};

struct Statement;
using Block = std::vector<Statement>;

struct TextNode {
    std::string text;
};

struct PrintNode {
    std::vector<Expression> expressions;
};

struct IfNode {
    struct Branch {
        Expression condition;
        Block body;
    };
    std::vector<Branch> branches;
    Block otherwise;
};

struct ForNode {
    Target target;
    Expression items;
    std::optional<Expression> filter;
    Block body;
    Block otherwise;
};

struct SetNode {
    Target target;
    std::optional<Expression> value;  ///< absent: the block's text
    Block body;
    std::optional<Expression> filter;  ///< over the block's text
};

struct MacroNode {
    struct Parameter {
        std::string name;
        std::optional<Expression> fallback;
    };
    std::string name;
    std::vector<Parameter> parameters;
    Block body;
    // Python's Jinja accepts extra arguments only where the body mentions their names.
    bool uses_caller = false;
    bool uses_varargs = false;
    bool uses_kwargs = false;
};

/// {% macro %}
struct MacroStatement {
    std::shared_ptr<const MacroNode> macro;
};

/// {% call %}: the block becomes `caller`.
struct CallNode {
    std::shared_ptr<const MacroNode> caller;
    Expression call;
};

/// {% filter %}
struct FilterNode {
    Expression filter;
    Block body;
};

struct WithNode {
    std::vector<std::pair<Target, Expression>> bindings;
    Block body;
};

/// {% generation %}: what the assistant said; its text goes out as it is.
struct GenerationNode {
    Block body;
};

struct BreakNode {};
struct ContinueNode {};

struct Statement {
    int line = 0;
    std::variant<TextNode, PrintNode, IfNode, ForNode, SetNode, MacroStatement, CallNode, FilterNode,
                 WithNode, GenerationNode, BreakNode, ContinueNode>
        node;
};

}  // namespace tokenizer::jinja::detail
}  // namespace zse::inline v1

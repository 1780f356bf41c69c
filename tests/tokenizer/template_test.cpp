// SPDX-License-Identifier: Apache-2.0
// The template language against what Python's jinja2 made of the same cases, its errors, and its limits.
#include <support/expect_error.hpp>
#include <support/template_value.hpp>
#include <zse/tokenizer/template/template.hpp>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <fstream>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace zse {
namespace {

using nlohmann::ordered_json;
using support::expect_error;
using tokenizer::jinja::Limits;
using tokenizer::jinja::LocalSeconds;
using tokenizer::jinja::Template;
using tokenizer::jinja::Value;

constexpr LocalSeconds reference_time{1'722'503'107};  // 2024-08-01 09:05:07, as the references have it

ordered_json read_json(const std::string& name) {
    std::ifstream file(std::string(ZSE_TEST_DATA "/templates/") + name);
    return ordered_json::parse(file);
}

std::string render(std::string_view source, const Value& context = Value::dict({}), Limits limits = {}) {
    return Template(source, limits).render(context, reference_time);
}

void refused(std::string_view source, ErrorCode code, std::initializer_list<std::string_view> words,
             Limits limits = {}) {
    SCOPED_TRACE(std::string(source.substr(0, 200)));
    expect_error([&] { (void)render(source, Value::dict({}), limits); }, code, words);
}

TEST(TemplateReference, AgreesWithJinja) {
    const Value context = support::template_value(read_json("context.json"));
    const ordered_json cases = read_json("cases.json");
    ASSERT_GE(cases.size(), 200u);
    std::size_t rendered = 0;
    for (const auto& one : cases) {
        const std::string source = one["template"];
        SCOPED_TRACE("case " + one["number"].dump() + ": " + source);
        if (one.contains("expected")) {
            EXPECT_EQ(render(source, context), one["expected"].get<std::string>());
            ++rendered;
        } else if (one.contains("raised")) {
            try {
                ADD_FAILURE() << "no error but: " << render(source, context);
            } catch (const Error& error) {
                EXPECT_EQ(error.code(), ErrorCode::invalid_input);
                EXPECT_EQ(std::string(error.what()), one["raised"].get<std::string>());
            }
        } else {
            EXPECT_THROW((void)render(source, context), Error);
        }
    }
    EXPECT_GE(rendered, 120u);
}

TEST(TemplateErrors, SyntaxIsCorruptAndNamesTheLine) {
    refused("a\nb\n{{ 1 + }}", ErrorCode::corrupt, {"line 3", "'}}'", "expected"});
    refused("{% if x %}\n\n", ErrorCode::corrupt, {"line 1", "endif"});
    refused("\n{% endfor %}", ErrorCode::corrupt, {"line 2", "endfor"});
    refused("x\n{# never closed", ErrorCode::corrupt, {"line 2", "#}"});
    refused("{{ 'open }}", ErrorCode::corrupt, {"line 1", "string"});
    refused("{{ \"\\xg\" }}", ErrorCode::corrupt, {"escape"});
    refused("{{ '\\ud800' }}", ErrorCode::corrupt, {"escape"});
    refused("{{ 007 }}", ErrorCode::corrupt, {"007"});
    refused("{{ a.b.1.c. }}", ErrorCode::corrupt, {"name or number"});
    refused("{{ a\xC3\xA9 }}", ErrorCode::corrupt, {"character"});
    refused("\xC3", ErrorCode::corrupt, {"UTF-8", "byte 0"});
}

TEST(TemplateErrors, WhatIsUnknownIsUnsupported) {
    refused("\n{% include 'x' %}", ErrorCode::unsupported, {"line 2", "include"});
    refused("{% block b %}{% endblock %}", ErrorCode::unsupported, {"block"});
    refused("{% for x in y recursive %}{% endfor %}", ErrorCode::unsupported, {"recursive"});
    refused("a\n{{ 1 | wordwrap }}", ErrorCode::unsupported, {"line 2", "filter", "wordwrap"});
    refused("{{ 1 is weird }}", ErrorCode::unsupported, {"test", "weird"});
    refused("{{ 'a'.encode() }}", ErrorCode::unsupported, {"method", "encode"});
    refused("{{ (5).bit_length() }}", ErrorCode::unsupported, {"bit_length"});
    refused("{{ cycler('a') }}", ErrorCode::unsupported, {"cycler"});
    refused("{{ strftime_now('%Q') }}", ErrorCode::unsupported, {"strftime_now"});
    refused("{{ '{:>5}'.format(1) }}", ErrorCode::unsupported, {"format"});
    refused("{{ 9223372036854775808 }}", ErrorCode::unsupported, {"64 bits"});
    refused("{{ 9223372036854775807 + 1 }}", ErrorCode::unsupported, {"64 bits"});
    refused("{{ 2 ** 63 }}", ErrorCode::unsupported, {"64 bits"});
    refused("{{ -9223372036854775807 - 2 }}", ErrorCode::unsupported, {"64 bits"});
    refused("{{ 4611686018427387904 * 2 }}", ErrorCode::unsupported, {"64 bits"});
    refused("{{ (-9223372036854775807 - 1) // -1 }}", ErrorCode::unsupported, {"64 bits"});
    refused("{% set n = namespace() %}{% set n._x = 1 %}", ErrorCode::unsupported, {"underscore"});
    // In a branch that is not taken, nothing is missed.
    EXPECT_EQ(render("{% if false %}{{ 1 | wordwrap }}{% endif %}ok"), "ok");
}

TEST(TemplateErrors, MistakesOfTheInputNameLineAndCulprit) {
    refused("\n\n{{ absent.name }}", ErrorCode::invalid_input, {"line 3", "'absent' is undefined"});
    refused("{{ ({}).a.b }}", ErrorCode::invalid_input, {"dict has no 'a'"});
    refused("{{ 'a' + 1 }}", ErrorCode::invalid_input, {"str and int"});
    refused("{{ [].append(1) }}", ErrorCode::invalid_input, {"append", "may not"});
    refused("{% macro m() %}\n{{ x.y }}{% endmacro %}\n\n{{ m() }}", ErrorCode::invalid_input, {"line 2"});
    refused("{{ raise_exception('own words') }}", ErrorCode::invalid_input, {"own words"});
    expect_error([] { (void)Template("x").render(Value(5)); }, ErrorCode::invalid_input, {"context", "int"});
}

TEST(TemplateErrors, MessagesStayShortOnOneLine) {
    const std::string name(5000, 'n');
    refused("{{ " + name + ".x }}", ErrorCode::invalid_input, {"nnn", "..."});
    refused("{{ 1 | " + name + " }}", ErrorCode::unsupported, {"nnn"});
    refused("{% " + name + " %}", ErrorCode::unsupported, {"nnn"});
    refused("{{ ({})['a\\nb'].x }}", ErrorCode::invalid_input, {"\\x0a"});
    try {
        (void)render("{{ " + name + ".x }}");
    } catch (const Error& error) {
        EXPECT_LT(std::string_view(error.what()).size(), 300u);
    }
}

TEST(TemplateLimits, Depth) {
    refused("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", ErrorCode::invalid_input, {"nests deeper"});
    refused(
        "{% macro a() %}{% call b() %}{% endcall %}{% endmacro %}{% macro b() %}{{ a() ~ caller() }}{% "
        "endmacro %}"
        "{{ a() }}",
        ErrorCode::invalid_input, {"nests deeper"});
    refused("{{ " + std::string(100'000, '(') + "1" + std::string(100'000, ')') + " }}",
            ErrorCode::invalid_input, {"nest at most"});
    refused("{{ " + std::string(100'000, '-') + "1 }}", ErrorCode::invalid_input, {"nest at most"});
    std::string ifs;
    for (int i = 0; i < 1000; ++i) ifs += "{% if 1 %}";
    refused(ifs, ErrorCode::invalid_input, {"nest at most"});
    refused("{% set n = namespace(l=[]) %}{% for i in range(1000) %}{% set n.l = [n.l] %}{% endfor %}",
            ErrorCode::invalid_input, {"nest at most"});
    refused(
        "{% set n = namespace(f={}) %}{% for i in range(1000) %}{% set n.f = {'f': n.f}.get %}{% endfor %}",
        ErrorCode::invalid_input, {"nest at most"});
}

TEST(TemplateLimits, LengthCostsNoDepth) {
    std::string sum = "{{ 0";
    std::string either = "{{ 0";
    std::string nots = "{{ ";
    std::string path = "{{ x";
    for (int i = 0; i < 5000; ++i) {
        sum += " + 1";
        either += " or 0";
        nots += "not ";
        path += "[0]";
    }
    EXPECT_EQ(render(sum + " }}"), "5000");
    EXPECT_EQ(render(either + " }}"), "0");
    EXPECT_EQ(render(nots + "1 }}"), "True");
    EXPECT_EQ(render(path + " }}", Value::dict({{"x", "a"}})), "a");
    std::string chain = "{% if 0 %}";
    for (int i = 0; i < 5000; ++i) chain += "{% elif 0 %}";
    EXPECT_EQ(render(chain + "{% else %}last{% endif %}"), "last");
}

TEST(TemplateLimits, Work) {
    Limits limits;
    limits.steps = 10'000;
    refused("{% for i in range(100000) %}{% endfor %}", ErrorCode::invalid_input, {"steps"}, limits);
    refused(
        "{% for i in range(99) %}{% for j in range(99) %}{% for k in range(99) %}{% endfor %}{% endfor %}{% "
        "endfor %}",
        ErrorCode::invalid_input, {"steps"}, limits);
    refused("{{ range(100001) }}", ErrorCode::invalid_input, {"range()", "100000"});
    refused("{{ range(-9223372036854775807, 9223372036854775807) }}", ErrorCode::invalid_input, {"range()"});
}

TEST(TemplateLimits, Bytes) {
    Limits limits;
    limits.values = MiB(1);
    limits.output = KiB(16);
    refused("{{ 'x' * 999999999999 }}", ErrorCode::invalid_input, {"bytes of values"}, limits);
    refused("{{ [1] * 999999999999 }}", ErrorCode::invalid_input, {"bytes of values"}, limits);
    refused("{{ '%999999d' % 1 ~ '%999999d' % 1 }}", ErrorCode::invalid_input, {"bytes of values"}, limits);
    refused("{{ 'x'.center(99999999) }}", ErrorCode::invalid_input, {"bytes of values"}, limits);
    refused("{{ 'x' | indent(99999999) }}", ErrorCode::invalid_input, {"bytes of values"}, limits);
    refused("{{ [1] | tojson(indent=99999999) }}", ErrorCode::invalid_input, {"bytes of values"}, limits);
    refused("{{ ('x' * 9999).replace('', 'y' * 9999) }}", ErrorCode::invalid_input, {"bytes of values"},
            limits);
    refused("{% set n = namespace(s='ab') %}{% for i in range(99) %}{% set n.s = n.s + n.s %}{% endfor %}",
            ErrorCode::invalid_input, {"bytes of values"}, limits);
    refused(
        "{% set n = namespace(l=[1]) %}{% for i in range(90) %}{% set n.l = [n.l, n.l] %}{% endfor %}{{ n.l "
        "}}",
        ErrorCode::invalid_input, {"more than"}, limits);
    refused("{% for i in range(9999) %}12{% endfor %}", ErrorCode::invalid_input, {"rendered text"}, limits);
    limits.source = 10;
    refused("12345678901", ErrorCode::invalid_input, {"at most 10 bytes"}, limits);
}

TEST(TemplateLimits, CyclesEnd) {
    // Run under the address sanitizer these show that nothing is leaked.
    EXPECT_EQ(render("{% set n = namespace() %}{% set n.n = n %}{{ n.n.n.n is defined }}"), "True");
    EXPECT_EQ(
        render(
            "{% set n = namespace() %}{% macro m() %}{{ m.name }}{% endmacro %}{% set n.m = m %}{{ n.m() }}"),
        "m");
    EXPECT_EQ(render("{% for x in [1] %}{% set n = namespace(l=loop) %}{{ n.l.index }}{% endfor %}"), "1");
    EXPECT_EQ(
        render("{% set n = namespace(f=none) %}"
               "{% macro make(before) %}{% macro inner() %}{{ before }}{% endmacro %}{% set n.f = inner %}"
               "{% endmacro %}{% for i in range(5000) %}{{ make(n.f) }}{% endfor %}ok"),
        "ok");
}

TEST(TemplateValue, DictsKeepOrderAndTheLastValue) {
    const Value dict = Value::dict({{"b", 1}, {"a", 2}, {"b", 3}, {1, "x"}, {true, "y"}, {nullptr, 0}});
    EXPECT_EQ(render("{{ d }}", Value::dict({{"d", dict}})), "{'b': 3, 'a': 2, 1: 'y', None: 0}");
    ASSERT_NE(dict.find("a"), nullptr);
    EXPECT_EQ(dict.find("a")->as_integer(), 2);
    EXPECT_EQ(dict.find("z"), nullptr);
    EXPECT_THROW((void)Value::dict({{Value::list({}), 1}}), Error);
}

TEST(TemplateValue, KindsAndBounds) {
    EXPECT_TRUE(Value().is_undefined());
    EXPECT_TRUE(Value("text").is_string());
    EXPECT_TRUE(Value(true).is_boolean());
    EXPECT_TRUE(Value(nullptr).is_none());
    EXPECT_EQ(Value(std::uint8_t{200}).as_integer(), 200);
    EXPECT_THROW((void)Value(std::uint64_t{1} << 63), Error);
    Value deep = Value::list({});
    EXPECT_THROW(for (int i = 0; i < 1000; ++i) deep = Value::list({deep}), Error);
}

TEST(Template, StringsThatAreNoUtf8PassThrough) {
    const Value context = Value::dict({{"s", std::string("a\xFFz\xC3")}});
    EXPECT_EQ(render("{{ s }}|{{ s | length }}|{{ s[::-1] }}|{{ s | upper }}", context),
              "a\xFFz\xC3|4|\xC3z\xFF"
              "a|A\xFFZ\xC3");
}

TEST(Template, CanBeRenderedByManyThreads) {
    const Template shared(
        "{% set n = namespace(s=0) %}{% for i in range(500) %}{% set n.s = n.s + i %}{% endfor %}{{ n.s }}");
    std::vector<std::string> results(4);
    std::vector<std::thread> threads;
    for (std::string& result : results) {
        threads.emplace_back([&] { result = shared.render(Value::dict({})); });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(results, std::vector<std::string>(4, "124750"));
}

TEST(Template, KnowsTheTimeOfTheMachine) {
    const std::string year = Template("{{ strftime_now('%Y') }}").render(Value::dict({}));
    EXPECT_EQ(year.size(), 4u);
    EXPECT_GE(year, "2024");
}

}  // namespace
}  // namespace zse

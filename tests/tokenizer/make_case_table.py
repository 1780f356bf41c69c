#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes include/zse/tokenizer/template/case_table.hpp: upper, lower and title case as this Python knows them.

Run by hand from the root of the repository; format the result with clang-format.
"""
import unicodedata

HEADER = """// SPDX-License-Identifier: Apache-2.0
// Upper, lower and title case beyond ASCII, after Unicode {version}. Written by tests/tokenizer/make_case_table.py.
#pragma once

#include <zse/core/version.hpp>

#include <cstdint>
#include <string_view>

namespace zse::inline v1 {{
namespace tokenizer::jinja::detail {{

/// Code points first, first + stride, ..., last map to themselves plus delta.
struct CaseRange {{
    std::uint32_t first;
    std::uint32_t last;
    std::uint32_t stride;
    std::int32_t delta;
}};

/// One code point that maps to several, or, in title case, to something else than in upper case.
struct CaseException {{
    std::uint32_t code_point;
    std::string_view mapped;
}};

// clang-format off
"""

FOOTER = """// clang-format on

}  // namespace tokenizer::jinja::detail
}  // namespace zse::inline v1
"""


def code_points():
    return (c for c in range(0x80, 0x110000) if not 0xD800 <= c < 0xE000)


def literal(text):
    return '"' + "".join(f"\\x{byte:02X}" for byte in text.encode()) + '"sv'


def lines(cells, width=106):
    line = "   "
    for cell in cells:
        if len(line) + len(cell) + 2 > width:
            yield line
            line = "   "
        line += " " + cell + ","
    yield line


def ranges(mapping):
    keys = sorted(mapping)
    start = 0
    while start < len(keys):
        best = (start, 1)
        for stride in (1, 2):
            end = start
            while (end + 1 < len(keys) and keys[end + 1] == keys[end] + stride
                   and mapping[keys[end + 1]] == mapping[keys[start]]):
                end += 1
            best = max(best, (end, stride), key=lambda pair: pair[0])
        end, stride = best
        yield f"{{0x{keys[start]:X}, 0x{keys[end]:X}, {stride}, {mapping[keys[start]]}}}"
        start = end + 1


def table(name, kind, cells):
    return f"inline constexpr {kind} {name}[] = {{\n" + "\n".join(lines(cells)) + "\n};\n\n"


def main():
    out = HEADER.format(version=unicodedata.unidata_version)
    out += "using std::string_view_literals::operator\"\"sv;\n\n"
    for name, change in (("upper", str.upper), ("lower", str.lower)):
        mapped = {c: change(chr(c)) for c in code_points() if change(chr(c)) != chr(c)}
        single = {c: ord(text) - c for c, text in mapped.items() if len(text) == 1}
        several = {c: text for c, text in mapped.items() if len(text) > 1}
        out += table(f"{name}_ranges", "CaseRange", ranges(single))
        out += table(f"{name}_exceptions", "CaseException",
                     (f"{{0x{c:X}, {literal(text)}}}" for c, text in sorted(several.items())))
    titles = {c: chr(c).title() for c in code_points() if chr(c).title() != chr(c).upper()}
    out += table("title_exceptions", "CaseException",
                 (f"{{0x{c:X}, {literal(text)}}}" for c, text in sorted(titles.items())))
    with open("include/zse/tokenizer/template/case_table.hpp", "w", encoding="utf-8") as file:
        file.write(out.rstrip("\n") + "\n" + FOOTER)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks that README.md and docs/*.md quote C++ that is compiled: each quote equals its source.

`<!-- quote: FILE NAME -->` before a code block: the block equals what stands between the two comments `// [NAME]`
of FILE, without common indentation. `<!-- quote: FILE -->`: the block's lines stand in FILE, one after the other.
A block of C++ without such a line is an offence, so that no code is shown that nothing compiles.
"""
import pathlib
import re
import sys
import textwrap

ROOT = pathlib.Path(__file__).resolve().parents[2]
QUOTE = re.compile(r"^<!-- quote: (\S+)(?: (\S+))? -->$")
FENCE = re.compile(r"^```(\w*)$")


def blocks(lines):
    """Yields (line number, language, the last line before it that is not blank, text) of each code block."""
    before = language = ""
    start = None
    for number, line in enumerate(lines, 1):
        match = FENCE.match(line)
        if start is None and match:
            start, language, inside = number, match.group(1), []
        elif start is None:
            before = line if line.strip() else before
        elif match:
            yield start, language, before, "".join(f"{each}\n" for each in inside)
            start, before = None, ""
        else:
            inside.append(line)
    if start is not None:
        yield start, "unclosed", before, ""


def between(source, name):
    """What stands between the two comments `// [name]`, or None unless there are exactly two."""
    lines = source.splitlines()
    marks = [index for index, line in enumerate(lines) if line.strip() == f"// [{name}]"]
    if len(marks) != 2:
        return None
    return textwrap.dedent("".join(f"{line}\n" for line in lines[marks[0] + 1:marks[1]]))


def offence(language, before, text):
    """Why this block is wrong, or None; and whether it is a quote."""
    quote = QUOTE.match(before)
    if language == "unclosed":
        return "the code block is not closed", False
    if not quote:
        return ("C++ without a line <!-- quote: FILE NAME --> before it" if language == "cpp" else None), False
    path, name = quote.groups()
    if not (ROOT / path).is_file():
        return f"there is no file {path} to quote", True
    source = (ROOT / path).read_text(encoding="utf-8")
    if name is None:
        return (None if text.strip() and text in source else f"these lines do not stand in {path}"), True
    wanted = between(source, name)
    if wanted is None:
        return f"{path} should have the comment // [{name}] exactly twice", True
    return (None if text == wanted else f"differs from [{name}] in {path}"), True


def main():
    offences = []
    quotes = 0
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        lines = page.read_text(encoding="utf-8").splitlines()
        found = list(blocks(lines))
        for number, language, before, text in found:
            why, is_quote = offence(language, before, text)
            quotes += is_quote
            if why:
                offences.append(f"{page.relative_to(ROOT)}:{number}: {why}")
        announced = sum(1 for line in lines if QUOTE.match(line))
        used = sum(1 for block in found if QUOTE.match(block[2]))
        if announced != used:
            offences.append(f"{page.relative_to(ROOT)}: {announced - used} quote lines have no code block after them")
    print("\n".join(offences + [f"quotes: {quotes}, {len(offences)} offences"]))
    return bool(offences)


if __name__ == "__main__":
    sys.exit(main())

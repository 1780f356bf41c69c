#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Prints every row of docs/features.md with how many tests prove it.

A test source proves the rows that its line `// rows: 24 110a` names (`# rows:` in Python).
--write brings the table's last column up to date; --check only says whether it is.
"""
import pathlib
import re
import signal
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
TABLE = ROOT / "docs" / "features.md"
ROW = re.compile(r"^\| (\d+[a-g]?) \| (.+?) \| (.*?) ?\|$")
KEY = re.compile(r"^(?://|#) rows: *(.+)$", re.MULTILINE)
CASE = re.compile(r"^\s*(?:TEST|TEST_F|TEST_P|TYPED_TEST|TYPED_TEST_P)\s*\(|^\s*def test_", re.MULTILINE)
EXPECTED = [str(number) for number in range(1, 111)] + [f"110{letter}" for letter in "abcdefg"]


def proofs():
    """Row -> {name of a test source: number of its tests}."""
    found = {}
    for path in sorted((ROOT / "tests").rglob("*")):
        if path.suffix not in (".cpp", ".py", ".cmake", ".cu"):
            continue
        source = path.read_text(encoding="utf-8")
        key = KEY.search(source)
        if not key:
            continue
        name = path.relative_to(ROOT / "tests").with_suffix("").as_posix().removesuffix("_test")
        for row in key.group(1).split():
            if row not in EXPECTED:
                sys.exit(f"{path.relative_to(ROOT)}: there is no row {row}")
            found.setdefault(row, {})[name] = len(CASE.findall(source)) or 1
    return found


def main():
    found = proofs()
    lines = TABLE.read_text(encoding="utf-8").splitlines()
    seen = []
    stale = []
    for index, line in enumerate(lines):
        match = ROW.match(line)
        if not match:
            continue
        row, feature, _ = match.groups()
        seen.append(row)
        tests = found.get(row, {})
        wanted = f"| {row} | {feature} | {', '.join(sorted(tests))} |"
        if line != wanted:
            stale.append(row)
            lines[index] = wanted
        if len(sys.argv) == 1:
            print(f"{row:>4}  {sum(tests.values()):>4}  {feature}")
    if seen != EXPECTED:
        sys.exit(f"docs/features.md: expected rows 1 to 110 and 110a to 110g in order, found {len(seen)} rows")
    if "--write" in sys.argv:
        TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")
    elif "--check" in sys.argv and stale:
        sys.exit(f"docs/features.md: tests of rows {', '.join(stale)} are out of date; run ./dev rows --write")
    proven = sum(1 for row in EXPECTED if found.get(row))
    print(f"rows: {len(seen)}, {proven} of them with a test")


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # ./dev rows | head
    main()

#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Prints the translation units that took most processor time; fails where one took over 120 s.

Reads the log of timed_compile. A unit counts with its longest entry: one that came from the cache is short.
"""
import pathlib
import sys

LIMIT = 120.0


def main():
    log = pathlib.Path(sys.argv[1])
    root = str(pathlib.Path(__file__).resolve().parents[2]) + "/"
    if not log.is_file():
        print("longest translation units: nothing was compiled")
        return False
    longest = {}
    for line in log.read_text(encoding="utf-8").splitlines():
        seconds, source = line.split("\t")
        source = source.removeprefix(root)
        longest[source] = max(longest.get(source, 0.0), float(seconds))
    units = sorted(longest.items(), key=lambda unit: -unit[1])
    print(f"longest translation units of {len(units)} (processor seconds):")
    for source, seconds in units[:5]:
        print(f"  {seconds:7.1f}  {source}{'  over 120 s' if seconds > LIMIT else ''}")
    return bool(units) and units[0][1] > LIMIT


if __name__ == "__main__":
    sys.exit(main())

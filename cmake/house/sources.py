#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks every source: the licence line, a purpose beside it, test keys on lines of their own.

Quotes in the docs are checked by quotes.py.
"""
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
SOURCE = re.compile(r"(\.(hpp|cpp|cuh|cu|py|cmake|cmake\.in|sh)|CMakeLists\.txt|/timed_compile|/assembler_log|^dev|^\.ci/run)$")
# A key of tests/CMakeLists.txt that does not begin its line: formatting joined it to the comment above.
LOST_KEY = re.compile(r"^// .*\S (rows|labels|timeout|refuse|expect): ")


def tracked():
    """Paths of all files that git knows or would add."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, check=True,
                            capture_output=True, text=True).stdout
    return sorted({name for name in listed.splitlines() if (ROOT / name).is_file()})


def main():
    offences = []
    sources = 0
    for name in tracked():
        if SOURCE.search(name):
            sources += 1
            lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
            head = [line for line in lines[:4] if not line.startswith("#!")]
            if not head or "SPDX-License-Identifier: Apache-2.0" not in head[0]:
                offences.append(f"{name}:1: the first line should be SPDX-License-Identifier: Apache-2.0")
            elif len(head) < 2 or not head[1].lstrip('/#" '):
                offences.append(f"{name}:2: a sentence on what the file is for should follow the licence line")
            if name.startswith("tests/"):
                for number, line in enumerate(lines, 1):
                    if key := LOST_KEY.match(line):
                        offences.append(f"{name}:{number}: '{key.group(1)}:' should begin its own line")
    print("\n".join(offences + [f"sources: {sources} files, {len(offences)} offences"]))
    return bool(offences)


if __name__ == "__main__":
    sys.exit(main())

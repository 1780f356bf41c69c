#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks that every header includes only rooms above its own, and no other room's details; CUDA stays in .cuh files.

The order is the table of rooms in the design. A line of output is one offence: file:line: what and why.
"""
import pathlib
import re
import sys

# Rooms on one line do not see each other.
ORDER = """
core
policy
system
memory
exec
weights
io
tokenizer
kernels
kv
attention
parallel
sampling
scheduler
model
planning
engine
quantize evaluate
config
serve
""".split("\n")
LEVEL = {room: level for level, line in enumerate(ORDER) for room in line.split()}

# Libraries that only some rooms may include; () means that no header may.
LIBRARIES = {
    "boost/hana": ("policy", "engine"),
    "boost/context": ("exec",),
    "pcre2.h": ("tokenizer",),
    "xxhash.h": ("core",),
    "yaml-cpp/": ("config",),
    "fmt/": (),
    "nlohmann/": (),
    "CLI/": (),
    "gtest/": (),
}
# What comes with CUDA's compiler: files *.cuh alone may include it, since the compiler of the host does not have it.
CUDA = re.compile(r"^(cub|thrust|cuda|cooperative_groups|nv)/|^(cuda\w*|cublas\w*|cooperative_groups)\.h$|\.cuh$")
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')


def room_of(path):
    """Room of a path below include/zse: kv/page.hpp is in kv, engine.hpp in engine."""
    return path.split("/")[0].removesuffix(".hpp").removesuffix(".cuh")


def offence(room, suffix, bracket, target):
    """Why a header of `room` whose name ends in `suffix` must not include `target`, or None."""
    if bracket == '"':
        return f'"{target}" should be written <zse/...>'
    if CUDA.search(target) and suffix != ".cuh":
        return f"<{target}> is for files *.cuh alone"
    for prefix, rooms in LIBRARIES.items():
        if target.startswith(prefix) and room not in rooms:
            return f"<{target}> has no place in {room}/; it is for {', '.join(rooms) or 'programs'}"
    if not target.startswith("zse/"):
        return None
    other = room_of(target.removeprefix("zse/"))
    if other == room:
        return None
    if other not in LEVEL:
        return f"<{target}> is in no room of the design"
    if LEVEL[other] >= LEVEL[room]:
        return f"{room}/ includes <{target}>, but {other}/ is not above it"
    if "/detail/" in target:
        return f"{room}/ includes <{target}>, which is private to {other}/"
    return None


def main():
    root = pathlib.Path(__file__).resolve().parents[2]
    base = root / "include" / "zse"
    headers = sorted(path for path in base.rglob("*") if path.suffix in (".hpp", ".cuh"))
    offences = 0
    for path in headers:
        inside = path.relative_to(base).as_posix()
        room = room_of(inside)
        where = path.relative_to(root).as_posix()
        if inside == "zse.hpp":  # the umbrella includes every room
            continue
        if room not in LEVEL:
            print(f"{where}:1: {room} is no room of the design")
            offences += 1
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            match = INCLUDE.match(line)
            why = match and offence(room, path.suffix, *match.groups())
            if why:
                print(f"{where}:{number}: {why}")
                offences += 1
    print(f"rooms: {len(headers)} headers, {offences} offences")
    return offences > 0


if __name__ == "__main__":
    sys.exit(main())

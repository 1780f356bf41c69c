#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Counts the instructions that zse takes for a token, which no busy neighbour changes, and compares them with
instructions.json: a rise of more than 3 % is a failure.

callgrind counts runs of `zse benchmark` on a slice of SmolLM2; the difference of two is free of what loading costs.
Figures are kept by compiler and instruction set. Valgrind knows no AVX-512, so the kernels are those of AVX2.
"""
import argparse
import concurrent.futures
import dataclasses
import json
import os
import pathlib
import re
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
KEPT = HERE / "instructions.json"
MODELS = pathlib.Path(os.environ.get("ZSE_CACHE") or pathlib.Path.home() / ".cache/zse") / "models"
MOST_RISE = 0.03

FORMATS = ("Q4_0", "Q4_1", "Q8_0")
KVS = {"f16": "none", "int8": "int8"}  # as --kv-quant says it
PROMPTS, GENERATIONS, DEPTH = (16, 48), (2, 18), 256


@dataclasses.dataclass(frozen=True)
class Run:
    form: str
    prompt: int = 0
    generation: int = 0
    kv: str = "f16"
    depth: int = 0

    def count(self, options):
        """Instructions of the whole run."""
        command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", options.zse, "benchmark",
                   MODELS / f"SmolLM2-slice.{self.form}.gguf", "--prompt", self.prompt, "--generation",
                   self.generation, "--depth", self.depth, "--kv-quant", KVS[self.kv], "--repetitions", 1,
                   "--threads", 1, "--max-context", 512]
        if options.isa:
            command += ["--isa", options.isa]
        command = [str(part) for part in command]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        found = re.findall(r"Collected : (\d+)", done.stderr)
        if done.returncode or not found:
            raise RuntimeError(f"{' '.join(command)}\n{done.stderr[-3000:]}")
        return int(found[-1])  # those before are of children, which zse starts to look for GPUs


def prompts(form):
    return [Run(form, prompt=tokens) for tokens in PROMPTS]


def generations(form, kv="f16", depth=0):
    return [Run(form, generation=tokens, kv=kv, depth=depth) for tokens in GENERATIONS]


def measure(options):
    """Figures by name: instructions for a token, and for attending to one more token in the cache."""
    runs = [run for form in FORMATS for run in prompts(form) + generations(form)]
    runs += [run for kv in KVS for depth in (0, DEPTH) for run in generations("Q4_0", kv, depth)]
    runs = list(dict.fromkeys(runs))
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        counts = dict(zip(runs, pool.map(lambda run: run.count(options), runs)))

    def per_token(pair):  # zse benchmark makes its tokens twice, warming up first
        few, many = pair
        return (counts[many] - counts[few]) / (2 * (many.prompt + many.generation - few.prompt - few.generation))

    figures = {}
    for form in FORMATS:
        figures[f"{form}: prompt, per token"] = per_token(prompts(form))
        figures[f"{form}: generation, per token"] = per_token(generations(form))
    for kv in KVS:
        more = per_token(generations("Q4_0", kv, DEPTH)) - per_token(generations("Q4_0", kv))
        # The warm-up is without depth, so half of the tokens are deep; no depth is a depth of 1.
        figures[f"KV {kv}: generation, per token in the cache"] = more / ((DEPTH - 1) / 2)
    return {name: round(value) for name, value in figures.items()}


def configuration(options):
    """Compiler and instruction set, which decide the figures."""
    build = options.zse.resolve().parents[1]
    for file in build.glob("CMakeFiles/*/CMakeCXXCompiler.cmake"):
        said = dict(re.findall(r'set\((CMAKE_CXX_COMPILER_\w+) "([^"]*)"\)', file.read_text(encoding="utf-8")))
        return f"{said['CMAKE_CXX_COMPILER_ID']} {said['CMAKE_CXX_COMPILER_VERSION']}, {options.isa or 'as built'}"
    sys.exit(f"{options.zse} is not in a build directory of CMake")


def compare(now, kept):
    """Prints both; returns whether something rose."""
    failed = False
    print(f"{'instructions':<44} {'kept':>10} {'now':>10} {'change':>9}")
    for name, instructions in now.items():
        before = kept.get(name)
        change = instructions / before - 1 if before else 0.0
        failed |= change > MOST_RISE
        print(f"{name:<44} {before or '-':>10} {instructions:>10} {change:>+9.2%}{'  rose' * (change > MOST_RISE)}")
    return failed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--update", action="store_true", help="keep the figures of this run")
    parser.add_argument("--zse", type=pathlib.Path, default=HERE.parent / "build/release/bin/zse",
                        help="the program to count")
    parser.add_argument("--isa", default="avx2", help="kernels to count; empty: those that zse chooses")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="runs at once")
    options = parser.parse_args()
    figures = json.loads(KEPT.read_text(encoding="utf-8")) if KEPT.exists() else {}
    name = configuration(options)
    try:
        now = measure(options)
    except RuntimeError as error:
        sys.exit(str(error))
    print(name)
    failed = compare(now, figures.get(name, {}))
    if options.update:
        figures[name] = now
        KEPT.write_text(json.dumps(figures, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        return 0
    if name not in figures:
        print("no figures are kept for this configuration; --update keeps these")
    return failed


if __name__ == "__main__":
    sys.exit(main())

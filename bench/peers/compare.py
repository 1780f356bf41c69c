#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measures zse and llama.cpp on the same files, in turns, and writes the tables of docs/benchmarks.md.

A pair is one measurement of each, one process at a time; the order turns round from pair to pair. What counts is
the median of the ratios of pairs. A pair during which the machine lost more than 1 % of its time to others (steal)
is dropped, and up to as many again are run to replace those. The roofline program runs before and after each cell.
"""
import argparse
import dataclasses
import datetime
import json
import math
import os
import pathlib
import platform
import re
import statistics
import subprocess
import sys

import gguf
import llama_cpp
import numpy as np

from make_models import BILLION_PATH, SOURCE, requantized_path

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PAGE = ROOT / "docs/benchmarks.md"
TEXT = ROOT / "tests/data/texts/prose.txt"
BEGIN, END = "<!-- peers:begin -->", "<!-- peers:end -->"

WINDOW = 512
MOST_STEAL = 0.01
FLAGS = ("avx2", "f16c", "fma", "avx_vnni", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16", "amx_int8", "asimddp")
KV_BYTES = {"f16": 2.0, "int8": 34 / 32}  # of a value
KV_OPTION = {"f16": "none", "int8": "int8"}
SMOLLM2 = {"SmolLM2 Q4_1": SOURCE, "SmolLM2 Q4_0": requantized_path("Q4_0"), "SmolLM2 Q8_0": requantized_path("Q8_0")}
MODELS = {**SMOLLM2, "1B Q4_0": BILLION_PATH}


@dataclasses.dataclass(frozen=True)
class Cell:
    model: str
    depth: int = 0
    prompt: int = 512  # 0: not measured
    generation: int = 128
    kv: str = "f16"
    sequences: int = 1

    @property
    def name(self):
        parts = [self.model, f"depth {self.depth}"]
        if self.kv != "f16":
            parts.append(f"KV {self.kv}")
        if self.sequences != 1:
            parts.append(f"{self.sequences} sequences")
        return ", ".join(parts)

    @property
    def measures(self):
        return [what for what in ("prompt", "generation") if getattr(self, what)]


def all_cells(deep, generation):
    cells = [Cell(model, depth, generation=generation) for model in MODELS for depth in (0, deep)]
    cells.append(Cell("SmolLM2 Q4_1", deep, prompt=0, generation=generation, kv="int8"))
    cells += [Cell(model, prompt=0, generation=generation, sequences=8) for model in ("SmolLM2 Q4_0", "1B Q4_0")]
    return cells


def output_of(*command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[0]} {command[1]}: {done.stderr.strip() or done.returncode}")
    return done.stdout


class Llama:
    """The worker: it lives as long as its model is measured."""

    def __init__(self, model, threads):
        self.process = subprocess.Popen([sys.executable, HERE / "llama_worker.py", MODELS[model], str(threads)],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, measure, **arguments):
        self.process.stdin.write(json.dumps({"measure": measure, **arguments}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("the llama.cpp worker ended; its message is above")
        return json.loads(line)

    def speed(self, cell, flash):
        return self.ask("speed", prompt=cell.prompt, generation=cell.generation, depth=cell.depth,
                        sequences=cell.sequences, kv=cell.kv, flash=flash)

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class Zse:
    def __init__(self, path, threads):
        self.path = path
        self.threads = threads

    def ask(self, command, model, kv, *arguments):
        return json.loads(output_of(self.path, command, MODELS[model], "--json", "--threads", self.threads,
                                    "--kv-quant", KV_OPTION[kv], *arguments))

    def speed(self, cell):
        said = self.ask("benchmark", cell.model, cell.kv, "--prompt", cell.prompt, "--generation", cell.generation,
                        "--depth", cell.depth, "--sequences", cell.sequences, "--repetitions", 1)
        return {what: said[f"{what}_tokens_per_second"] for what in cell.measures}

    def perplexity(self, model, kv):
        return self.ask("perplexity", model, kv, "--file", TEXT, "--context", WINDOW)["perplexity"]


class Shape:
    """What a token costs, from a file's table of tensors."""

    def __init__(self, path):
        reader = gguf.GGUFReader(path)
        tensors = {tensor.name: tensor for tensor in reader.tensors}
        layers = [tensor for tensor in reader.tensors if tensor.name.startswith("blk.") and len(tensor.shape) == 2]
        output = tensors.get("output.weight", tensors["token_embd.weight"])

        def value(key):
            return reader.fields[f"llama.{key}"].contents()

        self.layer_macs = sum(int(tensor.n_elements) for tensor in layers)
        self.output_macs = int(output.n_elements)
        self.matrix_bytes = sum(int(tensor.n_bytes) for tensor in layers) + int(output.n_bytes)
        head = value("rope.dimension_count")
        self.kv_values = 2 * value("block_count") * value("attention.head_count_kv") * head
        self.attention_macs = 2 * value("block_count") * value("attention.head_count") * head  # per token looked at

    def generation_bytes(self, cell):
        """Bytes that must be read for a token: every matrix once a step, and the KV cache at its mean length."""
        return (self.matrix_bytes / cell.sequences
                + self.kv_values * KV_BYTES[cell.kv] * (cell.depth + cell.generation / 2))

    def prompt_macs(self, cell):
        """Multiply-adds of a token of a prompt, attention included; only the last token meets the output matrix."""
        return (self.layer_macs + self.attention_macs * (cell.depth + cell.prompt / 2)
                + self.output_macs / max(cell.prompt, 1))


def processor_times():
    """All time and stolen time of all processors since boot."""
    with open("/proc/stat", encoding="ascii") as stat:
        times = [int(word) for word in stat.readline().split()[1:9]]
    return sum(times), times[7]


def interval(logs):
    """95 % of the medians of samples drawn anew from these."""
    random = np.random.default_rng(1)
    drawn = random.choice(np.asarray(logs), size=(10_000, len(logs)))
    return [float(math.exp(q)) for q in np.quantile(np.median(drawn, axis=1), (0.025, 0.975))]


def faster_flash(llama, cell):
    """Warms llama.cpp up and says which setting of flash attention is its faster one here."""
    def seconds(flash):
        speed = llama.speed(cell, flash)
        return sum(getattr(cell, what) / speed[what] for what in cell.measures)
    return True if cell.kv != "f16" else min((False, True), key=seconds)


def run_pairs(cell, llama, zse, pairs):
    flash = faster_flash(llama, cell)
    zse.speed(cell)  # warms up: the file is in memory from here on
    kept, dropped = [], []
    while len(kept) < pairs and len(kept) + len(dropped) < 2 * pairs:
        sides = [("llama", lambda: llama.speed(cell, flash)), ("zse", lambda: zse.speed(cell))]
        turn = len(kept) + len(dropped)
        before = processor_times()
        pair = {side: measure() for side, measure in (sides if turn % 2 == 0 else reversed(sides))}
        passed, stolen = (now - then for now, then in zip(processor_times(), before))
        pair["steal"] = stolen / max(passed, 1)
        (dropped if pair["steal"] > MOST_STEAL else kept).append(pair)
    return {"flash_attention": flash, "pairs": kept, "dropped": dropped}


def rate(roofline, key):
    return roofline[key]["median"]


def summary(cell, pairs, rooflines):
    """Per measure: speeds, ratio with its interval, and fractions of what the machine can do."""
    shape = Shape(MODELS[cell.model])
    found = {}
    for what in cell.measures if pairs else ():
        if what == "generation":
            work, limit = shape.generation_bytes(cell), "read_bytes_per_second"
        else:
            work, limit = shape.prompt_macs(cell), "integer_multiply_adds_per_second"
        limit = statistics.mean(rate(roofline, limit) for roofline in rooflines)
        logs = [math.log(pair["zse"][what] / pair["llama"][what]) for pair in pairs]
        found[what] = {"ratio": math.exp(statistics.median(logs)), "interval": interval(logs)}
        for side in ("llama", "zse"):
            speed = statistics.median(pair[side][what] for pair in pairs)
            found[what][side] = {"tokens_per_second": speed, "of_roofline": speed * work / limit}
    return found


def machine():
    with open("/proc/cpuinfo", encoding="utf-8") as cpuinfo:
        fields = dict(map(str.strip, line.split(":", 1)) for line in cpuinfo if ":" in line)
    flags = fields.get("flags", fields.get("Features", "")).split()
    return {"processor": fields.get("model name", platform.machine()),
            "family": fields.get("cpu family"), "model": fields.get("model"),
            "flags": [flag for flag in FLAGS if flag in flags], "system": platform.platform()}


def header(options):
    return {"date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "commit": output_of("git", "-C", ROOT, "describe", "--always", "--dirty").strip(),
            "machine": machine(), "threads": options.threads, "pairs": options.pairs,
            "llama_cpp_python": llama_cpp.__version__,
            "llama_system_info": llama_cpp.llama_print_system_info().decode()}


def measure(options):
    # Both sides and the roofline get the same processors: children inherit these.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:options.threads])
    zse = Zse(options.zse, options.threads)
    results = {**header(options), "perplexity": [], "cells": [], "failures": []}

    def roofline():
        return json.loads(output_of(options.roofline, "--json", "--threads", options.threads))

    cells = [cell for cell in all_cells(options.deep, options.generation) if re.search(options.cells, cell.name)]
    if not cells:
        sys.exit(f"no cell's name matches {options.cells}")
    before = roofline()
    for model in dict.fromkeys(cell.model for cell in cells):
        mine = [cell for cell in cells if cell.model == model]
        llama = Llama(model, options.threads)
        for kv in dict.fromkeys(cell.kv for cell in mine) if model in SMOLLM2 else ():
            theirs = llama.ask("perplexity", file=str(TEXT), window=WINDOW, kv=kv, flash=True)
            results["perplexity"].append({"model": model, "kv": kv, "llama": theirs["perplexity"],
                                          "zse": zse.perplexity(model, kv), "tokens": theirs["tokens"]})
        for cell in mine:
            print(cell.name, file=sys.stderr, flush=True)
            try:
                run = run_pairs(cell, llama, zse, options.pairs)
            except RuntimeError as error:
                print(error, file=sys.stderr, flush=True)
                results["failures"].append({"name": cell.name, "error": str(error)})
                continue
            after = roofline()
            results["cells"].append({"name": cell.name, **dataclasses.asdict(cell), **run,
                                     "rooflines": [before, after],
                                     "summary": summary(cell, run["pairs"], [before, after])})
            before = after
            options.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        llama.close()
    if results["failures"]:
        print(f"cells that failed: {len(results['failures'])}", file=sys.stderr)
    return results


def tables(results):
    """The section of docs/benchmarks.md."""
    if not results["cells"]:
        sys.exit("no cell was measured")
    host = results["machine"]
    ends = [cell["rooflines"][1] for cell in results["cells"]]

    def range_of(key):
        values = [rate(roofline, key) / 1e9 for roofline in ends]
        return f"{min(values):.1f} to {max(values):.1f}"

    lines = [
        f"{results['date'][:10]}, commit {results['commit']}; {host['processor']} (family {host['family']}, model "
        f"{host['model']}; {', '.join(host['flags'])}), {results['threads']} threads; llama-cpp-python "
        f"{results['llama_cpp_python']} built for this machine.", "",
        f"Roofline, medians between cells: {range_of('read_bytes_per_second')} GB/s read; "
        f"{range_of('integer_multiply_adds_per_second')} thousand million multiply-adds/s "
        f"({ends[0]['integer_multiply_adds_per_second']['mix']}).", "",
        "| Model | Cell | llama.cpp tokens/s | zse tokens/s | zse / llama.cpp (95 % interval) "
        "| Of the roofline: llama.cpp | zse | Pairs (dropped) |", "|---|---|---|---|---|---|---|---|"]
    for cell in results["cells"]:
        model, _, where = cell["name"].partition(", ")
        for what, found in cell["summary"].items():
            low, high = found["interval"]
            lines.append(
                f"| {model} | {what} {cell[what]}, {where} | {found['llama']['tokens_per_second']:.1f} "
                f"| {found['zse']['tokens_per_second']:.1f} | {found['ratio']:.2f} ({low:.2f} to {high:.2f}) "
                f"| {found['llama']['of_roofline']:.2f} | {found['zse']['of_roofline']:.2f} "
                f"| {len(cell['pairs'])} ({len(cell['dropped'])}) |")
    if results["perplexity"]:
        lines += ["", "| Model | KV | llama.cpp perplexity | zse perplexity | Scored tokens |", "|---|---|---|---|---|"]
        lines += [f"| {each['model']} | {each['kv']} | {each['llama']:.3f} | {each['zse']:.3f} | {each['tokens']} |"
                  for each in results["perplexity"]]
    return "\n".join(lines)


def rewrite(section):
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    if not after:
        sys.exit(f"{PAGE} has no lines {BEGIN} and {END}")
    PAGE.write_text(f"{before}{BEGIN}\n{section}\n{END}{after}", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", default="", metavar="REGEX", help="only cells whose name matches")
    parser.add_argument("--list", action="store_true", help="print the names of the cells")
    parser.add_argument("--pairs", type=int, default=10, help="that count, of each cell (10)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--quick", action="store_true", help="2 pairs, 32 tokens, depth 1024; the page is left alone")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "build/peers.json", help="raw results")
    programs = ROOT / "build/release/bin"
    parser.add_argument("--zse", type=pathlib.Path, default=programs / "zse")
    parser.add_argument("--roofline", type=pathlib.Path, default=programs / "bench_roofline")
    options = parser.parse_args()
    options.deep, options.generation = (1024, 32) if options.quick else (4096, 128)
    if options.quick:
        options.pairs = 2
    if options.list:
        print("\n".join(cell.name for cell in all_cells(options.deep, options.generation)))
        return
    section = tables(measure(options))
    print(section)
    if not options.quick:
        rewrite(section)


if __name__ == "__main__":
    main()

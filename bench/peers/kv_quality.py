#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measures what each precision of the KV cache costs in quality, in zse and in llama.cpp, on the same tokens.

Each program is compared with its own f16 cache: by perplexity, and by the divergence of its predictions. Windows and
scored tokens are those of `zse perplexity`. The table goes to docs/benchmarks.md.

The text is Newton's Opticks (4th edition, 1730; in the public domain), which Debian's package of the Go sources ships
as a test file. It is fetched by apt-get, once. --text takes another one.
"""
import argparse
import datetime
import hashlib
import json
import math
import os
import pathlib
import subprocess
import sys
import tempfile

import llama_cpp
import numpy as np

from compare import PAGE, ROOT, machine, output_of
from llama_worker import Llama, log_softmax
from make_models import SOURCE

BEGIN, END = "<!-- kv-quality:begin -->", "<!-- kv-quality:end -->"
WINDOW = 512
CACHE = pathlib.Path(os.environ.get("ZSE_CACHE", pathlib.Path.home() / ".cache/zse"))
TEXT = CACHE / "texts/opticks.txt"
TEXT_PACKAGE = "golang-1.19-src"
TEXT_MEMBER = "./usr/share/go-1.19/src/testdata/Isaac.Newton-Opticks.txt"
TEXT_SHA256 = "d4a9ac22462b35e7821a4f2706c211093da678620a8f9997989ee7cf8d507bbd"

# What is measured: name of the row, keys and values as zse spells them, the same for llama.cpp.
ROWS = (("f16", "f16", "f16"), ("f32", "f32", None), ("fp8", "fp8", None), ("K8V8", "int8", "int8"),
        ("K8V4", "int8/int4", "int8/int4"), ("K4V4", "int4", "int4"), ("K4V4, not rotated", "int4-plain", None))
LLAMA_NAMES = {"f16": "f16", "int8": "q8_0", "int4": "q4_0"}
LLAMA_BITS = {"f16": 16, "int8": 8.5, "int4": 4.5}
ZSE_BITS = {**LLAMA_BITS, "f32": 32, "fp8": 8.5, "int4-plain": 4.5}


def sides(kv):
    keys, _, values = kv.partition("/")
    return keys, values or keys


def fetch_text():
    if TEXT.exists():
        return
    TEXT.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        subprocess.run(["apt-get", "download", "-qq", TEXT_PACKAGE], cwd=work, check=True)
        package = next(pathlib.Path(work).glob("*.deb"))
        archive = subprocess.run(["dpkg-deb", "--fsys-tarfile", package], check=True, stdout=subprocess.PIPE).stdout
        text = subprocess.run(["tar", "-xO", TEXT_MEMBER], input=archive, check=True, stdout=subprocess.PIPE).stdout
    if hashlib.sha256(text).hexdigest() != TEXT_SHA256:
        sys.exit(f"{TEXT_PACKAGE} holds another text than the one that was expected; give one by --text")
    TEXT.write_bytes(text)


def first_windows(llama, text, windows):
    """The first lines of a text that make up so many windows, and their tokens."""
    lines = text.splitlines(keepends=True)
    low, high = 1, len(lines)  # lines that are needed
    wanted = windows * WINDOW
    if len(llama.encode(text)) < wanted:
        sys.exit(f"the text has fewer than {windows} windows of {WINDOW} tokens")
    while low < high:
        middle = (low + high) // 2
        if len(llama.encode("".join(lines[:middle]))) < wanted:
            low = middle + 1
        else:
            high = middle
    part = "".join(lines[:low])
    return part, llama.encode(part)


def measure_llama(model, tokens, threads):
    """For each KV: perplexity, and the divergences of all scored tokens from f16."""
    wanted = [kv for _, _, kv in ROWS if kv]
    assert wanted[0] == "f16"
    instances = {kv: Llama(model, threads) for kv in wanted}
    likelihoods = {kv: [] for kv in wanted}
    divergences = {kv: [] for kv in wanted}
    same = {kv: [] for kv in wanted}
    windows = zip(*(instances[kv].scored(tokens, WINDOW, kv, True) for kv in wanted))
    for index, window in enumerate(windows):
        print(f"llama.cpp: window {index + 1}", end="\r", file=sys.stderr, flush=True)
        for kv, (logits, came) in zip(wanted, window):
            logs = log_softmax(logits)
            if kv == "f16":
                base, probabilities = logs, np.exp(logs)
            likelihoods[kv] += list(logs[np.arange(len(came)), came])
            divergences[kv] += list((probabilities * (base - logs)).sum(axis=1))
            same[kv] += list(logs.argmax(axis=1) == base.argmax(axis=1))
    print(file=sys.stderr)
    return {kv: {"perplexity": math.exp(-np.mean(likelihoods[kv])), "mean": float(np.mean(divergences[kv])),
                 "percentile_99": float(np.quantile(divergences[kv], 0.99)),
                 "same_top": float(np.mean(same[kv])), "tokens": len(likelihoods[kv])} for kv in wanted}


def measure_zse(options, file):
    result = {}
    for _, kv, _ in ROWS:
        keys, values = sides(kv)
        print(f"zse: {kv}", file=sys.stderr, flush=True)
        said = json.loads(output_of(options.zse, "perplexity", options.model, "--file", file, "--context", WINDOW,
                                    "--kl", "--threads", options.threads, "-ctk", keys, "-ctv", values, "--json"))
        kl = said["kl"]
        result[kv] = {"perplexity": said["perplexity"], "tokens": said["tokens"],
                      **{key: kl[key] for key in ("mean", "percentile_99", "same_top")}}
    return result


def measure(options):
    if options.text is None:
        fetch_text()
    llama = Llama(options.model, options.threads)
    text, tokens = first_windows(llama, (options.text or TEXT).read_text(encoding="utf-8"), options.windows)
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".txt") as file:
        file.write(text)
        file.flush()
        ids = json.loads(output_of(options.zse, "tokenize", options.model, "--file", file.name, "--json"))["tokens"]
        if ids != tokens:
            sys.exit("zse and llama.cpp make different tokens of this text")
        zse = measure_zse(options, file.name)
    return {"date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
            "commit": output_of("git", "-C", ROOT, "describe", "--always", "--dirty").strip(),
            "machine": machine(), "threads": options.threads, "llama_cpp_python": llama_cpp.__version__,
            "model": pathlib.Path(options.model).stem, "windows": options.windows, "zse": zse,
            "llama": measure_llama(options.model, tokens, options.threads)}


def table(results):
    host = results["machine"]
    tokens = {each["tokens"] for side in ("zse", "llama") for each in results[side].values()}
    assert len(tokens) == 1, "all scored the same tokens"
    lines = [
        f"{results['date']}, commit {results['commit']}; {host['processor']} (family {host['family']}, model "
        f"{host['model']}), {results['threads']} threads; {results['model']}; llama-cpp-python "
        f"{results['llama_cpp_python']}; {tokens.pop():,} scored tokens in {results['windows']} windows of {WINDOW}.", "",
        "| Program | KV | Bits per value of K / V | Perplexity | Change | Mean KL divergence | 99th percentile "
        "| Same top token |", "|---|---|---|---|---|---|---|---|"]

    def row(program, side, name, kv, bits, spelled):
        each = results[side][kv]
        change = 100 * (each["perplexity"] / results[side]["f16"]["perplexity"] - 1)
        keys, values = sides(kv)
        compared = (f"{change:+.2f} % | {each['mean']:.5f} | {each['percentile_99']:.4f} "
                    f"| {100 * each['same_top']:.2f} %") if kv != "f16" else "(baseline) | | |"
        lines.append(f"| {program} | {name}{spelled(keys, values)} | {bits[keys]:g} / {bits[values]:g} "
                     f"| {each['perplexity']:.4f} | {compared} |")

    for name, kv, _ in ROWS:
        row("zse", "zse", name, kv, ZSE_BITS, lambda keys, values: "")
    for name, _, kv in ROWS:
        if kv:
            row("llama.cpp", "llama", name, kv, LLAMA_BITS, lambda keys, values: "" if keys == "f16" else
                f" ({LLAMA_NAMES[keys]}/{LLAMA_NAMES[values]})")
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
    parser.add_argument("--text", type=pathlib.Path, help="a plain text (Newton's Opticks)")
    parser.add_argument("--windows", type=int, default=80, help=f"of {WINDOW} tokens, that are measured (80)")
    parser.add_argument("--model", default=str(SOURCE))
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "build/kv_quality.json", help="raw results")
    parser.add_argument("--zse", type=pathlib.Path, default=ROOT / "build/release/bin/zse")
    parser.add_argument("--dry", action="store_true", help="leave the page alone")
    options = parser.parse_args()
    results = measure(options)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    section = table(results)
    print(section)
    if not options.dry:
        rewrite(section)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks what each compiled CUDA kernel takes against the budget that stands beside it.

cuda_resources.py BUDGETS OBJECTS: BUDGETS is a program that prints a line for each kernel, OBJECTS a file that names the
objects of nvcc, one a line. Beside each lies OBJECT.ptxas, what the assembler said of it. A kernel fails that takes more
registers, shared memory of fixed size or stack than its budget; that spills a register; that was compiled without a budget;
or that has one and was not compiled. For kernels of libraries only spills fail.
"""
import pathlib
import re
import subprocess
import sys

ENTRY = re.compile(r"Compiling entry function '(\S+)' for '(\w+)'")
FRAME = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers")
SHARED = re.compile(r"(\d+) bytes smem")
OURS = re.compile(r"^void zse::v\d+::exec::gpu::run_kernel<")


def compiled(logs):
    """Yields {name, architecture, frame, spill, registers, shared} for each kernel of these logs."""
    for log in logs:
        kernel = None
        for line in log.read_text(encoding="utf-8").splitlines():
            if match := ENTRY.search(line):
                kernel = {"name": match.group(1), "architecture": match.group(2), "frame": 0, "spill": 0}
            elif kernel and (match := FRAME.search(line)):
                frame, stores, loads = map(int, match.groups())
                # Functions that were not inlined have lines of their own, before that of the registers.
                kernel["frame"] = max(kernel["frame"], frame)
                kernel["spill"] = max(kernel["spill"], stores + loads)
            elif kernel and (match := USED.search(line)):
                kernel["registers"] = int(match.group(1))
                shared = SHARED.search(line)
                kernel["shared"] = int(shared.group(1)) if shared else 0
                yield kernel
                kernel = None


def demangled(names):
    said = subprocess.run(["c++filt"], input="\n".join(names), check=True, capture_output=True, text=True).stdout
    return [squeezed(line) for line in said.splitlines()]


def squeezed(name):
    """Without the blanks that some demanglers put between closing brackets."""
    while "> >" in name:
        name = name.replace("> >", ">>")
    return name


def short(name):
    return re.sub(r"zse::v\d+::(?:\w+::)*", "", name)


def offences(kernel, budget):
    """What is wrong with a compiled kernel."""
    if kernel["spill"]:
        yield f"spills {kernel['spill']} bytes"
    if budget is None:
        return
    if kernel["frame"] > budget["stack"]:
        yield f"has a stack frame of {kernel['frame']} bytes, its budget is {budget['stack']}"
    if kernel["registers"] > budget["registers"]:
        yield f"takes {kernel['registers']} registers, its budget is {budget['registers']}"
    if kernel["shared"] > budget["shared"]:
        yield f"takes {kernel['shared']} bytes of fixed shared memory, its budget is {budget['shared']}"


def main():
    program, listed = sys.argv[1:]
    budgets = {}
    for line in subprocess.run([program], check=True, capture_output=True, text=True).stdout.splitlines():
        *figures, name = line.split("\t")
        budgets[squeezed(name)] = dict(zip(("registers", "shared", "stack", "threads"), map(int, figures)))
    objects = [line for line in pathlib.Path(listed).read_text(encoding="utf-8").splitlines() if line]
    logs = [pathlib.Path(f"{name}.ptxas") for name in objects]
    wrong = [f"{log}: is not there; build the object anew" for log in logs if not log.is_file()]

    kernels = list(compiled(log for log in logs if log.is_file()))
    entries = {squeezed(f"void zse::v1::exec::gpu::run_kernel<{name}>({name})"): name for name in budgets}
    missing = set(budgets)
    rows = {}
    for kernel, entry in zip(kernels, demangled([kernel["name"] for kernel in kernels])):
        name = entries.get(entry)
        if name is None and OURS.match(entry):
            wrong.append(f"{entry}: is compiled, and in no list of zse_cuda_unit()")
        missing.discard(name)
        budget = budgets.get(name)
        for why in offences(kernel, budget):
            wrong.append(f"{short(name or entry)} on {kernel['architecture']}: {why}")
        if budget:
            rows.setdefault(name, []).append(kernel)
    wrong += [f"{short(name)}: has a budget, and was not compiled" for name in sorted(missing)]

    print("registers of  shared of     threads  kernel")
    for name, found in sorted(rows.items()):
        most = {key: max(kernel[key] for kernel in found) for key in ("registers", "shared")}
        budget = budgets[name]
        print(f"{most['registers']:>9} {budget['registers']:>3} {most['shared']:>6} {budget['shared']:>6} "
              f"{budget['threads']:>8}  {short(name)}")
    print("\n".join([*wrong, f"kernels: {len(rows)} on {len({k['architecture'] for k in kernels})} architectures, "
                             f"{len(wrong)} offences"]))
    return bool(wrong) or not rows


if __name__ == "__main__":
    sys.exit(main())

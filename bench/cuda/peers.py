#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What PyTorch and FlashInfer reach on the shapes that cuda_bench measures, as tables beside its own.

Needs PyTorch with CUDA; FlashInfer's rows are left out where it cannot be imported. Work is captured as a graph and cycles
through enough copies to miss the level-2 cache, as in cuda_bench; medians of 20 (least to most).
"""
import argparse
import math
import statistics
import sys

SAMPLES = 20
WARM_UP = 5
# name: hidden, heads, kv heads, head size, feed-forward
SHAPES = {
    "Llama-3-8B": (4096, 32, 8, 128, 14336),
    "Qwen2.5-7B": (3584, 28, 4, 128, 18944),
    "Llama-2-7B": (4096, 32, 32, 128, 11008),
}
BATCHES = (1, 2, 4, 8, 16, 32, 64)
DEPTHS = (4096, 16384, 32768, 131072)
PROMPT = 2048


def matrices(shape):
    """Rows and columns of the fused groups of a layer."""
    hidden, heads, kv_heads, size, inner = SHAPES[shape]
    return [((heads + 2 * kv_heads) * size, hidden), (hidden, heads * size), (2 * inner, hidden), (hidden, inner)]


def seconds(torch, work, units):
    """Median, least and most seconds of one of the units that `work` enqueues."""
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        for _ in range(3):  # libraries choose and allocate here, which a capture cannot
            work()
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    found = []
    for sample in range(WARM_UP + SAMPLES):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        if sample >= WARM_UP:
            found.append(begin.elapsed_time(end) * 1e-3 / units)
    return statistics.median(found), min(found), max(found)


def rate(spread, units):
    median, least, most = spread
    return f"{units / median:.0f} ({units / most:.0f} to {units / least:.0f})"


def copies(torch, size):
    cache = torch.cuda.get_device_properties(0).L2_cache_size
    return max(2, math.ceil(4 * cache / size) + 1)


def random(torch, *shape, dtype):
    return torch.randn(*shape, device="cuda", dtype=dtype)


def products(torch):
    print("\n### PyTorch: products of a layer, bfloat16\n\n| Shape | Batch | Microseconds a layer | GB/s |\n|---|---|---|---|")
    for shape in SHAPES:
        groups = matrices(shape)
        size = sum(rows * columns * 2 for rows, columns in groups)
        layers = [[random(torch, *group, dtype=torch.bfloat16) for group in groups]
                  for _ in range(copies(torch, size))]
        for batch in BATCHES:
            inputs = [random(torch, batch, columns, dtype=torch.bfloat16) for _, columns in groups]

            def work():
                for layer in layers:
                    for weights, x in zip(layer, inputs):
                        torch.nn.functional.linear(x, weights)

            spread = seconds(torch, work, len(layers))
            print(f"| {shape} | {batch} | {spread[0] * 1e6:.1f} | {rate(spread, size * 1e-9)} |", flush=True)
        del layers


def prompts(torch):
    print(f"\n### PyTorch: products of a layer at {PROMPT} tokens, bfloat16\n\n| Shape | TFLOP/s |\n|---|---|")
    for shape in SHAPES:
        groups = matrices(shape)
        weights = [random(torch, *group, dtype=torch.bfloat16) for group in groups]
        inputs = [random(torch, PROMPT, columns, dtype=torch.bfloat16) for _, columns in groups]

        def work():
            for w, x in zip(weights, inputs):
                torch.nn.functional.linear(x, w)

        operations = sum(2 * PROMPT * rows * columns for rows, columns in groups)
        print(f"| {shape} | {rate(seconds(torch, work, 1), operations * 1e-12)} |", flush=True)


def attention(torch):
    print("\n### Attention of one token, float16 keys and values\n\n| Shape | Depth | Who | Microseconds a layer | GB/s |\n"
          "|---|---|---|---|---|")
    try:
        import flashinfer
    except ImportError:
        flashinfer = None
        print("FlashInfer cannot be imported: its rows are left out.", file=sys.stderr)
    for shape, (_, heads, kv_heads, size, _) in SHAPES.items():
        for depth in DEPTHS:
            bytes_read = 2 * depth * kv_heads * size * 2
            q = random(torch, 1, heads, 1, size, dtype=torch.float16)
            layers = [random(torch, 2, 1, kv_heads, depth, size, dtype=torch.float16)
                      for _ in range(copies(torch, bytes_read))]

            def report(who, spread):
                print(f"| {shape} | {depth:,} | {who} | {spread[0] * 1e6:.1f} | {rate(spread, bytes_read * 1e-9)} |",
                      flush=True)

            def torch_work():
                for keys, values in layers:
                    torch.nn.functional.scaled_dot_product_attention(q, keys, values, enable_gqa=heads != kv_heads)

            report("PyTorch", seconds(torch, torch_work, len(layers)))
            if flashinfer:
                by_head = q[0, :, 0]

                def flashinfer_work():
                    for keys, values in layers:
                        flashinfer.single_decode_with_kv_cache(by_head, keys[0], values[0], kv_layout="HND",
                                                               use_tensor_cores=heads // kv_heads >= 4)

                report("FlashInfer", seconds(torch, flashinfer_work, len(layers)))
            del layers


def main():
    sections = {"products": products, "attention": attention, "prompts": prompts}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("section", nargs="*", help=f"of {', '.join(sections)}; without one: all of them")
    wanted = parser.parse_args().section or list(sections)
    if unknown := [name for name in wanted if name not in sections]:
        parser.error(f"there is no section {unknown[0]}")
    try:
        import torch
    except ImportError:
        sys.exit("peers.py: PyTorch is not installed; python3 -m pip install torch")
    if not torch.cuda.is_available():
        sys.exit("peers.py: PyTorch finds no GPU")
    print(f"PyTorch {torch.__version__}, {torch.cuda.get_device_name()}; medians of {SAMPLES} (least to most)")
    for name in wanted:
        sections[name](torch)


if __name__ == "__main__":
    main()

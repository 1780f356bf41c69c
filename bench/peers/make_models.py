#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes the models that speed is measured with: SmolLM2 in other formats, slices of it, a random one of 1B shape.

All are made from the SmolLM2 file in Q4_1 that ./dev demo fetches. A file that exists is left alone.
"""
import argparse
import os
import pathlib

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf.quants import dequantize, quantize

CACHE = pathlib.Path(os.environ.get("ZSE_CACHE") or pathlib.Path.home() / ".cache/zse")
MODELS = CACHE / "models"
SOURCE = MODELS / "SmolLM2-135M-Instruct.Q4_1.gguf"
FILE_TYPES = {"Q4_0": 2, "Q4_1": 3, "Q8_0": 7}  # general.file_type

SLICE_LAYERS = 2
SLICE_VOCABULARY = 2048

BILLION = {"block_count": 16, "embedding_length": 2048, "feed_forward_length": 8192, "attention.head_count": 32,
           "attention.head_count_kv": 8, "rope.dimension_count": 64, "rope.freq_base": 500000.0}
BLOCK_ROWS = 2048  # rows that are random float32 at a time


def write(path, source, changes, tensors):
    """Writes a GGUF file with the metadata of `source`, but for `changes`.

    `tensors` lists (name, rows and columns, type, maker); a maker yields the tensor's bytes in pieces, so that no
    more than a piece of it is in memory.
    """
    part = path.with_suffix(".part")
    writer = gguf.GGUFWriter(part, "llama")
    for key, field in source.fields.items():
        if key.startswith("GGUF.") or key == "general.architecture":
            continue
        value = changes.pop(key) if key in changes else field.contents()
        writer.add_key_value(key, value, field.types[0], field.types[1] if len(field.types) > 1 else None)
    assert not changes, f"not in the source: {changes}"
    for name, shape, kind, _ in tensors:
        block, size = gguf.GGML_QUANT_SIZES[kind]
        bytes_shape = (*shape[:-1], shape[-1] // block * size)
        writer.add_tensor_info(name, bytes_shape, np.dtype(np.uint8), int(np.prod(bytes_shape)), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    out = writer.fout[0]
    writer.write_padding(out, out.tell())
    for _, _, _, make in tensors:
        for piece in make():
            out.write(piece.tobytes())
        writer.write_padding(out, out.tell())
    writer.close()
    part.rename(path)
    print(f"{path}: {path.stat().st_size:,} bytes")


def tensor_of(tensor, kind, rows=None):
    """A tensor of the source, or its first rows, in another format if it is a matrix.

    Vectors and the embedding table, which is also the output matrix, stay as they are.
    """
    data = tensor.data[:rows]
    shape = (data.shape[0], *(int(n) for n in reversed(tensor.shape[:-1])))
    if tensor.tensor_type in (Type.F32, kind) or tensor.name == "token_embd.weight":
        return tensor.name, shape, tensor.tensor_type, lambda: [data]
    return tensor.name, shape, kind, lambda: [quantize(dequantize(data, tensor.tensor_type), kind)]


def make_requantized(path, form):
    source = gguf.GGUFReader(SOURCE)
    write(path, source, {"general.file_type": FILE_TYPES[form]},
          [tensor_of(tensor, Type[form]) for tensor in source.tensors])


def make_slice(path, form):
    """The first layers and the first words: small enough to count every instruction of a run."""
    source = gguf.GGUFReader(SOURCE)
    words = source.fields["tokenizer.ggml.tokens"].contents()[:SLICE_VOCABULARY]
    known = set(words)
    merges = [merge for merge in source.fields["tokenizer.ggml.merges"].contents()
              if known.issuperset(merge.split(" ")) and merge.replace(" ", "") in known]
    kinds = source.fields["tokenizer.ggml.token_type"].contents()[:SLICE_VOCABULARY]
    changes = {"general.file_type": FILE_TYPES[form], "llama.block_count": SLICE_LAYERS,
               "llama.vocab_size": SLICE_VOCABULARY, "tokenizer.ggml.tokens": words,
               "tokenizer.ggml.token_type": kinds, "tokenizer.ggml.merges": merges}
    tensors = [tensor_of(tensor, Type[form], SLICE_VOCABULARY if tensor.name == "token_embd.weight" else None)
               for tensor in source.tensors
               if not tensor.name.startswith("blk.") or int(tensor.name.split(".")[1]) < SLICE_LAYERS]
    write(path, source, changes, tensors)


def random_matrix(name, rows, columns, kind, deviation, random):
    """Normal numbers; with 1 / sqrt(columns) as deviation a product is as large as what it is made from."""
    def make():
        for first in range(0, rows, BLOCK_ROWS):
            values = random.standard_normal((min(BLOCK_ROWS, rows - first), columns), dtype=np.float32)
            yield quantize(values * np.float32(deviation), kind)
    return name, (rows, columns), kind, make


def ones(name, count):
    return name, (count,), Type.F32, lambda: [np.ones(count, np.float32)]


def make_billion(path):
    """The shape of Llama 3.2 1B with SmolLM2's vocabulary, for speed alone."""
    source = gguf.GGUFReader(SOURCE)
    random = np.random.default_rng(1)
    layers, hidden, inner = (BILLION[key] for key in ("block_count", "embedding_length", "feed_forward_length"))
    kv = hidden // BILLION["attention.head_count"] * BILLION["attention.head_count_kv"]
    vocabulary = len(source.fields["tokenizer.ggml.tokens"].data)
    tensors = [random_matrix("token_embd.weight", vocabulary, hidden, Type.Q8_0, 0.02, random),
               ones("output_norm.weight", hidden)]
    # What adds to the hidden state is made smaller, so that it does not grow from layer to layer.
    into, back = hidden ** -0.5, (2 * layers) ** -0.5
    for layer in range(layers):
        for name, rows, columns, deviation in (
                ("attn_q", hidden, hidden, into), ("attn_k", kv, hidden, into), ("attn_v", kv, hidden, into),
                ("attn_output", hidden, hidden, into * back), ("ffn_gate", inner, hidden, into),
                ("ffn_up", inner, hidden, into), ("ffn_down", hidden, inner, inner ** -0.5 * back)):
            tensors.append(random_matrix(f"blk.{layer}.{name}.weight", rows, columns, Type.Q4_0, deviation, random))
        tensors += [ones(f"blk.{layer}.{name}.weight", hidden) for name in ("attn_norm", "ffn_norm")]
    changes = {f"llama.{key}": value for key, value in BILLION.items()}
    changes |= {"general.file_type": FILE_TYPES["Q4_0"], "general.name": "random weights", "general.basename":
                "random", "general.organization": "none", "general.finetune": "none", "general.size_label": "1B"}
    write(path, source, changes, tensors)


def requantized_path(form):
    return MODELS / f"SmolLM2-135M-Instruct.{form}.gguf"


def slice_path(form):
    return MODELS / f"SmolLM2-slice.{form}.gguf"


BILLION_PATH = MODELS / "random-1b.Q4_0.gguf"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    groups = ("requantized", "slices", "1b")
    parser.add_argument("--only", nargs="+", choices=groups, default=groups, metavar="GROUP",
                        help=f"some of {', '.join(groups)}")
    only = parser.parse_args().only
    wanted = [("requantized", requantized_path(form), make_requantized, (form,)) for form in ("Q4_0", "Q8_0")]
    wanted += [("slices", slice_path(form), make_slice, (form,)) for form in FILE_TYPES]
    wanted += [("1b", BILLION_PATH, make_billion, ())]
    for group, path, make, arguments in wanted:
        if group in only and not path.exists():
            make(path, *arguments)


if __name__ == "__main__":
    main()

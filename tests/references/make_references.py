#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes the reference numbers in tests/data/references. Run by hand; no test runs it.

    python tests/references/make_references.py smollm2 PATH/TO/SmolLM2-135M-Instruct.Q4_1.gguf
    python tests/references/make_references.py tiny

Needs: torch, transformers, gguf, numpy and (for smollm2) llama-cpp-python. Made with torch 2.15.0,
transformers 5.23.0, gguf 0.19.0, llama-cpp-python 0.3.36. Takes about five minutes on two cores.
README.md beside this file describes the formats and the formula of the tiny models' weights.
"""
import hashlib
import json
import math
import os
import pathlib
import sys

import numpy as np
import torch

HERE = pathlib.Path(__file__).resolve().parent
DATA = HERE.parent / "data" / "references"
TEXTS = HERE.parent / "data" / "texts"
TOP = 16  # highest logits kept of each row
SAMPLE_STRIDE = 2048  # and every 2048th id: 24 of 49,152
GREEDY = 64
ROW = np.dtype([("max", "<f4"), ("mean", "<f4"), ("top", [("id", "<u4"), ("logit", "<f4")], TOP)])
POSITION = np.dtype([("token", "<u4"), ("top1", "<u4"), ("gap", "<f4"), ("nll", "<f4")])


def gap_of(row):
    """Top-1 minus top-2, as a share of the row's spread (its maximum minus its mean)."""
    two = np.partition(row, -2)[-2:]
    return float(two[1] - two[0]) / float(row.max() - row.mean(dtype=np.float64))


def logits_of(model, ids):
    with torch.no_grad():
        return model(torch.tensor([ids]), use_cache=False).logits[0].numpy()


def greedy_of(model, ids, count):
    """Argmax continuation through the KV cache, one token a step; stops at nothing."""
    tokens, gaps = [], []
    with torch.no_grad():
        step = model(torch.tensor([ids]), use_cache=True)
        while True:
            row = step.logits[0, -1].numpy()
            tokens.append(int(row.argmax()))
            gaps.append(round(gap_of(row), 7))
            if len(tokens) == count:
                return tokens, gaps
            step = model(torch.tensor([tokens[-1:]]), past_key_values=step.past_key_values, use_cache=True)


def write_json(name, value):
    """One key a line at the top, compact below: small, and a change is still seen in a diff."""
    lines = [f" {json.dumps(k)}: {json.dumps(v, ensure_ascii=True, separators=(',', ':'))}" for k, v in value.items()]
    (DATA / name).write_text("{\n" + ",\n".join(lines) + "\n}\n")


def write_rows(name, rows):
    (DATA / name).write_bytes(rows.tobytes())
    print(name, len(rows), "records of", rows.dtype.itemsize, "bytes")


# ---------------------------------------------------------------------------------------- SmolLM2
SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
QUESTION = "What is the capital of France? Answer in one sentence."
CODE = '''def moving_average(values, width):
    """Returns the mean of each run of `width` neighbours."""
    if width <= 0:
        raise ValueError("width must be positive")
    total = sum(values[:width])
'''
SIGNS = ("  Total:\t1234567.89 € (≈ 1 482 950 ¥)\n\n   naïve café — Привет, 世界! 🙂🙂\r\n"
         "0x1F   2^10 = 1024,  3.14159;\t\t007\n")


def prompts():
    prose = (TEXTS / "prose.txt").read_text()
    technical = (TEXTS / "technical.txt").read_text()
    return {
        "chat": f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n",
        "prose": prose[prose.index("In the autumn of that year"):].split(".")[0] + ". Two men came with",
        "code": CODE,
        "signs": SIGNS,
        "long": technical[:870],
    }


def load_exact(path):
    """transformers' model of the GGUF in float32, proven to hold the file's dequantised numbers."""
    import gguf
    from transformers import AutoModelForCausalLM

    folder, file = os.path.split(os.path.abspath(path))
    model = AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=file, dtype=torch.float32, attn_implementation="eager").eval()
    stored = {t.name: gguf.dequantize(t.data, t.tensor_type) for t in gguf.GGUFReader(path).tensors}
    weights = {k: v.numpy() for k, v in model.state_dict().items()}
    names = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
             "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
             "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
    compared = 0
    for name, weight in weights.items():
        assert weight.dtype == np.float32
        if name.startswith("model.layers."):
            _, _, layer, rest = name.split(".", 3)
            kind = names[rest.removesuffix(".weight")]
            want = stored[f"blk.{layer}.{kind}.weight"]
            if kind in ("attn_q", "attn_k"):
                heads = model.config.num_attention_heads if kind == "attn_q" else model.config.num_key_value_heads
                want = unpermuted(want, heads)
        else:
            want = stored["output_norm.weight" if name == "model.norm.weight" else "token_embd.weight"]
        assert np.array_equal(weight, want), name
        compared += 1
    print("weights equal the file's, dequantised in float32:", compared, "tensors")
    return model


def compact(logits):
    """Keeps of each row: maximum, mean, the TOP highest, and every SAMPLE_STRIDE-th logit."""
    order = np.argsort(-logits, axis=1, kind="stable")[:, :TOP]
    rows = np.zeros(len(logits), dtype=np.dtype(ROW.descr + [("sample", "<f4", logits[:, ::SAMPLE_STRIDE].shape[1])]))
    rows["max"] = logits.max(axis=1)
    rows["mean"] = logits.mean(axis=1, dtype=np.float64)
    rows["top"]["id"] = order
    rows["top"]["logit"] = np.take_along_axis(logits, order, axis=1)
    rows["sample"] = logits[:, ::SAMPLE_STRIDE]
    return rows


def score(window_logits, window):
    """-log p of each next token of a window; the last position has none and gets 0."""
    wide = window_logits.astype(np.float64)
    top = wide.max(axis=1)
    norm = np.log(np.exp(wide - top[:, None]).sum(axis=1)) + top
    nll = np.zeros(len(window))
    nll[:-1] = norm[:-1] - wide[np.arange(len(window) - 1), window[1:]]
    return nll


def windows_of(ids, context, bos):
    """As llama.cpp counts: windows one after the other, an incomplete last one dropped; where the file
    asks for BOS, the first token of each window is replaced by it (bos is None where it does not)."""
    for start in range(0, len(ids) // context * context, context):
        window = list(ids[start:start + context])
        if bos is not None:
            window[0] = bos
        yield window


def perplexity(evaluate, ids, context, bos, keep=None):
    total, count, first = 0.0, 0, context // 2
    for window in windows_of(ids, context, bos):
        logits = evaluate(window)
        nll = score(logits, window)
        total += float(nll[first:context - 1].sum())
        count += context - 1 - first
        if keep is not None:
            record = np.zeros(context, dtype=POSITION)
            record["token"], record["top1"], record["nll"] = window, logits.argmax(axis=1), nll
            record["gap"] = [gap_of(row) for row in logits]
            keep.append(record)
    return {"context": context, "windows": len(ids) // context, "scored": count, "nll_sum": total,
            "perplexity": math.exp(total / count)}


def agreement(ours, reference):
    """Share of positions whose top token agrees; near-ties (gap under 0.05) count as agreement."""
    same = ours == reference["top1"]
    return {"all": float((same | (reference["gap"] < 0.05)).mean()), "strict": float(same.mean())}


def smollm2(path):
    import llama_cpp

    peer = llama_cpp.Llama(path, n_ctx=512, n_batch=512, n_ubatch=512, logits_all=True, flash_attn=False,
                           verbose=False)
    vocab = llama_cpp.llama_model_get_vocab(peer.model)
    add_bos = bool(llama_cpp.llama_vocab_get_add_bos(vocab))
    bos = peer.token_bos() if add_bos else None

    def tokens_of(text):
        return peer.tokenize(text.encode(), add_bos=True, special=True)  # adds BOS only if the file says so

    model = load_exact(path)
    out = {"model": os.path.basename(path), "add_bos": add_bos, "vocab": model.config.vocab_size, "top": TOP,
           "sample_stride": SAMPLE_STRIDE, "greedy_tokens": GREEDY, "prompts": []}
    rows = []
    for name, text in prompts().items():
        ids = tokens_of(text)
        logits = logits_of(model, ids)
        rows.append(compact(logits))
        greedy, gaps = greedy_of(model, ids, GREEDY)
        out["prompts"].append({"name": name, "text": text, "ids": ids, "first_row": sum(map(len, rows[:-1])),
                               "greedy": greedy, "greedy_gaps": gaps,
                               "greedy_text": peer.detokenize(greedy, special=True).decode(errors="replace")})
        print(name, len(ids), "tokens; least gap", min(gaps), repr(out["prompts"][-1]["greedy_text"][:90]))
    write_rows("smollm2_prompts.bin", np.concatenate(rows))

    data = (TEXTS / "prose.txt").read_bytes()
    ids = tokens_of(data.decode())
    kept = []
    out["prose"] = {"file": "prose.txt", "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest(), "ids": ids,
                    "perplexity": [perplexity(lambda w: logits_of(model, w), ids, 512, bos, kept),
                                   perplexity(lambda w: logits_of(model, w), ids, 128, bos)]}
    reference = np.concatenate(kept)
    write_rows("smollm2_prose.bin", reference)

    def peer_logits(window):
        peer.reset()
        peer.eval(window)
        return np.array(peer.scores[:len(window)])

    peer_kept = []
    out["llama_cpp"] = {"version": llama_cpp.__version__, "kv": "f16", "flash_attention": False,
                        "perplexity": [perplexity(peer_logits, ids, 512, bos, peer_kept),
                                       perplexity(peer_logits, ids, 128, bos)]}
    out["llama_cpp"]["top1_agreement"] = agreement(np.concatenate(peer_kept)["top1"], reference)

    # How far float32 itself is from float64 (norms and RoPE stay float32 inside transformers).
    singles = [logits_of(model, p["ids"]) for p in out["prompts"]]
    wide = model.double()
    distance = 0.0
    for prompt, single in zip(out["prompts"], singles):
        exact = logits_of(wide, prompt["ids"])
        spread = exact.max(axis=1) - exact.mean(axis=1)
        distance = max(distance, float((np.abs(exact - single).max(axis=1) / spread).max()))
    out["float64_distance"] = distance
    write_json("smollm2.json", out)
    for key in ("float64_distance", "llama_cpp"):
        print(key, json.dumps(out[key], indent=1))
    print(json.dumps(out["prose"]["perplexity"], indent=1), len(ids), "tokens; positions with a gap under 0.05:",
          float((reference["gap"] < 0.05).mean()))


# ------------------------------------------------------------------------------------ tiny models
MASK = (1 << 64) - 1
LAYER = ["attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm", "ffn_gate", "ffn_up", "ffn_down"]


def mix(x):
    """The output function of splitmix64, on an array of uint64 (wraps) or on a Python integer."""
    if isinstance(x, int):
        return int(mix(np.array([x & MASK], dtype=np.uint64))[0])
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def tensor_words(seed, index, count):
    golden = 0x9E3779B97F4A7C15
    key = mix((seed + golden * (index + 1)) & MASK)
    steps = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(golden)
    return mix(np.uint64(key) + steps)


def matrix(seed, index, rows, columns, scale=None):
    """Uniform in [-a, a) on a grid of a / 2^23; a = 2^(1-e) with the least e such that 4^e >= columns."""
    e = next(e for e in range(32) if 4**e >= columns)
    a = 2.0 ** (1 - e) if scale is None else scale
    signed = (tensor_words(seed, index, rows * columns) >> np.uint64(40)).astype(np.int64) - (1 << 23)
    return (signed.astype(np.float64) * (a / 2**23)).astype(np.float32).reshape(rows, columns)


def norm(seed, index, size):
    """Uniform in [1 - 1/8, 1 + 1/8) on a grid of 2^-18."""
    signed = (tensor_words(seed, index, size) >> np.uint64(48)).astype(np.int64) - (1 << 15)
    return (1.0 + signed.astype(np.float64) * 2.0**-18).astype(np.float32)


def unpermuted(weight, heads):
    """Undoes the row order that GGUF uses for Q and K of llama: pairs (2i, 2i+1) back to (i, i + dim/2)."""
    rows, columns = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def tiny_tensors(spec):
    """The tensors as the GGUF holds them, by name. An index belongs to a name even if the tensor is absent."""
    seed, hidden, ffn = spec["seed"], spec["hidden"], spec["ffn"]
    q, kv = spec["heads"] * spec["head_dim"], spec["kv_heads"] * spec["head_dim"]
    shapes = {"attn_q": (q, hidden), "attn_k": (kv, hidden), "attn_v": (kv, hidden), "attn_output": (hidden, q),
              "ffn_gate": (ffn, hidden), "ffn_up": (ffn, hidden), "ffn_down": (hidden, ffn)}
    out = {"token_embd": matrix(seed, 0, spec["vocab"], hidden, scale=1.0), "output_norm": norm(seed, 1, hidden)}
    if not spec["tied"]:
        out["output"] = matrix(seed, 2, spec["vocab"], hidden)
    for layer in range(spec["layers"]):
        for place, kind in enumerate(LAYER):
            index = 3 + len(LAYER) * layer + place
            out[f"blk.{layer}.{kind}"] = matrix(seed, index, *shapes[kind]) if kind in shapes else norm(seed, index, hidden)
    return out


def tiny_model(spec, rope):
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=spec["vocab"], hidden_size=spec["hidden"], intermediate_size=spec["ffn"],
        num_hidden_layers=spec["layers"], num_attention_heads=spec["heads"], num_key_value_heads=spec["kv_heads"],
        head_dim=spec["head_dim"], max_position_embeddings=spec["context"], rms_norm_eps=spec["norm_epsilon"],
        rope_parameters=rope, tie_word_embeddings=spec["tied"], attn_implementation="eager")
    model = LlamaForCausalLM(config).float().eval()
    tensors = tiny_tensors(spec)
    names = {"attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
             "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm",
             "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
    state = {"model.embed_tokens.weight": tensors["token_embd"], "model.norm.weight": tensors["output_norm"],
             "lm_head.weight": tensors.get("output", tensors["token_embd"])}
    for name, weight in tensors.items():
        if name.startswith("blk."):
            _, layer, kind = name.split(".")
            if kind == "attn_q":
                weight = unpermuted(weight, spec["heads"])
            if kind == "attn_k":
                weight = unpermuted(weight, spec["kv_heads"])
            state[f"model.layers.{layer}.{names[kind]}.weight"] = weight
    model.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in state.items()}, strict=True)
    return model


def rope_factors(spec, rope):
    """What rope_freqs.weight holds for llama3 scaling: the plain frequency divided by the scaled one."""
    if rope["rope_type"] == "default":
        return []
    old, low, high, factor = (rope[k] for k in (
        "original_max_position_embeddings", "low_freq_factor", "high_freq_factor", "factor"))
    out = []
    for i in range(0, spec["head_dim"], 2):
        wave = 2 * math.pi * spec["rope_theta"] ** (i / spec["head_dim"])
        if wave < old / high:
            out.append(1.0)
        elif wave > old / low:
            out.append(float(factor))
        else:
            smooth = (old / wave - low) / (high - low)
            out.append(float(np.float32(1 / ((1 - smooth) / factor + smooth))))
    return out


TINY = {
    "grouped_untied": dict(layers=3, hidden=64, heads=4, kv_heads=2, head_dim=16, ffn=160, vocab=288, context=128,
                           tied=False, rope_theta=500000.0, norm_epsilon=1e-5, seed=1),
    "scaled_rope_wide_heads": dict(layers=2, hidden=64, heads=4, kv_heads=2, head_dim=32, ffn=96, vocab=288,
                                   context=128, tied=False, rope_theta=10000.0, norm_epsilon=1e-5, seed=2),
    "one_kv_head_tied": dict(layers=2, hidden=96, heads=6, kv_heads=1, head_dim=8, ffn=128, vocab=300, context=128,
                             tied=True, rope_theta=10000.0, norm_epsilon=1e-6, seed=3),
}
LLAMA3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=64)


def tiny():
    from transformers import __version__ as version

    out = {"transformers": version, "models": []}
    rows = []
    for name, spec in TINY.items():
        rope = dict(LLAMA3 if name.startswith("scaled_rope") else dict(rope_type="default"),
                    rope_theta=spec["rope_theta"])
        model = tiny_model(spec, rope)
        factors = rope_factors(spec, rope)
        if factors:
            plain = 1.0 / spec["rope_theta"] ** (np.arange(0, spec["head_dim"], 2) / spec["head_dim"])
            assert np.allclose(plain / factors, model.model.rotary_emb.inv_freq.numpy(), rtol=1e-6, atol=0)
        ids = [mix(1000 * spec["seed"] + i) % 256 for i in range(40)]
        logits = logits_of(model, ids)
        greedy, gaps = greedy_of(model, ids, 32)
        tensors = tiny_tensors(spec)
        probe = {n: [float(tensors[n].flat[i]) for i in (0, 1, tensors[n].size - 1)]
                 for n in ("token_embd", "output_norm", "blk.1.attn_k", "blk.1.ffn_down")}
        out["models"].append({"name": name, "spec": spec, "rope_freqs": factors, "ids": ids,
                              "first_float": sum(r.size for r in rows), "greedy": greedy, "greedy_gaps": gaps,
                              "weights": probe})
        rows.append(logits.astype("<f4"))
        print(name, "logits", logits.std(), "least gap", min(gaps), "factors", factors)
    (DATA / "tiny_logits.bin").write_bytes(b"".join(r.tobytes() for r in rows))
    write_json("tiny.json", out)


if __name__ == "__main__":
    DATA.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(2)
    if sys.argv[1:] == ["tiny"]:
        tiny()
    elif len(sys.argv) == 3 and sys.argv[1] == "smollm2":
        smollm2(sys.argv[2])
    else:
        sys.exit(__doc__)

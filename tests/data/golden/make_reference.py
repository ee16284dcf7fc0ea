#!/usr/bin/env python3
"""Golden models of families for which there is no reference by another program: a decoder in numpy and double precision, written from the families' published descriptions and
sharing nothing with the C code. What shows that it is right is --check: it must agree with the references that transformers made.

    make_reference.py --check          compares with NAME.logits.f32 of every model that it knows the family of
    make_reference.py --make           writes NAME.json and NAME.logits.f32 of the models in NEW

Needs numpy. Weights are a function of a seed, as in the other models' recipes."""
import hashlib
import json
import math
import os
import struct
import sys

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
N_GREEDY = 24


# ---- weights ----

def fill(tensor):
    n = int(np.prod(tensor["shape"]))
    with np.errstate(over="ignore"):
        z = np.uint64(int(tensor["seed"], 16)) + np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    s = sum(((z >> np.uint64(16 * i)) & np.uint64(0xffff)).astype(np.int64) for i in range(4)) - 131070
    v = s.astype(np.float32) * np.float32(tensor["scale"])
    if "base" in tensor:
        v = np.float32(tensor["base"]) + v
    if tensor.get("plus_one"):
        v = v + np.float32(1)
    return v.reshape(tensor["shape"])


class Model:
    def __init__(self, root):
        recipe = root["recipe"]
        self.arch = root["architecture"]
        self.meta = {key: value for key, _, value in recipe["metadata"]}
        self.w = {t["name"]: fill(t).astype(np.float64) for t in recipe["tensors"]}
        self.w.update({c["name"]: np.array(c["values"], dtype=np.float32).astype(np.float64) for c in recipe["constants"]})

    def get(self, key, otherwise=None):
        return self.meta.get(self.arch + "." + key, otherwise)


# ---- the decoder ----

def rms_norm(x, weight, eps):
    return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + eps) * weight


def gelu(x):
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x ** 3)))


def silu(x):
    return x / (1 + np.exp(-x))


def frequencies(m, n_rot, base, is_scaled):
    """Radians a position of each pair, and the factor of cos and sin."""
    f = base ** (-np.arange(0, n_rot, 2) / n_rot)
    if "rope_freqs.weight" in m.w:
        f = f / m.w["rope_freqs.weight"]
    if "rope_factors_short.weight" in m.w:
        return f / m.w["rope_factors_short.weight"], m.get("rope.scaling.attn_factor", 1.0)
    kind = m.get("rope.scaling.type", "none") if is_scaled else "none"
    factor = m.get("rope.scaling.factor", 1.0)
    if kind == "linear":
        return f / factor, 1.0
    if kind == "yarn":
        length = m.get("rope.scaling.original_context_length")
        pair = lambda turns: n_rot * math.log(length / (turns * 2 * math.pi)) / (2 * math.log(base))
        low, high = max(math.floor(pair(32.0)), 0), min(math.ceil(pair(1.0)), n_rot - 1)
        ramp = np.clip((np.arange(n_rot // 2) - low) / max(high - low, 0.001), 0, 1)
        magnitude = lambda mscale: 0.1 * mscale * math.log(factor) + 1
        return f / factor * ramp + f * (1 - ramp), magnitude(1.0) / magnitude(m.get("rope.scaling.yarn_log_multiplier", 0.0))
    return f, 1.0


def rotate(x, f, magnitude):
    """x: [tokens][heads][head_dim], halves of a head paired."""
    angle = np.arange(x.shape[0])[:, None] * f[None, :]
    c, s = np.cos(angle)[:, None, :] * magnitude, np.sin(angle)[:, None, :] * magnitude
    a, b = x[..., :len(f)], x[..., len(f):2 * len(f)]
    return np.concatenate([a * c - b * s, b * c + a * s, x[..., 2 * len(f):]], axis=-1)


def attention(m, layer, x, eps):
    w = lambda name: m.w.get("blk.%d.%s" % (layer, name))
    n, n_heads, n_kv = len(x), m.get("attention.head_count"), m.get("attention.head_count_kv")
    if w("attn_qkv.weight") is not None:
        dim = w("attn_output.weight").shape[1] // n_heads
        q, k, v = np.split(x @ w("attn_qkv.weight").T, [n_heads * dim, (n_heads + n_kv) * dim], axis=1)
    else:
        q, k, v = (x @ w("attn_%s.weight" % c).T + (0 if w("attn_%s.bias" % c) is None else w("attn_%s.bias" % c)) for c in "qkv")
        dim = q.shape[1] // n_heads
    if m.arch == "olmo2":
        q, k = rms_norm(q, w("attn_q_norm.weight"), eps), rms_norm(k, w("attn_k_norm.weight"), eps)
    q, k, v = q.reshape(n, n_heads, dim), k.reshape(n, n_kv, dim), v.reshape(n, n_kv, dim)
    if m.arch in ("qwen3", "gemma3"):
        q, k = rms_norm(q, w("attn_q_norm.weight"), eps), rms_norm(k, w("attn_k_norm.weight"), eps)
    window = m.get("attention.sliding_window", 0)
    period = {"gemma2": 2, "gemma3": 6, "olmo2": 4}.get(m.arch, 1)
    is_local = window > 0 and (period == 1 or layer % period != period - 1)
    base = m.get("rope.freq_base", 10000.0)
    if is_local and m.arch == "gemma3":
        base = m.get("rope.freq_base_swa", 10000.0)
    f, magnitude = frequencies(m, m.get("rope.dimension_count", dim), base, not is_local or m.arch not in ("gemma3", "olmo2"))
    if not (m.arch == "smollm3" and layer % 4 == 3):
        q, k = rotate(q, f, magnitude), rotate(k, f, magnitude)
    if m.get("attention.temperature_scale"):
        turns = np.floor(np.arange(n) / m.get("rope.scaling.original_context_length"))
        q = q * (1 + m.get("attention.temperature_scale") * np.log(1 + turns))[:, None, None]
    k, v = np.repeat(k, n_heads // n_kv, axis=1), np.repeat(v, n_heads // n_kv, axis=1)
    scores = np.einsum("thd,shd->hts", q, k) * m.get("attention.scale", dim ** -0.5)
    cap = m.get("attn_logit_softcapping", 0)
    if cap:
        scores = cap * np.tanh(scores / cap)
    t, s = np.arange(n)[:, None], np.arange(n)[None, :]
    scores = np.where((s > t) | ((s <= t - window) if is_local else False), -np.inf, scores)
    p = np.exp(scores - scores.max(axis=-1, keepdims=True))
    p /= p.sum(axis=-1, keepdims=True)
    return np.einsum("hts,shd->thd", p, v).reshape(n, -1) @ w("attn_output.weight").T


def feed_forward(m, layer, x):
    w = lambda name: m.w.get("blk.%d.%s" % (layer, name))
    up = x @ w("ffn_up.weight").T
    gate, up = np.split(up, 2, axis=1) if w("ffn_gate.weight") is None else (x @ w("ffn_gate.weight").T, up)
    return ((gelu if m.arch.startswith("gemma") else silu)(gate) * up) @ w("ffn_down.weight").T


def logits(m, ids):
    eps = m.get("attention.layer_norm_rms_epsilon")
    embedding = m.w["token_embd.weight"]
    x = embedding[ids] * (math.sqrt(embedding.shape[1]) if m.arch.startswith("gemma") else m.get("embedding_scale", 1.0))
    norm = lambda name, v: rms_norm(v, m.w[name], eps) if name in m.w else v
    for layer in range(m.get("block_count")):
        blk = "blk.%d." % layer
        half = attention(m, layer, norm(blk + "attn_norm.weight", x), eps)
        x = x + norm(blk + "post_attention_norm.weight", half) * m.get("residual_scale", 1.0)
        half = feed_forward(m, layer, norm(blk + "ffn_norm.weight", x))
        x = x + norm(blk + "post_ffw_norm.weight", half) * m.get("residual_scale", 1.0)
    y = rms_norm(x, m.w["output_norm.weight"], eps) @ m.w.get("output.weight", embedding).T / m.get("logit_scale", 1.0)
    cap = m.get("final_logit_softcapping", 0)
    return cap * np.tanh(y / cap) if cap else y


# ---- --check ----

def load(name):
    with open(os.path.join(HERE, name + ".json"), encoding="utf8") as file:
        return json.load(file)


def check():
    for name in ("llama", "llama31", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "phi3", "phi3_longrope", "granite"):
        root = load(name)
        m, worst = Model(root), 0.0
        raw = open(os.path.join(HERE, root["logits_file"]), "rb").read()
        for sequence in root["sequences"]:
            rows, n_vocab = sequence["logits_shape"]
            expected = np.frombuffer(raw, "<f4", rows * n_vocab, sequence["logits_offset"]).reshape(rows, n_vocab)
            worst = max(worst, np.abs(logits(m, sequence["ids"])[-rows:] - expected).max())
        print("%-14s %.1e" % (name, worst))
        if worst > 1e-4:
            sys.exit("make_reference.py: %s does not agree" % name)


# ---- --make ----

def vector(name, n, base, spread=6.607249360968126e-06):
    return {"name": name, "type": "F32", "shape": [n], "scale": spread, "base": base}


def matrix(name, rows, cols, gain=1.0, heads=0):
    t = {"name": name, "type": "F32", "shape": [rows, cols], "scale": float(np.float32(2.4e-06 * gain))}
    return dict(t, permute_heads=heads) if heads else t


def layer_tensors(i, family, embd, q, kv, head, ff):
    """Tensors of a layer, in file order."""
    blk, permuted = "blk.%d." % i, family in ("smollm3", "mistral3")
    out = [] if family == "olmo2" else [vector(blk + "attn_norm.weight", embd, 1.0)]
    out += [matrix(blk + "attn_q.weight", q, embd, heads=q // head if permuted else 0), matrix(blk + "attn_k.weight", kv, embd, heads=kv // head if permuted else 0),
            matrix(blk + "attn_v.weight", kv, embd)]
    if family == "olmo2":
        out += [vector(blk + "attn_q_norm.weight", q, 1.4), vector(blk + "attn_k_norm.weight", kv, 1.4)]
    out += [matrix(blk + "attn_output.weight", embd, q, 1.3)]
    out += [vector(blk + "post_attention_norm.weight", embd, 1.0)] if family == "olmo2" else [vector(blk + "ffn_norm.weight", embd, 1.0)]
    out += [matrix(blk + "ffn_gate.weight", ff, embd), matrix(blk + "ffn_up.weight", ff, embd), matrix(blk + "ffn_down.weight", embd, ff, 1.3)]
    return out + ([vector(blk + "post_ffw_norm.weight", embd, 1.0)] if family == "olmo2" else [])


# name: architecture, layers, heads, KV heads, head_dim, tied, further keys, notes
YARN = [["rope.scaling.type", "str", "yarn"], ["rope.scaling.factor", "f32", 8.0]]
NEW = {
    "smollm3": ("smollm3", 4, 4, 2, 32, True, [["rope.freq_base", "f32", 5e6]], "layer 3 does not rotate"),
    "olmo2": ("olmo2", 2, 4, 2, 32, False, [["rope.freq_base", "f32", 500000.0]], "norms behind the halves only, and of whole rows of q and k"),
    "olmo3": ("olmo2", 4, 4, 2, 32, False, [["rope.freq_base", "f32", 500000.0], *YARN, ["rope.scaling.original_context_length", "u32", 512],
              ["attention.sliding_window", "u32", 16]], "layers 0 to 2 have a window and rotate without YaRN"),
    "ministral3": ("mistral3", 2, 4, 2, 32, True, [["rope.freq_base", "f32", 1e6], *YARN, ["rope.scaling.original_context_length", "u32", 24],
                   ["rope.scaling.yarn_log_multiplier", "f32", 1.0], ["attention.temperature_scale", "f32", 0.10000000149011612]],
                   "queries grow from position 24 on; cos and sin have no factor"),
}


def gguf_value(kind, value):
    text = lambda s: struct.pack("<Q", len(s.encode())) + s.encode()
    if kind == "astr":
        return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(text, value))
    if kind == "ai32":
        return struct.pack("<IIQ%di" % len(value), 9, 5, len(value), *value)
    if kind == "str":
        return struct.pack("<I", 8) + text(value)
    return struct.pack("<I" + {"u32": "I", "f32": "f"}[kind], {"u32": 4, "f32": 6}[kind], value)


def permute(v, heads):
    """Rows of a head from (half, i) to (i, half)."""
    return v.reshape(heads, 2, -1, v.shape[1]).swapaxes(1, 2).reshape(v.shape)


def gguf_bytes(root):
    text = lambda s: struct.pack("<Q", len(s.encode())) + s.encode()
    pad = lambda b: b + b"\0" * (-len(b) % 32)
    with open(os.path.join(HERE, "tokenizer.json"), encoding="utf8") as file:
        tok = json.load(file)
    kvs = root["recipe"]["metadata"] + [["general.quantization_version", "u32", 2]]
    kvs += [["tokenizer.ggml." + k, t, tok[k]] for k, t in (("model", "str"), ("pre", "str"), ("tokens", "astr"), ("token_type", "ai32"), ("merges", "astr"),
                                                            ("bos_token_id", "u32"), ("eos_token_id", "u32"))]
    infos, data = b"", b""
    for t in root["recipe"]["tensors"]:
        v = fill(t)
        v = permute(v, t["permute_heads"]) if "permute_heads" in t else v
        infos += text(t["name"]) + struct.pack("<I%dQIQ" % v.ndim, v.ndim, *reversed(v.shape), 0, len(data))
        data += pad(v.astype("<f4").tobytes())
    head = b"GGUF" + struct.pack("<IQQ", 3, len(root["recipe"]["tensors"]), len(kvs))
    return pad(head + b"".join(text(k) + gguf_value(t, v) for k, t, v in kvs) + infos) + data


def recipe(name):
    arch, n_layers, n_heads, n_kv, head, is_tied, keys, _ = NEW[name]
    embd, ff = 256, 256
    meta = [["general.architecture", "str", arch], ["general.type", "str", "model"], ["general.name", "str", "golden " + name]]
    meta += [[arch + "." + k, "u32", v] for k, v in (("block_count", n_layers), ("context_length", 4096), ("embedding_length", embd), ("feed_forward_length", ff),
             ("attention.head_count", n_heads), ("attention.head_count_kv", n_kv), ("attention.key_length", head), ("attention.value_length", head),
             ("rope.dimension_count", head))]
    meta += [[arch + ".attention.layer_norm_rms_epsilon", "f32", float(np.float32(1e-6))], ["general.file_type", "u32", 0]]
    meta += [[arch + "." + k, t, v] for k, t, v in keys]
    tensors = [matrix("token_embd.weight", 512, embd, 1.1)]
    for i in range(n_layers):
        tensors += layer_tensors(i, arch, embd, n_heads * head, n_kv * head, head, ff)
    tensors += [vector("output_norm.weight", embd, 1.0)] + ([] if is_tied else [matrix("output.weight", 512, embd, 1.1)])
    for t in tensors:
        t["seed"] = "0x" + hashlib.sha256((name + "/" + t["name"]).encode()).hexdigest()[:16]
    return {"metadata": meta, "constants": [], "tensors": tensors}


def continue_greedily(m, ids):
    out, margins = [], []
    for _ in range(N_GREEDY):
        last = logits(m, ids + out)[-1]
        best = np.sort(last)
        out.append(int(last.argmax()))
        margins.append(round(float(best[-1] - best[-2]), 6))
    return out, margins


def make(name, prompts):
    root = {"format": 1, "name": name, "architecture": NEW[name][0], "gguf": name + ".gguf", "matrices": "F32", "logits_file": name + ".logits.f32",
            "logits_dtype": "float32 little-endian, row-major [row][vocab]", "n_vocab": 512, "n_ctx": 256, "greedy_tokens": N_GREEDY, "notes": [NEW[name][-1]],
            "reference": {"made_by": "make_reference.py: numpy, float64"}, "recipe": recipe(name), "sequences": []}
    m, rows = Model(root), b""
    for i, ids in enumerate(prompts):
        y = logits(m, ids)[0 if i < 2 else -1:].astype("<f4")
        greedy, margins = continue_greedily(m, ids)
        root["sequences"].append({"ids": ids, "n_tokens": len(ids), "logits_positions": list(range(len(ids) - len(y), len(ids))), "logits_shape": list(y.shape),
                                  "logits_offset": len(rows), "logits_bytes": y.nbytes, "greedy": greedy, "greedy_margin": margins})
        rows += y.tobytes()
    if min(min(s["greedy_margin"]) for s in root["sequences"]) < 0.002:
        sys.exit("make_reference.py: %s: near ties" % name)
    root["logits_bytes"], root["logits_sha256"] = len(rows), hashlib.sha256(rows).hexdigest()
    data = gguf_bytes(root)
    root["gguf_bytes"], root["gguf_sha256"] = len(data), hashlib.sha256(data).hexdigest()
    with open(os.path.join(HERE, root["logits_file"]), "wb") as file:
        file.write(rows)
    with open(os.path.join(HERE, name + ".json"), "w", encoding="utf8") as file:
        file.write(json.dumps(root, indent=1) + "\n")
    print(name, "least margin", min(min(s["greedy_margin"]) for s in root["sequences"]))


if sys.argv[1:] == ["--check"]:
    check()
elif sys.argv[1:] == ["--make"]:
    for model in NEW:
        make(model, [s["ids"] for s in load("granite")["sequences"]])
else:
    sys.exit(__doc__)

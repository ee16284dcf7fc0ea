#!/usr/bin/env python3
"""Writes splits.json: texts, and the pieces that the Hugging Face tokenizers library makes of them with the pre-tokenizers that models publish in their
tokenizer.json. Needs the package tokenizers (0.23 was used).

make_splits.py [--random N] [--seed S] [--any] [-o FILE]: N random texts beside the fixed ones. --any: of all code points, not only of those that Python's
Unicode tables (14.0 in Python 3.11, as in PCRE2 10.42) know. `test_splits FILE` checks another file than the one of the tree."""
import argparse
import json
import os
import random
import sys
import unicodedata

from tokenizers import Regex, pre_tokenizers as pre

CASE = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
UP, LOW = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"


def cased(end, digits):
    word = r"[^\r\n\p{L}\p{N}]?"
    return (f"{word}{UP}*{LOW}+{end}|{word}{UP}+{LOW}*{end}|{digits}| ?[^\\s\\p{{L}}\\p{{N}}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+")


def cl100k(digits, words=r"\p{L}+", not_other=r"\s\p{L}\p{N}", after="[\\r\\n]*", newlines="[\\r\\n]+"):
    return rf"{CASE}|[^\r\n\p{{L}}\p{{N}}]?{words}|{digits}| ?[^{not_other}]+{after}|\s*{newlines}|\s+(?!\S)|\s+"


def split(*patterns):
    return pre.Sequence([pre.Split(Regex(p), "isolated") for p in patterns])


def byte_level():
    return pre.ByteLevel(add_prefix_space=False, use_regex=True)


FAMILIES = {
    "gpt-2": byte_level(),
    "llama-bpe": split(cl100k(r"\p{N}{1,3}")),
    "qwen2": split(cl100k(r"\p{N}")),
    "qwen35": split(cl100k(r"\p{N}", r"[\p{L}\p{M}]+", r"\s\p{L}\p{M}\p{N}")),
    "gpt-4o": split(cased(CASE + "?", r"\p{N}{1,3}")),
    "tekken": split(cased("", r"\p{N}")),
    "command-r": pre.Sequence([pre.Digits(individual_digits=True), byte_level()]),
    "deepseek-v3": split(
        r"\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+",
        r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""),
    "bailingmoe": split(r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"),
    "seed-coder": split(cl100k(r"\p{N}{1}", not_other=r"\s\p{L}\p{N}\r\n", after="")),
}

TEXTS = [
    "", " ", "  ", "   \n", "\n", "\n\n\n", "\r\n\r\n", " \r\n \r\n  x", "\t\t\tx", "x   ", "x \n", "x\n ", " a", "  a", "   a  b   ", "a\u00a0b\u3000c \u2028d",
    "I'll DON'T We'Ve he'D I'm YOU'RE it's IT'S 'tis ''s 's'S'll 'LLama rock'n'roll they’re l'été d'Artagnan 'ſ x'ſ",
    "HelloWorld helloWorld HELLOWorld HelloWORLD iPhone McDonald XMLHttpRequest camelCaseABC ABCdef ǅungla ǈ",
    "1 12 123 1234 12345 1234567 3.14159 1,000,000 0x1F 1e-5 ½ ² Ⅻ ٣٤٥٦ ১২৩৪ 一二三 𝟘𝟙𝟚𝟛",
    "a1b22c333d4444 v1.2.3 192.168.0.1 2026-11-21T18:30:00Z 100% $5.00 €12 #1 No.5",
    "if (a[i]->b != NULL && c::d<e>(f)) { return \"x\\n\"; } // done\n\t/* more */\r\n#include <stdio.h>\n\n\n",
    "http://example.com/a/b?c=d&e=f#g path/to/file.txt C:\\dir\\file //// /\n/ \r\n/ ./\n\n./x",
    "...!!! ?!?! --- === *** ___ <|im_start|> <start_of_turn> [INST] </s> <think>\n\n</think>\n",
    "naïve café Äpfel ÜBER straße ŒUVRE Ærø œuf İstanbul ıŞık ΑΒΓαβγ ΣΊΣΥΦΟΣ Привет МИР їжак",
    "e\u0301te\u0301 E\u0301 a\u0308\u0323b \u0301x \u0301 x\u20dd 1\u20e3 \u0c15\u0c4d\u0c37",
    "中文字符和English混排，没有空格。日本語のテキスト、カタカナ。한국어 문장입니다. 조합 한",
    "नमस्ते दुनिया विज्ञान ক্ষুদ্র தமிழ் ภาษาไทยไม่มีช่องว่าง ພາສາລາວ မြန်မာ ខ្មែរ",
    "שלום עולם שָׁלוֹם العربية اَلْعَرَبِيَّةُ فارسی‌زبان 𐤀𐤁 𓀀𓀁 🇩🇪🇫🇷",
    "😀😃 👍🏽 👩‍👩‍👧‍👦 ❤️ ☺︎ 🏳️‍🌈 x😀y 😀😀\n😀 ", "\ufeffBOM \u200b \u200d \u00ad \u180e \u0085 \u0000\u0001\u001f \u007f \ue000 \U000f0000",
    "ʰʷ ᵃ ˈa modifierʼs Hawaiʻi ªº ﬁﬂ Å Ω K ℵ ℃ ™ ©", "  leading\n  and\n\n    trailing   \n   \t  ", "word\u2009word\u202fword  \u3000 \u3000x",
]

# The categories that the expressions tell apart, and the places where they are hard.
ATOMS = ["'s", "'S", "'t", "'LL", "'re", "'Ve", "'d", "'M", "'ſ", "’s", " ", " ", " ", "  ", "   ", "\n", "\n\n", "\r\n", "\r", "\t", "/", "//", "'", "0", "12", "345", "6789",
         "a", "bc", "Def", "GH", "iJ", "the", " and", "中", "文字", "あ", "ア", "한", "국어", "ย", "ไ", "क", "्", "ि", "\u0301", "\u0308", "😀", "👍🏽", "\u200d", "\ufe0f", "\u00a0",
         "\u3000", "\u2028", "\u0085", "\u180e", ".", ",", "!?", "…", "_", "-", "(", ")", "{", "}", "<", ">", "|", "$", "+", "=", "^", "~", "`", "#", "\\", "\"", "，", "。", "、"]


def known_characters():
    by_category = {}
    for code in range(1, 0x110000):
        category = unicodedata.category(chr(code))
        if category not in ("Cs", "Cn"):
            by_category.setdefault(category, []).append(chr(code))
    return list(by_category.values())


def random_text(r, groups):
    text = ""
    for _ in range(r.randint(1, 40)):
        kind = r.random()
        if kind < 0.6:
            text += r.choice(ATOMS)
        elif groups:
            text += "".join(r.choice(r.choice(groups)) for _ in range(r.randint(1, 3)))
        else:
            code = r.randint(1, 0x10ffff) if kind < 0.8 else r.randint(1, 0x2fff)
            text += chr(code) if not 0xd800 <= code < 0xe000 else "x"
    return text


def lengths(pre_tokenizer, text):
    # by offsets: pieces are in another notation where ByteLevel is part of the sequence
    spans = [span for _, span in pre_tokenizer.pre_tokenize_str(text)]
    assert "".join(text[a:b] for a, b in spans) == text
    return " ".join(str(len(text[a:b].encode())) for a, b in spans)


def main():
    args = argparse.ArgumentParser(description=__doc__)
    args.add_argument("--random", type=int, default=60)
    args.add_argument("--seed", type=int, default=1)
    args.add_argument("--any", action="store_true")
    args.add_argument("-o", default=os.path.join(os.path.dirname(os.path.abspath(__file__)), "splits.json"))
    options = args.parse_args()
    r = random.Random(options.seed)
    groups = None if options.any else known_characters()
    texts = TEXTS + [random_text(r, groups) for _ in range(options.random)]
    splits = {name: [lengths(p, t) for t in texts] for name, p in FAMILIES.items()}
    with open(options.o, "w") as f:
        lines = lambda items: ",\n".join(json.dumps(i) for i in items)
        f.write('{"texts": [\n' + lines(texts) + '],\n"splits": {\n')
        f.write(",\n".join(f"{json.dumps(name)}: [\n{lines(rows)}]" for name, rows in splits.items()) + "}}\n")
    print(f"{len(texts)} texts, {len(splits)} families, Unicode {unicodedata.unidata_version}", file=sys.stderr)


if __name__ == "__main__":
    main()

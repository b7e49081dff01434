"""Texts that tokenizers are compared on: what people and programs write, and where tokenizers differ.

They hold no U+0000: onnxruntime-genai takes a text as a C string, which ends there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_CODE = (
    "def add(a, b):\n    if a: \n        return a + b\n\n    \n    return 0\n",
    "x=1;\n\tif(y){return 0x1F;}//c\n\t\t//\n\t\t(z)\n",
    "// one\n//\n//\n// two\n/* a\n */\n",
    "class A:\r\n    pass\r\n\r\n\r\nprint( A )\r\n",
    "for i in range(10):\n\t \tprint(f'{i:>3}|{i**2}')  # 1, 4, 9\n",
    '{"a": [1, 2.5, -3e-7], "b": null, "c\\"": "\\u00e9"}',
    "<div class='x'>&amp;&nbsp;<br/></div><!-- c -->",
    "SELECT * FROM t WHERE a<>'b' AND c>=1_000;--",
    '#!/bin/sh\nset -eu; x=$(ls -l | wc -l); echo "${x:-0}" >&2\n',
    "$\\frac{1}{2}\\sum_{i=0}^{n} x_i^2 \\leq \\alpha$",
)
_SPACES = (
    "",
    " ",
    "\n",
    "a" + "".join(" " * n + "x" for n in range(1, 10)),
    "a" + "".join("\n" * n + "x" for n in range(1, 10)),
    "".join(" " * n + "\n" for n in range(10)),
    "x \n  x\n  \n  x\n \n\n   \n    y",
    "\t\tx\t \t(\t\t5\n\t\n\t7",
    "  leading and trailing   ",
    "\n\n\nabc\r\n def\n\r\n",
    "   5  (  a  \u00e9  \u6f22",
    " ".join(["word"] * 40) + " " * 40,
)
_NUMBERS = (
    "0 1 12 123 1234 12345 123456 1234567 12345678901234567890",
    "3.14159, 1,000,000.00 -7e+10 0x1F 1st 2nd v1.2.3 192.168.0.1",
    "  12 \u00bd \u00b2 \u2167 \u2460 \u4e09 \u0664\u0662 \u096d\u0967 \u0e53",
    "2024-02-29T23:59:59.999Z +49 (0)30 123-456",
)
_LATIN = (
    "Why is the sky blue? Because.",
    "don't I'LL he'll DON'T O'Re we've WE'VE it's I'm 'tis y'all'd've",
    "I\u2019ll don\u2019t \u201cquoted\u201d \u2018x\u2019 \u2013 \u2014 \u2026",
    "CamelCaseWord HTMLParser iPhone's snake_case kebab-case UPPER",
    "\u00e9\u00e8\u00fc\u00df\u00f1 na\u00efve \u00c5ngstr\u00f6m \u0141\u00f3d\u017a \u0130stanbul \ufb01n",
    "Ti\u1ebfng Vi\u1ec7t \u0395\u03bb\u03bb\u03b7\u03bd\u03b9\u03ba\u03ac"
    " \u0420\u0443\u0441\u0441\u043a\u0438\u0439 \u0423\u043a\u0440\u0430\u0457\u043d\u0441\u044c\u043a\u0430",
    "\u01c5 \u02b0\u02c7 \u00aa\u00ba \u212b \u2126 \u1e9e",
)
#: Accents as characters of their own, which a normalizer such as NFC joins with their letters.
DECOMPOSED = (
    "cafe\u0301 e\u0301te\u0301 a\u030angstro\u0308m n\u0303",
    "o\u0302\u0301 q\u0301\u0327 \u0301x e\u0301\u0301 \u1112\u1161\u11ab",
)
_SCRIPTS = (
    "\u6f22\u5b57\u3068\u4eee\u540d\u3092\u4ea4\u305c\u305f\u6587"
    "\u3002\u300c\u5f15\u7528\u300d\u3001\u30ab\u30bf\u30ab\u30ca\u30fc\uff01",
    "\u4f60\u597d\uff0c\u4e16\u754c\uff01\u4eca\u5929\u5929\u6c14\u600e\u4e48\u6837\uff1f2024\u5e74\u3002",
    "\u81ea\u7136\u8bed\u8a00\u5904\u7406" * 30,
    "\uc548\ub155\ud558\uc138\uc694 \uc138\uacc4! \ud55c\uad6d\uc5b4\ub97c \uc4f0\ub2e4.",
    "\u0645\u0631\u062d\u0628\u0627"
    " \u0628\u0627\u0644\u0639\u0627\u0644\u0645\u060c \u0643\u064e\u062a\u064e\u0628\u064e \u061f",
    "\u05e9\u05b8\u05dc\u05d5\u05b9\u05dd \u05e2\u05d5\u05dc\u05dd",
    "\u0928\u092e\u0938\u094d\u0924\u0947"
    " \u0926\u0941\u0928\u093f\u092f\u093e\u0964 \u0915\u094d\u0937\u0924\u094d\u0930\u093f\u092f",
    "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35\u0e0a\u0e32\u0e27\u0e42\u0e25\u0e01 \u0e01\u0e33\u0e25\u0e31\u0e07",
    "\u10d2\u10d0\u10db\u10d0\u10e0\u10ef\u10dd\u10d1\u10d0 \u0562\u0561\u0580\u0587 \u12a0\u121b\u122d\u129b",
    "en\u4e2d\u6587\u0440\u0443\u0441\u0639\u0631\u0628123\ud55c\u0e44\u0e17\u0e22mix",
)
_SIGNS = (
    "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 \U0001f1e9\U0001f1ea\U0001f1ef\U0001f1f5 "
    "\U0001f44d\U0001f3fd \u2764\ufe0f 1\ufe0f\u20e3 \U0001f642\U0001f642",
    "__init__ == None!!!...  ?? ---- ==== **** ~~~~ ```py\n```",
    "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~ (\"') [{}] ();\n\n",
    "\u20ac$\u00a3\u00a5 \u2211\u222b\u2260\u2264 \u2190\u2191 \u2588\u2591 \u266b \u00a9\u00ae\u2122 \u00b0C",
    "\uff01\uff1f\u3002\u3001\n\u3002\n\n  \u3002\u00bf\u00a1\u00ab\u00bb\u30fb",
    "https://example.org/a/b?c=d&e=%20f#g-h user@example.org C:\\dir\\f.txt",
)
_ODD = (
    "a\u00a0b \u00a0 c\u2003d\u3000e\u00a0\nf \u00a0\u00a0x",
    "zero\u200bwidth\u200d \u200c\ufeff \u2060joins\u00ad",
    "bell\x07 esc\x1b[0m \x01\x02!! \x7f del",
    "\u202eright\u202c \u2066to\u2069 left",
    "\u2028line\u2029paragraph\x0bvertical\x0cform",
    "replacement \ufffd and \ufffc",
    "marks beside blanks \u0301a .\u0301, \u093fb !\u20e3 \ue000c \U0001fae0 (\U0001fae8)",
)

#: About 60 texts. `around` adds those of one tokenizer.
TEXTS = (*_CODE, *_SPACES, *_NUMBERS, *_LATIN, *DECOMPOSED, *_SCRIPTS, *_SIGNS, *_ODD)


def around(tokens: Iterable[str], template: str = "") -> Sequence[str]:
    """What one tokenizer must also agree on: its added `tokens` and the texts in its chat `template` (Jinja)."""
    made = []
    for token in tokens:
        made += [token, f"one{token}two", f"one {token} two", f" {token}\n{token}{token}\n\n "]
    return [text for text in [*made, *literals(template)] if "\0" not in text]


_BLOCK = re.compile(r"\{#.*?#\}|\{%.*?%\}|\{\{(.*?)\}\}", re.DOTALL)
_QUOTED = re.compile(r"'((?:[^'\\]|\\.)*)'|\"((?:[^\"\\]|\\.)*)\"", re.DOTALL)
_ESCAPES = {"\\n": "\n", "\\t": "\t", "\\r": "\r", "\\'": "'", '\\"': '"', "\\\\": "\\"}


def literals(template: str) -> list[str]:
    """The pieces of text in a Jinja template: between its blocks, and quoted in what it prints."""
    texts = [text for text in _BLOCK.split(template)[::2] if text]
    for printed in _BLOCK.finditer(template):
        for single, double in _QUOTED.findall(printed.group(1) or ""):
            texts.append(re.sub(r"\\[ntr'\"\\]", lambda hit: _ESCAPES[hit.group()], single or double))
    return list(dict.fromkeys(texts))

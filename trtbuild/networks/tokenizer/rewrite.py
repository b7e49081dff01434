"""tokenizer.json said otherwise, where onnxruntime-genai would misread it: the meaning to `tokenizers` is kept.

What is misread is read off onnxruntime-extensions (operators/tokenizer/bpe_utils.hpp, bpe_tokenizer_model.hpp,
bpe_kernels.cc) and seen with onnxruntime-genai 0.18. It knows some regular expressions by heart, cuts each text
with these first, and gives what is left of an expression to C++'s std::regex, which sees bytes. It passes over
normalizers and over all pre-tokenizers but Split. Whatever has no other form is returned as it is:
`token_check` compares and refuses it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from trtbuild.errors import InputError
from trtbuild.networks.tokenizer import text_normalizer
from trtbuild.networks.tokenizer.gguf import EVERYTHING, SPACE, WHOLE, splits
from trtbuild.networks.tokenizer.post_processor import around, flat
from trtbuild.networks.tokenizer.pre_tokenizers import GPT2

Json = dict[str, Any]

#: The end of Llama 3's expression and of all that follow it: how white space is cut.
_TAIL = r"\s*[\r\n]+|\s+(?!\S)|\s+"
#: White space beyond ASCII, which std::regex does not know as \s.
_BLANKS = "".join(map(chr, (0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000)))
#: Control and format characters, which an expression such as DeepSeek-V3's leaves between its matches.
_FORMATS = [
    *(chr(code) for code in (*range(1, 9), *range(0x0E, 0x20), *range(0x7F, 0x85), *range(0x86, 0xA0), 0xAD)),
    *(chr(code) for code in (0x61C, 0x180E, *range(0x200B, 0x2010), *range(0x202A, 0x202F))),
    *(chr(code) for code in (*range(0x2060, 0x2065), *range(0x2066, 0x2070), 0xFEFF)),
]
#: How expressions take what is neither a letter, a number nor white space, marks apart or not.
_EVERYTHING_ELSE = (r"[^\s\p{L}\p{N}]+", r"[^\s\p{L}\p{M}\p{N}]+")


#: Tokenizer classes that it takes for a BPE and treats as any other (kTokenizerDict in tokenizer_jsconfig.hpp).
_CLASSES = frozenset({"GPT2", "Llama", "PreTrained", "Qwen2"})
_ANY_CLASS = "PreTrainedTokenizerFast"


def files_for_genai(tokenizer: Json, config: Json) -> tuple[Json | None, Json | None]:
    """tokenizer.json and tokenizer_config.json for onnxruntime-genai, None for what may stay. Raises InputError."""
    refuse(tokenizer)
    said, told = for_genai(tokenizer), _config(tokenizer, config)
    return (None if said == tokenizer else said), (None if told == config else told)


def _config(tokenizer: Mapping[str, Any], config: Mapping[str, Any]) -> Json:
    """It follows add_bos_token, where `tokenizers` and transformers 5 follow the post-processor alone."""
    before, after = around(tokenizer)
    told = dict(config) | {"add_bos_token": bool(before), "add_eos_token": bool(after)}
    name = str(config.get("tokenizer_class") or "")
    if name.removesuffix("Fast").removesuffix("Tokenizer") not in _CLASSES:
        told["tokenizer_class"] = _ANY_CLASS
    if steps := asked_before(tokenizer):
        told[text_normalizer.FIELD] = list(steps)
    return told


def for_genai(tokenizer: Mapping[str, Any]) -> Json:
    """`tokenizer` (the content of tokenizer.json) in a form that onnxruntime-genai reads as `tokenizers` does."""
    model = tokenizer.get("model")
    if not isinstance(model, dict) or model.get("type") != "BPE":
        return dict(tokenizer)
    made = _sentence_piece(tokenizer, model) if model.get("byte_fallback") else _byte_level(tokenizer)
    return dict(tokenizer) | made | _pairs(model)


def refuse(tokenizer: Mapping[str, Any]) -> None:
    """Raises InputError for a kind of model at which onnxruntime-genai crashes, or of which it knows nothing."""
    model = tokenizer.get("model")
    kind = model.get("type") if isinstance(model, Mapping) else None
    if kind in ("WordPiece", "WordLevel"):
        raise InputError(
            f"tokenizer.json is of the kind {kind}, which onnxruntime-genai cannot read",
            option="model.source",
            hint="compiler=aot_inductor speaks with the tokenizers library itself",
        )


def asked_before(tokenizer: Mapping[str, Any]) -> tuple[str, ...]:
    """What has to be done to a text before onnxruntime-genai is asked, as nothing in its files can say it."""
    if [step.get("type") for step in flat(tokenizer.get("normalizer"), "normalizers")] == ["NFC"]:
        return (text_normalizer.NFC,)
    model = tokenizer.get("model")
    spelt = isinstance(model, Mapping) and model.get("type") == "BPE" and model.get("byte_fallback")
    return (text_normalizer.FIRST_SPACE,) if spelt and _scheme(tokenizer) == "first" else ()


def _pairs(model: Mapping[str, Any]) -> Json:
    r"""Merges as pairs: of merges in lines every \r is lost, so that Llama 2's "( )\r" would stand for "( )"."""
    merges = model.get("merges", [])
    if not any(isinstance(merge, str) and ("\r" in merge or merge.startswith("#")) for merge in merges):
        return {}
    pairs = [merge.split(" ", 1) if isinstance(merge, str) else merge for merge in merges]
    return {"model": {**model, "merges": pairs}}


# --- byte-level BPE: GPT-2, Llama 3, Qwen, SmolLM, DeepSeek, Tekken ---


def _byte_level(tokenizer: Mapping[str, Any]) -> Json:
    regexes: list[str] = []
    for step in flat(tokenizer.get("pre_tokenizer"), "pretokenizers"):
        regex = _regex_of(step)
        if regex is None:
            return {}
        if regex:
            regexes.append(_known(regex))
    if regexes in ([], [GPT2]):  # GPT-2's is what it takes by itself
        return {}
    return {"pre_tokenizer": splits(*regexes)}


def _regex_of(step: Mapping[str, Any]) -> str | None:
    """The expression that a pre-tokenizer isolates, "" where it cuts nothing, None where no expression can say it."""
    kind = step.get("type")
    if kind == "ByteLevel" and not step.get("add_prefix_space", True):
        return GPT2 if step.get("use_regex", True) else ""
    if kind == "Digits" and step.get("individual_digits"):  # passed over, and SmolLM has it
        return r"\p{N}"
    if kind == "Split":
        return _isolated(step)
    return None


def _isolated(step: Mapping[str, Any]) -> str | None:
    """A Split's expression if it isolates; keeping nothing but matches is the same where all characters match."""
    pattern = step.get("pattern", {})
    regex = pattern.get("Regex") if "Regex" in pattern else re.escape(pattern.get("String", ""))
    behavior, invert = step.get("behavior"), bool(step.get("invert"))
    if behavior == "Isolated" or (behavior == "Removed" and invert and _covers(regex)):
        return str(regex).replace("\r", r"\r").replace("\n", r"\n")
    return None


def _covers(regex: str) -> bool:
    letters = (r"\p{L}+", r"[\p{L}\p{M}]+", r"\p{Lu}")
    return regex.endswith(r"|\s+") and _has_one(regex, _EVERYTHING_ELSE) and _has_one(regex, letters)


def _has_one(regex: str, parts: Sequence[str]) -> bool:
    return any(part in regex for part in parts)


def _known(regex: str) -> str:
    """An expression as one that onnxruntime-genai follows to the letter, as far as there is one."""
    if not regex.endswith("|" + _TAIL):
        return regex
    return regex.removesuffix(_TAIL) + _white_space(everything=_has_one(regex, _EVERYTHING_ELSE))


def _white_space(*, everything: bool) -> str:
    r"""What `\s*[\r\n]+|\s+(?!\S)|\s+` means, in words that std::regex gets to see.

    onnxruntime-genai's own reading does not go back to the last line break of a run of white space, so that a
    blank line with spaces in it, before an indented line, becomes other tokens. std::regex searches ahead where
    it finds nothing here, so without `everything` (punctuation and all) it must match the characters between, too.
    """
    blank = rf"(?:\s|{'|'.join(_BLANKS)})"
    said = rf"{blank}*[\n\r]+|{blank}+(?={blank}|$)|{blank}+"
    return said if everything else f"{said}|(?:{'|'.join(_FORMATS)})+"


# --- SentencePiece's BPE: Llama 2, Mistral ---


def _sentence_piece(tokenizer: Mapping[str, Any], model: Mapping[str, Any]) -> Json:
    prefixed = _prefixed(tokenizer)
    if prefixed is None:
        return {}
    decoders: list[Json] = [
        {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    if prefixed:  # also what tells onnxruntime-genai to begin each piece of text with a space
        decoders.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    whole = WHOLE | {"pattern": {"Regex": _cut(model, tokenizer.get("added_tokens", []), tokenizer)}}
    normalizers: list[Json] = [{"type": "Prepend", "prepend": SPACE}] if prefixed else []
    normalizers.append({"type": "Replace", "pattern": {"String": " "}, "content": SPACE})
    return {
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "pre_tokenizer": whole,
        "decoder": {"type": "Sequence", "decoders": decoders},
    }


def _prefixed(tokenizer: Mapping[str, Any]) -> bool | None:
    """Whether each piece of text between added tokens begins with a space; None where it depends on more.

    Metaspace adds no second space where a piece begins with one (`always`), or adds one to the first piece alone
    (`first`, which `text_normalizer` does). onnxruntime-genai adds one to every piece or to none.
    """
    normalizers = flat(tokenizer.get("normalizer"), "normalizers")
    steps = flat(tokenizer.get("pre_tokenizer"), "pretokenizers")
    if steps in ([], [WHOLE]):
        kinds = [step.get("type") for step in normalizers]
        replace = normalizers[-1] if normalizers else {}
        if replace.get("pattern") != {"String": " "} or replace.get("content") != SPACE:
            return None
        if kinds == ["Prepend", "Replace"]:
            return True if normalizers[0].get("prepend") == SPACE else None
        return False if kinds == ["Replace"] else None
    return False if _scheme(tokenizer) in ("never", "first") else None


def _scheme(tokenizer: Mapping[str, Any]) -> str | None:
    """Metaspace's prepend_scheme, where it is all that is done to a text; else None."""
    steps = flat(tokenizer.get("pre_tokenizer"), "pretokenizers")
    if tokenizer.get("normalizer") or len(steps) != 1 or steps[0].get("type") != "Metaspace":
        return None
    return str(steps[0].get("prepend_scheme")) if steps[0].get("replacement") == SPACE else None


def _cut(model: Mapping[str, Any], added: Sequence[Mapping[str, Any]], tokenizer: Mapping[str, Any]) -> str:
    """Where text may be cut without changing a token: before runs of spaces, around line breaks.

    Without a cut onnxruntime-genai's time grows with the square of the text, and std::regex overflows the stack
    of some 20,000 characters. Metaspace with split=true cuts before every space.
    """
    specials = {token["content"] for token in added}
    tokens = [token for token in model["vocab"] if token not in specials]
    lines = "" if any("\n" in token and token.strip("\n") for token in tokens) else r"\n"
    rest = rf"|{lines}+" if lines else ""
    for step in flat(tokenizer.get("pre_tokenizer"), "pretokenizers"):
        if step.get("type") == "Metaspace" and step.get("split", True):
            # in a normalized text, which `tokenizers` cuts, a space is spelt otherwise
            return rf"(?: |{SPACE})?(?:(?!{SPACE})[^ {lines}])+|(?: |{SPACE}){rest}"
    if any(SPACE in token.lstrip(SPACE) for token in tokens):
        return EVERYTHING
    return rf" *[^ {lines}]+| +{rest}"

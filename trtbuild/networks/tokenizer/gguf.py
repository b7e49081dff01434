"""A GGUF file's tokenizer as Hugging Face's tokenizer.json and tokenizer_config.json.

Keys are those of the GGUF specification (ggml/docs/gguf.md); which splits belong to a pre-tokenizer's name is
defined by llama.cpp (llama_vocab::impl::load and llm_tokenizer_bpe in src/llama-vocab.cpp). All splits are
written as `Split`, which onnxruntime-genai's tokenizer honours, never as `Digits`, which it passes over.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trtbuild.errors import InputError
from trtbuild.networks.gguf import types as gguf_types
from trtbuild.networks.tokenizer.pre_tokenizers import PRE_TOKENIZERS

Json = dict[str, Any]

# gguf.TokenType, named here so that this module needs the standard library only
_UNKNOWN, _CONTROL, _USER_DEFINED, _BYTE = 2, 3, 4, 6
#: What templates write around turns: <|im_end|>, <end_of_turn>, [INST].
_MARK = re.compile(r"<\|?[A-Za-z][\w ]+\|?>|\[/?[A-Z_]+\]")
_NO_ID = 0xFFFFFFFF  # -1 as the file's unsigned number
#: How SentencePiece spells a space.
SPACE = "\u2581"
#: Cuts nothing. Without a pre-tokenizer onnxruntime-genai would cut at every space, `tokenizers` nowhere.
EVERYTHING = r"[\s\S]+"
WHOLE = {"type": "Split", "pattern": {"Regex": EVERYTHING}, "behavior": "Isolated", "invert": False}


@dataclass(frozen=True)
class Tokenizer:
    """The contents of tokenizer.json and of tokenizer_config.json."""

    tokenizer: Json
    config: Json


def convert(metadata: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer in a GGUF file's metadata.

    Raises InputError for a file without one, or with a kind or a pre-tokenizer that is not known here: a
    guess would give other tokens than those that the model was trained on.
    """
    gguf_types.check(metadata)
    kind, tokens = metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.tokens")
    if not kind or not tokens:
        raise InputError(
            "the GGUF file holds no tokenizer (tokenizer.ggml.model and tokenizer.ggml.tokens)",
            option="model.source",
            hint="convert the model again with its tokenizer, or put tokenizer.json beside it",
        )
    _check_spelt_once(tokens)
    if kind == "gpt2":
        return _byte_level(metadata, tokens)
    if kind == "llama":
        return _sentence_piece(metadata, tokens)
    raise InputError(
        f"the GGUF file has tokenizer.ggml.model={kind}: known are gpt2 and llama",
        option="model.source",
        hint="put the model's own tokenizer.json and tokenizer_config.json beside the GGUF file",
    )


def _check_spelt_once(tokens: Sequence[str]) -> None:
    """tokenizer.json maps a token to one id: of two that are spelt alike, one could neither be read nor written."""
    first: dict[str, int] = {}
    for number, token in enumerate(tokens):
        if first.setdefault(token, number) != number:
            raise InputError(
                f"the GGUF file has one token, {token!r}, under two ids, {first[token]} and {number} "
                "(tokenizer.ggml.tokens), which tokenizer.json cannot say",
                option="model.source",
                hint="put the model's own tokenizer.json and tokenizer_config.json beside the GGUF file",
            )


def splits(*regexes: str) -> Json:
    """A pre-tokenizer that cuts by each expression in turn and maps bytes to characters."""
    steps: list[Json] = [
        {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False} for regex in regexes
    ]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {"type": "Sequence", "pretokenizers": [*steps, byte_level]}


def _byte_level(metadata: Mapping[str, Any], tokens: Sequence[str]) -> Tokenizer:
    """GPT-2's way: BPE over bytes, with the merges in the file."""
    name = metadata.get("tokenizer.ggml.pre")
    pre = PRE_TOKENIZERS.get(str(name))
    if pre is None:
        raise InputError(
            f"the GGUF file has tokenizer.ggml.pre={name or 'nothing'}: known are {', '.join(sorted(PRE_TOKENIZERS))}",
            option="model.source",
            hint="put the model's own tokenizer.json and tokenizer_config.json beside the GGUF file",
        )
    merges = metadata.get("tokenizer.ggml.merges")
    if merges is None:
        raise InputError("the GGUF file's tokenizer lacks tokenizer.ggml.merges", option="model.source")
    model = _bpe(tokens, _reachable(merges, tokens), ignore_merges=pre.whole_words)
    ends = _ends(metadata, tokens, bos=pre.bos)
    decoder = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    content = _content(metadata, tokens, model, ends)
    normalizer = {"type": "NFC"} if pre.composes else None
    content |= {"normalizer": normalizer, "pre_tokenizer": splits(*pre.regexes), "decoder": decoder}
    return Tokenizer(content, _config(metadata, tokens, "GPT2Tokenizer", ends))


def _reachable(merges: Sequence[str], tokens: Sequence[str]) -> list[list[str]]:
    """The merges as pairs, without those that make no token.

    llama.cpp cuts what such a merge makes into its characters again. So a merge of two characters that no other goes
    on from changes nothing; `tokenizers` reads no file that has one. Raises InputError for any other of them.
    """
    vocabulary = set(tokens)
    pairs = [merge.split(" ", 1) for merge in merges]
    parts = {part for pair in pairs for part in pair}
    kept = []
    for pair in pairs:
        if len(pair) == 2 and {*pair, "".join(pair)} <= vocabulary:
            kept.append(pair)
        elif len(pair) != 2 or max(map(len, pair)) > 1 or "".join(pair) in parts:
            raise InputError(
                f"the GGUF file's tokenizer merges {' and '.join(map(repr, pair))}, and has no such token "
                "(tokenizer.ggml.merges, tokenizer.ggml.tokens)",
                option="model.source",
                hint="put the model's own tokenizer.json and tokenizer_config.json beside the GGUF file",
            )
    return kept


def _sentence_piece(metadata: Mapping[str, Any], tokens: Sequence[str]) -> Tokenizer:
    """SentencePiece's BPE: scores say what merges first, and what is no token falls back to bytes."""
    scores = metadata.get("tokenizer.ggml.scores")
    if scores is None or len(scores) != len(tokens):
        raise InputError("the GGUF file's tokenizer lacks a score for each token", option="model.source")
    number = _id(metadata, tokens, "unknown")
    unknown = tokens[0 if number is None else number]
    merges = merges_of(tokens, scores, _types(metadata, tokens))
    model = _bpe(tokens, merges, unk_token=unknown, fuse_unk=True, byte_fallback=True)
    prefixed = bool(metadata.get("tokenizer.ggml.add_space_prefix", True))
    normalizers: list[Json] = [{"type": "Prepend", "prepend": SPACE}] if prefixed else []
    normalizers.append({"type": "Replace", "pattern": {"String": " "}, "content": SPACE})
    decoders: list[Json] = [
        {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    if prefixed:
        decoders.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    ends = _ends(metadata, tokens, bos=True)
    content = _content(metadata, tokens, model, ends)
    content |= {
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "pre_tokenizer": WHOLE,
        "decoder": {"type": "Sequence", "decoders": decoders},
    }
    return Tokenizer(content, _config(metadata, tokens, "LlamaTokenizer", ends))


def merges_of(tokens: Sequence[str], scores: Sequence[float], types: Sequence[int]) -> list[list[str]]:
    """SentencePiece's scores as BPE merges, first the one of the highest score.

    A token may be merged from any two tokens that make it up, as transformers' `generate_merges`
    (convert_slow_tokenizer.py) has it, longer left parts first; control, unknown and byte tokens take no part.
    """
    ids = {token: number for number, token in enumerate(tokens) if types[number] not in (_UNKNOWN, _CONTROL, _BYTE)}
    ranked = [
        (-scores[number], -cut, number, token[:cut], token[cut:])
        for token, number in ids.items()
        for cut in range(1, len(token))
        if token[:cut] in ids and token[cut:] in ids
    ]
    return [[left, right] for *_, left, right in sorted(ranked)]


def _bpe(tokens: Sequence[str], merges: list[list[str]], **settings: Any) -> Json:
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
    }
    return model | settings | {"vocab": {token: number for number, token in enumerate(tokens)}, "merges": merges}


@dataclass(frozen=True)
class _Ends:
    """The tokens that every text begins and ends with, None for none."""

    bos: int | None
    eos: int | None


def _ends(metadata: Mapping[str, Any], tokens: Sequence[str], *, bos: bool) -> _Ends:
    begin, end = _id(metadata, tokens, "bos"), _id(metadata, tokens, "eos")
    return _Ends(
        begin if metadata.get("tokenizer.ggml.add_bos_token", bos) else None,
        end if metadata.get("tokenizer.ggml.add_eos_token", False) else None,
    )


def _id(metadata: Mapping[str, Any], tokens: Sequence[str], name: str) -> int | None:
    number = metadata.get(f"tokenizer.ggml.{name}_token_id")
    if number in (-1, _NO_ID):
        return None
    if number is not None and not 0 <= number < len(tokens):
        raise InputError(
            f"the GGUF file has tokenizer.ggml.{name}_token_id={number}, and {len(tokens)} tokens",
            option="model.source",
        )
    return None if number is None else int(number)


def _types(metadata: Mapping[str, Any], tokens: Sequence[str]) -> Sequence[int]:
    types: Sequence[int] = metadata.get("tokenizer.ggml.token_type", [1] * len(tokens))
    if len(types) != len(tokens):
        raise InputError("the GGUF file's tokenizer lacks a type for each token", option="model.source")
    return types


def _content(metadata: Mapping[str, Any], tokens: Sequence[str], model: Json, ends: _Ends) -> Json:
    kinds = (_UNKNOWN, _CONTROL, _USER_DEFINED)
    _refuse_ordinary(metadata, tokens, kinds)
    added = [
        {
            "id": number,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": kind != _USER_DEFINED,
        }
        for number, (token, kind) in enumerate(zip(tokens, _types(metadata, tokens), strict=True))
        # runs of spaces are SentencePiece's own spelling, which text never has: they are merged, not found
        if kind in kinds and SPACE not in token
    ]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "post_processor": _template(tokens, ends),
        "model": model,
    }


def _refuse_ordinary(metadata: Mapping[str, Any], tokens: Sequence[str], kinds: Sequence[int]) -> None:
    """Raises InputError where the chat template writes a mark that is an ordinary token, and so would be cut."""
    template = metadata.get("tokenizer.chat_template")
    if not isinstance(template, str):
        return
    for number, (token, kind) in enumerate(zip(tokens, _types(metadata, tokens), strict=True)):
        if kind not in kinds and _MARK.fullmatch(token) and token in template:
            raise InputError(
                f"the GGUF file's chat template writes {token!r}, and the file has token {number} of that text as an "
                f"ordinary one (tokenizer.ggml.token_type={kind})",
                option="model.source",
                hint="convert the model again with a current llama.cpp, which makes it a control token",
            )


def _template(tokens: Sequence[str], ends: _Ends) -> Json | None:
    """Puts BOS and EOS around a text."""
    if ends.bos is None and ends.eos is None:
        return None

    def special(number: int | None, part: int) -> list[Json]:
        return [] if number is None else [{"SpecialToken": {"id": tokens[number], "type_id": part}}]

    def around(name: str, part: int) -> list[Json]:
        text = {"Sequence": {"id": name, "type_id": part}}
        return [*special(ends.bos, part), text, *special(ends.eos, part)]

    used = [number for number in (ends.bos, ends.eos) if number is not None]
    return {
        "type": "TemplateProcessing",
        "single": around("A", 0),
        "pair": [*around("A", 0), *around("B", 1)],
        "special_tokens": {
            tokens[number]: {"id": tokens[number], "ids": [number], "tokens": [tokens[number]]} for number in used
        },
    }


def _config(metadata: Mapping[str, Any], tokens: Sequence[str], name: str, ends: _Ends) -> Json:
    config: Json = {
        "tokenizer_class": name,
        "add_bos_token": ends.bos is not None,
        "add_eos_token": ends.eos is not None,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
    }
    for ours, theirs in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")):
        number = _id(metadata, tokens, theirs)
        if number is not None:
            config[f"{ours}_token"] = tokens[number]
    architecture = metadata.get("general.architecture")
    length = metadata.get(f"{architecture}.context_length")
    if length is not None:
        config["model_max_length"] = length
    if "tokenizer.chat_template" in metadata:
        config["chat_template"] = metadata["tokenizer.chat_template"]
    return config


def understood(metadata: Mapping[str, Any]) -> bool:
    """Whether `convert` knows the kind and the pre-tokenizer that a file names: long arrays may be lengths here."""
    if not metadata.get("tokenizer.ggml.tokens"):
        return False
    kind = metadata.get("tokenizer.ggml.model")
    return kind == "llama" or (kind == "gpt2" and str(metadata.get("tokenizer.ggml.pre")) in PRE_TOKENIZERS)

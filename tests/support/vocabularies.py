"""Made-up tokenizers with merges learnt from the texts that tokenizers are compared on."""

from __future__ import annotations

import json
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from trtbuild.networks.tokenizer.texts import TEXTS

Json = dict[str, Any]

SPACE = "\u2581"
SPECIAL = ["<unk>", "<s>", "</s>", "<|user|>"]


def byte_level() -> Json:
    """A byte-level BPE with merges learnt from the texts themselves, runs of white space included."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(r" ?\S+|\s+", "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        TEXTS, trainers.BpeTrainer(vocab_size=1500, special_tokens=SPECIAL, initial_alphabet=alphabet)
    )
    return json.loads(made.to_str())


def sentence_piece() -> Json:
    """A BPE like SentencePiece's: words begin with a space, what is no token becomes bytes."""
    fallback = [f"<0x{byte:02X}>" for byte in range(256)]
    made = Tokenizer(models.BPE(unk_token=SPECIAL[0], fuse_unk=True, byte_fallback=True))
    made.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
    made.pre_tokenizer = pre_tokenizers.Split("\n", "isolated")
    made.train_from_iterator(
        TEXTS,
        trainers.BpeTrainer(
            vocab_size=1500, special_tokens=[*SPECIAL, *fallback], limit_alphabet=90, max_token_length=16
        ),
    )
    content: Json = json.loads(made.to_str())
    content["added_tokens"] = content["added_tokens"][: len(SPECIAL)]
    steps: list[Json] = [{"type": "Replace", "pattern": {"String": SPACE}, "content": " "}]
    steps += [{"type": "ByteFallback"}, {"type": "Fuse"}]
    steps.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    # no token spans a space or a line, as in the vocabularies that people have
    model = content["model"]
    model["merges"] = [pair for pair in model["merges"] if _whole("".join(pair))]
    kept = [token for token in model["vocab"] if token in (*SPECIAL, *fallback) or len(token) == 1 or _whole(token)]
    model["vocab"] = {token: number for number, token in enumerate(kept)}
    return content | {"pre_tokenizer": None, "decoder": {"type": "Sequence", "decoders": steps}}


def _whole(token: str) -> bool:
    return SPACE not in token.lstrip(SPACE) and "\n" not in token and "\r" not in token

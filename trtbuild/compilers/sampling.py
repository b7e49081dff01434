"""Text generation, token by token: how the next token is sampled, where an answer ends, and how long it took."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trtbuild.errors import BuildError, InputError
from trtbuild.networks.tokenizer.special_tokens import ids_in, read_object
from trtbuild.networks.weights.arrays import Array

if TYPE_CHECKING:  # it imports tokenizers and jinja2, which not every user of this module needs
    from trtbuild.compilers.text import Text


def answer(
    tokens: Iterator[int], text: Text, ends: set[int], most: int, on_text: Callable[[str], None]
) -> dict[str, Any]:
    """Read at most `most` of `tokens`, or until one of `ends`; `on_text` gets their text. Returns facts.

    Seconds are wall time; those of the first token include reading the prompt.
    """
    pieces, ids = list[str](), list[int]()

    def on_piece(piece: str) -> None:
        pieces.append(piece)
        on_text(piece)

    decode = text.stream(on_piece)
    began = first = time.perf_counter()
    for token in tokens:
        if not ids:
            first = time.perf_counter()
        ids.append(token)
        decode(token)
        if token in ends or len(ids) >= most:
            break
    after_first = time.perf_counter() - first
    rate = (len(ids) - 1) / after_first if len(ids) > 1 and after_first > 0 else None
    return {
        "tokens": len(ids),
        "token_ids": ids,
        "first_token_seconds": round(first - began, 4),
        "tokens_per_second": None if rate is None else round(rate, 2),
        "text": "".join(pieces),
    }


def check_finite(logits: Array) -> None:
    """Raises BuildError if a logit is infinite or not a number."""
    bad = int(np.size(logits) - np.isfinite(logits).sum())
    if bad:
        raise BuildError(f"the engine's logits are not finite: {bad} of {np.size(logits)}")


def token_sampler(options: Mapping[str, Any]) -> Callable[[Array], int]:
    """A function from logits [vocab] to a token: the likeliest, or with `temperature` a sample from the top `top_p`.

    Options: `temperature`, `top_p`, `seed`. Raises InputError for a value out of range; the function raises BuildError
    for logits that are not finite.
    """
    temperature = float(options.get("temperature", 0.0))
    top_p = float(options.get("top_p", 1.0))
    if not temperature >= 0:
        raise InputError("it is below zero", option=f"generate.temperature={temperature}")
    if not 0 < top_p <= 1:
        raise InputError("it is not within (0, 1]", option=f"generate.top_p={top_p}")
    random = np.random.default_rng(int(options.get("seed", 0)))

    def choose(logits: Array) -> int:
        check_finite(logits)
        if temperature == 0:
            return int(logits.argmax())
        order = np.argsort(-logits)
        scaled = np.exp((logits[order] - logits[order[0]]).astype(np.float64) / temperature)
        shares = scaled / scaled.sum()
        kept = int(np.searchsorted(np.cumsum(shares), top_p)) + 1
        return int(random.choice(order[:kept], p=shares[:kept] / shares[:kept].sum()))

    return choose


def end_tokens(folder: Path, default: list[int]) -> set[int]:
    """The tokens that end an answer: those of generation_config.json, where `chat.files` joined all, else `default`.

    `default` are those of the model's config. Raises BuildError if the file holds no token ids.
    """
    name = "generation_config.json"
    files = {name: folder / name} if (folder / name).is_file() else {}
    try:
        ends = ids_in(read_object(files, name), "eos_token_id", name)
    except InputError as error:
        raise BuildError(f"the engine's end tokens cannot be read: {error}") from None
    return set(ends or default)


def check_repetition(ids: Sequence[int], text: str) -> None:
    """Raises BuildError if the tokens `ids` of an answer are one token over and over."""
    if len(ids) >= 8 and len(set(ids)) == 1:
        raise BuildError(f"the engine repeats one token, {ids[0]}, {len(ids)} times: {text[:80]!r}")

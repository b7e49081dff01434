"""What an engine says, token by token: how the next one is chosen, where the answer ends, what it took."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trtbuild.compilers.text import Text
from trtbuild.errors import BuildError, InputError
from trtbuild.networks.tokenizer.special_tokens import ids_in, read_object
from trtbuild.networks.weights.arrays import Array


def answer(
    tokens: Iterator[int], text: Text, ends: set[int], most: int, on_text: Callable[[str], None]
) -> dict[str, Any]:
    """Take up to `most` of `tokens`, or up to one of `ends`, and tell `on_text` what they say; returns facts.

    Seconds are wall time; the first token's include reading the prompt.
    """
    pieces, given = list[str](), list[int]()

    def told(piece: str) -> None:
        pieces.append(piece)
        on_text(piece)

    take = text.stream(told)
    began = first = time.perf_counter()
    for token in tokens:
        if not given:
            first = time.perf_counter()
        given.append(token)
        take(token)
        if token in ends or len(given) >= most:
            break
    after_first = time.perf_counter() - first
    rate = (len(given) - 1) / after_first if len(given) > 1 and after_first > 0 else None
    return {
        "tokens": len(given),
        "token_ids": given,
        "first_token_seconds": round(first - began, 4),
        "tokens_per_second": None if rate is None else round(rate, 2),
        "text": "".join(pieces),
    }


def token_sampler(options: Mapping[str, Any]) -> Callable[[Array], int]:
    """A function of logits [vocab]: the likeliest token, or with `temperature` one within `top_p` at that `seed`.

    Raises InputError for an option that cannot be, and the function BuildError for logits that are not finite.
    """
    temperature = float(options.get("temperature", 0.0))
    top_p = float(options.get("top_p", 1.0))
    if not temperature >= 0:
        raise InputError("it is below zero", option=f"generate.temperature={temperature}")
    if not 0 < top_p <= 1:
        raise InputError("it is not within (0, 1]", option=f"generate.top_p={top_p}")
    random = np.random.default_rng(int(options.get("seed", 0)))

    def choose(logits: Array) -> int:
        wrong = int(logits.size - np.isfinite(logits).sum())
        if wrong:
            raise BuildError(f"the engine's logits are not finite: {wrong} of {logits.size}")
        if temperature == 0:
            return int(logits.argmax())
        order = np.argsort(-logits)
        scaled = np.exp((logits[order] - logits[order[0]]).astype(np.float64) / temperature)
        shares = scaled / scaled.sum()
        kept = int(np.searchsorted(np.cumsum(shares), top_p)) + 1
        return int(random.choice(order[:kept], p=shares[:kept] / shares[:kept].sum()))

    return choose


def end_tokens(folder: Path, named: list[int]) -> set[int]:
    """The tokens that end an answer: generation_config.json's, where `chat.files` united all, else `named`.

    `named` are the model's own by its config. Raises BuildError for a file that does not hold tokens' numbers.
    """
    name = "generation_config.json"
    files = {name: folder / name} if (folder / name).is_file() else {}
    try:
        ends = ids_in(read_object(files, name), "eos_token_id", name)
    except InputError as error:
        raise BuildError(f"the engine's ends of answers cannot be read: {error}") from None
    return set(ends or named)


def check_repetition(facts: Mapping[str, Any]) -> None:
    """Raises BuildError where an answer is one token over and over."""
    ids = facts["token_ids"]
    if len(ids) >= 8 and len(set(ids)) == 1:
        raise BuildError(f"the engine repeats one token, {ids[0]}, {len(ids)} times: {facts['text'][:80]!r}")

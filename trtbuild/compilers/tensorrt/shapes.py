"""The shapes that an engine takes: a profile's limits as ranges for each input of the network.

    dynamic   one engine, one range: any number of tokens up to the longest input, tuned for one
    phases    one engine with two optimization profiles: decode (one token at a time), prefill (many); its weights are
              laid out for each, so it is larger
    static    two engines of fixed shapes: decode.engine sees one token, prefill.engine as many as the longest input,
              each behind a cache of fixed length; the host masks what is not filled

In all of them cached and new tokens together are at most `max_seq_len`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trtbuild.networks.config.decoder import Decoder

SHAPES = ("dynamic", "phases", "static")
ENGINE = "model.engine"
_TYPICAL_PREFILL = 128  # tokens of a prompt that a prefill profile is tuned for, where it may be as long

Dims = tuple[int, ...]


@dataclass(frozen=True)
class ProfileLimits:
    """The most sequences at once, tokens of a prompt, and tokens of prompt and answer together."""

    batch: int
    input: int
    sequence: int


@dataclass(frozen=True)
class Range:
    """Least, typical and greatest count."""

    least: int
    typical: int
    greatest: int

    @property
    def fixed(self) -> bool:
        return self.least == self.greatest


@dataclass(frozen=True)
class Phase:
    """What one optimization profile, or one static engine, takes: sequences, new tokens, tokens of the cache."""

    name: str  # decode, prefill, or any
    batch: Range
    tokens: Range
    past: Range


@dataclass(frozen=True)
class ShapePlan:
    """One engine file. It has fixed shapes where `static`, else a profile per phase, in this order."""

    file: str
    static: bool
    phases: tuple[Phase, ...]


def engines(shapes: str, limits: ProfileLimits) -> tuple[ShapePlan, ...]:
    """The engines that `shapes`, one of `SHAPES`, asks for. `limits.input` is below `limits.sequence`."""
    longest = limits.sequence - 1
    batch = Range(1, limits.batch, limits.batch)
    cache = Range(0, longest // 2, longest)
    one, many = Range(1, 1, 1), Range(1, min(_TYPICAL_PREFILL, limits.input), limits.input)
    if shapes == "dynamic":
        return (ShapePlan(ENGINE, False, (Phase("any", batch, Range(1, 1, limits.input), cache),)),)
    if shapes == "phases":
        prefill = Phase("prefill", batch, many, Range(0, 0, longest))
        return (ShapePlan(ENGINE, False, (Phase("decode", batch, one, cache), prefill)),)
    batch_size = _fixed(limits.batch)
    decode = Phase("decode", batch_size, one, _fixed(longest))
    prefill = Phase("prefill", batch_size, _fixed(limits.input), _fixed(limits.sequence - limits.input))
    return ShapePlan("decode.engine", True, (decode,)), ShapePlan("prefill.engine", True, (prefill,))


def inputs(decoder: Decoder, phase: Phase) -> Mapping[str, tuple[Dims, Dims, Dims]]:
    """The least, typical and greatest shape of each input of `networks.standard`."""
    shapes: dict[str, list[Dims]] = {}
    for which in ("least", "typical", "greatest"):
        batch, tokens, past = (getattr(extent, which) for extent in (phase.batch, phase.tokens, phase.past))
        for name, dims in _at(decoder, batch, tokens, past):
            shapes.setdefault(name, []).append(dims)
    return {name: (least, typical, greatest) for name, (least, typical, greatest) in shapes.items()}


def _at(decoder: Decoder, batch: int, tokens: int, past: int) -> Sequence[tuple[str, Dims]]:
    cache = (batch, decoder.kv_heads, past, decoder.head_dim)
    names = [f"past_key_values.{layer}.{kind}" for layer in range(decoder.layers) for kind in ("key", "value")]
    return [
        ("input_ids", (batch, tokens)),
        ("position_ids", (batch, tokens)),
        ("attention_bias", (batch, 1, tokens, past + tokens)),
        *((name, cache) for name in names),
    ]


def _fixed(count: int) -> Range:
    return Range(count, count, count)

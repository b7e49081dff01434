"""How a host calls an engine to generate text: the shapes of each call, the attention mask, and the cache slots.

The cache has a fixed number of slots; position p has slot p. Empty slots are masked, so engines with static and with
dynamic shapes are called alike. `Machine` runs the calls: `gpu` with TensorRT, the tests with ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from trtbuild.errors import InputError
from trtbuild.networks.weights.arrays import Array


@dataclass(frozen=True)
class Call:
    """One run of the phase `phase` (prefill or decode) for one sequence.

    `ids` and `positions` are [tokens] int32, `bias` is [tokens, past + tokens] float32. The first `count` tokens are
    real, the rest is padding. Keys and values of the real ones go to the slots from `slot` on.
    """

    phase: str
    ids: Array
    positions: Array
    bias: Array
    slot: int
    count: int


class Machine(Protocol):
    """Runs calls on an engine, and keeps its cache."""

    def run(self, call: Call) -> Array:
        """The logits of the last real token, [vocab] float32. The real tokens are added to the cache."""


@dataclass(frozen=True)
class CallShape:
    """New tokens and cache slots of a call."""

    tokens: int
    past: int


@dataclass(frozen=True)
class CallSchedule:
    """The shapes that an engine is called with for one prompt and its answer."""

    prefill: CallShape
    decode: CallShape
    window: int | None  # of sliding attention, in tokens
    masked: float


def layout(manifest: Mapping[str, Any], prompt: int, answer: int) -> CallSchedule:
    """The calls for `prompt` and `answer` tokens. Raises InputError if the engine is too small for the prompt."""
    limits = manifest["limits"]
    if prompt > limits["max_input_len"]:
        raise InputError(
            f"the prompt has {prompt} tokens, and the engine takes {limits['max_input_len']}",
            option="prompt",
            hint="shorten the prompt, or build with a larger profile.max_input_len",
        )
    last = prompt + min(answer, limits["max_seq_len"] - prompt)
    engines = manifest["engines"]
    if engines[0]["static"]:
        decode, prefill = (engine["phases"][0] for engine in engines)
        shapes = [CallShape(phase["tokens"][2], phase["past"][2]) for phase in (prefill, decode)]
    else:
        slots = max(1, last - 1)  # the last token of an answer is never an input
        shapes = [CallShape(prompt, slots), CallShape(1, slots)]
    return CallSchedule(shapes[0], shapes[1], manifest["decoder"]["sliding_window"], manifest["masked"])


def room(manifest: Mapping[str, Any], prompt: int) -> int:
    """The most tokens that an answer to `prompt` tokens may have."""
    return int(manifest["limits"]["max_seq_len"]) - prompt


def tokens(
    machine: Machine, shapes: CallSchedule, prompt: Sequence[int], choose: Callable[[Array], int]
) -> Iterator[int]:
    """Tokens of the answer, without end; `choose` picks each by its logits [vocab]."""
    logits = machine.run(_call("prefill", shapes.prefill, shapes, prompt, 0))
    at = len(prompt)
    while True:
        token = choose(logits)
        yield token
        logits = machine.run(_call("decode", shapes.decode, shapes, [token], at))
        at += 1


def _call(phase: str, shape: CallShape, shapes: CallSchedule, real: Sequence[int], at: int) -> Call:
    ids = np.zeros(shape.tokens, np.int32)
    ids[: len(real)] = real
    # Padding repeats the last position: the rotary table has no rows beyond the model's context.
    positions = np.minimum(np.arange(at, at + shape.tokens), at + len(real) - 1).astype(np.int32)
    return Call(phase, ids, positions, bias(shape, shapes, at, len(real)), at, len(real))


def bias(shape: CallShape, shapes: CallSchedule, at: int, count: int) -> Array:
    """The attention mask [tokens, past + tokens]: 0 where a token attends, `masked` elsewhere."""
    query = np.arange(at, at + shape.tokens)[:, None]
    slots = np.arange(shape.past)[None]
    new = np.arange(at, at + shape.tokens)[None]
    seen = np.concatenate([(slots < at) & (query >= 0), (new <= query) & (new < at + count)], axis=1)
    if shapes.window is not None:
        key = np.concatenate([slots, new], axis=1)
        seen &= query - key < shapes.window
    return np.where(seen, 0, shapes.masked).astype(np.float32)

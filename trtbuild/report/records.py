"""What a record of trtbuild's says of its artifact, in words: what it took, what the check saw, what an engine is.

Records may be of other releases, or of other programs: what is not there, or is something else, is passed over.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from trtbuild.artifacts import provenance
from trtbuild.errors import bounded
from trtstore import Record, format_seconds, format_size

Json = Mapping[str, Any]
_EVERY = "from compute capability 8.0 on"


def lines(record: Record) -> list[str]:
    """A line each, beginning with its title; for `trtstore show`."""
    try:
        return [bounded(f"{title:<8} {words}".rstrip()) for title, words in _told(record)]
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError):
        return []  # it is of another form: the record itself is shown below


def _told(record: Record) -> Iterator[tuple[str, str]]:
    said = record.predicate
    took, check = said.get("trtbuild_stats") or {}, said.get("trtbuild_check")
    if "seconds" in took:
        peak, when = took.get("peak_memory_bytes"), f", {said['runDetails']['metadata']['finishedOn']}"
        yield (
            "built",
            f"in {format_seconds(took['seconds'])}" + (f", {format_size(peak)} of memory" if peak else "") + when,
        )
    if check is not None:
        yield "executed", f"no: {check['why']}" if check.get("executed") is False else f"yes: {speed(check)}"
    losses = provenance.loss(record)
    if losses is not None:
        yield "loss", loss(losses)
    engine = said.get("trtbuild_facts", {}).get("engine")
    if isinstance(engine, Mapping):
        loaded = {each["file"]: each for each in (check or {}).get("engines", ())}
        yield from _engine(engine, loaded)


def _engine(engine: Json, loaded: Mapping[str, Json]) -> Iterator[tuple[str, str]]:
    """An engine of TensorRT's, by its engine.json (`trtbuild.compilers.tensorrt.manifest`)."""
    capability, group = engine["compute_capability"], engine["group_size"]
    where = f"for compute capability {capability}" if capability else _EVERY
    weights = "" if engine["weights"] == "none" else f", weights {engine['weights']}"
    groups = f" in groups of {group}" if group else ""
    yield "engine", f"{engine['compiler']} {engine['release']}, {engine['dtype']}{weights}{groups}, {where}"
    limits = engine["limits"]
    yield (
        "limits",
        f"sequences {limits['max_batch_size']}, tokens of a prompt {limits['max_input_len']}, "
        f"of prompt and answer {limits['max_seq_len']}",
    )
    for one in engine["engines"]:
        yield "file", f"{one['file']}: {', '.join(_layers(one, loaded.get(one['file'])))}"
        for phase in one["phases"]:
            ranges = (f"{name} {_range(phase[name])}" for name in ("batch", "tokens", "past"))
            yield "", f"profile {phase['name']}: {', '.join(ranges)}"
        for kind in ("inputs", "outputs"):
            yield "", f"{kind} {', '.join(map(_tensor, one[kind]))}"


def _layers(one: Json, loaded: Json | None) -> Iterator[str]:
    yield f"{one['network_layers']} layers in the network"
    if loaded is not None:
        yield f"{loaded['layers']} in the engine"
        kinds = ", ".join(f"{count} {name}" for name, count in loaded.get("precisions", {}).items())
        if kinds:
            yield f"by their outputs {kinds}"
        if loaded.get("scratch_bytes") is not None:
            yield f"{format_size(loaded['scratch_bytes'])} of scratch memory"


def _range(extent: list[int]) -> str:
    least, typical, greatest = extent
    return str(least) if least == greatest else f"{least} to {greatest} (tuned for {typical})"


def _tensor(tensor: Json) -> str:
    dims = " x ".join("any" if each == -1 else str(each) for each in tensor["shape"])
    return f"{tensor['name']} {tensor['dtype']} [{dims}]"


def loss(losses: Mapping[str, float]) -> str:
    """The mean losses on a text, and how much more perplexed one is than the other."""
    more = math.expm1(losses["quantized"] - losses["original"])
    return (
        f"{losses['quantized']:.3f} nats a token, the original {losses['original']:.3f} ({more:+.1%} perplexity), on "
        f"{losses['tokens']:.0f} tokens"
    )


def speed(spoken: Mapping[str, Any]) -> str:
    """What generating took; the rate is that of the tokens after the first."""
    rate = spoken["tokens_per_second"]
    words = f"loads in {spoken['load_seconds']:.2f} s, {spoken['tokens']} tokens"
    return words + (f" at {rate:.0f} tokens/s" if rate else "")

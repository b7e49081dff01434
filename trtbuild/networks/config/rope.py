"""Rotary positions as a config.json describes them. Standard library only, like `architectures`.

Which of two spellings wins, and what an absent field means, is as in transformers 5.17
(`RotaryEmbeddingConfigMixin` and the _compute_*_parameters of its modeling_rope_utils.py). Where a field is
ignored there and another loader reads it, the config is refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from trtbuild.networks.config.fields import Config, is_number, number, refuse

_SECTIONS = ("rope_scaling", "rope_parameters")  # the first that is not empty wins
_ORIGINAL = "original_max_position_embeddings"


@dataclass(frozen=True)
class Rope:
    """Rotary positions, in the terms of transformers' `modeling_rope_utils`.

    `kind` is "default", "linear", "llama3", "yarn" or "longrope"; the other fields are read by the kinds
    that know them. `factors` (longrope: one per frequency) divide the frequencies, for short and long
    contexts alike: this is also how a GGUF file's `rope_freqs` reach the graph.
    """

    theta: float
    kind: str = "default"
    factor: float = 1.0
    original_max_positions: int = 0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True
    attention_factor: float | None = None
    mscale: float | None = None
    mscale_all_dim: float | None = None
    factors: tuple[float, ...] = ()


@dataclass(frozen=True)
class _RopeFields:
    """The rotary part of a config, and what it is called there (for messages)."""

    name: str
    given: Config
    config: Config
    theta: float
    positions: int
    head_dim: int

    def positive(self, field: str) -> float:
        dotted = f"{self.name}.{field}"
        return number({dotted: self.given.get(field)}, dotted)

    def factor(self) -> float:
        """The stated factor; null stands for how much the context was extended."""
        given = self.given.get("factor")
        return self.positions / self.original() if given is None else self.positive("factor")

    def optional(self, field: str) -> float | None:
        return None if self.given.get(field) is None else self.positive(field)

    def original(self) -> int:
        """The context before it was extended; the outer field wins, as in transformers."""
        outside = _ORIGINAL in self.config
        where, dotted = (self.config, _ORIGINAL) if outside else (self.given, f"{self.name}.{_ORIGINAL}")
        value = number({dotted: where.get(_ORIGINAL, self.positions)}, dotted)
        if value != int(value):
            raise refuse(dotted, value, "a whole number is needed")
        return int(value)


#: What each kind reads besides `rope_type`, `type`, `rope_theta` and `original_max_position_embeddings`.
READ: Mapping[str, frozenset[str]] = {
    "default": frozenset(),
    "linear": frozenset({"factor"}),
    "dynamic": frozenset({"factor"}),
    "llama3": frozenset({"factor", "low_freq_factor", "high_freq_factor"}),
    "yarn": frozenset({"factor", "attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate"}),
    "longrope": frozenset({"factor", "attention_factor", "short_factor", "long_factor"}),
}
#: What a kind that does not read the field would pass over: refused, but for null and these values.
UNREAD: Mapping[str, tuple[object, ...]] = {
    "factor": (1,),
    "attention_factor": (1,),
    "low_freq_factor": (),
    "high_freq_factor": (),
    "beta_fast": (),
    "beta_slow": (),
    "mscale": (0, 1),
    "mscale_all_dim": (0, 1),
    "truncate": (True,),
    "short_factor": ([],),
    "long_factor": ([],),
    "alpha": (1,),
    "mrope_section": ([],),
    "mrope_interleaved": (False,),
    "partial_rotary_factor": (1,),
    "short_mscale": (1,),
    "long_mscale": (1,),
    "llama_4_scaling_beta": (0,),
    "apply_yarn_scaling": (True,),
}
#: Fields that no kind's frequencies depend on, why.
NEUTRAL: Mapping[str, str] = {
    "rope_type": "names the kind",
    "type": "names the kind, as transformers 4 spelt it",
    "rope_theta": "read by every kind",
    _ORIGINAL: "the kinds that scale by it read it",
    "finetuned": "says how the model was trained",
}


def parse_rope(config: Config, positions: int, head_dim: int) -> Rope:
    """The rotary positions of a parsed config.json, in either spelling.

    `rope_parameters`, or the older `rope_scaling` beside `rope_theta`. Raises InputError.
    """
    ropes = [_parse(config, name, positions, head_dim) for name in _SECTIONS if config.get(name)]
    if ropes[1:] and ropes[0] != ropes[1]:
        why = "rope_scaling says something else, and loaders differ in which of the two they read"
        raise refuse("rope_parameters", config["rope_parameters"], why, "keep the right one of the two")
    return ropes[0] if ropes else _parse(config, _SECTIONS[1], positions, head_dim)


def rope_notes(config: Config, positions: int) -> tuple[list[str], list[str]]:
    """Sentences about a config that `parse_rope` took, and the dotted names of the fields unknown to it."""
    notes, unknown = [], []
    for name in _SECTIONS:
        given = config.get(name) or {}
        known = UNREAD.keys() | NEUTRAL.keys()
        unknown += [f"{name}.{field}" for field in given if field not in known]
        kind = _kind(given, name)
        if kind == "dynamic" or (kind == "longrope" and given.get("short_factor") != given.get("long_factor")):
            notes.append(
                f"config.json has {name}.rope_type={kind!r}: within max_position_embeddings={positions}, the "
                "engine's limit, the rotation does not change with the prompt's length"
            )
    return notes, unknown


def _parse(config: Config, name: str, positions: int, head_dim: int) -> Rope:
    given: Config = config.get(name) or {}
    if not isinstance(given, Mapping):
        raise refuse(name, given, "an object is needed")
    if any(isinstance(value, Mapping) for value in given.values()):
        raise refuse(name, sorted(given), "rotary parameters that differ by layer are not supported")
    kind = _kind(given, name)
    _refuse_unread(given, name, kind)
    theta = _theta(config, given, name)
    return _ROPES[kind](_RopeFields(name, given, config, theta, positions, head_dim))


def _kind(given: Config, name: str) -> str:
    kind = given.get("rope_type", given.get("type", "default"))
    if not isinstance(kind, str) or kind not in _ROPES:
        raise refuse(f"{name}.rope_type", kind, f"supported are {', '.join(_ROPES)}")
    if given.get("type", kind) != kind:
        why = f"rope_type={kind!r} beside it says something else, and loaders differ in which they read"
        raise refuse(f"{name}.type", given["type"], why, "keep the right one of the two")
    return kind


def _refuse_unread(given: Config, name: str, kind: str) -> None:
    for field, unless in UNREAD.items():
        value = given.get(field)
        if value is not None and field not in READ[kind] and value not in unless:
            if field == "partial_rotary_factor":
                raise refuse(f"{name}.{field}", value, "only whole heads are rotated here")
            why = f"rotary positions of the kind {kind!r} do not read it"
            raise refuse(f"{name}.{field}", value, why, "name the kind that was meant, or take the field out")


def _theta(config: Config, given: Config, name: str) -> float:
    """The inner one wins in transformers 5; other loaders take the outer one, so both must agree."""
    if "rope_theta" not in given:
        return number(config, "rope_theta", 10000.0)
    dotted = f"{name}.rope_theta"
    theta = number({dotted: given["rope_theta"]}, dotted)
    outer = config.get("rope_theta")
    if outer is not None and outer != theta:
        why = f"{dotted}={theta!r} says something else, and loaders differ in which they read"
        raise refuse("rope_theta", outer, why, "keep the right one of the two")
    return theta


def _default(fields: _RopeFields) -> Rope:
    return Rope(fields.theta)


def _dynamic(fields: _RopeFields) -> Rope:
    """NTK scaling by the prompt's length starts beyond max_position_embeddings, where no engine goes.

    `original_max_position_embeddings` does not count for this kind in transformers.
    """
    fields.positive("factor")
    return Rope(fields.theta)


def _linear(fields: _RopeFields) -> Rope:
    return Rope(fields.theta, "linear", fields.positive("factor"))


def _llama3(fields: _RopeFields) -> Rope:
    low, high = fields.positive("low_freq_factor"), fields.positive("high_freq_factor")
    if high <= low:
        raise refuse(f"{fields.name}.high_freq_factor", high, f"it must exceed low_freq_factor={low}")
    return Rope(
        fields.theta,
        "llama3",
        factor=fields.positive("factor"),
        original_max_positions=fields.original(),
        low_freq_factor=low,
        high_freq_factor=high,
    )


def _yarn(fields: _RopeFields) -> Rope:
    given = fields.given
    if "factor" not in given:
        why = "it is required; null stands for max_position_embeddings / original_max_position_embeddings"
        raise refuse(f"{fields.name}.factor", None, why)
    if fields.theta == 1:
        raise refuse(f"{fields.name}.rope_theta", fields.theta, "yarn divides by its logarithm")
    return Rope(
        fields.theta,
        "yarn",
        factor=fields.factor(),
        original_max_positions=fields.original(),
        beta_fast=fields.optional("beta_fast") or 32.0,
        beta_slow=fields.optional("beta_slow") or 1.0,
        truncate=bool(given.get("truncate", True)),
        attention_factor=fields.optional("attention_factor"),
        mscale=fields.optional("mscale") if given.get("mscale") else None,
        mscale_all_dim=fields.optional("mscale_all_dim") if given.get("mscale_all_dim") else None,
    )


def _longrope(fields: _RopeFields) -> Rope:
    """The short factors hold up to the original context, the long ones beyond: one of them must always do."""
    original = fields.original()
    short, long = (_factors(fields, which) for which in ("short_factor", "long_factor"))
    if short != long and original < fields.positions:
        why = (
            f"long_factor differs and takes its place in prompts of more than {original} tokens; rotary positions "
            "that change with the prompt's length are not supported"
        )
        raise refuse(f"{fields.name}.short_factor", fields.given["short_factor"], why)
    factor, attention = fields.factor(), fields.optional("attention_factor")
    if attention is None and factor > 1 and original == 1:
        raise refuse(f"{fields.name}.{_ORIGINAL}", original, "longrope divides by its logarithm")
    return Rope(
        fields.theta,
        "longrope",
        factor=factor,
        original_max_positions=original,
        attention_factor=attention,
        factors=short,
    )


def _factors(fields: _RopeFields, which: str) -> tuple[float, ...]:
    given = fields.given.get(which)
    half = fields.head_dim // 2
    if not isinstance(given, list) or len(given) != half or not all(is_number(x) and 0 < x < math.inf for x in given):
        why = f"head_dim={fields.head_dim} needs {half} positive factors"
        raise refuse(f"{fields.name}.{which}", given, why)
    return tuple(float(value) for value in given)


_ROPES: Mapping[str, Callable[[_RopeFields], Rope]] = {
    "default": _default,
    "linear": _linear,
    "dynamic": _dynamic,
    "llama3": _llama3,
    "yarn": _yarn,
    "longrope": _longrope,
}

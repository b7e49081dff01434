"""Rotary positions as a config.json describes them. Standard library only, like `architectures`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from trtbuild.networks.config_fields import Config, count, number, refuse


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
    theta: float
    positions: int
    original: int
    head_dim: int

    def positive(self, field: str) -> float:
        dotted = f"{self.name}.{field}"
        return number({dotted: self.given.get(field)}, dotted)

    def factor(self) -> float:
        """The stated factor, else by how much the context was extended."""
        return self.positions / self.original if self.given.get("factor") is None else self.positive("factor")

    def optional(self, field: str) -> float | None:
        return None if self.given.get(field) is None else self.positive(field)


def parse_rope(config: Config, positions: int, head_dim: int) -> Rope:
    """The rotary positions of a parsed config.json, in either spelling.

    `rope_parameters`, or the older `rope_scaling` beside `rope_theta`. Raises InputError.
    """
    name = "rope_scaling" if config.get("rope_scaling") else "rope_parameters"
    given: Config = config.get(name) or {}
    if not isinstance(given, Mapping):
        raise refuse(name, given, "an object is needed")
    if any(isinstance(value, Mapping) for value in given.values()):
        raise refuse(name, sorted(given), "rotary parameters that differ by layer are not supported")
    rotary = given.get("partial_rotary_factor")
    if rotary not in (None, 1, 1.0):
        raise refuse(f"{name}.partial_rotary_factor", rotary, "only whole heads are rotated here")
    kind = given.get("rope_type", given.get("type", "default"))
    if not isinstance(kind, str) or kind not in _ROPES:
        raise refuse(f"{name}.rope_type", kind, f"supported are {', '.join(_ROPES)}")
    theta = number({"rope_theta": given.get("rope_theta", config.get("rope_theta"))}, "rope_theta", 10000.0)
    field = "original_max_position_embeddings"
    inner = given if config.get(field) is None else config  # the outer one wins, as in transformers
    original = count(inner, field, positions)
    return _ROPES[kind](_RopeFields(name, given, theta, positions, original, head_dim))


def _default(fields: _RopeFields) -> Rope:
    return Rope(fields.theta)


def _linear(fields: _RopeFields) -> Rope:
    return Rope(fields.theta, "linear", fields.positive("factor"))


def _llama3(fields: _RopeFields) -> Rope:
    return Rope(
        fields.theta,
        "llama3",
        factor=fields.positive("factor"),
        original_max_positions=fields.original,
        low_freq_factor=fields.positive("low_freq_factor"),
        high_freq_factor=fields.positive("high_freq_factor"),
    )


def _yarn(fields: _RopeFields) -> Rope:
    return Rope(
        fields.theta,
        "yarn",
        factor=fields.factor(),
        original_max_positions=fields.original,
        beta_fast=fields.optional("beta_fast") or 32.0,
        beta_slow=fields.optional("beta_slow") or 1.0,
        truncate=bool(fields.given.get("truncate", True)),
        attention_factor=fields.optional("attention_factor"),
        mscale=fields.optional("mscale"),
        mscale_all_dim=fields.optional("mscale_all_dim"),
    )


def _longrope(fields: _RopeFields) -> Rope:
    short, long = fields.given.get("short_factor"), fields.given.get("long_factor")
    if not isinstance(long, list) or short != long:
        why = "factors that change with the prompt's length are not supported"
        raise refuse(f"{fields.name}.short_factor", short, why)
    if len(long) != fields.head_dim // 2 or not all(isinstance(x, int | float) and x > 0 for x in long):
        why = f"head_dim={fields.head_dim} needs {fields.head_dim // 2} positive factors"
        raise refuse(f"{fields.name}.long_factor", long, why)
    return Rope(
        fields.theta,
        "longrope",
        factor=fields.factor(),
        original_max_positions=fields.original,
        attention_factor=fields.optional("attention_factor"),
        factors=tuple(float(value) for value in long),
    )


_ROPES: Mapping[str, Callable[[_RopeFields], Rope]] = {
    "default": _default,
    "linear": _linear,
    "llama3": _llama3,
    "yarn": _yarn,
    "longrope": _longrope,
}

"""Linear maps that are not quantized: `compiler.exclude_modules`, patterns of their names in Hugging Face's layout.

Standard library only: the command line checks the patterns if it knows the model, and the worker always does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from trtbuild.errors import InputError
from trtbuild.networks.config.fields import layers_of

OPTION = "compiler.exclude_modules"
MAPS = {
    "self_attn": ("q_proj", "k_proj", "v_proj", "o_proj"),
    "mlp": ("gate_proj", "up_proj", "down_proj"),
}
#: Maps that servers compute as one product, so that they must have one format.
_JOINED = (("self_attn", ("q_proj", "k_proj", "v_proj")), ("mlp", ("gate_proj", "up_proj")))


def fact(patterns: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The fact that a key reads; none without patterns."""
    return {OPTION: tuple(sorted(set(patterns)))} if patterns else {}


def read(facts: Mapping[str, Any]) -> list[str]:
    """The patterns in the facts of a step or the options of a compiler."""
    return [str(pattern) for pattern in facts.get(OPTION) or ()]


def check(patterns: Sequence[str], config: Mapping[str, Any], algorithm: str | None, quant: str) -> None:
    """Raises InputError for patterns that cannot be meant, as far as `config` (a config.json) tells."""
    if patterns and algorithm is None:
        raise InputError(f"quant={quant} quantizes nothing", option=OPTION, hint="leave it out")
    if patterns and isinstance(config.get("num_hidden_layers"), int):
        modules(patterns, layers_of(config))


def modules(patterns: Sequence[str], layers: int) -> frozenset[str]:
    """The excluded maps, as "model.layers.0.mlp.up_proj". Raises InputError for patterns that cannot be meant."""
    if not patterns:
        return frozenset()
    known = names(layers)
    excluded: set[str] = set()
    for pattern in patterns:
        matched = {name for name in known if fnmatchcase(name, pattern)}
        if not matched:
            raise InputError(
                f"{pattern!r} is the name of no linear map that is quantized; the embedding and the head never are",
                option=OPTION,
                hint="such as model.layers.0.* or *.down_proj: there are "
                f"model.layers.0 to {layers - 1}, and of each {', '.join(_parts())}",
            )
        excluded |= matched
    for layer in range(layers):
        for part, together in _JOINED:
            group = {f"model.layers.{layer}.{part}.{name}" for name in together}
            if group & excluded and group - excluded:
                raise InputError(
                    f"servers compute {', '.join(together)} of a layer at once, and of model.layers.{layer} some would "
                    "be quantized and some not",
                    option=OPTION,
                    hint=f"name all of them: model.layers.{layer}.{part}.*",
                )
    if excluded and len(excluded) == len(known):
        raise InputError("nothing is left to quantize", option=OPTION, hint="that is quant=none")
    return frozenset(excluded)


def names(layers: int) -> list[str]:
    """The names of all linear maps in a model's layers."""
    return [f"model.layers.{layer}.{part}" for layer in range(layers) for part in _parts()]


def _parts() -> Iterator[str]:
    return (f"{part}.{name}" for part, names in MAPS.items() for name in names)

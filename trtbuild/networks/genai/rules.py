"""What onnxruntime-genai's builder (0.18.0) needs besides a config.json, and what it passes over, family by family.

Each rule was found by comparing a tiny model's logits with those of transformers 5.17 (tests/reference). Standard
library only. Defaults of absent fields are those of transformers' config classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from trtbuild.networks.config import architectures
from trtbuild.networks.config.fields import Config, layers_of

Reason = str | None  # why a config is refused
Values = tuple[Any, ...]


def nothing(_config: Config) -> Mapping[str, Any]:
    return {}


def no_reason(_config: Config) -> Reason:
    return None


@dataclass(frozen=True)
class Family:
    """What was proven of one architecture.

    `only` holds the values of a field with which the logits are right; an absent field has the first of them.
    `knows` are fields that the builder reads of any config, and transformers of some families, this one included.
    `given` are fields that the builder is given besides those of config.json.
    """

    model_type: str
    ropes: tuple[str, ...] = ("default",)
    activations: tuple[str, ...] = ("silu",)
    only: Mapping[str, Values] = field(default_factory=dict)
    knows: frozenset[str] = frozenset()
    partial: float | None = None  # the share of a head that is rotated, where config.json may choose it
    whole_heads: bool = True  # rotary positions are computed inside the attention, in steps of 16 dimensions
    also: Callable[[Config], Reason] = no_reason
    given: Callable[[Config], Mapping[str, Any]] = nothing
    scaled_embedding: bool = False  # by the square root of hidden_size, which the builder rounds


# --- what the builder is given ---------------------------------------------------------------------------------


def epsilon(name: str) -> Callable[[Config], Mapping[str, Any]]:
    """The builder reads no other field than rms_norm_eps, and takes 1e-6 without it."""
    return lambda config: {"rms_norm_eps": config.get(name, 1e-5)}


def windows(absent: int | None) -> Callable[[Config], Mapping[str, Any]]:
    """The builder gives a window to the layers that `layer_types` names, and to none without it."""

    def given(config: Config) -> Mapping[str, Any]:
        layers = layers_of(config, 32)
        return {"layer_types": ["sliding_attention"] * layers} if config.get("sliding_window", absent) else {}

    return given


def phi3(config: Config) -> Mapping[str, Any]:
    """Both spellings of the rope's type are read; without longrope, an original length that differs fails."""
    given = dict(windows(None)(config))
    positions = config.get("max_position_embeddings", 4096)
    if rope_type(config) == "default":
        return given | {"original_max_position_embeddings": positions}
    rope = rope_of(config) | {"type": "longrope", "rope_type": "longrope"}
    rope["rope_theta"] = rope_of(config).get("rope_theta", config.get("rope_theta", 10000.0))
    rope["original_max_position_embeddings"] = original = original_of(config)
    return given | {
        "rope_parameters": rope,
        "rope_scaling": None,
        "original_max_position_embeddings": original,
    }


# --- conditions ------------------------------------------------------------------------------------------------


def phi3_longrope(config: Config) -> Reason:
    """The builder reads two factors, their length and, of a magnitude, what follows from the lengths alone."""
    if rope_type(config) == "default":
        return None
    positions, original = config.get("max_position_embeddings", 4096), original_of(config)
    if not isinstance(original, int) or not 0 < original < positions:
        return f"longrope needs original_max_position_embeddings below max_position_embeddings={positions}"
    inner = rope_of(config).get("original_max_position_embeddings", original)
    if inner != original:
        return f"original_max_position_embeddings is {original}, and {inner} among the rope's fields"
    factor = rope_of(config).get("factor")
    if factor is not None and factor != positions / original:
        return f"it passes over the rope's factor={factor}, which is not {positions}/{original}"
    return _other_rope_fields(config, ("short_factor", "long_factor", "factor"))


def gpt_oss(config: Config) -> Reason:
    """The builder has the layers with a window and the form of yarn built in."""
    kinds = config.get("layer_types")
    turns = ["full_attention" if layer % 2 else "sliding_attention" for layer in range(len(kinds or ()))]
    if kinds is not None and kinds != turns:
        return "it takes every second layer, from the first on, to have a window, and layer_types says otherwise"
    rope = rope_of(config)
    if rope and rope_type(config) != "yarn":
        return "it fails without yarn: KeyError 'rescale_inv_freq'"
    if rope and rope.get("truncate", True):
        return "it does not round the limits of yarn's ramp, as truncate=true asks"
    return _other_rope_fields(config, ("factor", "beta_fast", "beta_slow", "truncate"))


def hunyuan(config: Config) -> Reason:
    """A dynamic rope with alpha is a fixed one of another theta."""
    if rope_type(config) == "dynamic" and not rope_of(config).get("alpha"):
        return "it fails at a dynamic rope without alpha: KeyError 'alpha'"
    return None


def granite_hybrid(config: Config) -> Reason:
    """The builder makes the dense models of Granite 4 with rope, and these alone."""
    kinds = set(config.get("layer_types") or config.get("layers_block_type") or ["mamba"])
    if not kinds <= {"attention", "full_attention"}:
        return "it fails at layers of Mamba: AttributeError 'q_proj'"
    if config.get("num_local_experts", 8):
        return "it leaves out the experts (num_local_experts)"
    if config.get("position_embedding_type") != "rope":
        return "it rotates positions where position_embedding_type is not rope"
    return None


def natively(config: Config) -> Reason:
    """What trtbuild's own definition refuses is refused here in its words: the builder passes over it."""
    architectures.parse(config)
    return None


def _other_rope_fields(config: Config, known: tuple[str, ...]) -> Reason:
    usual = {"rope_type", "type", "rope_theta", "original_max_position_embeddings", "partial_rotary_factor"}
    for name, value in rope_of(config).items():
        if name not in usual | set(known) and value is not None:
            return f"it passes over the rope's {name}={value}"
    return None


def rope_type(config: Config) -> str:
    """The kind of rotary scaling in either spelling, "default" where none is named; Phi-3's su is longrope."""
    rope = rope_of(config)
    kind = str(rope.get("rope_type") or rope.get("type") or "default")
    if config.get("model_type") == "gpt_oss" and not rope:
        return "yarn"
    return "longrope" if config.get("model_type") == "phi3" and kind in ("su", "yarn") else kind


def original_of(config: Config) -> Any:
    """The length in tokens up to which longrope's short factors hold."""
    inner = rope_of(config).get("original_max_position_embeddings")
    return config.get("original_max_position_embeddings", 4096 if inner is None else inner)


def rope_of(config: Config) -> dict[str, Any]:
    """The fields of the rope's scaling, in either spelling; empty where there are none."""
    rope = config.get("rope_scaling") or config.get("rope_parameters") or {}
    return dict(rope) if isinstance(rope, Mapping) else {}

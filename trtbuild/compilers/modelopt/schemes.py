"""How weights, activations and KV cache are quantized: ModelOpt's configs for the schemes of conf/quant.

Standard library only: the command line makes keys of it; the workers call ModelOpt by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trtbuild.errors import InputError

#: Samples of a calibration, as in ModelOpt's example (examples/llm_ptq/hf_ptq.py): fewer for AWQ, whose search runs the
#: model many times.
_BASIS, _BASIS_AWQ = 512, 32
DEFAULT_GROUP = 128
BLOCK = 16  # values that share a scale in NVFP4


@dataclass(frozen=True)
class ModelOptScheme:
    """One way to quantize.

    `recipe` is the name of ModelOpt's config in `modelopt.torch.quantization`, `algorithm` its name in
    hf_quant_config.json; both are None if nothing is quantized. `margin` is how much the mean loss on a text may exceed
    the original's, in nats a token: beyond it something is broken, and not merely coarse.
    """

    recipe: str | None
    algorithm: str | None
    basis: int  # samples that its calibration wants; 0: it has none
    margin: float
    grouped: bool = False

    @property
    def calibrated(self) -> bool:
        """Whether scales are measured on text."""
        return self.basis > 0

    @property
    def samples(self) -> int:
        """Samples that its calibration wants, or that of a quantized KV cache."""
        return self.basis or _BASIS


_Parts = tuple[str, str, str]
#: (weights, activations, method) -> the scheme
SCHEMES: Mapping[_Parts, ModelOptScheme] = {
    ("none", "none", "rtn"): ModelOptScheme(None, None, 0, 0.02),
    ("int8", "none", "rtn"): ModelOptScheme("INT8_WEIGHT_ONLY_CFG", "W8A16", 0, 0.1),
    ("int8", "int8", "smoothquant"): ModelOptScheme("INT8_SMOOTHQUANT_CFG", "W8A8_SQ_PER_CHANNEL", _BASIS, 2.0),
    ("int4", "none", "awq"): ModelOptScheme("INT4_AWQ_CFG", "W4A16_AWQ", _BASIS_AWQ, 1.0, grouped=True),
    ("int4", "fp8", "awq"): ModelOptScheme("W4A8_AWQ_BETA_CFG", "W4A8_AWQ", _BASIS_AWQ, 1.0, grouped=True),
    ("fp8", "fp8", "minmax"): ModelOptScheme("FP8_DEFAULT_CFG", "FP8", _BASIS, 0.4),
    ("fp8", "fp8", "rowwise"): ModelOptScheme("FP8_PER_CHANNEL_PER_TOKEN_CFG", "FP8_PER_CHANNEL_PER_TOKEN", 0, 0.4),
    ("nvfp4", "nvfp4", "minmax"): ModelOptScheme("NVFP4_DEFAULT_CFG", "NVFP4", _BASIS, 1.0),
}
#: quant.kv_cache -> ModelOpt's config, and its name in hf_quant_config.json
KV_CACHES: Mapping[str, tuple[str, str] | None] = {"auto": None, "fp8": ("FP8_KV_CFG", "FP8")}


def scheme_of(facts: Mapping[str, Any], schemes: Mapping[_Parts, ModelOptScheme] = SCHEMES) -> ModelOptScheme:
    """The scheme of a step with these facts."""
    weights, activations, method = (str(facts[f"quant.{name}"]) for name in ("weights", "activations", "method"))
    return schemes[weights, activations, method]


def names(presets: Mapping[tuple[str, str, str, str], str]) -> frozenset[str]:
    """The name of every scheme: that of its preset, else its four parts joined by "/"."""
    return frozenset(
        presets.get((*parts, cache), "/".join((*parts, cache)))
        for parts, scheme in SCHEMES.items()
        for cache in KV_CACHES
        if cache == "auto" or scheme.recipe is not None
    )


def check_columns(config: Mapping[str, Any], scheme: ModelOptScheme, group: int | None) -> None:
    """Raises InputError if groups or blocks of weights do not divide the model's sizes, as far as these are known."""
    step = (group or DEFAULT_GROUP) if scheme.grouped else BLOCK if scheme.algorithm == "NVFP4" else 1
    sizes = {name: config.get(name) for name in ("hidden_size", "intermediate_size")}
    known = {name: size for name, size in sizes.items() if isinstance(size, int)}
    for name, size in known.items():
        if size % step and scheme.grouped:
            candidates = (128, 64, 32, 16, 8, 4, 2, 1)
            fits = next(count for count in candidates if not any(size % count for size in known.values()))
            raise InputError(
                f"groups of {step} weights do not divide this model's {name}, {size}",
                option="quant.group_size",
                hint=f"choose one that does: quant.group_size={fits}",
            )
        if size % step:
            raise InputError(
                f"blocks of {step} weights do not divide this model's {name}, {size}",
                option="quant=nvfp4",
                hint="choose another quant, such as fp8",
            )

"""Verifies a checkpoint before it is stored: every tensor against the original's, and the loss of both on a text.

It uses neither ModelOpt nor transformers, which loads such folders wrongly and without an error. It finds a zeroed
scale, swapped maps, another rope base, or another order of nibbles.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from trtbuild import untrusted
from trtbuild.compilers.modelopt import exclusions
from trtbuild.compilers.modelopt.exported import Exported, Linear, entries
from trtbuild.compilers.modelopt.loss import mean_loss
from trtbuild.compilers.modelopt.schemes import ModelOptScheme
from trtbuild.errors import BuildError, InputError
from trtbuild.networks.config.architectures import parse
from trtbuild.networks.config.decoder import Decoder
from trtbuild.networks.weights.arrays import Array
from trtbuild.networks.weights.checkpoint import Checkpoint

#: How far a weight may be off, in rounding errors of its format. SmoothQuant clips at the largest weight before
#: smoothing; AWQ rounds its scales after it divided the weights by them.
_SLACK = {"W8A8_SQ_PER_CHANNEL": 2.5, "W4A16_AWQ": 1.25, "W4A8_AWQ": 1.25}
_DEFAULT_SLACK = 1.1
#: Factors multiplied into weights or norms are rounded to the model's dtype: two steps of bfloat16, relative.
_ROUNDING = 2.0**-7
#: The norm before a linear map, into which AWQ moves the scales of its inputs.
_NORMS = {
    **dict.fromkeys(("q_proj", "k_proj", "v_proj"), "input_layernorm"),
    **dict.fromkeys(("gate_proj", "up_proj"), "post_attention_layernorm"),
}
_FUSED = ("W4A16_AWQ", "W4A8_AWQ")
_LARGE = 1_000_000_000  # weights of a model, beyond which the text is shorter
_TOKENS, _TOKENS_LARGE = 1024, 512


class Original:
    """The original checkpoint, with numbers rounded to `dtype`."""

    def __init__(self, checkpoint: Checkpoint, dtype: str) -> None:
        self._checkpoint = checkpoint
        self._dtype = dtype

    def has(self, name: str) -> bool:
        return name in self._checkpoint.stored

    def plain(self, name: str) -> Array:
        values = self._checkpoint.read(name)
        if self._checkpoint.stored[name].kind == "BF16" and self._dtype == "bfloat16":
            return values  # already bfloat16
        return rounded(values, self._dtype)

    def linear(self, module: str) -> Linear:
        return Linear(self.plain(f"{module}.weight"), np.zeros((1, 1), np.float32), None, None)


class ExportedWeights:
    """The exported checkpoint, in the form that `loss` wants."""

    def __init__(self, exported: Exported) -> None:
        self.exported = exported

    def has(self, name: str) -> bool:
        return name in self.exported.entries

    def plain(self, name: str) -> Array:
        return self.exported.plain(name)

    def linear(self, module: str) -> Linear:
        return self.exported.linear(module)


def verify(
    source: Checkpoint, folder: Path, scheme: ModelOptScheme, facts: Mapping[str, Any], tokens: Sequence[int]
) -> dict[str, Any]:
    """Facts for the record: how far weights are off at most, and both mean losses. Raises BuildError.

    `facts` are the step's: `model.dtype`, `quant.group_size`, `quant.kv_cache`, `compiler.exclude_modules`.
    """
    config = untrusted.read_object(folder / "config.json")
    decoder = source.retied(parse(source.config))
    check_same_model(decoder, config)
    excluded = exclusions.modules(exclusions.read(facts), decoder.layers)
    _check_quantization(
        folder,
        config.get("quantization_config") or {},
        scheme,
        facts,
        exclusions.names(decoder.layers),
        excluded,
    )
    exported = Exported(entries(folder), scheme.algorithm, facts.get("quant.group_size"), excluded)
    cache = "fp8" if facts["quant.kv_cache"] == "fp8" else None
    return verify_numbers(decoder, source, ExportedWeights(exported), scheme, str(facts["model.dtype"]), cache, tokens)


def verify_numbers(
    decoder: Decoder,
    source: Checkpoint,
    exported: ExportedWeights,
    scheme: ModelOptScheme,
    dtype: str,
    cache: str | None,
    tokens: Sequence[int],
) -> dict[str, Any]:
    """The part of `verify` that does not depend on the layout of files: compares numbers and losses. BuildError."""
    original = Original(source, dtype)
    worst = _compare(decoder, original, exported.exported)
    scales = exported.exported.caches()
    wanted = 2 * decoder.layers if cache is not None else 0
    if len(scales) != wanted:
        raise BuildError(f"the checkpoint has {len(scales)} scales of keys and values, and not {wanted}")
    tokens = tokens[: _TOKENS_LARGE if _weights(decoder) > _LARGE else _TOKENS]
    before = mean_loss(decoder, original, tokens, None, None)
    after = mean_loss(decoder, exported, tokens, scheme.algorithm, cache)
    if not after - before <= scheme.margin:  # also refuses NaN
        raise BuildError(
            f"the checkpoint is broken: its mean loss on a text is {after:.3f}, and the original's {before:.3f}",
            hint="more or other samples calibrate better: compiler.calib_size, compiler.calib_dataset"
            if scheme.calibrated
            else None,
        )
    return {
        "loss": {"tokens": len(tokens), "original": round(before, 4), "quantized": round(after, 4)},
        "weights": {"compared": worst[1], "worst_rounding_steps": round(worst[0], 3)},
    }


def rounded(values: Array, dtype: str) -> Array:
    """`values` rounded to `dtype`, as float32; ties go to the even one."""
    if dtype == "float16":
        return values.astype(np.float16, copy=False).astype(np.float32)
    wide = values.astype(np.float32)
    if dtype == "float32":
        return wide
    bits = wide.view(np.uint32)
    half = bits >> 16
    half &= 1
    half += 0x7FFF
    bits += half
    bits &= 0xFFFF0000
    return wide


def check_same_model(decoder: Decoder, config: Mapping[str, Any]) -> None:
    """Compare the exported config with the original decoder. Raises BuildError."""
    try:
        exported = parse({name: value for name, value in config.items() if name != "quantization_config"})
    except InputError as error:
        raise BuildError(f"the checkpoint's config.json does not say what the model is: {error.message}") from None
    before, after = asdict(decoder), asdict(exported)
    for name, value in before.items():
        if after[name] != value:
            raise BuildError(f"the checkpoint's config.json says {name} = {after[name]}, and the model has {value}")


def _check_quantization(
    folder: Path,
    config: Mapping[str, Any],
    scheme: ModelOptScheme,
    facts: Mapping[str, Any],
    maps: Sequence[str],
    excluded: frozenset[str],
) -> None:
    """Check what both files say about the quantization; `config` is that of config.json. Raises BuildError."""
    path = folder / "hf_quant_config.json"
    if scheme.algorithm is None:
        return
    stated = untrusted.read_object(path).get("quantization") or {} if path.is_file() else {}
    cache = "FP8" if facts["quant.kv_cache"] == "fp8" else None
    group = facts.get("quant.group_size")
    wanted = (
        ("config.json", "quant_method", config.get("quant_method"), "modelopt"),
        ("config.json", "quant_algo", config.get("quant_algo"), scheme.algorithm),
        ("hf_quant_config.json", "quant_algo", stated.get("quant_algo"), scheme.algorithm),
        ("hf_quant_config.json", "kv_cache_quant_algo", stated.get("kv_cache_quant_algo"), cache),
        *([("hf_quant_config.json", "group_size", stated.get("group_size"), group)] if scheme.grouped else []),
    )
    for file, name, value, expected in wanted:
        if value != expected:
            raise BuildError(f"the checkpoint's {file} says {name} = {value}, and {expected} was asked for")
    check_excluded("config.json", config.get("ignore"), maps, excluded)
    check_excluded("hf_quant_config.json", stated.get("exclude_modules"), maps, excluded)


def check_excluded(file: str, patterns: Sequence[str] | None, maps: Sequence[str], excluded: frozenset[str]) -> None:
    """Raises BuildError unless a file's patterns match exactly the `excluded` of `maps`."""
    for name in maps:
        listed = any(fnmatchcase(name, pattern) for pattern in patterns or ())
        if listed != (name in excluded):
            how = "is to be left as it is" if name in excluded else "was quantized"
            raise BuildError(f"the checkpoint's {file} {'names' if listed else 'does not name'} {name}, which {how}")


def _compare(decoder: Decoder, original: Original, exported: Exported) -> tuple[float, int]:
    """(the worst error as a share of what is allowed; the number of tensors). Raises BuildError."""
    worst, names = 0.0, set(exported.names())
    linears = dict(_linears(decoder))
    # AWQ moves scales into these norms.
    moved = {norm for module, norm in linears.items() if module not in exported.excluded}
    moved = moved if exported.algorithm in _FUSED else set()
    for name in sorted(names):
        module = name.rpartition(".")[0]
        if not original.has(name):
            raise BuildError(f"the checkpoint has {name}, which the model does not have")
        if (
            name.endswith(".weight")
            and module in linears
            and (exported.quantized(module) or not exported.algorithm or module in exported.excluded)
        ):
            worst = max(worst, _compare_linear(module, linears[module], original, exported))
        elif name.endswith(".weight") and module in linears:
            raise BuildError(f"{name} was left as it is, and was to be quantized")
        elif name not in moved and not np.array_equal(exported.plain(name), original.plain(name)):
            raise BuildError(f"{name} is not what the model has")
    for name in _needed(decoder, original):
        if name not in names:
            raise BuildError(f"the checkpoint lacks {name}")
    if unknown := exported.unknown(linears):
        use = exported.algorithm or "no scheme"
        raise BuildError(f"the checkpoint has {unknown[0]}, for which {use} has no use")
    return worst, len(names)


def _compare_linear(module: str, norm: str | None, original: Original, exported: Exported) -> float:
    linear = exported.linear(module)
    weight, allowed = linear.weight, linear.step
    for factor in _factors(linear, norm, original, exported):
        weight, allowed = weight * factor, allowed * np.abs(factor)
    wanted = original.plain(f"{module}.weight")
    if weight.shape != wanted.shape:
        raise BuildError(f"{module}.weight is {list(weight.shape)}, and the model's {list(wanted.shape)}")
    slack = _SLACK.get(exported.algorithm or "", _DEFAULT_SLACK)
    rounding = 0.0 if exported.algorithm is None or linear.excluded else _ROUNDING
    bound = allowed * slack + np.abs(wanted) * rounding + 1e-12
    off = np.abs(weight - wanted) / bound
    worst = float(off.max())
    if not worst <= 1:
        count = int((~(off <= 1)).sum())
        raise BuildError(
            f"the checkpoint is broken: {count} of {off.size} weights of {module} are further from the model's than "
            f"{(not linear.excluded and exported.algorithm) or 'a copy'} explains, the worst {worst:.1f} times as far"
        )
    return worst


def _factors(linear: Linear, norm: str | None, original: Original, exported: Exported) -> Iterator[Array]:
    """The factors [in] of a map's inputs: its own scale, and what AWQ moved into the norm before it."""
    if linear.smooth is not None:
        yield linear.smooth
    if norm is not None and exported.algorithm in _FUSED and not linear.excluded:
        before, after = original.plain(norm), exported.plain(norm)
        yield np.divide(after, before, out=np.ones_like(after), where=before != 0)


def _linears(decoder: Decoder) -> Iterator[tuple[str, str | None]]:
    """(module, the norm before it) of each linear map that is quantized."""
    for at in range(decoder.layers):
        for part, names in exclusions.MAPS.items():
            for name in names:
                norm = _NORMS.get(name)
                module = f"model.layers.{at}.{part}.{name}"
                yield module, f"model.layers.{at}.{norm}.weight" if norm else None


def _needed(decoder: Decoder, original: Original) -> Iterator[str]:
    yield "model.embed_tokens.weight"
    yield "model.norm.weight"
    if not decoder.tied:
        yield "lm_head.weight"
    for at in range(decoder.layers):
        for norm in sorted(set(_NORMS.values())):
            yield f"model.layers.{at}.{norm}.weight"
    for module, _ in _linears(decoder):
        yield f"{module}.weight"
        if original.has(f"{module}.bias"):
            yield f"{module}.bias"


def _weights(decoder: Decoder) -> int:
    attention = decoder.hidden * decoder.head_dim * 2 * (decoder.heads + decoder.kv_heads)
    layer = attention + 3 * decoder.hidden * decoder.intermediate
    return decoder.layers * layer + decoder.vocab * decoder.hidden

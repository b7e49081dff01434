"""The proof of a checkpoint's bytes: every tensor beside the original's, and what both make of a text.

Neither ModelOpt nor transformers has a part in it: the latter loads such folders without an error, and wrongly. A
zeroed scale, maps that were swapped, another rope base or order of nibbles are found here, before anything is kept.
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

#: How far a weight may be off, in what its format rounds by. SmoothQuant clips at the largest of the weights before
#: they are smoothed; AWQ's scales are rounded after the weights were divided by them.
_SLACK = {"W8A8_SQ_PER_CHANNEL": 2.5, "W4A16_AWQ": 1.25, "W4A8_AWQ": 1.25}
_SLACK_ELSE = 1.1
#: The models' own dtype rounds what is multiplied into weights or norms: two steps of bfloat16, of the value.
_ROUNDING = 2.0**-7
#: The norm before a linear map, into which AWQ moves the scale of its inputs.
_NORMS = {
    **dict.fromkeys(("q_proj", "k_proj", "v_proj"), "input_layernorm"),
    **dict.fromkeys(("gate_proj", "up_proj"), "post_attention_layernorm"),
}
_FUSED = ("W4A16_AWQ", "W4A8_AWQ")
_LARGE = 1_000_000_000  # weights: beyond them the text is shorter
_TOKENS, _TOKENS_LARGE = 1024, 512


class Original:
    """The checkpoint that it was made from, with its numbers as `dtype` rounds them."""

    def __init__(self, checkpoint: Checkpoint, dtype: str) -> None:
        self._checkpoint = checkpoint
        self._dtype = dtype

    def has(self, name: str) -> bool:
        return name in self._checkpoint.stored

    def plain(self, name: str) -> Array:
        values = self._checkpoint.read(name)
        if self._checkpoint.stored[name].kind == "BF16" and self._dtype == "bfloat16":
            return values  # which hold nothing to be rounded
        return rounded(values, self._dtype)

    def linear(self, module: str) -> Linear:
        return Linear(self.plain(f"{module}.weight"), np.zeros((1, 1), np.float32), None, None)


class ExportedWeights:
    """The exported one, as `decoding` wants it."""

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
    """Facts for the manifest: how far weights are off at most, and the mean losses. Raises BuildError.

    `facts` are the step's: `model.dtype`, `quant.group_size`, `quant.kv_cache`, `compiler.exclude_modules`.
    """
    config = untrusted.read_object(folder / "config.json")
    decoder = source.retied(parse(source.config))
    check_same_model(decoder, config)
    left = exclusions.modules(exclusions.read(facts), decoder.layers)
    _check_quantization(
        folder, config.get("quantization_config") or {}, scheme, facts, exclusions.names(decoder.layers), left
    )
    exported = Exported(entries(folder), scheme.algorithm, facts.get("quant.group_size"), left)
    cache = "fp8" if facts["quant.kv_cache"] == "fp8" else None
    return verify_numbers(
        decoder, source, ExportedWeights(exported), scheme, str(facts["model.dtype"]), cache, tokens
    )


def verify_numbers(
    decoder: Decoder,
    source: Checkpoint,
    made: ExportedWeights,
    scheme: ModelOptScheme,
    dtype: str,
    cache: str | None,
    tokens: Sequence[int],
) -> dict[str, Any]:
    """The part that is the same for every layout of files: numbers beside numbers, loss beside loss. As `verify`."""
    original = Original(source, dtype)
    worst = _compare(decoder, original, made.exported)
    scales = made.exported.caches()
    wanted = 2 * decoder.layers if cache is not None else 0
    if len(scales) != wanted:
        raise BuildError(f"the checkpoint has {len(scales)} scales of keys and values, and not {wanted}")
    tokens = tokens[: _TOKENS_LARGE if _weights(decoder) > _LARGE else _TOKENS]
    before = mean_loss(decoder, original, tokens, None, None)
    after = mean_loss(decoder, made, tokens, scheme.algorithm, cache)
    if not after - before <= scheme.margin:  # not a number: refused, too
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
    """float32 numbers that `dtype` can hold: the nearest, the even one of two."""
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
    """The exported config beside what the model is. Raises BuildError."""
    try:
        made = parse({name: value for name, value in config.items() if name != "quantization_config"})
    except InputError as error:
        raise BuildError(
            f"the checkpoint's config.json does not say what the model is: {error.message}"
        ) from None
    before, after = asdict(decoder), asdict(made)
    for name, value in before.items():
        if after[name] != value:
            raise BuildError(
                f"the checkpoint's config.json says {name} = {after[name]}, and the model has {value}"
            )


def _check_quantization(
    folder: Path,
    config: Mapping[str, Any],
    scheme: ModelOptScheme,
    facts: Mapping[str, Any],
    maps: Sequence[str],
    left: frozenset[str],
) -> None:
    """What servers read of the quantization, in both of its places; `config` is config.json's. Raises BuildError."""
    path = folder / "hf_quant_config.json"
    if scheme.algorithm is None:
        return
    said = untrusted.read_object(path).get("quantization") or {} if path.is_file() else {}
    cache = "FP8" if facts["quant.kv_cache"] == "fp8" else None
    group = facts.get("quant.group_size")
    wanted = (
        ("config.json", "quant_method", config.get("quant_method"), "modelopt"),
        ("config.json", "quant_algo", config.get("quant_algo"), scheme.algorithm),
        ("hf_quant_config.json", "quant_algo", said.get("quant_algo"), scheme.algorithm),
        ("hf_quant_config.json", "kv_cache_quant_algo", said.get("kv_cache_quant_algo"), cache),
        *([("hf_quant_config.json", "group_size", said.get("group_size"), group)] if scheme.grouped else []),
    )
    for file, name, found, expected in wanted:
        if found != expected:
            raise BuildError(f"the checkpoint's {file} says {name} = {found}, and {expected} was asked for")
    check_excluded("config.json", config.get("ignore"), maps, left)
    check_excluded("hf_quant_config.json", said.get("exclude_modules"), maps, left)


def check_excluded(file: str, said: Sequence[str] | None, maps: Sequence[str], left: frozenset[str]) -> None:
    """The patterns of a file's list are of those maps that were left, and of no others. Raises BuildError."""
    for name in maps:
        listed = any(fnmatchcase(name, pattern) for pattern in said or ())
        if listed != (name in left):
            how = "is to be left as it is" if name in left else "was quantized"
            raise BuildError(
                f"the checkpoint's {file} {'names' if listed else 'does not name'} {name}, which {how}"
            )


def _compare(decoder: Decoder, original: Original, exported: Exported) -> tuple[float, int]:
    """(the worst rounding, in steps that are allowed; how many tensors). Raises BuildError."""
    worst, names = 0.0, set(exported.names())
    linears = dict(_linears(decoder))
    moved = {norm for module, norm in linears.items() if module not in exported.left}  # AWQ has scales there
    moved = moved if exported.algorithm in _FUSED else set()
    for name in sorted(names):
        module = name.rpartition(".")[0]
        if not original.has(name):
            raise BuildError(f"the checkpoint has {name}, which the model has not")
        if (
            name.endswith(".weight")
            and module in linears
            and (exported.quantized(module) or not exported.algorithm or module in exported.left)
        ):
            worst = max(worst, _compare_linear(module, linears[module], original, exported))
        elif name.endswith(".weight") and module in linears:
            raise BuildError(f"{name} was left as it is, and was to be quantized")
        elif name not in moved and not np.array_equal(exported.plain(name), original.plain(name)):
            raise BuildError(f"{name} is not what the model has")
    for name in _needed(decoder, original):
        if name not in names:
            raise BuildError(f"the checkpoint lacks {name}")
    if strange := exported.strange(linears):
        use = exported.algorithm or "no scheme"
        raise BuildError(f"the checkpoint has {strange[0]}, for which {use} has no use")
    return worst, len(names)


def _compare_linear(module: str, norm: str | None, original: Original, exported: Exported) -> float:
    found = exported.linear(module)
    weight, allowed = found.weight, found.step
    for factor in _factors(found, norm, original, exported):
        weight, allowed = weight * factor, allowed * np.abs(factor)
    wanted = original.plain(f"{module}.weight")
    if weight.shape != wanted.shape:
        raise BuildError(f"{module}.weight is {list(weight.shape)}, and the model's {list(wanted.shape)}")
    slack = _SLACK.get(exported.algorithm or "", _SLACK_ELSE)
    rounding = 0.0 if exported.algorithm is None or found.left else _ROUNDING
    bound = allowed * slack + np.abs(wanted) * rounding + 1e-12
    off = np.abs(weight - wanted) / bound
    worst = float(off.max())
    if not worst <= 1:
        count = int((~(off <= 1)).sum())
        raise BuildError(
            f"the checkpoint is broken: {count} of {off.size} weights of {module} are further from the model's than "
            f"{(not found.left and exported.algorithm) or 'a copy'} explains, the worst {worst:.1f} times as far"
        )
    return worst


def _factors(found: Linear, norm: str | None, original: Original, exported: Exported) -> Iterator[Array]:
    """What inputs are multiplied by on their way to the weight [in]: its own scale, and what a norm took."""
    if found.smooth is not None:
        yield found.smooth
    if norm is not None and exported.algorithm in _FUSED and not found.left:
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

"""The `weights` step: writes a checkpoint's tensors as an engine wants them, without torch, a piece at a time.

model.safetensors    the tensors of `structure.tensors`, in that order; the first one at a multiple of `ALIGNED` bytes
tokenizer.json, config.json, generation_config.json, …

Linear maps are [out, in]. int8: value = stored * scale of the row. int4: two values a byte, the lower half first;
value = (stored - 8) * scale + zero of the group along the row, with scales and zeros as [groups, out, 2]. This is the
arithmetic of PyTorch's kernels (_weight_int8pack_mm, _weight_int4pack_mm). 4-bit weights are packed for a device when
they are loaded, so one file serves all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trtbuild.compilers.aot_inductor.structure import (
    ALIGNED,
    JOINED,
    PREFIX,
    SCALE,
    Structure,
    WeightScheme,
    linears,
    tensors,
)
from trtbuild.compilers.modelopt.exported import Exported, entries
from trtbuild.errors import BuildError, InputError
from trtbuild.networks import build
from trtbuild.networks.chat import files
from trtbuild.networks.config.architectures import parse
from trtbuild.networks.config.decoder import Decoder
from trtbuild.networks.onnx_graph import rope
from trtbuild.networks.tokenizer import convert
from trtbuild.networks.weights import safetensors_writer
from trtbuild.networks.weights.arrays import Array
from trtbuild.networks.weights.checkpoint import Checkpoint
from trtbuild.networks.weights.layout import check
from trtbuild.worker import Reporter, StepRequest

FILE = "model.safetensors"
_SLICE = 64 << 20  # bytes of float32 values that are quantized at once


def run(request: StepRequest, out: Path, reporter: Reporter) -> dict[str, Any]:
    """Write the weights of `request.model` to the folder `out`; returns facts for the record.

    Options are the facts of the step's key. Raises InputError for a checkpoint that does not match its config, or the
    structure that the engine is for.
    """
    checkpoint = Checkpoint.open(request.model)
    decoder = parse(checkpoint.config)
    check(checkpoint, decoder)
    structure, scheme = Structure.of(decoder), WeightScheme.read(request.options)
    _compare(structure, request.options)
    wanted = {name: (spec.dtype, spec.shape) for name, spec in tensors(structure, scheme).items()}
    build.write_config(checkpoint, out)
    convert.write(checkpoint, out)
    ends = decoder.eos_token_ids
    files.write(checkpoint.files, checkpoint.config, checkpoint.metadata, out, assumed=ends)
    quantized = None
    if scheme.weights == "fp8":
        quantized = Exported(entries(request.inputs["checkpoint"]), "FP8", None)
    pieces = _pieces(checkpoint, decoder, scheme, quantized)
    size = safetensors_writer.write(out / FILE, wanted, pieces, reporter.percents("weights"), ALIGNED)
    return {
        "architecture": decoder.architecture,
        "tensors": len(wanted),
        "bytes": size,
        "notes": checkpoint.notes(),
    }


def _compare(structure: Structure, facts: Mapping[str, Any]) -> None:
    """Compare the checkpoint with the key, which holds what was known before the download. Raises InputError."""
    read = structure.facts()
    wrong = [name for name, value in read.items() if facts.get(name) != value]
    if wrong == [f"{PREFIX}tied"] and not structure.tied:
        raise InputError(
            "the checkpoint stores a head of its own, and its config ties the head to the embedding",
            option="model.source",
            hint="set tie_word_embeddings to false in its config.json: transformers computes the same with it",
        )
    if wrong:
        name = wrong[0]
        raise InputError(
            f"the checkpoint has {name.removeprefix(PREFIX)}={read[name]}, and {facts.get(name)} was expected",
            option="model.wheel.config",
            hint="pin model.wheel.config as the checkpoint's own config.json or GGUF header says",
        )


def _pieces(
    checkpoint: Checkpoint, decoder: Decoder, scheme: WeightScheme, quantized: Exported | None
) -> Iterator[bytes]:
    """The bytes of all tensors, in the order of `structure.tensors`; `quantized` has the linear maps of FP8."""
    structure, write = Structure.of(decoder), _WeightWriter(checkpoint, scheme)
    table = "int8" if scheme.small else "none"
    yield from write.matrix(["model.embed_tokens"], table)
    for layer in range(structure.layers):
        yield from _layer(write, structure, f"model.layers.{layer}", quantized)
    yield write.plain("model.norm.weight")
    if not structure.tied:
        yield from write.matrix(["lm_head"], table)
    if quantized is not None:
        yield b"".join(_scales(quantized, structure))
    frequencies, factor = rope.frequencies(decoder.rope, decoder.head_dim)
    yield np.array([frequencies, [factor] * len(frequencies)], "<f4").tobytes()


def _layer(write: _WeightWriter, structure: Structure, prefix: str, quantized: Exported | None) -> Iterator[bytes]:
    yield write.plain(f"{prefix}.input_layernorm.weight")
    yield write.plain(f"{prefix}.post_attention_layernorm.weight")
    for name, _, _, bias in linears(structure):
        parts = [f"{prefix}.{part}" for part in JOINED[name]]
        if quantized is not None:
            yield from _coded(quantized, parts)
        else:
            yield from write.matrix(parts, write.scheme.weights)
        if bias:
            yield from (write.plain(f"{part}.bias") for part in parts)
    if structure.qk_norm:
        yield write.plain(f"{prefix}.self_attn.q_norm.weight")
        yield write.plain(f"{prefix}.self_attn.k_norm.weight")


def _coded(quantized: Exported, parts: list[str]) -> Iterator[bytes]:
    """FP8 maps below each other; if there are several, also each row's scale as a share of the largest."""
    scales = []
    for part in parts:
        linear = quantized.linear(part)  # checks types and shapes
        yield quantized.entries[f"{part}.weight"].codes().tobytes()
        scales.append(np.full(len(linear.weight), quantized.plain(f"{part}.weight_scale"), np.float32))
    if len(parts) > 1:
        rows = np.concatenate(scales)
        yield (rows / rows.max()).astype("<f4").tobytes()


def _scales(quantized: Exported, structure: Structure) -> Iterator[bytes]:
    """For each linear map the scale of its input, which joined maps share, and the largest scale of its weights."""
    for layer in range(structure.layers):
        for name, _, _, _ in linears(structure):
            parts = [f"model.layers.{layer}.{part}" for part in JOINED[name]]
            inputs = {float(quantized.plain(f"{part}.input_scale")) for part in parts}
            if len(inputs) > 1:
                raise BuildError(f"the checkpoint has other scales for the input of each of {', '.join(parts)}")
            stored = max(float(quantized.plain(f"{part}.weight_scale")) for part in parts)
            yield np.array([[inputs.pop()] * SCALE, [stored] * SCALE], "<f4").tobytes()


@dataclass(frozen=True)
class _WeightWriter:
    """The bytes of a checkpoint's tensors, quantized by `scheme`."""

    checkpoint: Checkpoint
    scheme: WeightScheme

    def plain(self, name: str) -> bytes:
        kind = safetensors_writer.DTYPES[self.scheme.dtype]
        return np.ascontiguousarray(self.checkpoint.read(name).astype(kind)).tobytes()

    def matrix(self, names: list[str], weights: str) -> Iterator[bytes]:
        """Matrices of one width below each other, followed by their scales, or scales and zeros."""
        if weights == "none":
            yield from (self.plain(f"{name}.weight") for name in names)
            return
        sides: list[Array] = []
        for name in names:
            for rows in _slices(self.checkpoint.read(f"{name}.weight")):
                packed, side = _int8(rows) if weights == "int8" else _int4(rows, self.scheme.group_size or 0)
                yield packed.tobytes()
                sides.append(side)
        beside = np.concatenate(sides)  # [out], or [out, groups, 2]
        turned = beside if beside.ndim == 1 else beside.transpose(1, 0, 2)
        yield np.ascontiguousarray(turned.astype(safetensors_writer.DTYPES[self.scheme.dtype])).tobytes()


def _slices(values: Array) -> Iterator[Array]:
    """The matrix as float32, a few rows at a time."""
    step = max(1, _SLICE // (4 * values.shape[1]))
    for start in range(0, values.shape[0], step):
        yield values[start : start + step].astype(np.float32)


def _int8(rows: Array) -> tuple[Array, Array]:
    """(stored [out, in] int8, scales [out]): symmetric; the largest value of a row becomes 127."""
    scales = np.maximum(np.abs(rows).max(axis=1), np.finfo(np.float32).tiny) / np.float32(127)
    return np.rint(rows / scales[:, None]).astype(np.int8), scales


def _int4(rows: Array, group: int) -> tuple[Array, Array]:
    """(packed [out, in / 2], scales and zeros [out, in / group, 2]); a group spans its least to greatest value."""
    out = rows.shape[0]
    groups = rows.reshape(out, -1, group)
    least, greatest = np.minimum(groups.min(axis=2), 0), np.maximum(groups.max(axis=2), 0)
    scales = np.maximum((greatest - least) / np.float32(15), np.finfo(np.float32).tiny)
    zero = np.rint(-least / scales)
    stored = np.clip(np.rint(groups / scales[..., None]) + zero[..., None], 0, 15)
    stored = stored.astype(np.uint8).reshape(out, -1)
    return stored[:, 0::2] | (stored[:, 1::2] << 4), np.stack((scales, (8 - zero) * scales), axis=2)

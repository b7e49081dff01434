"""Reads a TensorRT-LLM 1.2 checkpoint: the files of its ranks as one model, by Hugging Face's names.

The content of a rank's file, as the loader of release 1.2 wants it (`preprocess_weights` in tensorrt_llm/models/
modeling_utils.py, and the layers in tensorrt_llm/quantization/layers.py). Layers are numbered within their pipeline
stage, and rank = stage * tp + part:

    tensor                              ranks of a stage
    transformer.vocab_embedding.weight  rows (first stage)
    transformer.ln_f.weight             the same (last stage)
    lm_head.weight                      rows (last stage)
    transformer.layers.N.
      input_layernorm.weight            the same
      post_layernorm.weight             the same
      attention.qkv                     rows, of each rank those of q, of k and of v
      attention.dense                   columns
      mlp.fc (gate_proj)                rows
      mlp.gate (up_proj)                rows
      mlp.proj (down_proj)              columns
      attention.kv_cache_scaling_factor F32 [1], the same

    of a linear map           W8A8_SQ…     FP8              W4A16_AWQ, W4A8_AWQ
    weight                    I8 [o, i]    F8_E4M3 [o, i]   I8 [o / 2, i]: two rows a byte, the even one low
    weights_scaling_factor    F32 [o]      F32 [1]          F32 [o, i / group]
    activation_scaling_factor F32 [1]      F32 [1]          W4A8: F32 [1]
    prequant_scaling_factor   F16 [i]                       F16 [i]
    weights_scaling_factor_2                                W4A8: F32 [1]

W8A16 and W4A16 store the original weights: the loader quantizes them for the GPU that it runs on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trtbuild.compilers.modelopt.exported import StoredTensor, TensorEntry, header
from trtbuild.errors import BuildError
from trtbuild.networks.config.decoder import Decoder
from trtbuild.networks.weights.arrays import Array

#: A tensor of a linear map -> its name in Hugging Face's layout.
_PARTS = {
    "weight": "weight",
    "weights_scaling_factor": "weight_scale",
    "weights_scaling_factor_2": "weight_scale_2",
    "activation_scaling_factor": "input_scale",
    "prequant_scaling_factor": "pre_quant_scale",
}
_FOUR_BITS = ("W4A16_AWQ", "W4A8_AWQ")


@dataclass(frozen=True)
class JoinedTensor:
    """One tensor from several ranks: the given rows of each piece, joined along `axis`."""

    kind: str
    shape: tuple[int, ...]
    pieces: tuple[tuple[TensorEntry, slice], ...]
    axis: int = 0

    def codes(self) -> Array:
        parts = [entry.codes()[rows] if entry.shape else entry.codes() for entry, rows in self.pieces]
        whole = np.concatenate(parts, self.axis) if len(parts) > 1 else parts[0]
        if self.axis == 0 and whole.ndim and self.shape and len(whole) > self.shape[0]:
            whole = whole[: self.shape[0]]  # without the rows that pad a vocabulary
        return whole.view(np.uint8 if self.kind == "U8" else whole.dtype).reshape(self.shape)


def entries(folder: Path, decoder: Decoder, tp: int, pp: int, algorithm: str | None) -> dict[str, StoredTensor]:
    """Every tensor of the model by Hugging Face's name.

    Raises BuildError for a missing or unknown tensor, ranks that differ and should not, or sizes that do not add up.
    """
    files = [header(folder / f"rank{rank}.safetensors") for rank in range(tp * pp)]
    tensors: dict[str, StoredTensor] = {}
    per_stage = decoder.layers // pp
    for stage in range(pp):
        ranks = _Stage(files[stage * tp : (stage + 1) * tp], decoder, algorithm)
        if stage == 0:
            tensors["model.embed_tokens.weight"] = ranks.vocabulary("transformer.vocab_embedding.weight")
        for layer in range(per_stage):
            tensors |= ranks.layer(f"transformer.layers.{layer}.", f"model.layers.{stage * per_stage + layer}.")
        if stage == pp - 1:
            tensors["model.norm.weight"] = ranks.same("transformer.ln_f.weight")
            tensors["lm_head.weight"] = ranks.vocabulary("lm_head.weight")
        ranks.finish()
    if decoder.tied:
        head = tensors.pop("lm_head.weight")
        if not np.array_equal(head.codes(), tensors["model.embed_tokens.weight"].codes()):
            raise BuildError("lm_head.weight is not the embedding, which the model has for its head")
    return tensors


class _Stage:
    """The files of one pipeline stage, a dictionary each. It keeps track of the tensors that were read."""

    def __init__(self, files: Sequence[dict[str, TensorEntry]], decoder: Decoder, algorithm: str | None) -> None:
        self._files = files
        self._unread = [set(file) for file in files]
        self._decoder = decoder
        self._packed = 2 if algorithm in _FOUR_BITS else 1
        self._kind = {"I8": "U8"} if algorithm in _FOUR_BITS else {}

    def layer(self, prefix: str, name: str) -> dict[str, StoredTensor]:
        """The tensors of the layer `prefix`, by Hugging Face's names, which begin with `name`."""
        tensors: dict[str, StoredTensor] = {}
        for ours, theirs in (("input", "input"), ("post_attention", "post")):
            tensors[f"{name}{ours}_layernorm.weight"] = self.same(f"{prefix}{theirs}_layernorm.weight")
        tensors |= self._qkv(f"{prefix}attention.qkv.", f"{name}self_attn.")
        tensors |= self._columns(f"{prefix}attention.dense.", f"{name}self_attn.o_proj.")
        tensors |= self._rows(f"{prefix}mlp.fc.", f"{name}mlp.gate_proj.")
        tensors |= self._rows(f"{prefix}mlp.gate.", f"{name}mlp.up_proj.")
        tensors |= self._columns(f"{prefix}mlp.proj.", f"{name}mlp.down_proj.")
        return tensors | self._cache(f"{prefix}attention.", f"{name}self_attn.")

    def same(self, name: str) -> JoinedTensor:
        """A tensor that is equal in all ranks. Raises BuildError if it is not."""
        first, *others = self._take(name)
        if any(not np.array_equal(first.codes(), other.codes()) for other in others):
            raise BuildError(f"{name} is not the same in all ranks")
        return JoinedTensor(first.kind, () if first.shape == (1,) else first.shape, ((first, slice(None)),))

    def vocabulary(self, name: str) -> JoinedTensor:
        """A matrix whose rows are shared out to ranks, padded at the end. Raises BuildError."""
        parts = self._take(name)
        rows, columns = sum(part.shape[0] for part in parts), parts[0].shape[1]
        vocab = self._decoder.vocab
        if columns != self._decoder.hidden or rows < vocab:
            raise BuildError(f"{name} is [{rows}, {columns}] in all, and the model's [{vocab}, {self._decoder.hidden}]")
        return JoinedTensor(parts[0].kind, (vocab, columns), tuple((part, slice(None)) for part in parts))

    def finish(self) -> None:
        """Raises BuildError if a tensor was not read: the table above does not have it."""
        unknown = sorted(set().union(*self._unread))
        if unknown:
            raise BuildError(f"the checkpoint has {unknown[0]}, which TensorRT-LLM's loader does not know")

    def _take(self, name: str) -> list[TensorEntry]:
        parts = []
        for rank, (file, unread) in enumerate(zip(self._files, self._unread, strict=True)):
            if name not in file:
                raise BuildError(f"rank {rank} of the checkpoint lacks {name}")
            unread.discard(name)
            parts.append(file[name])
        if len({(part.kind, part.shape) for part in parts}) > 1:
            raise BuildError(f"{name} has other sizes in other ranks")
        return parts

    def _has(self, name: str) -> bool:
        return name in self._files[0]

    def _parts(self, prefix: str) -> dict[str, str]:
        return {theirs: ours for theirs, ours in _PARTS.items() if self._has(prefix + theirs)}

    def _rows(self, prefix: str, name: str) -> dict[str, StoredTensor]:
        """A linear map whose outputs are shared out to ranks."""
        tensors: dict[str, StoredTensor] = {}
        for theirs, ours in self._parts(prefix).items():
            if self._of_each_output(prefix, theirs):
                tensors[name + ours] = self._join([(e, slice(None)) for e in self._take(prefix + theirs)], 0)
            else:
                tensors[name + ours] = self.same(prefix + theirs)
        return tensors

    def _columns(self, prefix: str, name: str) -> dict[str, StoredTensor]:
        """A linear map whose inputs are shared out to ranks."""
        tensors: dict[str, StoredTensor] = {}
        for theirs, ours in self._parts(prefix).items():
            shape = self._files[0][prefix + theirs].shape
            if theirs == "prequant_scaling_factor" or len(shape) == 2:
                entries = self._take(prefix + theirs)
                tensors[name + ours] = self._join([(e, slice(None)) for e in entries], len(shape) - 1)
            else:
                tensors[name + ours] = self.same(prefix + theirs)
        return tensors

    def _of_each_output(self, prefix: str, part: str) -> bool:
        shape = self._files[0][prefix + part].shape
        return part == "weight" or (part == "weights_scaling_factor" and shape != (1,))

    def _qkv(self, prefix: str, name: str) -> dict[str, StoredTensor]:
        """Each rank has its heads of q, then of k, then of v; ranks share a head of k and v if there are more ranks."""
        d, tp = self._decoder, len(self._files)
        q, kv = d.heads // tp * d.head_dim, max(d.kv_heads // tp, 1) * d.head_dim
        tensors: dict[str, StoredTensor] = {}
        for theirs, ours in self._parts(prefix).items():
            if not self._of_each_output(prefix, theirs):
                shared = self.same(prefix + theirs)
                tensors |= {f"{name}{letter}_proj.{ours}": shared for letter in "qkv"}
                continue
            ranks = self._take(prefix + theirs)
            quantized = self._has(f"{prefix}weights_scaling_factor")  # an excluded map has no scales
            packed = self._packed if theirs == "weight" and quantized else 1
            if ranks[0].shape[0] * packed != q + 2 * kv:
                raise BuildError(
                    f"{prefix}{theirs} has {ranks[0].shape[0] * packed} rows in each of {tp} ranks, and {d.heads} "
                    f"heads of queries and {d.kv_heads} of keys and values make {q + 2 * kv}"
                )
            bounds = [bound // packed for bound in (0, q, q + kv, q + 2 * kv)]
            for at, letter in enumerate("qkv"):
                rows = slice(bounds[at], bounds[at + 1])
                parts = ranks if letter == "q" else self._distinct(ranks, rows, f"{prefix}{theirs}")
                tensors[f"{name}{letter}_proj.{ours}"] = self._join([(part, rows) for part in parts], 0)
        return tensors

    def _distinct(self, ranks: list[TensorEntry], rows: slice, name: str) -> list[TensorEntry]:
        """One rank for each set of heads of keys and values. Raises BuildError if ranks that share a head differ."""
        times = max(len(ranks) // self._decoder.kv_heads, 1)
        for at, rank in enumerate(ranks):
            first = ranks[at // times * times]
            if rank is not first and not np.array_equal(rank.codes()[rows], first.codes()[rows]):
                raise BuildError(f"{name}: ranks that share a head of keys and values differ")
        return ranks[::times]

    def _join(self, pieces: list[tuple[TensorEntry, slice]], axis: int) -> JoinedTensor:
        entry, rows = pieces[0]
        shape = list(entry.shape)
        shape[0] = len(range(*rows.indices(shape[0])))
        shape[axis] *= len(pieces)
        kind = self._kind.get(entry.kind, entry.kind)
        return JoinedTensor(kind, tuple(shape), tuple(pieces), axis)

    def _cache(self, prefix: str, name: str) -> dict[str, StoredTensor]:
        """TensorRT-LLM's one scale for keys and values: the larger of the two measured ones. Raises BuildError."""
        if not self._has(f"{prefix}kv_cache_scaling_factor"):
            return {}
        joint = self.same(f"{prefix}kv_cache_scaling_factor")
        separate = [self.same(f"{prefix}{letter}_cache_scaling_factor").codes() for letter in "kv"]
        if float(joint.codes()) != max(map(float, separate)):
            raise BuildError(f"{prefix}kv_cache_scaling_factor is not the larger of those of keys and of values")
        return {f"{name}{letter}_proj.{letter}_scale": joint for letter in "kv"}

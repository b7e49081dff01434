"""A checkpoint, safetensors or GGUF, seen as one set of Hugging Face tensors that are read one at a time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from trtbuild import untrusted
from trtbuild.errors import InputError
from trtbuild.formats import gguf as gguf_format
from trtbuild.formats import safetensors
from trtbuild.formats.weight_file import read_file
from trtbuild.networks.config import architectures
from trtbuild.networks.config.decoder import Decoder
from trtbuild.networks.gguf import beside, types
from trtbuild.networks.gguf import config as gguf_config
from trtbuild.networks.weights import naming, strange
from trtbuild.networks.weights.arrays import Array
from trtbuild.networks.weights.naming import INDEX, ROPE_FACTORS, NamedTensors
from trtbuild.networks.weights.stored import Stored, stored


@dataclass(frozen=True)
class Checkpoint:
    """Weights in Hugging Face's names and layout ([out, in]), with the config that says what they are.

    `config` is the parsed config.json, or one made from a GGUF file's metadata, with the `tie_word_embeddings` that
    the weights have; `metadata` is that metadata (None for safetensors); `files` maps the logical names that were
    given to real files; `ignored` is stored name -> why it changes nothing.
    """

    config: Mapping[str, Any]
    metadata: Mapping[str, Any] | None
    files: Mapping[str, Path]
    stored: Mapping[str, Stored]
    rotated_heads: Mapping[str, int]  # tensors whose rows llama.cpp permuted -> number of heads
    ignored: Mapping[str, str] = field(default_factory=dict)
    twins: bool = False  # the config ties the head to the embedding, and a head is stored all the same

    @classmethod
    def open(cls, files: Mapping[str, Path]) -> Checkpoint:
        """Read the headers of `files` (logical name -> real file), and what two shards hold. Raises InputError."""
        gguf = sorted(name for name in files if name.endswith(".gguf"))
        if any(name.endswith(".safetensors") for name in files) or not gguf:
            return _open_safetensors(files)
        return _open_gguf(files, gguf)

    def names(self) -> list[str]:
        """All tensor names, sorted."""
        return sorted(self.stored)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor. Raises InputError when there is none of that name."""
        return self._find(name).shape

    def size(self, name: str) -> int:
        """The bytes that a tensor takes in its file."""
        return self._find(name).size

    def read(self, name: str) -> Array:
        """The values of a tensor, float16 or float32; nothing is kept. Raises InputError."""
        values = self._find(name).read()
        heads = self.rotated_heads.get(name)
        return values if heads is None else _unpermute(values, heads)

    def notes(self) -> list[str]:
        """What in the checkpoint changes nothing, or is not known: sentences for the record."""
        said = architectures.audit(self.config) if self.metadata is None else gguf_config.audit(self.metadata)
        return [*said, *naming.notes(self.ignored)]

    def retied(self, decoder: Decoder) -> Decoder:
        """`decoder` with its head tied to the embedding where a stored head equals it: a smaller network, and the same.

        The config must say that they are tied, as transformers ties them then alone. Reads both once.
        """
        if not self.twins or not self._find(naming.HEAD).equals(self._find(naming.EMBEDDING)):
            return decoder
        return replace(decoder, tied=True)

    def _find(self, name: str) -> Stored:
        if name not in self.stored:
            raise InputError(f"the checkpoint lacks the tensor {name}", option="model.source")
        return self.stored[name]


def read_json(files: Mapping[str, Path], name: str) -> dict[str, Any]:
    """The JSON object in the checkpoint's file `name`. Raises InputError."""
    return untrusted.read_object(files[name], name)


def _open_safetensors(files: Mapping[str, Path]) -> Checkpoint:
    shards = sorted(name for name in files if name.endswith(".safetensors"))
    if not shards:
        raise InputError(
            "the checkpoint has neither .safetensors nor .gguf files",
            option="model.source",
            hint="convert its weights to safetensors first",
        )
    if "config.json" not in files:
        raise InputError("the checkpoint has no config.json", option="model.source")
    placed = naming.weight_map(read_json(files, INDEX)) if INDEX in files else {}
    if placed:
        shards = sorted(set(placed.values()))
    elif len(shards) > 1:
        shards = _sole(shards, "model.safetensors", f"and no {INDEX}")
    config = read_json(files, "config.json")
    read = {
        shard: stored(files[shard], shard, read_file(safetensors.read_header, files[shard], shard, "model.source"))
        for shard in shards
        if shard in files
    }
    settled = naming.settle(read, placed, config)
    for name, rival in settled.rivals.items():
        place = settled.tensors[name]
        if not read[place.file][place.name].equals(read[rival.file][rival.name]):
            raise naming.differing(place, rival)
    tensors = _stored(settled, read)
    return Checkpoint(settled.config(config), None, files, tensors, {}, settled.ignored, settled.twins)


def _stored(settled: NamedTensors, read: Mapping[str, Mapping[str, Stored]]) -> dict[str, Stored]:
    return {name: read[place.file][place.name] for name, place in settled.tensors.items()}


def _sole(candidates: list[str], preferred: str, besides: str) -> list[str]:
    if preferred in candidates:
        return [preferred]
    raise InputError(
        f"the checkpoint has several weight files ({', '.join(candidates)}) {besides}",
        option="model.source",
        hint="keep the one to build in a folder of its own",
    )


def _open_gguf(files: Mapping[str, Path], names: list[str]) -> Checkpoint:
    headers = [gguf_format.read_file(files[name], name, "model.source") for name in names]
    metadata = headers[0].metadata
    types.check(metadata)
    splits = metadata.get("split.count", 1)
    if len(names) > 1 and splits <= 1:
        _sole(names, "model.gguf", "that are not the parts of one model")
    if splits != len(names) and splits > 1:
        raise InputError(
            f"{names[0]} is one of {splits} parts, and {len(names)} are there",
            option="model.source",
            hint="download all parts",
        )
    if "tokenizer.json" in files:
        beside.check(read_json(files, "tokenizer.json"), metadata)
    read = {name: stored(files[name], name, header.tensors) for name, header in zip(names, headers, strict=True)}
    tensors = {name: tensor for part in read.values() for name, tensor in part.items()}
    strange.refuse_adapter(tensors, names[0])
    factors = tensors.pop(ROPE_FACTORS, None)
    if factors is not None:
        naming.check_gguf_kind(names[0], ROPE_FACTORS, factors.kind)
    if "config.json" in files:
        config = read_json(files, "config.json")
    else:
        config = gguf_config.config_from_gguf(metadata, tensors)
        if factors is not None:
            gguf_config.check_factors(factors.shape, config)
            config = gguf_config.config_from_gguf(metadata, tensors, factors.read().tolist())
    settled = naming.settle(read, None, config)
    chosen = _stored(settled, read)
    rotated = _rotated_heads(metadata, chosen)
    return Checkpoint(settled.config(config), metadata, files, chosen, rotated, settled.ignored, settled.twins)


def _rotated_heads(metadata: Mapping[str, Any], names: Iterable[str]) -> dict[str, int]:
    """llama.cpp permutes the rows of q and k for its interleaved rotation, in "llama" files only."""
    if metadata.get("general.architecture") != "llama":
        return {}
    heads = metadata.get("llama.attention.head_count")
    counts = {"q_proj": heads, "k_proj": metadata.get("llama.attention.head_count_kv", heads)}
    rotated = {}
    for name in names:
        projection = name.rsplit(".", 2)[-2] if name.count(".") > 1 else ""
        if projection in counts:
            count = counts[projection]
            rotated[name] = int(count[0] if isinstance(count, list) else count)
    return rotated


def _unpermute(values: Array, heads: int) -> Array:
    """Rows (2i, 2i + 1) of a head back to (i, i + head_dim / 2)."""
    rows = values.shape[0]
    pairs = values.reshape(heads, rows // heads // 2, 2, *values.shape[1:])
    return pairs.swapaxes(1, 2).reshape(values.shape)

"""Which stored tensor stands for which of a decoder's, from the headers of the weight files alone.

Names are settled as transformers 5.17 does on loading (`rename_source_key` in core_model_loading.py, `tie_weights` and
`_load_pretrained_model` in modeling_utils.py), and beyond that without the prefixes that wrappers add, for which
transformers would make weights up at random. Standard library only: the command line plans with it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from trtbuild.errors import InputError
from trtbuild.formats import ggml_types
from trtbuild.formats.weight_file import TensorInfo
from trtbuild.networks.config.fields import refuse
from trtbuild.networks.weights import strange

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
INDEX = "model.safetensors.index.json"
#: Types of safetensors that are read as numbers.
FLOATS = ("F64", "F32", "F16", "BF16")

_LAYER = r"(input_layernorm|post_attention_layernorm|self_attn\.([qkvo]_proj|[qk]_norm)|mlp\.(gate|up|down)_proj)"
_KNOWN = re.compile(rf"(model\.(embed_tokens|norm)|lm_head|model\.layers\.(0|[1-9]\d*)\.{_LAYER})\.(weight|bias)")
#: What torch.compile, FSDP and activation checkpointing put in front of a module's name, anywhere.
_WRAPPED = re.compile(r"(^|(?<=\.))(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
#: DataParallel's and PEFT's own, at the front.
_FRONT = re.compile(r"(module\.|base_model\.model\.)+")
_LANGUAGE = re.compile(r"(model\.)?language_model\.")
_BASE = re.compile(r"(.+)\.base_layer\.(weight|bias)")
_SAVED = re.compile(r"(.+)\.modules_to_save\.[^.]+\.(weight|bias)")
_ORIGINAL = re.compile(r"(.+)\.original_module\.(weight|bias)")

_GGUF_TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_GGUF_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_SHOWN = 3  # names in a note
#: The divisors of rotary frequencies, which are read into the config.
ROPE_FACTORS = "rope_freqs.weight"


@dataclass(frozen=True)
class TensorPlace:
    """Where a tensor is stored: the weight file's logical name, its name there, its type and its shape."""

    file: str
    name: str
    kind: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name} in {self.file}"


@dataclass(frozen=True)
class NamedTensors:
    """The tensors of a checkpoint by Hugging Face's names; one that is not understood keeps its stored name.

    `ignored` is stored name -> why it changes nothing. `tied`: the head is the embedding, whatever the config says;
    with `twins` the config says so too, and a head is stored all the same, which may be equal. `rivals` are tensors
    that another shard holds as well, of which transformers would take the one named here: they must be equal.
    """

    tensors: Mapping[str, TensorPlace]
    ignored: Mapping[str, str]
    tied: bool
    twins: bool
    rivals: Mapping[str, TensorPlace]

    def names(self) -> list[str]:
        """All tensor names, sorted."""
        return sorted(self.tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor that is there."""
        return self.tensors[name].shape

    def config(self, config: Mapping[str, Any]) -> Mapping[str, Any]:
        """`config` with the `tie_word_embeddings` that the weights have."""
        if _ties(config) == self.tied:
            return config
        return {**config, "tie_word_embeddings": self.tied}


def weight_map(index: Mapping[str, Any]) -> dict[str, str]:
    """Tensor -> shard of a parsed INDEX; {} where it places nothing. Raises InputError."""
    named = index.get("weight_map", {})
    if not isinstance(named, dict) or not all(map(_is_beside, named.values())):
        raise InputError(
            f"{INDEX} has a weight_map that does not name files beside it",
            option="model.source",
            hint="download the checkpoint again",
        )
    return named


def _is_beside(shard: object) -> bool:
    return isinstance(shard, str) and shard == PurePosixPath(shard).name


def settle(
    files: Mapping[str, Mapping[str, TensorInfo]], index: Mapping[str, str] | None, config: Mapping[str, Any]
) -> NamedTensors:
    """What the weight files stand for: `files` is logical name -> (stored name -> entry), of safetensors or GGUF.

    `index` is the weight_map of an index, `config` a parsed config.json or what is made of a GGUF's metadata. Raises
    InputError for shards that do not hold what the index says, for adapters that are not merged, for quantized
    checkpoints, for types that are not read, and for two tensors of one name. Whether all that a decoder needs is
    there is `layout.check`'s to say.
    """
    gguf = any(file.endswith(".gguf") for file in files)
    if gguf:
        places, rivals = _gguf_places(files), dict[str, TensorPlace]()
    else:
        places, rivals = _places(files, index or {})
    for file, entries in files.items():
        strange.refuse_adapter(entries, file)
        if not gguf:
            strange.refuse_quantized({name: entry.kind for name, entry in entries.items()}, file)
    tensors, ignored = _renamed(places.values(), gguf=gguf)
    for place in tensors.values():
        _check_kind(place, gguf=gguf)
    tied = _ties(config)
    twins = tied and HEAD in tensors and EMBEDDING in tensors
    if tied and HEAD in tensors and not twins:
        # transformers swaps them: what is there serves as both.
        tensors[EMBEDDING] = tensors.pop(HEAD)
    compared = {name: rivals[place.name] for name, place in tensors.items() if place.name in rivals}
    return NamedTensors(tensors, ignored, tied and not twins, twins, compared)


def _ties(config: Mapping[str, Any]) -> bool:
    value = config.get("tie_word_embeddings")
    if value is not None and not isinstance(value, bool):
        raise refuse("tie_word_embeddings", value, "true or false is needed")
    return bool(value)


def _places(
    files: Mapping[str, Mapping[str, TensorInfo]], index: Mapping[str, str]
) -> tuple[dict[str, TensorPlace], dict[str, TensorPlace]]:
    """(where each stored name is, the other place that transformers would take it from).

    transformers reads the shards in the order of their names, so that the last that holds a tensor gives it, and the
    index only says which shards there are. Here the index decides.
    """
    last: dict[str, TensorPlace] = {}
    for file in sorted(files):
        last |= {name: TensorPlace(file, name, each.kind, each.shape) for name, each in files[file].items()}
    places, rivals = dict(last), {}
    for name, file in index.items():
        if file not in files:
            raise InputError(f"{INDEX} names {file}, which the checkpoint lacks", option=strange.OPTION)
        if name not in files[file]:
            raise InputError(
                f"{file} is not a whole weight file: {INDEX} says that it holds {name}, and it does not",
                option=strange.OPTION,
                hint="download it again, or point model.source at a complete copy",
            )
        info = files[file][name]
        places[name] = TensorPlace(file, name, info.kind, info.shape)
        if last[name].file != file:
            if (last[name].kind, last[name].shape) != (info.kind, info.shape):
                raise differing(places[name], last[name])
            rivals[name] = last[name]
    return places, rivals


def differing(place: TensorPlace, rival: TensorPlace) -> InputError:
    """The error for a tensor that two shards hold with other values."""
    return InputError(
        f"{place.file} and {rival.file} both hold {place.name}, with different values: {INDEX} says {place.file}, and "
        f"transformers takes {rival.file}",
        option=strange.OPTION,
        hint=f"save the checkpoint again with transformers, or delete the copy that is wrong from {rival.file}",
    )


def _gguf_places(files: Mapping[str, Mapping[str, TensorInfo]]) -> dict[str, TensorPlace]:
    places: dict[str, TensorPlace] = {}
    for file in sorted(files):
        for name, each in files[file].items():
            place = TensorPlace(file, name, each.kind, each.shape)
            if name in places:
                raise _ambiguous(name, places[name], place)
            if name != ROPE_FACTORS:
                places[name] = place
    return places


def _renamed(places: Iterable[TensorPlace], *, gguf: bool) -> tuple[dict[str, TensorPlace], dict[str, str]]:
    """(tensors by Hugging Face's names, stored name -> why it is ignored)."""
    tensors: dict[str, TensorPlace] = {}
    ignored: dict[str, str] = {}
    originals: list[tuple[str, TensorPlace]] = []
    for place in places:
        name = from_ggml(place.name) if gguf else canonical(place.name)
        reason = None
        if not gguf and not _KNOWN.fullmatch(name):
            reason = strange.leftover(place.name, place.kind)
        if reason is not None:
            ignored[place.name] = reason
        elif _ORIGINAL.fullmatch(place.name):
            originals.append((name, place))
        elif name in tensors:
            raise _ambiguous(name, tensors[name], place)
        else:
            tensors[name] = place
    for name, place in originals:
        if name in tensors and _SAVED.fullmatch(tensors[name].name):
            ignored[place.name] = f"PEFT uses {tensors[name].name} in its place"
        elif name in tensors:
            raise _ambiguous(name, tensors[name], place)
        else:
            tensors[name] = place
    return tensors, ignored


def _ambiguous(name: str, one: TensorPlace, other: TensorPlace) -> InputError:
    return InputError(
        f"the checkpoint holds {name} twice: {one} and {other}",
        option=strange.OPTION,
        hint="keep the one that counts: save the model again with transformers",
    )


def notes(ignored: Mapping[str, str]) -> list[str]:
    """A sentence for each reason why tensors are not used: `ignored` is stored name -> reason."""
    said = []
    for why in sorted(set(ignored.values())):
        names = sorted(name for name, reason in ignored.items() if reason == why)
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        said.append(f"the checkpoint's {', '.join(names[:_SHOWN])}{more} changes nothing: {why}")
    return said


def canonical(stored: str) -> str:
    """The name that transformers gives a stored tensor of a decoder; one that is none of a decoder's stays as it is."""
    name = _WRAPPED.sub("", stored)
    if front := _FRONT.match(name):
        name = name[front.end() :]
    for pattern in (_BASE, _SAVED, _ORIGINAL):
        if match := pattern.fullmatch(name):
            name = f"{match[1]}.{match[2]}"
    if language := _LANGUAGE.match(name):
        name = name[language.end() :]
    # As transformers does: `model.` is taken off, or put in front, where that makes a name of the model.
    for candidate in (name, name.removeprefix("model."), f"model.{name}"):
        if _KNOWN.fullmatch(candidate):
            return candidate
    return stored


def from_ggml(name: str) -> str:
    """blk.3.attn_q.weight -> model.layers.3.self_attn.q_proj.weight; an unknown name stays as it is."""
    part, _, kind = name.rpartition(".")
    layer = re.fullmatch(r"blk\.(\d+)\.(\w+)", part)
    if layer and layer[2] in _GGUF_LAYER:
        return f"model.layers.{layer[1]}.{_GGUF_LAYER[layer[2]]}.{kind}"
    return f"{_GGUF_TOP[part]}.{kind}" if part in _GGUF_TOP else name


def _check_kind(place: TensorPlace, *, gguf: bool) -> None:
    if gguf:
        check_gguf_kind(place.file, place.name, place.kind)
    if not gguf and place.kind not in FLOATS:
        raise InputError(
            f"{place.file} stores {place.name} as {place.kind}: supported are {', '.join(FLOATS)}, and "
            f"{strange.kind(place.kind)}",
            option=strange.OPTION,
            hint=strange.UNQUANTIZED,
        )


def check_gguf_kind(file: str, name: str, kind: str) -> None:
    """Raises InputError for a tensor of GGUF whose type cannot be read as numbers."""
    if ggml_types.unreadable(kind):
        raise InputError(
            f"{file} stores {name} as {kind}, which cannot be dequantized here",
            option=strange.OPTION,
            hint="choose a file of type Q4_K_M, Q8_0 or F16",
        )

"""Which files of a folder or repository a build reads, and their logical names: one rule for every source."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from trtbuild import untrusted
from trtbuild.sources import refusals
from trtbuild.sources.refusals import TEMPLATES, FileListing, some

CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
WEIGHTS = "model.safetensors"

#: Beside the weights; all but config.json may be absent. A file of any other name changes no engine.
SMALL = (
    CONFIG,
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
)

# llama.cpp's names of a split model (gguf-split)
_SPLIT = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.DOTALL | re.IGNORECASE)
#: Beside a GGUF, where its own tokenizer is not understood.
TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
)


def choose(listing: FileListing, read: Callable[[str], bytes]) -> dict[str, str]:
    """Logical name -> real name of every file that the build reads. `read` gives a small file's bytes.

    A logical name is the real one but for GGUF, which is `model.gguf` (`model-00001-of-0000N.gguf` when
    split), so that renaming changes nothing. Raises InputError that says what is missing, or how to name
    one of several.
    """
    names = set(listing.names)
    # As transformers does: the single file wins over an index beside it.
    if WEIGHTS in names:
        weights = [WEIGHTS]
    elif INDEX in names:
        weights = [INDEX, *_shards(listing, read(INDEX))]
    else:
        refusals.check_adapter(listing, read)
        return choose_gguf(listing, None)
    refusals.check_adapter(listing, read)
    if CONFIG not in names:
        raise listing.refuse(
            f"{listing.where} has {weights[0]} and no {CONFIG}",
            "put the model's config.json beside its weights",
        )
    refusals.check_template(listing, read)
    templates = [name for name in names if is_template(name)]
    return {name: name for name in sorted([name for name in SMALL if name in names] + templates + weights)}


def is_template(name: str) -> bool:
    """Whether a path is of a named chat template, which transformers reads beside the others."""
    return re.fullmatch(rf"{TEMPLATES}[^/\x00-\x1f]+\.jinja", name) is not None


def beside_gguf(listing: FileListing, chosen: Mapping[str, str]) -> dict[str, str]:
    """Logical -> real name of the tokenizer's files in the folder of the `chosen` GGUF; none without tokenizer.json."""
    folder = next(iter(chosen.values())).rpartition("/")[0]
    real = {name: f"{folder}/{name}" if folder else name for name in TOKENIZER}
    if real["tokenizer.json"] not in listing.names:
        return {}
    return {name: path for name, path in real.items() if path in listing.names}


def choose_gguf(listing: FileListing, wanted: str | None) -> dict[str, str]:
    """As `choose`, for GGUF alone: the file `wanted` with the other parts of its split, or the only one."""
    if wanted is not None:
        return _with_parts(listing, wanted)
    ggufs = sorted(name for name in listing.names if name.lower().endswith(".gguf"))
    # llama.cpp's name for the projector of a vision model, which is not a model of its own.
    files = [name for name in ggufs if not name.lower().startswith("mmproj")] or ggufs
    if not files:
        raise refusals.nothing(listing)
    models = {_model_of(name) for name in files}
    if len(models) > 1:
        raise listing.refuse(f"{listing.where} holds several GGUF models: {some(files)}", f"name one: {listing.naming}")
    return _with_parts(listing, files[0])


def _model_of(name: str) -> str:
    """The same for all parts of a split model."""
    split = _SPLIT.fullmatch(name)
    return f"{split['stem']}-of-{split['count']}" if split else name


def _with_parts(listing: FileListing, name: str) -> dict[str, str]:
    split = _SPLIT.fullmatch(name)
    if split is None or split["count"] == "00001":
        return {"model.gguf": name}
    parts: dict[str, str] = {}
    for other in listing.names:
        part = _SPLIT.fullmatch(other)
        if part and _model_of(other) == _model_of(name):
            parts[part["number"]] = other
    # Counted from the names that are there: "of 99999" costs nothing.
    if len(parts) != int(split["count"]) or set(parts) != {f"{n:05d}" for n in range(1, len(parts) + 1)}:
        raise listing.refuse(
            f"{listing.where} holds {len(parts)} of the {int(split['count'])} parts of {name}: "
            + some(sorted(parts.values())),
            "download all parts into one folder, with the names that they have",
        )
    return {f"model-{number}-of-{split['count']}.gguf": parts[number] for number in sorted(parts)}


def weight_map(index: bytes) -> dict[str, str]:
    """Tensor -> shard of an index that `choose` has accepted."""
    placed: dict[str, str] = untrusted.parse_object(index)["weight_map"]
    return placed


def _shards(listing: FileListing, index: bytes) -> list[str]:
    where = f"{listing.where}: {INDEX}"
    try:
        placed = untrusted.parse_object(index)["weight_map"]
    except untrusted.MalformedJson as error:
        raise listing.refuse(f"{where} {error}", "download the checkpoint again") from None
    except KeyError:
        raise listing.refuse(f"{where} has no weight_map", "download the checkpoint again") from None
    if not isinstance(placed, Mapping) or not placed:
        raise listing.refuse(f"{where} has an empty weight_map", "download the checkpoint again")
    # As text: JSON may hold values here that cannot be sorted or hashed.
    shards = sorted({name if isinstance(name, str) else repr(name) for name in placed.values()})
    for shard in shards:
        # A plain name: neither a path that leaves the folder, nor one that no file system can hold.
        if not re.fullmatch(r"[^/\\\x00-\x1f\ud800-\udfff]+\.safetensors", shard) or shard.startswith("."):
            raise listing.refuse(
                f"{where} names {shard!r}, which is no .safetensors file beside it",
                "take the checkpoint from its author again: its index was made by hand",
            )
    if missing := [shard for shard in shards if shard not in listing.names]:
        raise refusals.missing_shards(listing, where, missing)
    return shards

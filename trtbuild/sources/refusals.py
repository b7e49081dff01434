"""What a folder or repository is that holds no checkpoint to build: said by name, with the way out.

Each is recognised by file names and small files, before anything is hashed or downloaded.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from trtbuild import untrusted
from trtbuild.errors import InputError

_LISTED = 8  # names that an error lists
_POINTER = b"version https://git-lfs.github.com/spec/"
_ADAPTER = "adapter_config.json"
_PICKLED = (".bin", ".pt", ".pth", ".ckpt")
_TEMPLATE, TEMPLATES = "chat_template.jinja", "additional_chat_templates/"
_CONVERT = (
    "with transformers and torch, AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(OUT) writes it as "
    "safetensors; put the tokenizer's files beside it"
)
Read = Callable[[str], bytes]


def _none() -> Collection[str]:
    return ()


@dataclass(frozen=True)
class FileListing:
    """The files of one folder or repository. `where` and `option` are for messages; `naming` says how to name one.

    `below` gives, for messages alone, the files of the folders inside, as paths with "/".
    """

    names: Collection[str]
    where: str
    option: str
    naming: str
    below: Callable[[], Collection[str]] = field(default=_none)

    def refuse(self, message: str, hint: str | None = None) -> InputError:
        return InputError(message, option=self.option, hint=hint)


def some(names: Collection[str]) -> str:
    """The first of the names, for a message."""
    listed = sorted(names)
    more = f" and {len(listed) - _LISTED} more" if len(listed) > _LISTED else ""
    return ", ".join(plain(name) for name in listed[:_LISTED]) + more


def plain(name: str) -> str:
    """Text of another person, without control sequences for a terminal."""
    return name if name.isprintable() else repr(name)


def check_pointer(head: bytes, where: str, option: str) -> None:
    """Raises InputError when a file that begins with `head` stands for one in Git's large storage."""
    if head.startswith(_POINTER):
        raise InputError(
            f"{where} is a pointer of Git LFS: the file itself was not downloaded",
            option=option,
            hint="run `git lfs pull` in the repository (after `git lfs install`)",
        )


def check_adapter(listing: FileListing, read: Read) -> None:
    """Raises InputError for an adapter, alone or beside a model (transformers with PEFT would apply it)."""
    stored = [name for name in listing.names if name.startswith("adapter_model")]
    weights = any(name.endswith((".safetensors", ".gguf")) and name not in stored for name in listing.names)
    if not stored and (weights or _ADAPTER not in listing.names):
        return
    base = None
    if _ADAPTER in listing.names:
        told = _object(read(_ADAPTER))
        base = told.get("base_model_name_or_path")
    of = f" for {plain(base)}" if isinstance(base, str) and base else ""
    raise listing.refuse(
        f"{listing.where} holds an adapter (PEFT, LoRA){of}{' beside a model' if weights else ', and no model'}: "
        f"{some(stored or [_ADAPTER])}",
        "merge it into its base first: model = peft.AutoPeftModelForCausalLM.from_pretrained(FOLDER), then "
        "model.merge_and_unload().save_pretrained(OUT); put the tokenizer's files beside it and name OUT"
        + (". If the model beside it has it merged in, take the adapter's files away" if weights else ""),
    )


def check_template(listing: FileListing, read: Read) -> None:
    """Raises InputError for a chat template where none is looked for, in a checkpoint that has no other."""
    names = set(listing.names)
    if _TEMPLATE in names or any(name.startswith(TEMPLATES) for name in names):
        return
    misplaced = {
        name
        for name in {*names, *listing.below()}
        if PurePosixPath(name).name == _TEMPLATE
        or ("chat_template" in name and name.endswith((".jinja", ".jinja2", ".j2")))
    }
    misplaced = {name for name in misplaced if not name.startswith((".", TEMPLATES))}
    if not misplaced or any(
        "chat_template" in _object(read(name)) for name in ("tokenizer_config.json",) if name in names
    ):
        return
    raise listing.refuse(
        f"{listing.where} has its chat template at {some(misplaced)}, where neither transformers nor trtbuild looks",
        f"move it to {_TEMPLATE} beside tokenizer_config.json, or delete it",
    )


def check_cases(listing: FileListing, names: Collection[str], chosen: Collection[str]) -> None:
    """Raises InputError where a file that is read has another's name but for capitals: some disks hold one of them."""
    alike: dict[str, list[str]] = {}
    wanted = {name.casefold() for name in chosen}
    for name in names:
        if name.casefold() in wanted:
            alike.setdefault(name.casefold(), []).append(name)
    for both in alike.values():
        if len(both) > 1:
            raise listing.refuse(
                f"{listing.where} holds files whose names differ in capitals alone: {some(both)}",
                "take the checkpoint from its author again, or give the folder of a copy with one of them",
            )


def nothing(listing: FileListing) -> InputError:
    """The error for a place without safetensors and GGUF that can be read."""
    names, where = set(listing.names), listing.where
    for refusal in (_other_format, _pickled, _stray_safetensors):
        if (error := refusal(listing)) is not None:
            return error
    below = sorted(listing.below())
    if partial := [name for name in [*names, *below] if name.endswith(".incomplete")]:
        return listing.refuse(
            f"{where} holds a download that was broken off: {some(partial)}",
            "run the download again until it ends: it goes on from there",
        )
    folders = sorted({str(PurePosixPath(name).parent) for name in below if _is_weight(name)})
    if folders:
        naming = "name that folder" if where.startswith("/") else "download it, and name that folder"
        return listing.refuse(
            f"{where} has no weights of its own: there are some in {some(folders)}",
            f"{naming}: model.source=…/{plain(folders[0])}",
        )
    missing = "no weights" if "config.json" in names else "no config.json and no weights"
    return listing.refuse(
        f"{where} has {missing}: a checkpoint is config.json with model.safetensors (or "
        "model.safetensors.index.json with its shards), or one .gguf file",
        "choose the checkpoint's own folder",
    )


def missing_shards(listing: FileListing, where: str, missing: list[str]) -> InputError:
    """The error for shards that an index names and that are not there."""
    partial = [name for name in {*listing.names, *listing.below()} if name.endswith(".incomplete")]
    return listing.refuse(
        f"{where} names {some(missing)}, and {listing.where} lacks {'it' if len(missing) == 1 else 'them'}",
        "download all shards"
        + (": a download was broken off here, and goes on when it is run again" if partial else ""),
    )


def _is_weight(name: str) -> bool:
    return PurePosixPath(name).name in ("model.safetensors", "model.safetensors.index.json") or name.endswith(".gguf")


def _other_format(listing: FileListing) -> InputError | None:
    names, where = {*listing.names, *listing.below()}, listing.where
    if "model_index.json" in listing.names:
        return listing.refuse(
            f"{where} is a pipeline of Diffusers, which makes images and no text",
            "choose a causal language model",
        )
    if onnx := [name for name in names if name.endswith(".onnx")]:
        return listing.refuse(
            f"{where} holds an ONNX model ({some(onnx)}), which is a network already",
            "name the checkpoint that it was exported from",
        )
    if {"weights.npz", "model.npz"} & set(listing.names):
        return listing.refuse(
            f"{where} holds the weights of MLX as .npz", "name the checkpoint that they were converted from"
        )
    return None


def _pickled(listing: FileListing) -> InputError | None:
    where = listing.where
    pickled = [name for name in listing.names if name.endswith(_PICKLED)]
    if not pickled:
        return None
    if "params.json" in listing.names and any(name.startswith("consolidated.") for name in pickled):
        return listing.refuse(
            f"{where} holds a model in Meta's own layout: {some(pickled)}, params.json",
            "name its Hugging Face version; or convert it with transformers' convert_llama_weights_to_hf.py",
        )
    return listing.refuse(
        f"{where} holds its weights as {some(pickled)} alone",
        f"convert to safetensors: pickled weights are not read; {_CONVERT}",
    )


def _stray_safetensors(listing: FileListing) -> InputError | None:
    where = listing.where
    shards = [name for name in listing.names if name.endswith(".safetensors")]
    if not shards:
        return None
    if all(name.startswith("consolidated") for name in shards):
        return listing.refuse(
            f"{where} holds a model in Mistral's own layout: {some(shards)}"
            + (", params.json" if "params.json" in listing.names else ""),
            "download the same repository's files for Hugging Face: config.json, model.safetensors.index.json and its "
            "shards",
        )
    return listing.refuse(
        f"{where} holds {some(shards)}, and neither model.safetensors nor model.safetensors.index.json",
        "download model.safetensors.index.json too, or rename a single file to model.safetensors",
    )


def _object(text: bytes) -> dict[str, object]:
    """A JSON object, or an empty one if the file holds anything else. It is only used for messages."""
    try:
        value = untrusted.parse(text)
    except untrusted.MalformedJson:
        return {}
    return value if isinstance(value, dict) else {}

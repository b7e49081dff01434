"""Refuses a checkpoint that is understood here, and that the tools of other compilers would read as something else.

ModelOpt and TensorRT-LLM's scripts load a folder with a transformers of their own (4.57 and 5.14). It knows no prefixes
of wrappers, and makes up at random what it does not find; before 5 it ties a head whatever is stored. vLLM and
TensorRT-LLM then serve what config.json says. Standard library only: workers without numpy check with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trtbuild import untrusted
from trtbuild.errors import InputError
from trtbuild.formats import safetensors
from trtbuild.formats.weight_file import TensorInfo, read_file, same_values
from trtbuild.networks.config.architectures import SUPPORTED
from trtbuild.networks.weights import naming, strange
from trtbuild.networks.weights.naming import EMBEDDING, HEAD, INDEX

_SAVE = "save it again with its plain names: AutoModelForCausalLM.from_config, load_state_dict, save_pretrained"


def check(files: Mapping[str, Mapping[str, TensorInfo]], config: Mapping[str, Any]) -> bool:
    """Whether the config ties the head to the embedding, and a head is stored all the same, which must be equal.

    `files` is weight file -> (stored name -> entry). Raises InputError for names that transformers does not know, for
    an adapter's matrices, and for a head alone. Architectures that are not native here are left alone.
    """
    named = config.get("architectures")
    if not isinstance(named, list) or not named or named[0] not in SUPPORTED:
        return False
    loaded: dict[str, str] = {}
    for file, entries in files.items():
        strange.refuse_adapter(entries, file)
        for stored in entries:
            name = naming.canonical(stored)
            if name not in (stored, stored.removeprefix("model."), f"model.{stored}"):
                raise InputError(
                    f"{file} holds {stored}, and transformers looks for {name}: this compiler's tools would take "
                    "random numbers in its place",
                    option=strange.OPTION,
                    hint=_SAVE,
                )
            loaded[name] = stored
    tied = bool(config.get("tie_word_embeddings", False)) and HEAD in loaded
    if tied and EMBEDDING not in loaded:
        raise InputError(
            f"the checkpoint stores {HEAD} alone, and its config ties it to {EMBEDDING}: this compiler's tools would "
            "take random numbers for both",
            option=strange.OPTION,
            hint=f"store it as {EMBEDDING}: AutoModelForCausalLM.from_pretrained and save_pretrained of transformers 5",
        )
    return tied


def check_folder(folder: Path) -> None:
    """As `check`, of a folder with config.json and safetensors; a head that differs from the embedding is refused.

    Raises InputError.
    """
    config = untrusted.read_object(folder / "config.json")
    files = {
        path.name: read_file(safetensors.read_header, path, path.name, strange.OPTION) for path in _weights(folder)
    }
    if not check(files, config):
        return
    places = {
        naming.canonical(name): (folder / file, each)
        for file, entries in files.items()
        for name, each in entries.items()
    }
    if not same_values(*places[HEAD], *places[EMBEDDING]):
        raise InputError(
            f"the config ties the head to the embedding, and the checkpoint stores another {HEAD}",
            option=strange.OPTION,
            hint="set tie_word_embeddings to false in its config.json: transformers 5 then computes the same, and so "
            "does all that reads the config",
        )


def _weights(folder: Path) -> list[Path]:
    """transformers takes one file before an index."""
    sole, index = folder / "model.safetensors", folder / INDEX
    if sole.is_file() or not index.is_file():
        return [sole] if sole.is_file() else []
    placed = naming.weight_map(untrusted.read_object(index))
    return [folder / name for name in sorted(set(placed.values()))]

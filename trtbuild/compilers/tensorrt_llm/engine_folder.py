"""An engine's folder as TensorRT-LLM writes it: reads it back, and refuses one that is incomplete.

config.json           {"version", "pretrained_config", "build_config"}, with the effective values
rank0.engine, …       a plan for each of the tp x pp x cp ranks
lora/                 adapters, if there are any
tokenizer/            the model's own, added by trtbuild
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trtbuild import untrusted
from trtbuild.errors import BuildError

TOKENIZER = "tokenizer"
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    "config.json",  # transformers reads the tokenizer's class from it
)
#: Values of a build without timing caches.
_CACHES = {"input_timing_cache": None, "output_timing_cache": "model.cache"}
#: Limits that trtllm-build keeps, or adjusts with a line in its log.
_COMPARED = ("max_batch_size", "max_input_len", "max_seq_len", "max_num_tokens")


@dataclass(frozen=True)
class EngineConfig:
    """The content of an engine's config.json."""

    version: str
    ranks: int
    build_config: Mapping[str, Any]
    pretrained_config: Mapping[str, Any]

    def adjusted(self, facts: Mapping[str, Any]) -> dict[str, list[Any]]:
        """Limits that TensorRT-LLM adjusted: name -> [requested, effective]."""
        limits = {name: [facts.get(f"profile.{name}"), self.build_config.get(name)] for name in _COMPARED}
        return {name: pair for name, pair in limits.items() if pair[0] not in (None, pair[1])}


def copy_tokenizer(model: Path, out: Path) -> None:
    """Copy the files of the folder `model` that a server wants beside the weights to `out`/tokenizer."""
    (out / TOKENIZER).mkdir()
    for file in _TOKENIZER_FILES:
        if (model / file).is_file():
            shutil.copyfile(model / file, out / TOKENIZER / file)


def settle(folder: Path) -> None:
    """Remove from config.json where this build kept its timing caches: paths of this machine, which nothing reads.

    All else stays as TensorRT-LLM wrote it. Does nothing if the config cannot be read: `read` reports that.
    """
    path = folder / "config.json"
    try:
        config = untrusted.parse_object(untrusted.read_bytes(path))
        build = config["build_config"]
        build |= {name: default for name, default in _CACHES.items() if name in build}
    except (OSError, ValueError, KeyError, TypeError):
        return
    path.write_text(json.dumps(config, indent=4) + "\n", encoding="utf-8")


def read(folder: Path) -> EngineConfig:
    """The engine's config. Raises BuildError for a folder that is no engine, or lacks a rank."""
    path = folder / "config.json"
    try:
        config = untrusted.parse_object(untrusted.read_bytes(path))
        mapping = config["pretrained_config"].get("mapping", {})
        built = EngineConfig(
            version=str(config["version"]),
            ranks=int(mapping.get("world_size", 1)),
            build_config=dict(config["build_config"]),
            pretrained_config=dict(config["pretrained_config"]),
        )
    except OSError:
        raise BuildError("trtllm-build succeeded and wrote no config.json") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BuildError(f"the engine's config.json is not TensorRT-LLM 1.2's: {error!r}") from None
    missing = [f"rank{rank}.engine" for rank in range(built.ranks) if not _has_bytes(folder / f"rank{rank}.engine")]
    if missing:
        raise BuildError(
            f"the engine lacks {', '.join(missing)} of its {built.ranks} ranks, though trtllm-build succeeded",
            hint="a rank may have run out of memory: see the log, and lower the profile's sizes",
        )
    return built


def _has_bytes(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0

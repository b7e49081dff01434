"""Opens one source in a process of its own and prints what it gives, as JSON: the Hub's client reads its
environment when it is imported.

python -m tests.sources.probe SOURCE [--revision REVISION] [--fetch FOLDER] [--headers]
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.sources.samples import PlainDigester
from trtbuild.errors import TrtbuildError
from trtbuild.formats.weight_file import TensorInfo
from trtbuild.networks.tokenizer import gguf
from trtbuild.sources import identity, open_source


def look(source: str, revision: str | None, keep: Path | None, *, headers: bool = False) -> dict[str, Any]:
    digester = PlainDigester()
    opened = open_source(source, revision=revision, digester=digester, understood=gguf.understood)
    if headers:
        found = opened.headers()
        if keep is not None:
            opened.fetch(keep, lambda *_progress: None)
        return {"headers": None if found is None else [told(found.files), found.index]}
    files = opened.files()
    progressed: list[tuple[str, int, int]] = []
    seen: dict[str, Any] = {
        "describe": opened.describe(),
        "files": [asdict(file) for file in files],
        "identity": identity(files),
        "config": opened.config(),
        "architecture": opened.gguf_architecture(),
    }
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        paths = opened.fetch(keep, lambda *progress: progressed.append(progress))
        opened.recheck()
        seen |= {"paths": {name: str(path) for name, path in paths.items()}, "progress": progressed}
    return seen | {"hashed": len(digester.hashed), "hashed_at_once": max(digester.at_once, default=0)}


def told(files: Mapping[str, Mapping[str, TensorInfo]]) -> dict[str, Any]:
    return {
        file: {name: [entry.kind, list(entry.shape)] for name, entry in entries.items()}
        for file, entries in files.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("source")
    parser.add_argument("--revision")
    parser.add_argument("--fetch", type=Path)
    parser.add_argument("--headers", action="store_true")
    args = parser.parse_args()
    try:
        print(json.dumps(look(args.source, args.revision, args.fetch, headers=args.headers)))
    except TrtbuildError as error:
        kind = type(error).__name__
        print(json.dumps({"error": kind, "message": error.message, "option": error.option, "hint": error.hint}))
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()

"""Opens one source in a process of its own and prints what it gives, as JSON: the Hub's client reads its
environment when it is imported.

python -m tests.sources.probe SOURCE [--revision REVISION] [--fetch FOLDER]
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.sources.samples import PlainDigester
from trtbuild.errors import TrtbuildError
from trtbuild.sources import identity, open_source


def look(source: str, revision: str | None, keep: Path | None) -> dict[str, Any]:
    digester = PlainDigester()
    opened = open_source(source, revision=revision, digester=digester)
    files = opened.files()
    told: list[tuple[str, int, int]] = []
    seen: dict[str, Any] = {
        "describe": opened.describe(),
        "files": [asdict(file) for file in files],
        "identity": identity(files),
        "config": opened.config(),
        "architecture": opened.gguf_architecture(),
    }
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        paths = opened.fetch(keep, lambda *progress: told.append(progress))
        opened.recheck()
        seen |= {"paths": {name: str(path) for name, path in paths.items()}, "progress": told}
    return seen | {"hashed": len(digester.hashed), "hashed_at_once": max(digester.at_once, default=0)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("source")
    parser.add_argument("--revision")
    parser.add_argument("--fetch", type=Path)
    args = parser.parse_args()
    try:
        print(json.dumps(look(args.source, args.revision, args.fetch)))
    except TrtbuildError as error:
        kind = type(error).__name__
        print(
            json.dumps({"error": kind, "message": error.message, "option": error.option, "hint": error.hint})
        )
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()

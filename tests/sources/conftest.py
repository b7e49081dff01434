"""A Hub of our own, and the real client in a process that sees only it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support import forks
from tests.support.minihub import MiniHub

ROOT = Path(__file__).parents[2]


@pytest.fixture
def hub() -> Iterator[MiniHub]:
    with MiniHub() as server:
        yield server


@dataclass(frozen=True)
class Client:
    """Runs `tests.sources.probe` with the client's cache in `home`."""

    home: Path
    url: str

    def look(self, source: str, *args: str, **env: str) -> dict[str, Any]:
        kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        environment = {
            **kept,
            "PYTHONPATH": f"{ROOT}:{ROOT / 'store'}",
            "HOME": str(self.home),
            "HF_HOME": str(self.home / "hf"),
            "HF_ENDPOINT": self.url,
            **env,
        }
        _, out, err = forks.run(Path("probe"), [source, *args], ROOT, environment, 120)
        assert "Traceback" not in err, err
        answer: dict[str, Any] = json.loads(out)
        assert "hf_" not in out + err, "a token was printed"
        return answer

    def fetch(self, source: str, **env: str) -> dict[str, Any]:
        return self.look(source, "--fetch", str(self.home / "keep"), **env)

    @property
    def cached(self) -> list[Path]:
        """Files with content in the client's cache."""
        blobs = (self.home / "hf" / "hub").glob("models--*/blobs/*")
        return sorted(path for path in blobs if path.is_file())


@pytest.fixture
def client(tmp_path: Path, hub: MiniHub) -> Client:
    return Client(tmp_path, hub.url)

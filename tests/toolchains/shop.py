"""A tiny index of made-up wheels, locks of them, and the real command line that installs them."""

from __future__ import annotations

import hashlib
import json
import subprocess
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support import forks
from tests.support.cli import TRTBUILD, Done, Project
from trtstore import Store
from trtstore.environments.environment import Environment


def wheel(folder: Path, name: str, version: str, files: Mapping[str, str] | None = None) -> Path:
    """A wheel for any Python with one package of a few modules, the same bytes each time."""
    folder.mkdir(parents=True, exist_ok=True)
    info = f"{name}-{version}.dist-info"
    content = {f"{name}/__init__.py": f"VERSION = {version!r}\n"}
    content |= {f"{name}/part{number}.py": f"NUMBER = {number}\n" * 50 for number in range(8)}
    content |= files or {}
    content |= {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: shop\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    content[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in [*content, f"{info}/RECORD"])
    made = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(made, "w") as archive:
        for path, text in content.items():
            archive.writestr(zipfile.ZipInfo(path, (1980, 1, 2, 0, 0, 0)), text)
    return made


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def lock(file: Path, *wheels: Path, chosen: str = "") -> Path:
    """A lock of these wheels."""
    lines = [f"# title: {file.stem}"]
    lines += [f"# chosen: {chosen}"] if chosen else []
    for made in wheels:
        name, version = made.name.split("-")[:2]
        lines.append(f"{name}=={version} --hash=sha256:{sha256(made)}")
    file.write_text("\n".join(lines) + "\n")
    return file


@dataclass(frozen=True)
class Shop:
    """A project beside a folder of wheels, which is all of the world that pip or uv sees.

    `told` is the one of the two whose variables name the folder.
    """

    project: Project
    told: str = "pip"

    @property
    def wheels(self) -> Path:
        return self.project.root / "wheels"

    def environment(self, **more: str) -> dict[str, str]:
        """What makes pip and uv look into `wheels` and nowhere else."""
        return self.project.environment(self._settings(**more))

    def _settings(self, **more: str) -> dict[str, str]:
        prefix = self.told.upper()
        return {f"{prefix}_NO_INDEX": "1", f"{prefix}_FIND_LINKS": str(self.wheels), **more}

    def start(self, *words: str, own_group: bool = False, **more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [TRTBUILD, "toolchain", *words],
            cwd=self.project.root,
            env=self.environment(**more),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=own_group,
        )

    def fork(self, *words: str, **more: str) -> forks.Running:
        """As `start`, already past the reading of its modules."""
        return self.project.fork("toolchain", *words, env=self._settings(**more))

    def run(self, *words: str | Path, **more: str) -> Done:
        """`trtbuild toolchain` with these words."""
        return self.project.trtbuild("toolchain", *map(str, words), env=self._settings(**more), timeout=120)

    def say(self, *words: str | Path, **more: str) -> Any:
        """As `run`, the JSON document of what succeeds."""
        done = self.run(*words, "--json", **more)
        assert done.code == 0, done.err
        return json.loads(done.out)

    def installed(self) -> list[Environment]:
        return Store.open(self.project.store).environments.all()

    def lying_about(self) -> list[str]:
        """All that lies in the store's toolchains/ and tmp/, whole or not."""
        base = self.project.store / "v1"
        return sorted(path.name for folder in ("toolchains", "tmp") for path in base.glob(f"{folder}/*"))

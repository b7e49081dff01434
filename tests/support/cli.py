"""The real command line in a scratch project, with an empty HOME and a store of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support import forks

TRTBUILD = Path(sys.executable).with_name("trtbuild")


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def path(self) -> Path:
        """The engine: the last line of a text result."""
        return Path(self.out.splitlines()[-1])


@dataclass(frozen=True)
class Project:
    """A folder to work in. Commands see nothing of the machine's own HOME, caches or configs."""

    root: Path

    @property
    def store(self) -> Path:
        return self.root / "store"

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        kept = ("PATH", "LANG", "SSL_CERT_FILE", "SSL_CERT_DIR")
        env = {name: os.environ[name] for name in kept if name in os.environ}
        env |= {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
        home = self.root / "home"
        home.mkdir(exist_ok=True)
        return {**env, "HOME": str(home), "TRTBUILD_STORE": str(self.store), **(extra or {})}

    def trtbuild(self, *args: str, env: Mapping[str, str] | None = None, timeout: float = 300) -> Done:
        environment = self.environment(env)
        if "PYTHONPATH" not in environment:  # with it a test puts modules of its own before others
            return Done(*forks.run(TRTBUILD, args, self.root, environment, timeout))
        done = subprocess.run(
            [TRTBUILD, *args],
            cwd=self.root,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def start(
        self, *args: str, env: Mapping[str, str] | None = None, inside: Sequence[str] = ()
    ) -> subprocess.Popen[str]:
        """The command at work. `inside` are words before it, of a program that becomes it in some place."""
        return subprocess.Popen(
            [*inside, TRTBUILD, *args],
            cwd=self.root,
            env=self.environment(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def fork(self, *args: str, env: Mapping[str, str] | None = None) -> forks.Running:
        """As `start`, already past the reading of its modules: for what is done to many commands."""
        return forks.start(TRTBUILD, args, self.root, self.environment(env))

    def records(self) -> list[Path]:
        return sorted(p for p in (self.store / "v1" / "records").rglob("*") if p.is_file())

    def working(self) -> list[Path]:
        """The requests of workers that run just now."""
        with suppress(FileNotFoundError):  # a folder may go while it is looked through
            return list((self.store / "v1" / "tmp").glob("**/worker/request.json"))
        return []

    def leftovers(self) -> list[Path]:
        """What a failure must not leave: anything in the store's tmp/."""
        return sorted((self.store / "v1" / "tmp").glob("*"))

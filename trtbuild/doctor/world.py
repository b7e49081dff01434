"""The machine as the doctor sees it: its files, its programs, and what they say. Nothing is changed."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from trtbuild.processes import programs

PATIENCE = 30  # seconds for one program


@dataclass(frozen=True)
class Said:
    """What a program said; `status` is None where it could not be started or took too long."""

    status: int | None
    out: str = ""
    err: str = ""

    @property
    def ok(self) -> bool:
        return self.status == 0

    @property
    def why(self) -> str:
        """The last line of its complaint."""
        lines = [line.strip() for line in (self.err or self.out).splitlines() if line.strip()]
        return lines[-1] if lines else "it said nothing"


@dataclass(frozen=True)
class World:
    """`root` is where the system's files are: "/", or the copy of another machine's."""

    root: Path = Path("/")
    env: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))

    def which(self, name: str) -> str | None:
        return programs.find(name, self.env)

    def run(self, *words: str) -> Said:
        """A program that only tells."""
        program = self.which(words[0])
        if program is None:
            return Said(None, err=f"{words[0]} is not on PATH")
        try:
            done = subprocess.run(
                [program, *words[1:]],
                env=programs.cleaned(self.env),
                cwd="/",
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=PATIENCE,
            )
        except subprocess.TimeoutExpired:
            return Said(None, err=f"{words[0]} did not answer within {PATIENCE} seconds")
        except OSError as error:
            return Said(None, err=f"{words[0]} cannot be started: {error.strerror}")
        return Said(done.returncode, done.stdout, done.stderr)

    def text(self, path: str) -> str | None:
        """The file at the absolute `path`; None where it is not there or not readable."""
        try:
            return (self.root / path.lstrip("/")).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None

    def listed(self, path: str) -> list[str]:
        """The names in the folder at the absolute `path`, sorted."""
        try:
            return sorted(entry.name for entry in (self.root / path.lstrip("/")).iterdir())
        except OSError:
            return []

    @property
    def system(self) -> dict[str, str]:
        """What /etc/os-release says."""
        lines = (self.text("/etc/os-release") or "").splitlines()
        pairs = (line.partition("=") for line in lines if "=" in line and not line.startswith("#"))
        return {name: value.strip().strip("\"'") for name, _, value in pairs}

    @property
    def family(self) -> str:
        """debian (Ubuntu too), rhel (Fedora, Rocky and Alma too), or other: whose packages it takes."""
        told = self.system
        names = {told.get("ID", ""), *told.get("ID_LIKE", "").split()}
        if names & {"debian", "ubuntu"}:
            return "debian"
        return "rhel" if names & {"rhel", "fedora", "centos"} else "other"

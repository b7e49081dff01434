"""The README's commands are accepted as they are written."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from tests.support import tiny
from tests.support.cli import Project
from trtbuild.cli.main import VERBS

ROOT = Path(__file__).parents[1]


def commands() -> list[tuple[list[str], int]]:
    """(words after `$ trtbuild`, expected exit code): 2 where the next line shows an error."""
    text = (ROOT / "README.md").read_text()
    found = re.findall(r"^\$ trtbuild (.*?)(?:\s+#.*)?\n(error:)?", text, re.MULTILINE)
    return [(shlex.split(line), 2 if error else 0) for line, error in found]


def test_every_command_composes(project: Project, tiny_llama: Path) -> None:
    """As a plan, with the checkpoints that are not here replaced by a tiny one."""
    assert len(commands()) >= 8
    embedder = tiny.write_model(project.root / "embedder", is_causal=False)
    for words, code in commands():
        if words[0] == "rebuild":
            continue  # of a key that only its reader's store has; tests/building/test_rebuild.py
        if words[0] in ("toolchain", "doctor"):
            continue  # the next test, and tests/doctor
        words = [word for word in words if not word.startswith("compiler.locks.")]  # a file of its reader's
        rest = words[1:] if words[0] in VERBS else words
        here = [
            f"model.source={tiny_llama}" if re.match(r"model\.source=(hf:|/models/my-finetune)", word) else word
            for word in rest
        ]
        here = [word.replace("/models/my-embedder", str(embedder)) for word in here]
        done = project.trtbuild("plan", *here)
        assert done.code == code, f"{shlex.join(words)}: {done.err}"


def test_every_command_of_toolchains_is_one(project: Project) -> None:
    """They want a network, or a file: asked for help, each knows its words."""
    asked = [words for words, _ in commands() if words[0] == "toolchain"]
    assert len(asked) >= 5
    for words in asked:
        done = project.trtbuild(*words, "--help")
        assert done.code == 0, f"{shlex.join(words)}: {done.err}"
        assert f"trtbuild toolchain {words[1]}" in done.out

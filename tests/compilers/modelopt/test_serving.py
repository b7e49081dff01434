"""What is written for a server: a command that a shell reads as it was meant, and a container of the same."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from trtbuild.compilers.modelopt import serving


@pytest.mark.parametrize(
    ("make", "first"),
    [(serving.trtllm, "trtllm-serve"), (serving.vllm, "vllm"), (serving.sglang, "python3")],
)
def test_the_command_and_the_container_say_the_same(make, first: str, tmp_path: Path) -> None:
    checkpoint = tmp_path / "a folder's name"
    files = make(checkpoint)
    script = tmp_path / "serve.sh"
    script.write_text(files["serve.sh"])
    assert subprocess.run(["sh", "-n", script], check=False).returncode == 0
    command = next(line for line in files["serve.sh"].splitlines() if line.startswith("exec "))
    words = shlex.split(command)[1:-1]
    assert words[0] == first
    assert str(checkpoint) in words
    entry = json.loads(re.search(r"^ENTRYPOINT (.*)$", files["Containerfile"], re.MULTILINE)[1])
    assert entry == ["/checkpoint" if word == str(checkpoint) else word for word in words]

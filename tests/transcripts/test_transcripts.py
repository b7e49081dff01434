"""The command lines that matter most, with all that they say, as files in review.

TRTBUILD_RECORD=1 python -m pytest tests/transcripts     records them anew
"""

from __future__ import annotations

import difflib
import os
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import forks, tiny
from tests.support.cli import TRTBUILD, Done, Project

pytestmark = pytest.mark.xdist_group("transcripts")  # one session of commands

HERE = Path(__file__).parent
RECORD = bool(os.environ.get("TRTBUILD_RECORD"))
MODEL = "model.source=model"
V3 = "target=cpu_x86_64_v3"
#: In this order, in one folder with one store: (file, words); words of functions are known once the store has a key.
COMMANDS: Sequence[tuple[str, str]] = (
    ("help", "trtbuild --help"),
    ("plan", f"trtbuild plan {MODEL} quant=int8 {V3}"),
    ("fetch-miss", f"trtbuild fetch {MODEL} quant=int8 {V3}"),
    ("build", f"trtbuild {MODEL} quant=int8 {V3} out=tiny"),
    ("hit", f"trtbuild {MODEL} quant=int8 {V3}"),
    ("explain", f"trtbuild explain {MODEL} quant=int4 {V3}"),
    ("sweep", f"trtbuild -m {MODEL} quant=int8,none {V3}"),
    ("run", f"trtbuild run {MODEL} quant=int8 {V3} prompt=hello generate.max_tokens=4"),
    ("toolchain-ls", "trtbuild toolchain ls"),
    ("doctor", f"trtbuild doctor {MODEL} quant=int8 {V3}"),
    ("rebuild", "trtbuild rebuild KEY"),
    ("store-ls", "trtstore ls --sort size"),
    ("store-show", "trtstore show KEY"),
    ("store-stats", "trtstore stats"),
    ("store-gc", "trtstore gc --max-size 1kB --grace 0 --dry-run"),
    ("store-verify", "trtstore verify"),
    ("error-unknown-option", f"trtbuild {MODEL} quant=int8 profile.max_seq_length=64"),
    ("error-unknown-preset", f"trtbuild {MODEL} quant=int5"),
    ("error-bad-value", f"trtbuild {MODEL} quant=int8 profile.max_seq_len=many"),
    ("error-missing-model", "trtbuild model.source=nowhere"),
    ("error-refused-checkpoint", "trtbuild model.source=strange"),
    ("error-too-long", f"trtbuild {MODEL} {V3} profile.max_seq_len=100000"),
    ("error-target-not-here", f"trtbuild {MODEL} compiler=tensorrt target=h100_sxm"),
    ("error-store-key", "trtstore show ffff"),
    ("error-store-damaged", "trtstore verify"),
)
#: These name what they find.
OF_A_MACHINE = {"doctor", "error-target-not-here", "toolchain-ls"}
#: What differs from one machine, one day or one release to the next, and what stands for it.
VARIES: Sequence[tuple[str, str]] = (
    (r"= [\d.e+]+ \S+ a GB", "= <worth>"),
    (r"\x1b\[[0-9;]*[A-Za-z]", ""),
    (r"sha256:[0-9a-f]{8,64}", "sha256:<digest>"),
    (r"\b[0-9a-f]{40,64}\b", "<key>"),
    (r"\b(?=[0-9a-f]*[0-9])[0-9a-f]{12,16}\b", "<key>"),
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|\+00:00)?", "<time>"),
    (r"\b\d+(\.\d+)? ?(ms|s|min|h|seconds?|minutes?|hours?|days?)\b( ago)?", "<duration>"),
    (r"\bjust now\b|\bnow\b", "<duration>"),
    (r"\b\d+(\.\d+)? ?([kMGT]i?B|B|bytes)(/s)?", "<size>"),
    (r"\b\d+\.\d+\.\d+(\.\d+)*([a-z]+\d+|\+\w+)?\b", "<version>"),
    (r"\bPython 3\.\d+", "Python <version>"),
    (r"\b\d+(\.\d+)? tokens/s", "<speed>"),
    (r" {2,}", "  "),
    (r"(<duration>  )\d{2,}$", r"\1<speed>"),  # the last column of a sweep
    (r"blobs/sha256/[0-9a-f]{2}/", "blobs/sha256/<two>/"),
    (r"(quarantine/(?:blob|tree)-<key>)\.\w+", r"\1.<random>"),
    (r"\(NVML says: [^)]*\)", "(NVML says: <why>)"),
    (r"^(system  ok  ).*", r"\1<machine>"),
    (r"\b\d+% chance", "<n>% chance"),
    (r"(-|─|━|═){3,}", "---"),
    (r" +$", ""),
)


@dataclass(frozen=True)
class Session:
    project: Project
    said: dict[str, str]


def spoken(text: str, project: Project) -> str:
    for path, name in (
        (project.root, "<folder>"),
        (HERE.parents[1], "<repository>"),
        (TRTBUILD.parents[1], "<env>"),
    ):
        text = text.replace(str(path), name)
    for name in {os.uname().nodename, os.uname().release} - {""}:
        text = re.sub(rf"\b{re.escape(name)}\b", "<machine>", text)
    for pattern, stands in VARIES:
        text = re.sub(pattern, stands, text, flags=re.MULTILINE)
    return text


def transcript(words: str, done: Done, project: Project) -> str:
    parts = (
        f"exit code {done.code}",
        "--- stdout",
        done.out.partition("\nmade as the record says")[0],
        "--- stderr",
        done.err,
    )
    said = spoken("\n".join(part.rstrip("\n") for part in parts if part) + "\n", project)
    lines = said.splitlines()
    going = iter(sorted(line for line in lines if line.startswith("would go")))  # by how long each took
    lines = [next(going) if line.startswith("would go") else line for line in lines]
    return "\n".join([f"$ {words}", *lines, ""])


def damage(project: Project) -> None:
    """A disk that changes a bit of the largest blob, and not its times or its size."""
    blob = max((project.store / "v1" / "blobs").rglob("*"), key=lambda path: path.is_file() and path.stat().st_size)
    times = blob.stat()
    blob.chmod(0o600)
    with blob.open("r+b") as stream:
        stream.seek(100)
        byte = stream.read(1)
        stream.seek(100)
        stream.write(bytes([byte[0] ^ 1]))
    blob.chmod(0o444)
    os.utime(blob, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    project = Project(tmp_path_factory.mktemp("transcripts"))
    tiny.write_model(project.root / "model")
    tiny.write_model(project.root / "strange", attention_bias_of_its_own=True, rope_scaling={"type": "twisted"})
    before: dict[str, Callable[[Project], None]] = {"error-store-damaged": damage}
    said: dict[str, str] = {}
    key = "KEY"
    for name, words in COMMANDS:
        before.get(name, lambda _: None)(project)
        program, *args = shlex.split(words.replace("KEY", key))
        environment = project.environment({"COLUMNS": "120", "TZ": "UTC"})
        done = Done(*forks.run(TRTBUILD.with_name(program), args, project.root, environment, 300))
        said[name] = transcript(words, done, project)
        if name == "build":
            again = project.trtbuild(*args, "output=json")
            assert again.code == 0, done.err + again.out
            key = again.json["key"]
    return Session(project, said)


@pytest.mark.parametrize("name", [name for name, _ in COMMANDS])
def test_a_command_says_what_was_recorded(name: str, session: Session) -> None:
    if name in OF_A_MACHINE and Path("/dev/nvidiactl").exists():
        pytest.skip("recorded on a machine without an NVIDIA driver")
    path, now = HERE / f"{name}.txt", session.said[name]
    if RECORD:
        path.write_text(now)
    recorded = path.read_text() if path.exists() else ""
    diff = difflib.unified_diff(recorded.splitlines(), now.splitlines(), "recorded", "now", lineterm="")
    if recorded != now:
        mend = "If that is meant: TRTBUILD_RECORD=1 python -m pytest tests/transcripts, and commit the files."
        pytest.fail("\n".join((*diff, "", mend)), pytrace=False)


def test_every_file_is_of_a_command() -> None:
    assert {path.stem for path in HERE.glob("*.txt")} == {name for name, _ in COMMANDS}

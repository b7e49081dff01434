"""Config folders of a team, or of a stranger: their YAML costs little, runs nothing, and is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.cli import Project
from trtbuild.config import yaml_files

BOMB = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)
#: Name -> the file, and words of the error.
REFUSED: dict[str, tuple[bytes, str]] = {
    "aliases that unfold to billions": (BOMB.encode(), "values, once its aliases are unfolded"),
    "an alias of itself": (b"a: &a [*a]\n", "holds itself"),
    "a deep nest": (b"a: " + b"[" * 5000 + b"]" * 5000, "nested more than 30 deep"),
    "an integer of 5000 digits": (b"a: " + b"9" * 5000, "a number of 5000 digits"),
    "a hexadecimal of 5000 digits": (b"a: 0x" + b"f" * 5000, "a number of 5002 digits"),
    "Python's own tag": (b'a: !!python/object/apply:os.system ["touch pwned"]\n', "has the tag"),
    "a tag of a date": (b"a: !!timestamp 2020-01-01\n", "has the tag"),
    "a name twice": (b"a: 1\na: 2\n", "found duplicate key a, in line 2"),
    "a list for a name": (b"? [1, 2]\n: 3\n", "found unhashable key"),
    "no UTF-8": (b"\xff\xfe\x00x", "is no UTF-8"),
    "a NUL": (b'a: "\x00"\n', "is no YAML"),
    "half": (b"a: [1, 2", "is no YAML"),
    "references in references": (b'a: "' + b"${" * 500 + b'"', "more than 20 references"),
    "30 megabytes": (b"#" * 30_000_000, "at most 262144 are read"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_no_config_needs_is_refused_by_name(name: str, project: Project) -> None:
    data, words = REFUSED[name]
    path = project.root / "conf" / "quant" / "x.yaml"
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    done = project.trtbuild("plan", "--config-dir", "conf", "quant=x", "model.source=/nowhere", timeout=120)
    assert done.code == 2
    error, *rest = done.err.splitlines()
    assert str(path) in error
    assert words in error
    assert len(rest) == 1
    assert not (project.root / "pwned").exists()


def test_what_is_no_file_is_no_config(project: Project) -> None:
    folder = project.root / "conf" / "quant"
    (folder / "x.yaml").mkdir(parents=True)
    (folder / "y.yaml").symlink_to("/dev/zero")
    for name in ("x", "y"):
        done = project.trtbuild("plan", "--config-dir", "conf", f"quant={name}", "model.source=/nowhere")
        assert done.code == 2
        assert f"there is no quant named '{name}'" in done.err


@pytest.mark.parametrize("text", [BOMB.replace("9", "2")[:200], "a: &x [1]\nb: *x\nc: *x\n", "a: !!str 1\n", ""])
def test_anchors_and_plain_tags_are_read(text: str, tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text.partition("a1:")[0])
    yaml_files.check(path)

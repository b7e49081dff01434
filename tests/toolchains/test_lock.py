"""Locks: what counts for the digest, what is refused, and how one is made from pins."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.cli import Project
from tests.toolchains.shop import Shop, sha256, wheel
from trtbuild.errors import InputError
from trtbuild.toolchains import builtin, environments, lock, pythons
from trtbuild.toolchains.lock import Download, Lock, PackagePin

A, B = "a" * 64, "b" * 64
TEXT = f"""\
# title: two
# chosen: numpy
# download: cp311 x86_64, 2 wheels, 30 bytes
--extra-index-url https://example.org/simple
numpy==2.4.6 ; python_version >= '3.11' \\
    --hash=sha256:{A} \\
    --hash=sha256:{B}
Typing_Extensions==4.16.0 --hash=sha256:{A}
"""


def parse(text: str) -> Lock:
    return lock.parse(text, "option", "file", "file.txt")


def test_what_a_lock_says() -> None:
    found = parse(TEXT)
    assert found == Lock(
        "two",
        (
            PackagePin("numpy", "2.4.6", "python_version >= '3.11'", (A, B)),
            PackagePin("typing-extensions", "4.16.0", None, (A,)),
        ),
        ("numpy",),
        ("--extra-index-url https://example.org/simple",),
        {("cp311", "x86_64"): Download(2, 30)},
    )
    assert found.versions == {"numpy": "2.4.6"}
    assert found.packages == {"numpy": "2.4.6", "typing-extensions": "4.16.0"}


def test_the_digest_is_pinned() -> None:
    """It is in keys: another form of it is a new SCHEMA of theirs."""
    assert parse(TEXT).digest == "e8b80f0a18d46038ff9395abe9e39e7b7725beab4273cfaecd0174ec62ff6517"


SAME = {
    "comments": TEXT.replace("Typing", "# more\n\nTyping") + "   # and more\n",
    "title": TEXT.replace("title: two", "title: other"),
    "chosen": TEXT.replace("# chosen: numpy\n", ""),
    "sizes": TEXT.replace("30 bytes", "31 bytes"),
    "index": TEXT.replace("example.org", "example.com"),
    "order of hashes": TEXT.replace(A, "?", 1).replace(B, A, 1).replace("?", B, 1),
    "one line": TEXT.replace(" \\\n   ", ""),
    "spelling of a name": TEXT.replace("Typing_Extensions", "typing.extensions"),
    "line ends": TEXT.replace("\n", "\r\n"),
}


@pytest.mark.parametrize("text", SAME.values(), ids=list(SAME))
def test_what_does_not_count(text: str) -> None:
    assert text != TEXT
    assert parse(text).digest == parse(TEXT).digest


def test_the_order_of_packages_does_not_count() -> None:
    text = builtin.load("network").text
    pins = text[text.index("certifi==") :].replace(" \\\n", " ").splitlines()
    assert parse("\n".join(reversed(pins))).digest == builtin.load("network").digest


OTHER = {
    "version": TEXT.replace("2.4.6", "2.4.7"),
    "name": TEXT.replace("numpy", "numpie"),
    "marker": TEXT.replace("3.11'", "3.12'"),
    "no marker": TEXT.replace(" ; python_version >= '3.11'", ""),
    "a hash": TEXT.replace(B, "c" * 64),
    "a hash less": TEXT.replace(f" \\\n    --hash=sha256:{B}", ""),
    "a package more": TEXT + f"six==1.0 --hash=sha256:{A}\n",
}


@pytest.mark.parametrize("text", OTHER.values(), ids=list(OTHER))
def test_what_counts(text: str) -> None:
    assert parse(text).digest != parse(TEXT).digest


BAD = {
    "no hash": "numpy==2.4.6\n",
    "a range": f"numpy>=2 --hash=sha256:{A}\n",
    "a wildcard": f"numpy==2.* --hash=sha256:{A}\n",
    "md5": "numpy==2.4.6 --hash=md5:0123456789abcdef0123456789abcdef\n",
    "an address": "numpy @ https://example.org/numpy.whl\n",
    "a folder": "-e .\n",
    "another file": "-r other.txt\n",
    "an odd marker": f"numpy==2.4.6 ; python_versio > '3' --hash=sha256:{A}\n",
    "an extra": f"numpy[all]==2.4.6 --hash=sha256:{A}\n",
    "an odd version": f"numpy==two --hash=sha256:{A}\n",
    "another option": f"--no-binary :all:\nnumpy==2.4.6 --hash=sha256:{A}\n",
    "a secret": f"--extra-index-url https://ann:hunter2@example.org/simple\nnumpy==2.4.6 --hash=sha256:{A}\n",
    "nothing": "# title: none\n",
    "chosen and not there": f"# chosen: scipy\nnumpy==2.4.6 --hash=sha256:{A}\n",
}


@pytest.mark.parametrize("text", BAD.values(), ids=list(BAD))
def test_what_is_refused(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse(text)
    assert "file.txt" in caught.value.message
    assert caught.value.option == "option"
    assert "hunter2" not in "\n".join(caught.value.lines())


@given(st.text(alphabet="ab=;#\\-\n '\"[]hs256:01", max_size=200) | st.text(max_size=60))
def test_any_text_is_a_lock_or_one_error(text: str) -> None:
    try:
        found = parse(text)
    except InputError:
        return
    assert parse(found.text).digest == found.digest


@pytest.mark.parametrize("name", builtin.names())
def test_a_lock_that_ships(name: str) -> None:
    found = builtin.load(name)
    assert found.title == name
    assert parse(found.text) == found
    assert found.text == (builtin.FOLDER / f"{name}.txt").read_text(), "as `trtbuild toolchain lock` writes it"
    assert not found.indexes, "an index of the machine that made it"
    for machine in ("x86_64", "aarch64"):
        for python in ("cp311", "cp312", "cp313"):
            assert found.downloads[python, machine].bytes > 10**7


def test_markers_choose() -> None:
    found = parse(
        f"a==1.0 ; python_version < '3.12' --hash=sha256:{A}\na==2.0 ; python_version >= '3.12' --hash=sha256:{A}\n"
    )
    assert found.packages == {"a": "1.0|2.0"}
    python = pythons.python(None)
    for version, expected in (("3.11", "1.0"), ("3.12", "2.0")):
        assert environments.chosen(
            found, dataclasses.replace(python, markers={**python.markers, "python_version": version})
        ) == {"a": expected}


@pytest.mark.parametrize(
    ("versions", "enough"),
    [
        ({"numpy": "2.4.6"}, True),
        ({"numpy": "2.4.6+cpu"}, True),
        ({"numpy": "2.4.7"}, False),
        ({}, False),
    ],
)
def test_a_python_holds_what_is_chosen_or_not(versions: dict[str, str], enough: bool) -> None:
    python = dataclasses.replace(pythons.python(None), versions=versions)
    assert environments.holds(python, parse(TEXT)) is enough


def test_a_python_that_the_lock_has_no_wheels_for() -> None:
    found, python = parse(TEXT), pythons.python(None)
    markers = {**python.markers, "platform_machine": "x86_64"}
    environments.check(found, dataclasses.replace(python, tag="cp311", markers=markers))
    with pytest.raises(InputError, match=r"has wheels for Python 3\.11, and"):
        environments.check(found, dataclasses.replace(python, tag="cp315", markers=markers))
    with pytest.raises(InputError, match="has wheels for x86_64, and this machine is riscv64"):
        environments.check(found, dataclasses.replace(python, markers={**markers, "platform_machine": "riscv64"}))


def test_environments_of_two_machines_have_two_names() -> None:
    found, python = parse(TEXT), pythons.python(None)
    others = [
        dataclasses.replace(python, abi="cpython-313-x86_64-linux-gnu"),
        dataclasses.replace(python, abi="cpython-311-x86_64-linux-musl"),
        dataclasses.replace(python, abi="cpython-311-darwin", markers={**python.markers, "platform_machine": "arm64"}),
        dataclasses.replace(python, abi="cpython-311-darwin", markers={**python.markers, "platform_machine": "x86_64"}),
    ]
    assert len({environments.name_of(found, each) for each in others}) == len(others)


def test_a_lock_is_made_from_pins(project: Project) -> None:
    shop = Shop(project, "uv")
    a = wheel(shop.wheels, "tiny_a", "1.0")
    b = wheel(shop.wheels, "tiny_b", "1.0")
    pins = shop.project.root / "ours.in"
    pins.write_text("# Ours.\ntiny_a==1.0\ntiny_b  # whichever\n")
    file = shop.project.root / "ours.txt"
    assert shop.run("lock", pins).code == 0
    found = lock.read(file, "x")
    assert (found.title, found.chosen) == ("ours", ("tiny-a",))
    assert found.pins == (
        PackagePin("tiny-a", "1.0", None, (sha256(a),)),
        PackagePin("tiny-b", "1.0", None, (sha256(b),)),
    )
    assert found.downloads["cp312", "aarch64"].wheels == 2
    wheel(shop.wheels, "tiny_b", "2.0")
    assert shop.run("lock", pins).code == 0
    assert lock.read(file, "x").packages["tiny-b"] == "1.0", "what the pins leave open stays"
    assert shop.run("lock", pins, "--upgrade").code == 0
    assert lock.read(file, "x").packages["tiny-b"] == "2.0"
    assert str(shop.wheels) not in file.read_text()
    pins.write_text("tiny_a==3.0\n")
    done = shop.run("lock", pins)
    assert done.code == 2
    assert "tiny-a" in done.err
    assert shop.run("install", file).code == 0


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_a_lock_that_is_no_regular_file_is_one_error_and_is_never_waited_for(
    project: Project, tiny_llama: Path, kind: str
) -> None:
    place = project.root / "F.txt"
    if kind == "pipe":
        os.mkfifo(place)
    elif kind == "device":
        place.symlink_to("/dev/zero")
    else:
        place.mkdir()
    words = ("plan", f"model.source={tiny_llama}", "quant=int8", f"compiler.locks.onnxruntime={place}")
    for done in (
        project.trtbuild(*words, timeout=120),
        project.trtbuild("toolchain", "lock", str(place), timeout=120),
        project.trtbuild("toolchain", "import", str(place), timeout=120),
    ):
        assert done.code == 2, done.err
        assert done.err.count("error: ") == 1
        assert "Traceback" not in done.err

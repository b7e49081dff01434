"""An installed toolchain is looked at before each use: what was changed or added, and who else may write to it."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.toolchains.shop import Shop, lock, wheel
from trtbuild.cli.toolchain_progress import ToolchainReporter
from trtbuild.errors import StoreError
from trtbuild.toolchains import lock as locks
from trtbuild.toolchains import pythons
from trtbuild.toolchains.environments import ToolchainEnvironments
from trtstore import Exposed, Store
from trtstore.environments import seal as standing
from trtstore.environments.environment import Environment


@pytest.fixture
def shop(shop: Shop) -> Shop:
    made = wheel(shop.wheels, "tiny_a", "1.0")
    assert shop.run("install", lock(shop.project.root / "one.txt", made)).code == 0
    return shop


def use(shop: Shop, spare: Path, verify: str = "never") -> Path:
    """The interpreter, as a step gets it."""
    kept = ToolchainEnvironments(Store.open(shop.project.store), ToolchainReporter(), verify=verify)
    with kept.using(locks.read(shop.project.root / "one.txt", "x"), pythons.python(None), spare) as interpreter:
        return interpreter


def added(found: Environment) -> None:
    (next(found.content.rglob("site-packages")) / "zz.pth").write_text("import os\n")


def changed(found: Environment) -> None:
    """Of the same size, with its times put back."""
    module = next(found.content.rglob("part3.py"))
    before = module.stat()
    module.chmod(0o644)
    module.write_text(module.read_text().replace("3", "4"))
    module.chmod(0o444)
    os.utime(module, ns=(before.st_atime_ns, before.st_mtime_ns))


def compiled(found: Environment) -> None:
    place = next(found.content.rglob("part3.*.pyc"))
    place.with_name(place.name.replace("part3", "json")).write_bytes(b"")


def replaced(found: Environment) -> None:
    """By a file of the same bytes' length and time, under the name."""
    module = next(found.content.rglob("part5.py"))
    other = module.with_name("part5.new")
    other.write_text(module.read_text().replace("5", "6"))
    os.utime(other, ns=(module.stat().st_atime_ns, module.stat().st_mtime_ns))
    other.rename(module)


def linked(found: Environment) -> None:
    next(found.content.rglob("part3.py")).with_name("more.py").symlink_to("/etc/passwd")


def of_another_lock(found: Environment) -> None:
    text = (found.path / "environment.json").read_text()
    (found.path / "environment.json").chmod(0o644)
    digest = str(found.about["lock"])
    (found.path / "environment.json").write_text(text.replace(digest, "0" * 64))


@pytest.mark.parametrize(
    ("alter", "said"),
    [
        (added, "zz.pth was not installed"),
        (changed, "part3.py has other bytes"),
        (compiled, "was not installed"),
        (replaced, "part5.py has other bytes"),
        (linked, "more.py is a symbolic link"),
        (of_another_lock, "of another lock"),
    ],
)
def test_what_was_altered_is_not_used(
    shop: Shop, tmp_path: Path, alter: Callable[[Environment], None], said: str
) -> None:
    use(shop, tmp_path / "spare")
    (found,) = shop.installed()
    alter(found)
    with pytest.raises(StoreError, match=said) as failure:
        use(shop, tmp_path / "spare")
    digits = str(failure.value.hint).split()[3].rstrip(":")
    assert shop.run("rm", digits).code == 0
    assert shop.run("install", shop.project.root / "one.txt").code == 0
    assert shop.run("verify").code == 0


def test_a_seal_that_is_broken_or_gone_costs_a_look_at_the_bytes_once(shop: Shop, tmp_path: Path) -> None:
    (found,) = shop.installed()
    seal = found.path / "seal.json"
    first = seal.read_bytes()
    next(found.content.rglob("part3.py")).touch()  # as a copy of the store does
    assert use(shop, tmp_path / "spare").exists()
    assert seal.read_bytes() != first
    for text in ("", "[]", '{"seal": 1}'):
        seal.write_text(text)
        assert use(shop, tmp_path / "spare").exists()
        assert len(seal.read_bytes()) == len(first)
    seal.unlink()
    assert use(shop, tmp_path / "spare").exists()
    assert seal.exists()


def test_with_verify_always_bytes_are_read_whatever_the_seal_says(shop: Shop, tmp_path: Path) -> None:
    """A seal rests on the file system: here it is made anew over other bytes."""
    (found,) = shop.installed()
    changed(found)
    standing.close(found, Store.open(shop.project.store)._layout)
    assert use(shop, tmp_path / "spare").exists()
    with pytest.raises(StoreError, match=r"part3\.py has other bytes"):
        use(shop, tmp_path / "spare", "always")


@pytest.mark.parametrize("place", ["", "v1/toolchains", "FILES", "SITE", "ENVIRONMENT"])
def test_what_others_may_write_to_is_not_used(shop: Shop, tmp_path: Path, place: str) -> None:
    (found,) = shop.installed()
    places = {
        "FILES": found.content,
        "SITE": next(found.content.rglob("tiny_a")),
        "ENVIRONMENT": found.path,
    }
    folder = places.get(place, shop.project.store / place)
    before = folder.stat().st_mode & 0o777
    folder.chmod(0o777)
    with pytest.raises((StoreError, Exposed), match=f"(any user|everybody) may write to {folder}") as failure:
        use(shop, tmp_path / "spare")
    assert re.search("chmod (-R )?go-w", str(failure.value.hint))
    verified = shop.run("verify")
    assert re.search(f"(any user|everybody) may write to {folder}", verified.out + verified.err)
    folder.chmod(before)
    assert use(shop, tmp_path / "spare").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file to another user")
def test_what_belongs_to_another_user_is_not_used(shop: Shop, tmp_path: Path) -> None:
    (found,) = shop.installed()
    module = next(found.content.rglob("part3.py"))
    os.chown(module, 12345, 12345)
    with pytest.raises(StoreError, match=r"user 12345, may write to .*part3\.py"):
        use(shop, tmp_path / "spare")


@pytest.mark.parametrize("umask", [0, 0o077])
def test_the_umask_opens_no_toolchain(shop: Shop, umask: int) -> None:
    made = wheel(shop.wheels, "tiny_a", "1.0")
    file = lock(shop.project.root / "one.txt", made)
    before = os.umask(umask)
    try:
        running = shop.start("install", str(file))
        assert running.wait(120) == 0
    finally:
        os.umask(before)
    (found,) = shop.installed()
    opened = [p for p in found.path.rglob("*") if not p.is_symlink() and p.stat().st_mode & 0o022 and p.name]
    assert [p.name for p in opened] == []


def script(place: Path) -> None:
    interpreter = place / "bin" / "python"
    real = interpreter.readlink()
    interpreter.unlink()
    interpreter.write_text(f'#!/bin/sh\necho pwned >> {place.parent}/PWNED\nexec {real} "$@"\n')
    interpreter.chmod(0o755)


def elsewhere(place: Path) -> None:
    (place / "bin" / "python").unlink()
    (place / "bin" / "python").symlink_to("/bin/sh")


def home(place: Path) -> None:
    config = place / "pyvenv.cfg"
    config.write_text(config.read_text().replace("= false", "= true"))


def packages(place: Path) -> None:
    (place / "lib").unlink()
    (place / "lib").symlink_to("/usr")


def program(place: Path) -> None:
    (place / "bin" / "cc").write_text("")


def wide(place: Path) -> None:
    (place / "bin").chmod(0o777)


@pytest.mark.parametrize("alter", [script, elsewhere, home, packages, program, wide])
def test_links_to_a_python_that_were_altered_are_made_anew(
    shop: Shop, tmp_path: Path, alter: Callable[[Path], None]
) -> None:
    interpreter = use(shop, tmp_path / "spare")
    place = interpreter.parents[1]
    alter(place)
    done = shop.run("verify")
    assert (done.code, str(place) in done.out) == (4, True), done.out
    assert use(shop, tmp_path / "spare") == interpreter
    said = subprocess.run(
        [interpreter, "-P", "-c", "import tiny_a; print(tiny_a.VERSION)"], capture_output=True, text=True
    )
    assert said.stdout == "1.0\n"
    assert not (place.parent / "PWNED").exists()
    assert shop.run("verify").code == 0

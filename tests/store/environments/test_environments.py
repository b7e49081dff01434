"""Environments: whole or absent, one maker, kept from collectors while they are used, and the first to go."""

from __future__ import annotations

import json
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.store.shop import Shop
from tests.store.support import leftovers, python, write_files
from trtstore import Invalid
from trtstore.cli.main import run_trtstore
from trtstore.disk.layout import Layout
from trtstore.environments import environment, seal
from trtstore.environments.environment import Environment

NAME = "ab" * 32 + "-cpython-311"


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def kept(shop: Shop, name: str = NAME, size: int = 1000, title: str = "tools") -> Environment:
    """An environment of one file of so many bytes, and an executable one."""
    found = shop.store.environments
    with found.making(name, who="me") as work:
        write_files(work / "files", {"lib/module.py": b"x" * size, "lib/tool": b"#!"})
        (work / "files" / "lib" / "tool").chmod(0o755)
        return found.keep(name, work / "files", {"title": title})


def aged(one: Environment, seconds: float) -> Environment:
    then = time.time() - seconds
    os.utime(one.path, (then, then))
    return one


def test_it_is_there_whole_and_read_only(shop: Shop) -> None:
    made = kept(shop)
    found = shop.store.environments.find(NAME)
    assert found is not None
    assert (found.name, found.bytes, found.files, found.title) == (NAME, 1002, 2, "tools")
    assert found == made
    assert (found.content / "lib" / "module.py").stat().st_mode & 0o777 == 0o444
    assert (found.content / "lib" / "tool").stat().st_mode & 0o777 == 0o555
    assert environment.verify_environment(found) == []
    assert leftovers(shop.store.root) == []
    assert shop.store.environments.all() == [found]


def test_a_maker_that_fails_leaves_nothing(shop: Shop) -> None:
    found = shop.store.environments
    with pytest.raises(RuntimeError), found.making(NAME, who="me") as work:
        write_files(work / "files", {"half": b"x"})
        raise RuntimeError
    assert found.find(NAME) is None
    assert found.all() == []
    assert leftovers(shop.store.root) == []


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "-x", "x" * 201, "a\nb"])
def test_odd_names_are_refused(shop: Shop, name: str) -> None:
    with pytest.raises(Invalid):
        shop.store.environments.find(name)


def test_a_link_among_its_files_is_refused(shop: Shop) -> None:
    found = shop.store.environments
    with pytest.raises(Invalid, match="symbolic link"), found.making(NAME, who="me") as work:
        write_files(work / "files", {"a": b"x"})
        (work / "files" / "b").symlink_to("/etc/passwd")
        found.keep(NAME, work / "files", {})
    assert found.all() == []


@pytest.mark.parametrize("about", [b"", b"{", b"[]", b'{"schema":2}', b'{"schema":1,"about":{},"bytes":"1","files":1}'])
def test_what_cannot_be_read_is_absent_and_is_made_anew(shop: Shop, about: bytes) -> None:
    made = kept(shop)
    (made.path / environment.ABOUT).write_bytes(about)
    assert shop.store.environments.find(NAME) is None
    again = kept(shop)
    assert environment.verify_environment(again) == []
    (again.path / environment.CONTENTS).write_bytes(about)
    assert environment.verify_environment(again) != []


def test_toolchains_may_be_no_link(shop: Shop, tmp_path: Path) -> None:
    made = kept(shop)
    outside = made.path.parent.rename(tmp_path / "outside")
    made.path.parent.symlink_to(outside)
    found = shop.store.environments
    for refuse in (lambda: found.find(NAME), found.all, lambda: found.remove(NAME), lambda: shop.collect(0)):
        with pytest.raises(Invalid, match="symbolic link"):
            refuse()
    assert (outside / NAME).is_dir()


def test_one_maker_at_a_time(shop: Shop) -> None:
    """The others wait, are told for whom, and find it made."""
    found = shop.store.environments
    made: list[str] = []

    def make(who: str) -> None:
        with found.making(NAME, who=who) as work:
            if found.find(NAME) is None:
                time.sleep(0.2)
                write_files(work / "files", {"a": b"x"})
                found.keep(NAME, work / "files", {})
                made.append(who)

    threads = [threading.Thread(target=make, args=(str(number),)) for number in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(made) == 1


def test_without_a_limit_it_stays_and_above_one_it_goes_first(shop: Shop) -> None:
    aged(kept(shop), 3 * 86_400)
    shop.put("artifact")
    plan = shop.collect(None)
    assert [(one.kind, one.reason) for one in plan.decisions if one.kind == "toolchain"] == [
        ("toolchain", "no limit was given")
    ]
    assert plan.before > 2000
    plan = shop.collect(plan.before - 1)
    assert [(one.kind, one.name, one.bytes) for one in plan.removed] == [("toolchain", NAME, 1002)]
    assert plan.removed[0].reason == "tools, last used 3 days ago: its lock can make it again"
    assert shop.left("artifact") == ["artifact"]
    assert shop.store.environments.all() == []
    assert leftovers(shop.store.root) == []


def test_the_one_that_was_used_longest_ago_goes_first(shop: Shop) -> None:
    for name, age in (("aa", 9e5), ("bb", 3e6), ("cc", 1e5)):
        aged(kept(shop, name), age)
    plan = shop.collect(shop.collect(None, dry_run=True).before - 1100, dry_run=True)
    assert [one.name for one in plan.removed] == ["bb", "aa"]


def test_the_grace_period_keeps_it(shop: Shop) -> None:
    aged(kept(shop), 3000)
    plan = shop.collect(0, grace=3600)
    assert plan.removed == []
    assert "grace period" in plan.decisions[0].reason


def test_one_in_use_stays_whatever_the_limit(shop: Shop) -> None:
    found = shop.store.environments
    aged(kept(shop), 9e9)
    with found.using(NAME) as used:
        assert used is not None
        aged(used, 9e9)
        plan = shop.collect(0)
        assert [(one.reason, one.remove) for one in plan.decisions] == [("it is in use", False)]
        assert environment.verify_environment(used) == []
    assert found.remove(NAME)
    assert not found.remove(NAME)
    with found.using(NAME) as used:
        assert used is None


def test_one_in_another_process_stays_until_that_is_killed(shop: Shop) -> None:
    kept(shop)
    code = (
        "import sys; from pathlib import Path; from trtstore import Store; "
        "from trtstore.environments.environments import Environments\n"
        "with Store.open(Path(sys.argv[1])).environments.using(sys.argv[2]) as one:\n"
        "    print(one.name, flush=True); sys.stdin.read()"
    )
    other = python(code, shop.store.root, NAME)
    assert other.stdout is not None
    assert other.stdout.readline().strip() == NAME
    aged(shop.store.environments.all()[0], 9e9)
    assert shop.collect(0).removed == []
    other.kill()
    other.wait()
    assert [one.name for one in shop.collect(0).removed] == [NAME]


def test_a_use_counts(shop: Shop) -> None:
    aged(kept(shop), 9e6)
    with shop.store.environments.using(NAME):
        pass
    assert time.time() - shop.store.environments.all()[0].used < 60


def test_what_is_not_whole_is_garbage(shop: Shop) -> None:
    base = shop.base / "toolchains"
    write_files(base / "half", {"files/module.py": b"x" * 10})
    (base / "stray").write_bytes(b"x")
    (base / "link").symlink_to(shop.home)
    plan = shop.collect(None)
    assert {(one.kind, one.name) for one in plan.removed} == {("toolchain", n) for n in ("half", "stray", "link")}
    assert list(base.iterdir()) == []
    assert shop.home.is_dir()


def document(capsys: pytest.CaptureFixture[str], shop: Shop, *words: str) -> Any:
    assert run_trtstore(["--store", str(shop.store.root), "--json", *words]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_command_says_so(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    aged(kept(shop), 3 * 86_400)
    found = document(capsys, shop, "stats")
    assert (found["toolchains"], found["toolchain_bytes"]) == (1, 1002)
    assert run_trtstore(["--store", str(shop.store.root), "stats"]) == 0
    assert "1 kB in 1 toolchain that locks can make again" in capsys.readouterr().out
    assert run_trtstore(["--store", str(shop.store.root), "gc", "--max-size", "0", "--dry-run"]) == 0
    assert "tools, last used 3 days ago: its lock can make it again" in capsys.readouterr().out
    found = document(capsys, shop, "gc", "--max-size", "0")
    assert [one["kind"] for one in found["decisions"] if one["remove"]] == ["toolchain"]


def test_a_collector_leaves_what_is_being_sealed(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has its name already, and may be the oldest that is there."""
    plain = seal.close

    def close(made: Environment, layout: Layout) -> None:
        aged(made, 9e6)
        assert not shop.collect(0).removed
        plain(made, layout)

    monkeypatch.setattr(seal, "close", close)
    assert shop.store.environments.find(kept(shop).name) is not None


def test_no_one_uses_what_a_collector_takes(shop: Shop) -> None:
    """Users and a collector with no grace, side by side: what a user holds is whole to the end."""
    found, stop, broken = shop.store.environments, threading.Event(), []

    def use() -> None:
        while not stop.is_set():
            with found.using(NAME) as one:
                if one is None:
                    with found.making(NAME, who="me") as work:
                        if found.find(NAME) is None:
                            write_files(work / "files", {f"{n}.py": b"x" for n in range(20)})
                            found.keep(NAME, work / "files", {})
                else:
                    time.sleep(0.002)
                    broken.extend(environment.verify_environment(one))

    gone = 0
    with ThreadPoolExecutor(3) as pool, ExitStack() as at_last:
        at_last.callback(stop.set)
        users = [pool.submit(use) for _ in range(3)]
        until = time.monotonic() + 3
        while time.monotonic() < until:
            for one in found.all():
                aged(one, 9e6)
            gone += len(shop.collect(0).removed)
    assert [user.exception() for user in users] == [None] * 3
    assert broken == []
    assert gone > 3, "or nothing was collected"

"""Hints: what one builder learns, the next is given; nothing that happens to them is an error."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.store.shop import Shop
from tests.store.support import leftovers
from trtstore import Invalid
from trtstore.content.hints import MAX_FILES, Hints
from trtstore.format.digest import hash_bytes
from trtstore.upkeep.garbage import HINT_AGE

KEY = "ab" * 32


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


@pytest.fixture
def hints(shop: Shop) -> Hints:
    return shop.store.hints


def leave(hints: Hints, folder: Path, data: bytes, *instead_of: str) -> str:
    file = folder / "left"
    file.write_bytes(data)
    hints.leave(KEY, file, instead_of)
    return hash_bytes(data)


def taken(hints: Hints, folder: Path) -> set[bytes]:
    return {path.read_bytes() for path in hints.take(KEY, folder)}


def test_nothing_is_there_at_first(hints: Hints, tmp_path: Path) -> None:
    assert hints.take(KEY, tmp_path / "into") == []
    assert not (tmp_path / "into").exists()


def test_a_builder_leaves_one_in_place_of_those_it_took(hints: Hints, shop: Shop, tmp_path: Path) -> None:
    first = leave(hints, tmp_path, b"one")
    leave(hints, tmp_path, b"one and two", first)
    assert taken(hints, tmp_path / "into") == {b"one and two"}
    assert leftovers(shop.store.root) == []


def test_two_that_build_at_once_lose_nothing(hints: Hints, tmp_path: Path) -> None:
    base = leave(hints, tmp_path, b"base")
    leave(hints, tmp_path, b"base and mine", base)
    leave(hints, tmp_path, b"base and yours", base)
    assert taken(hints, tmp_path / "into") == {b"base and mine", b"base and yours"}


def test_what_was_learnt_again_is_kept_once(hints: Hints, tmp_path: Path) -> None:
    same = leave(hints, tmp_path, b"one")
    leave(hints, tmp_path, b"one", same)
    assert taken(hints, tmp_path / "into") == {b"one"}


def test_a_damaged_hint_is_not_given_out_and_goes(hints: Hints, shop: Shop, tmp_path: Path) -> None:
    name = leave(hints, tmp_path, b"good")
    place = shop.store._layout.hints / KEY / name
    place.chmod(0o644)
    place.write_bytes(b"evil")
    (place.parent / "notes.txt").write_text("no hint")
    assert taken(hints, tmp_path / "into") == set()
    assert not place.exists()


def test_an_empty_file_replaces_nothing(hints: Hints, tmp_path: Path) -> None:
    first = leave(hints, tmp_path, b"one")
    leave(hints, tmp_path, b"", first)
    assert taken(hints, tmp_path / "into") == {b"one"}


def test_the_newest_are_given_out(hints: Hints, shop: Shop, tmp_path: Path) -> None:
    for number in range(MAX_FILES + 2):
        name = leave(hints, tmp_path, b"%d" % number)
        os.utime(shop.store._layout.hints / KEY / name, (number, number))
    assert taken(hints, tmp_path / "into") == {b"%d" % number for number in range(2, MAX_FILES + 2)}


def test_who_can_join_but_one_takes_no_other_away(hints: Hints, shop: Shop, tmp_path: Path) -> None:
    for number, data in enumerate((b"old", b"new")):
        name = leave(hints, tmp_path, data)
        os.utime(shop.store._layout.hints / KEY / name, (number, number))
    (mine,) = hints.take(KEY, tmp_path / "mine", 1)
    assert mine.read_bytes() == b"new"
    leave(hints, tmp_path, b"new and more", mine.name)
    assert taken(hints, tmp_path / "into") == {b"old", b"new and more"}


def test_a_folder_that_leads_elsewhere_is_refused(hints: Hints, shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    shop.store._layout.hints.mkdir(parents=True)
    (shop.store._layout.hints / KEY).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Invalid, match="symbolic link"):
        hints.take(KEY, tmp_path / "into")
    with pytest.raises(Invalid, match="symbolic link"):
        leave(hints, tmp_path, b"one")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_collector_takes_what_no_build_took_for_three_months(hints: Hints, shop: Shop, tmp_path: Path) -> None:
    name = leave(hints, tmp_path, b"one")
    assert [one.reason for one in shop.collect(0).decisions if one.kind == "hint"] == ["it makes builds quicker"]
    past = time.time() - HINT_AGE - 60
    os.utime(shop.store._layout.hints / KEY / name, (past, past))
    assert [one.kind for one in shop.collect(None).removed] == ["hint"]
    assert hints.take(KEY, tmp_path / "into") == []

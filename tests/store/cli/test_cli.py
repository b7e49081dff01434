"""The command `trtstore` as a user runs it: what it prints, what it exits with, and what it does to the store."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.store.support import FILES, PREDICATE_TYPE, publish, read_tree, write_files
from tests.support import forks
from trtstore import Record, Store

ENGINE, NETWORK, OTHER = "ab12" + "0" * 60, "ab34" + "1" * 60, "cd56" + "2" * 60


class Cli:
    """`trtstore` on one store, in a process of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __call__(self, *words: object, code: int = 0, **more: Any) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": os.environ["PATH"], "TRTSTORE_ROOT": str(self.root)}
        if more:
            command = [sys.executable, "-m", "trtstore", *map(str, words)]
            done = subprocess.run(command, capture_output=True, text=True, env=environment, **more)
        else:
            ended = forks.run(Path("trtstore alone"), [*map(str, words)], Path.cwd(), environment, 120)
            done = subprocess.CompletedProcess(words, *ended)
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        return done

    def lines(self, *words: object, **more: Any) -> list[str]:
        return self(*words, **more).stdout.splitlines()

    def json(self, *words: object, code: int = 0) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self(*words, "--json", code=code).stdout)
        assert document["schema"] == 1
        return document


def put(store: Store, folder: Path, key: str, files: dict[str, bytes], **labels: str) -> Record:
    predicate = {
        "buildDefinition": {"externalParameters": {"quant.weights": labels.get("quant", "none")}},
        "runDetails": {"metadata": {"startedOn": "2026-01-01T00:00:00Z", "finishedOn": "2026-01-01T00:01:30Z"}},
    }
    return store.publish(
        key, write_files(folder, files), predicate_type=PREDICATE_TYPE, predicate=predicate, labels=labels
    )


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store.open(tmp_path / "store")
    put(store, tmp_path / "1", ENGINE, FILES, step="engine", model="tiny", quant="int8")
    put(store, tmp_path / "2", NETWORK, {"big": os.urandom(50_000)}, step="network", model="tiny")
    put(store, tmp_path / "3", OTHER, {**FILES, "more": b"x"}, step="engine", model="tiny", quant="int4")
    return store


@pytest.fixture
def trtstore(store: Store) -> Cli:
    return Cli(store.root)


def test_ls_lists_what_is_there_and_filters_by_label(trtstore: Cli) -> None:
    lines = trtstore.lines("ls", "--sort", "size")
    assert lines[0].split() == ["KEY", "MODEL", "STEP", "QUANT", "SIZE", "AGE", "USED", "HITS", "SAVED"]
    assert lines[1].split() == ["ab3411111111", "tiny", "network", "50", "kB", "now", "now", "0"]
    assert len(lines) == 4
    assert [line.split()[0] for line in trtstore.lines("ls", "step=engine", "quant=int4", "--full")] == [
        "KEY",
        OTHER,
    ]
    assert trtstore.lines("ls", "quant=fp8") == []
    (found,) = trtstore.json("ls", "quant=int8")["records"]
    assert (found["key"], found["bytes"], found["files"], found["seconds"], found["hits"]) == (
        ENGINE,
        6002,
        2,
        90.0,
        0,
    )
    assert trtstore("ls", "int8", code=2).stderr == (
        "error: 'int8' is no label\nhint: filters are written label=value: trtstore ls quant=int8\n"
    )


def test_hits_and_the_seconds_that_they_saved_are_counted(trtstore: Cli, store: Store) -> None:
    for _ in range(3):
        assert store.use(ENGINE) is not None
    (found,) = trtstore.json("ls", "quant=int8")["records"]
    assert (found["hits"], found["saved_seconds"]) == (3, 270.0)
    assert trtstore.lines("ls", "quant=int8")[1].endswith("    3   4 min 30 s")
    stats = trtstore.json("stats")
    assert (stats["artifacts"], stats["hits"], stats["saved_seconds"]) == (3, 3, 270.0)
    assert stats["by"]["engine"]["artifacts"] == 2
    assert stats["artifact_bytes"] > stats["disk_bytes"] - 4000  # the engines share every file but one


def test_a_deleted_index_loses_statistics_and_nothing_else(trtstore: Cli, store: Store) -> None:
    store.use(ENGINE)
    before = trtstore.json("ls")["records"]
    for path in (store.root / "v1" / "index").iterdir():
        path.unlink()
    after = trtstore.json("ls")["records"]
    lost = [{**row, "hits": 0, "saved_seconds": 0.0, "used": row["stored"]} for row in before]
    assert sorted(lost, key=lambda row: row["key"]) == sorted(after, key=lambda row: row["key"])


def test_a_key_is_as_many_digits_as_make_it_the_only_one(trtstore: Cli) -> None:
    assert trtstore.json("show", "ab12")["key"] == ENGINE
    assert "'ab' is no key" in trtstore("show", "ab", code=2).stderr
    assert "no key begins with ffff" in trtstore("show", "ffff", code=3).stderr
    assert "'xyz' is no key" in trtstore("path", "xyz", code=2).stderr
    trtstore.json("show", ENGINE)


def test_an_ambiguous_key_names_the_candidates(trtstore: Cli, store: Store, tmp_path: Path) -> None:
    put(store, tmp_path / "4", "ab12" + "f" * 60, {"a": b"b"})
    failed = trtstore("show", "ab12", code=2)
    assert failed.stderr == ("error: 2 keys begin with ab12: ab12000000, ab12ffffff\nhint: give more digits\n")


def test_show_says_all_that_is_known(trtstore: Cli, store: Store, tmp_path: Path) -> None:
    record = store.lookup(ENGINE)
    assert record is not None
    store.add_root(tmp_path / "link", record)
    trtstore("pin", "ab12", "--note", "release 1")
    text = trtstore("show", "ab12").stdout
    for words in (
        ENGINE,
        record.manifest,
        "6 kB in 2 files",
        "engine.bin",
        "sub/config.json",
        "quant.weights",
    ):
        assert words in text
    assert f"kept     by a root: {tmp_path / 'link'}" in text
    assert "kept     pinned: release 1" in text
    shown = trtstore.json("show", "ab12")
    assert shown["kept_by"] == [f"by a root: {tmp_path / 'link'}", "pinned: release 1"]
    assert [file["path"] for file in shown["files"]] == ["engine.bin", "sub/config.json"]


def test_diff_says_what_differs_field_by_field_and_file_by_file(trtstore: Cli) -> None:
    assert trtstore.lines("diff", "ab12", "cd56") == [
        "buildDefinition.externalParameters.quant.weights  int8 → int4",
        "file.more  (absent) → 0644 1 bytes 2d711642b726",
        "label.quant  int8 → int4",
    ]
    assert trtstore.lines("diff", "ab12", "ab12") == ["the files are the same, byte for byte"]
    assert len(trtstore.json("diff", "ab12", "cd56")["differences"]) == 3


def test_path_makes_the_folder_and_prints_nothing_else(trtstore: Cli) -> None:
    (line,) = trtstore.lines("path", "ab12", "--verify")
    assert read_tree(Path(line)) == FILES
    assert trtstore.json("path", "ab12")["materialised"] == "present"


def test_verify_names_the_damage_quarantines_it_and_exits_4(trtstore: Cli, store: Store) -> None:
    assert trtstore.lines("verify")[-1].startswith("nothing damaged; read ")
    path = next(p for p in (store.root / "v1/blobs").rglob("*") if p.is_file() and p.read_bytes() == b"x")
    times = path.stat()
    path.chmod(0o644)
    path.write_bytes(b"y")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert trtstore.json("verify", "ab12")["damaged"] == []
    text = trtstore("verify", "quant=int4", code=4).stdout
    assert f"damaged  blob {path.name[:12]}: its bytes have the SHA-256 a1fce436" in text
    assert "cd5622222222 is a miss until it is built or fetched again" in text
    assert not path.exists()
    assert f"{path} is not there" in trtstore("show", "cd56", code=3).stderr
    assert trtstore.json("verify", "ab12")["damaged"] == []


def test_gc_says_what_would_go_and_why_and_then_does_it(trtstore: Cli, store: Store, tmp_path: Path) -> None:
    record = store.lookup(ENGINE)
    assert record is not None
    store.add_root(tmp_path / "link", record)
    trtstore("pin", "cd56", "--note", "release 1")
    kept = trtstore("gc", "--max-size", "1kB", "--dry-run", "--all").stdout
    assert "used within the grace period of 1 hour" in kept
    assert f"a root: {tmp_path / 'link'}" in kept
    assert "pinned: release 1" in kept
    plan = trtstore.json("gc", "--max-size", "1kB", "--grace", "0", "--dry-run")
    assert plan["dry_run"] is True
    trtstore("show", "ab34")
    lines = trtstore.lines("gc", "--max-size", "1kB", "--grace", "0")
    assert re.fullmatch(
        r"gone  record      ab3411111111   50.\d kB  tiny network      cheapest to lose: 1 min 30 s to build x 88%"
        r" chance of use in 30 days \(used 0 times, just now\) = 1.5\de\+06 s a GB",
        lines[1],
    ), lines[1]
    assert lines[2:4] == [
        f"1 artifact stays: a root: {tmp_path / 'link'}",
        "1 artifact stays: pinned: release 1",
    ]
    assert re.fullmatch(r"freed 50.\d kB of 5\d.\d kB; the limit is 1 kB", lines[4])
    assert lines[5].endswith("above the limit: all that is left must stay (`--all` says why)")
    trtstore("show", "ab34", code=3)
    assert plan["after_bytes"] == trtstore.json("gc", "--dry-run")["before_bytes"]


def test_roots_and_pins_are_listed_and_let_go(trtstore: Cli, store: Store, tmp_path: Path) -> None:
    record = store.lookup(ENGINE)
    assert record is not None
    store.add_root(tmp_path / "link", record)
    trtstore("pin", "cd56", "--note", "release 1")
    assert trtstore.lines("roots") == [
        f"root  {record.manifest[7:19]}  {tmp_path / 'link'}",
        "pin   cd5622222222  release 1",
    ]
    (tmp_path / "link").unlink()
    trtstore("unpin", "cd56")
    assert trtstore.lines("roots") == [f"root  dead          {tmp_path / 'link'}"]
    assert "0 pinned keys begin with cd56" in trtstore("unpin", "cd56", code=3).stderr
    trtstore("gc", "--grace", "0")
    assert trtstore.lines("roots") == []


def test_one_file_carries_artifacts_to_another_store(trtstore: Cli, tmp_path: Path) -> None:
    other = Cli(tmp_path / "other")
    wrote = trtstore.lines("export", "step=engine", "-o", tmp_path / "file.tar")
    assert re.fullmatch(rf"wrote 2 artifacts \([\d.]+ kB\) to {tmp_path / 'file.tar'}", wrote[0])
    assert "2 refused" in other("import", tmp_path / "file.tar", code=4).stderr
    assert other.lines("ls") == []
    done = other("import", tmp_path / "file.tar", "--trust-unsigned")
    assert done.stdout.splitlines() == [f"{ENGINE} new", f"{OTHER} new"]
    assert other("import", tmp_path / "file.tar", "--trust-unsigned").stderr == "0 new, 2 were here\n"
    assert read_tree(Path(other.lines("path", "ab12")[0])) == FILES
    # Who exports has not used it.
    assert trtstore.json("ls", "quant=int8")["records"][0]["hits"] == 0


def test_a_label_is_shown_as_it_is_written(trtstore: Cli, store: Store, tmp_path: Path) -> None:
    """A mark that turns the order of letters round would let one model look like another."""
    publish(store, write_files(tmp_path / "x"), "77" * 32, labels={"model": "ll\u202eama"})
    assert "ll\\u202eama" in trtstore("ls").stdout
    assert "ll\\u202eama" in trtstore("show", "7777").stdout
    assert "\u202e" not in trtstore("ls").stdout


def test_a_pipe_carries_artifacts_too(trtstore: Cli, tmp_path: Path) -> None:
    other = Cli(tmp_path / "other")
    environment = {"PATH": os.environ["PATH"], "TRTSTORE_ROOT": str(trtstore.root)}
    words = [sys.executable, "-m", "trtstore", "export", "--all", "-o", "-"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, env=environment) as export:
        assert len(other.lines("import", "-", "--trust-unsigned", stdin=export.stdout)) == 3
    assert export.returncode == 0


def test_a_cut_file_is_refused_and_what_was_whole_is_kept(trtstore: Cli, tmp_path: Path) -> None:
    trtstore("export", "--all", "-o", tmp_path / "file")
    data = (tmp_path / "file").read_bytes()
    (tmp_path / "file").write_bytes(data[: len(data) // 2])
    other = Cli(tmp_path / "other")
    assert "ends early" in other("import", tmp_path / "file", code=4).stderr
    assert "verify" not in other("verify").stderr


@pytest.mark.parametrize(
    ("words", "code", "error"),
    [
        (["lss"], 2, "invalid choice: 'lss'"),
        (["gc", "--max-size", "3XB"], 2, "'3XB' is no size: write 200GB, 10GiB or a number of bytes"),
        (["gc", "--grace", "soon"], 2, "'soon' is no span of time: write 90s, 30m, 12h or 7d"),
        (["export", "-o", "x"], 2, "nothing was named"),
        (["export", "quant=fp8", "-o", "x"], 3, "nothing with quant=fp8 is in"),
        (["import", "absent.tar"], 4, "cannot read absent.tar: no such file"),
        (["show"], 2, "the following arguments are required: KEY"),
        (["ls", "--store", "/dev/null/x"], 0, ""),
        (["pin", "ffff"], 3, "no key begins with ffff"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_wrong_word_is_one_error(trtstore: Cli, tmp_path: Path, words: list[str], code: int, error: str) -> None:
    done = trtstore(*words, code=code, cwd=tmp_path)
    assert done.stdout == ""
    assert error in done.stderr
    assert len(done.stderr.splitlines()) <= 2
    assert sorted(tmp_path.iterdir()) == [tmp_path / name for name in ("1", "2", "3", "store")]


def test_errors_are_json_too_where_that_is_asked_for(trtstore: Cli) -> None:
    assert trtstore.json("show", "ffff", code=3)["error"]["exit_code"] == 3


def test_the_store_can_be_named_before_and_behind_the_command(trtstore: Cli, tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    assert trtstore.lines("--store", nowhere, "ls") == trtstore.lines("ls", "--store", nowhere) == []
    assert not nowhere.exists()  # a look writes nothing


def test_without_a_store_it_asks_which() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "trtstore", "ls"], capture_output=True, text=True, env={"PATH": "/usr/bin"}
    )
    assert (done.returncode, done.stderr) == (
        2,
        "error: which store?\nhint: --store PATH, or set TRTSTORE_ROOT\n",
    )


def test_a_waiting_gc_says_who_builds(trtstore: Cli, store: Store) -> None:
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, time; from pathlib import Path; from trtstore import Store; from trtstore.disk import gate\n"
            "with gate.removing(Store.open(Path(sys.argv[1]))._layout, who='a test'):\n"
            "    print('held', flush=True); time.sleep(3)",
            store.root,
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    holder.stdout.readline()
    started = time.time()
    done = trtstore("gc")
    holder.wait()
    assert "waiting for a test" in done.stderr
    assert time.time() - started < 60


def test_it_starts_without_anything_heavy() -> None:
    heavy = [
        "hydra",
        "omegaconf",
        "rich",
        "huggingface_hub",
        "numpy",
        "trtbuild.cli.main",
        "trtbuild.config.schema",
    ]
    code = f"import sys, trtbuild.cli.store_command; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


@pytest.mark.parametrize(
    "words",
    [
        ("policy", "--max-size", "9" * 30 + "TB"),
        ("policy", "--keep", "0d"),
        ("revoke", "--refresh", "--valid", "99999999d"),
    ],
)
def test_a_number_that_nobody_can_mean_is_bad_input(trtstore: Cli, words: tuple[str, ...]) -> None:
    done = trtstore(*words, "--team", f"file://{trtstore.root.parent}", code=2)
    assert "Traceback" not in done.stderr

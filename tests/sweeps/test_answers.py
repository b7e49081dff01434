"""What a cluster's jobs leave on a shared disk: nobody else can put files in its place, and only own answers count."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from trtbuild.errors import BuildError, InputError
from trtbuild.sweeps import job_entry, job_folder

GOOD = {"code": 0, "host": "node", "started": 1.0, "ended": 2.0, "document": None}


def test_an_answer_comes_back_as_it_was_written(tmp_path: Path) -> None:
    job_folder.make_private(tmp_path / "jobs")
    place = tmp_path / "jobs" / "key.json"
    told = job_entry.run(["--version"], str(place))
    assert job_folder.read(place) == json.loads(told)
    assert [path.name for path in place.parent.iterdir()] == ["key.json"], "nothing half-written stays"
    assert place.stat().st_mode & 0o777 == 0o600
    assert place.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nothing",
        "[]",
        "{}",
        "[" * 100_000,
        json.dumps({**GOOD, "code": "0"}),
        json.dumps({**GOOD, "code": True}),
        json.dumps({**GOOD, "started": "x"}),
        json.dumps({**GOOD, "host": None}),
        '{"code": 1' + "0" * 5000 + ', "host": "h", "started": 1, "ended": 2}',
    ],
)
def test_an_answer_of_another_shape_is_one_error(tmp_path: Path, text: str) -> None:
    place = tmp_path / "key.json"
    place.write_text(text)
    with pytest.raises(BuildError, match="not one of trtbuild's"):
        job_folder.read(place)


def test_an_answer_that_is_no_plain_file_of_ours_is_refused_and_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "real").write_text(json.dumps(GOOD))
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "folder").mkdir()
    with (tmp_path / "large").open("wb") as large:
        large.truncate(job_folder.LARGEST + 1)
    for name in ("fifo", "link", "folder", "large", "missing"):
        with pytest.raises(BuildError, match="the job's answer"):
            job_folder.read(tmp_path / name)


@pytest.mark.skipif(os.geteuid() != 0, reason="files of another user can only be made by root")
def test_an_answer_of_another_user_is_refused(tmp_path: Path) -> None:
    (tmp_path / "key.json").write_text(json.dumps(GOOD))
    os.chown(tmp_path / "key.json", 12345, 12345)
    with pytest.raises(BuildError, match="no file of this user's"):
        job_folder.read(tmp_path / "key.json")


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o757])
def test_a_folder_that_others_could_replace_is_refused(tmp_path: Path, mode: int) -> None:
    above = tmp_path / "shared"
    (above / "jobs").mkdir(parents=True)
    os.chown(above, -1, os.getgid() if mode == 0o757 else 12345) if os.geteuid() == 0 else None
    above.chmod(mode)
    if mode == 0o775 and os.geteuid() != 0:
        pytest.skip("a group of others' can only be given by root")
    with pytest.raises(InputError, match="could change what jobs run") as caught:
        job_folder.make_private(above / "jobs" / "one")
    assert caught.value.option == "sweep.slurm.folder"
    assert not (above / "jobs" / "one").exists()
    above.chmod(mode | 0o1000)  # where only owners may rename
    job_folder.make_private(above / "jobs" / "one")


def test_a_folder_that_is_there_already_is_not_taken_over(tmp_path: Path) -> None:
    (tmp_path / "jobs").mkdir()
    with pytest.raises(InputError, match="cannot be made"):
        job_folder.make_private(tmp_path / "jobs")

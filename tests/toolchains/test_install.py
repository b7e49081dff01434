"""Environments through the real command line, pip: whole or absent, by hash, once, and nothing of it told."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.toolchains.shop import Shop, lock, sha256, wheel
from trtbuild.toolchains import lock as locks


def two(shop: Shop) -> Path:
    return lock(
        shop.project.root / "two.txt",
        wheel(shop.wheels, "tiny_a", "1.0"),
        wheel(shop.wheels, "tiny_b", "2.0"),
    )


def test_install_path_and_use(shop: Shop) -> None:
    file = two(shop)
    document = shop.say("install", file)
    (one,) = document["toolchains"]
    assert one["about"]["packages"] == {"tiny-a": "1.0", "tiny-b": "2.0"}
    assert one["about"]["installer"] == "pip"
    assert one["lock"] == locks.read(file, "x").digest
    python = shop.run("path", file).out.strip()
    code = "import sys, tiny_a, tiny_b; print(tiny_a.VERSION, tiny_b.VERSION, tiny_a.part3.__cached__)"
    done = subprocess.run(
        [python, "-P", "-c", code.replace("tiny_b;", "tiny_b, tiny_a.part3;")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("1.0 2.0 ")
    assert Path(done.stdout.split()[2]).is_file(), "it is byte-compiled"
    packages = subprocess.run(
        [
            python,
            "-P",
            "-c",
            "from importlib import metadata; print(*[d.name for d in metadata.distributions()])",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert sorted(packages.stdout.split()) == ["tiny_a", "tiny_b"], "nothing of the host's"
    again = shop.run("install", file)
    assert (again.code, again.err) == (0, "")
    assert shop.run("verify").out.startswith("whole    two, ")


def test_what_a_wheel_brings_beside_its_packages(shop: Shop) -> None:
    """Files of data are where the wheel's program looks for them; scripts, which would name a folder, are not kept."""
    more = {
        "tiny_a-1.0.dist-info/entry_points.txt": "[console_scripts]\ntiny = tiny_a:main\n",
        "tiny_a-1.0.data/data/share/tiny/words.txt": "hello",
        "tiny_a-1.0.data/scripts/tiny.sh": "#!/bin/sh\n",
    }
    file = lock(shop.project.root / "one.txt", wheel(shop.wheels, "tiny_a", "1.0", more))
    done = shop.run("install", file)
    assert done.code == 0, done.err
    python = shop.run("path", file).out.strip()
    code = "import sys, pathlib; print((pathlib.Path(sys.prefix) / 'share' / 'tiny' / 'words.txt').read_text())"
    said = subprocess.run([python, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout == "hello\n"
    (found,) = shop.installed()
    assert sorted(path.name for path in found.content.iterdir()) == ["lib", "share"]
    assert shop.run("verify", file).code == 0


def test_the_second_time_nothing_is_started(shop: Shop) -> None:
    file = two(shop)
    assert shop.run("install", file).code == 0
    witness = shop.project.root / "witness"
    witness.mkdir()
    (witness / "sitecustomize.py").write_text(
        "import sys\nsys.addaudithook(lambda e, a: print('STARTED', a[0], file=sys.stderr) if e in"
        " ('subprocess.Popen', 'os.fork', 'os.posix_spawn', 'os.exec') else None)\n"
    )
    first = shop.run("install", file, PYTHONPATH=str(witness))
    assert (first.code, first.err) == (0, "")
    assert shop.run("rm", file).code == 0
    assert "STARTED" in shop.run("install", file, PYTHONPATH=str(witness)).err, "or the witness sees nothing"


def test_a_wheel_with_one_byte_changed_is_refused_and_named(shop: Shop) -> None:
    """Changed as somebody would who wants it to be used: the archive is whole."""
    file = two(shop)
    made = wheel(shop.wheels, "tiny_b", "2.0", {"tiny_b/__init__.py": "VERSION = '2.1'\n"})
    done = shop.run("install", file)
    assert done.code == 2
    error = next(line for line in done.err.splitlines() if line.startswith("error: "))
    assert re.search(r"tiny[-_]b==2\.0|tiny_b-2\.0", error)
    assert sha256(made) in error
    assert shop.lying_about() == []


def test_a_wheel_that_broke_on_the_way_is_refused_and_named(shop: Shop) -> None:
    file = two(shop)
    made = next(shop.wheels.glob("tiny_b*"))
    data = bytearray(made.read_bytes())
    data[data.index(b"VERSION = '2.0'") + 11] ^= 1
    made.write_bytes(data)
    done = shop.run("install", file)
    assert done.code == 2
    assert re.search(r"^error: .*(tiny[-_]b==2\.0|tiny_b-2\.0)", done.err, re.MULTILINE)
    assert shop.lying_about() == []


def test_a_wheel_that_is_not_there(shop: Shop) -> None:
    file = two(shop)
    next(shop.wheels.glob("tiny_b*")).unlink()
    done = shop.run("install", file)
    assert done.code == 2
    assert "trtbuild toolchain export two -o FILE" in done.err
    assert "trtbuild toolchain import FILE" in done.err
    assert "Traceback" not in done.err
    assert shop.lying_about() == []


def test_without_a_network_warm_works_and_cold_is_one_error(shop: Shop) -> None:
    file = two(shop)
    assert shop.run("install", file).code == 0
    nowhere = {
        "PIP_NO_INDEX": "0",
        "PIP_FIND_LINKS": "",
        "PIP_INDEX_URL": "http://ann:secret@127.0.0.1:9/simple",
    }
    assert shop.run("install", file, PIP_CONFIG_FILE=os.devnull, **nowhere).code == 0
    other = lock(shop.project.root / "other.txt", wheel(shop.project.root / "hidden", "tiny_c", "1.0"))
    done = shop.run("install", other, PIP_CONFIG_FILE=os.devnull, PIP_RETRIES="0", **nowhere)
    assert done.code == 2
    assert len([line for line in done.err.splitlines() if line.startswith("error: ")]) == 1
    assert "trtbuild toolchain export other -o FILE" in done.err
    assert "secret" not in done.err


@pytest.mark.parametrize("refused", [False, True])
def test_no_secret_is_kept(shop: Shop, refused: bool) -> None:
    """Of the address of an index; nor the folder that it was made in."""
    file = two(shop)
    secrets = {
        "PIP_EXTRA_INDEX_URL": "http://ann:hunter2@127.0.0.1:9/simple",
        "UV_INDEX_OURS_PASSWORD": "hunter2",
    }
    if refused:
        secrets |= {"PIP_NO_INDEX": "0", "PIP_RETRIES": "0"}
        next(shop.wheels.glob("tiny_b*")).unlink()
    done = shop.run("install", file, **secrets)
    assert done.code == (2 if refused else 0), done.err
    assert "hunter2" not in done.out + done.err
    if refused:
        assert shop.lying_about() == []
        return
    (found,) = shop.installed()
    for path in found.path.rglob("*"):
        if path.is_file() and not path.is_symlink() and found.local not in path.parents:
            data = path.read_bytes()
            assert b"hunter2" not in data, path
            assert b"/v1/tmp/" not in data, path


def test_a_lock_of_another_release_is_another_environment(shop: Shop) -> None:
    """Pins that contradict each other stand side by side."""
    old = lock(shop.project.root / "old.txt", wheel(shop.wheels, "tiny_a", "1.0"))
    new = lock(shop.project.root / "new.txt", wheel(shop.wheels, "tiny_a", "2.0"))
    assert shop.run("install", old, new).code == 0
    for file, version in ((old, "1.0"), (new, "2.0")):
        python = shop.run("path", file).out.strip()
        done = subprocess.run(
            [python, "-P", "-c", "import tiny_a; print(tiny_a.VERSION)"], capture_output=True, text=True
        )
        assert done.stdout.strip() == version


@pytest.mark.parametrize("what", ["module", "bytecode", "extra", "gone", "link"])
def test_verify_finds_what_was_altered(shop: Shop, what: str) -> None:
    file = two(shop)
    assert shop.run("install", file).code == 0
    (found,) = shop.installed()
    module = next(found.content.rglob("part3.py"))
    if what == "module":
        module.chmod(0o644)
        module.write_text(module.read_text().replace("3", "4"))
        said = "part3.py has other bytes"
    elif what == "bytecode":
        compiled = next(found.content.rglob("part3.*.pyc"))
        compiled.chmod(0o644)
        compiled.write_bytes(compiled.read_bytes()[:-1] + b"x")
        said = f"{compiled.name} has other bytes"
    elif what == "extra":
        module.with_name("sitecustomize.py").write_text("")
        said = "sitecustomize.py was not installed"
    elif what == "gone":
        module.unlink()
        said = "part3.py is not there"
    else:
        module.with_name("other.py").symlink_to("/etc/passwd")
        said = "other.py is a symbolic link"
    done = shop.run("verify", file)
    assert done.code == 4
    assert said in done.out
    assert json.loads(shop.run("verify", "--json").out)["toolchains"][0]["altered"]
    assert shop.run("rm", file).code == 0
    assert shop.run("install", file).code == 0
    assert shop.run("verify").code == 0


def test_eight_processes_and_one_install(shop: Shop) -> None:
    file = two(shop)
    running = [shop.start("install", str(file)) for _ in range(8)]
    ended = [(*each.communicate(timeout=120), each.returncode) for each in running]
    assert [code for _, _, code in ended] == [0] * 8, ended
    assert sum("toolchain two  installed" in err for _, err, _ in ended) == 1
    assert len({out for out, _, _ in ended}) == 1
    assert len(shop.installed()) == 1


def test_export_and_import(shop: Shop) -> None:
    file = two(shop)
    bundle = shop.project.root / "both.zip"
    assert shop.say("export", file, "-o", bundle)["wheels"] == 2
    first = bundle.read_bytes()
    assert shop.run("export", file, "-o", bundle).code == 0
    assert bundle.read_bytes() == first, "the same wheels give the same file"
    offline = {"PIP_FIND_LINKS": str(shop.project.root / "nothing"), "UV_OFFLINE": "1"}
    document = shop.say("import", bundle, "--lock", file, **offline)
    assert document["toolchains"][0]["about"]["packages"] == {"tiny-a": "1.0", "tiny-b": "2.0"}
    assert shop.run("verify", file).code == 0


def test_a_bundle_with_a_lock_that_nobody_knows_is_installed_by_word_alone(shop: Shop) -> None:
    """What it holds runs once it is installed, and whoever made the file chose it."""
    file = two(shop)
    bundle = shop.project.root / "both.zip"
    assert shop.run("export", file, "-o", bundle).code == 0
    other = lock(shop.project.root / "other.txt", wheel(shop.wheels, "tiny_c", "1.0"))
    for words in ((), ("--lock", str(other))):
        done = shop.run("import", bundle, *words)
        assert (done.code, "does not ship with this trtbuild" in done.err) == (2, True), done.err
        assert "--lock FILE.txt" in done.err
        assert "--trust" in done.err
        assert shop.lying_about() == []
    assert shop.run("import", bundle, "--trust").code == 0
    assert shop.run("verify", file).code == 0


@pytest.mark.parametrize("what", ["deflated", "encrypted", "twice"])
def test_a_bundle_never_unpacks_to_more_than_it_is(shop: Shop, what: str) -> None:
    file = two(shop)
    bundle, altered = shop.project.root / "both.zip", shop.project.root / "altered.zip"
    assert shop.run("export", file, "-o", bundle).code == 0
    with zipfile.ZipFile(bundle) as source, zipfile.ZipFile(altered, "w") as target:
        for name in source.namelist():
            kind = zipfile.ZIP_DEFLATED if what == "deflated" else zipfile.ZIP_STORED
            target.writestr(name, source.read(name), kind)
        if what == "twice":
            with pytest.warns(UserWarning, match="Duplicate"):
                target.writestr(target.namelist()[-1], b"other")
    if what == "encrypted":
        data = bytearray(altered.read_bytes())
        at = data.index(b"PK\x01\x02")
        data[at + 8] |= 1  # of the first entry's flags
        altered.write_bytes(data)
    done = shop.run("import", altered, "--trust")
    assert (done.code, "Traceback" in done.err) == (2, False), done.err
    assert "error: toolchain import: " in done.err
    assert shop.lying_about() == []


@pytest.mark.parametrize("what", ["wheel", "lock", "stranger", "tar"])
def test_an_altered_bundle_is_refused(shop: Shop, what: str) -> None:
    file = two(shop)
    bundle, altered = shop.project.root / "both.zip", shop.project.root / "altered.zip"
    assert shop.run("export", file, "-o", bundle).code == 0
    with zipfile.ZipFile(bundle) as source, zipfile.ZipFile(altered, "w") as target:
        for name in source.namelist():
            data = source.read(name)
            if what == "wheel" and "tiny_b" in name:
                data = data.replace(b"2.0", b"2.1")
            if what == "lock" and name.startswith("locks/"):
                data = data.replace(b"tiny-b==2.0", b"tiny-b==2.1")
            target.writestr(name, data)
        if what == "stranger":
            target.writestr("../evil.py", "x")
    if what == "tar":
        altered.write_bytes(b"no zip")
    done = shop.run("import", altered, "--trust")
    assert done.code == 2
    assert "error: toolchain import: " in done.err
    assert {"wheel": "tiny_b", "lock": "another lock", "stranger": "evil", "tar": "export"}[what] in done.err
    assert shop.lying_about() == []


def test_ls_says_what_ships_and_what_is_installed(shop: Shop) -> None:
    assert shop.run("install", two(shop)).code == 0
    listed = {each["toolchain"]: each for each in shop.say("ls")["toolchains"]}
    assert set(listed) == {
        "aot_inductor",
        "genai",
        "modelopt",
        "modelopt_trtllm",
        "network",
        "onnxruntime",
        "tensorrt_rtx",
        "two",
    }
    assert not listed["network"]["installed"]
    assert listed["network"]["fetch_bytes"] > 10**7
    assert listed["two"]["installed"]
    assert "two" in shop.run("ls").out
    packages = {each["package"] for each in shop.say("ls", "network")["packages"]}
    assert {"gguf", "protobuf", "numpy"} <= packages


def test_rm_by_digits_and_all(shop: Shop) -> None:
    assert shop.run("install", two(shop)).code == 0
    (found,) = shop.installed()
    assert shop.run("rm", found.name[:10]).code == 0
    assert shop.run("rm", found.name[:10]).code == 3
    assert shop.run("install", two(shop)).code == 0
    assert shop.run("rm", "--all").code == 0
    assert shop.lying_about() == []


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("install", "nope"), 2, "there is no toolchain 'nope'"),
        (("install", "./nope.txt"), 2, "nope.txt cannot be read"),
        (("path", "network"), 3, "is not installed"),
        (("verify", "network"), 3, "not installed: network"),
        (("rm",), 2, "nothing was named"),
        (("rm", "network"), 3, "not installed"),
        (("lock", "./nope.in"), 2, "nope.in cannot be read"),
        (("export", "network", "-o", "/nowhere/file"), 2, "there is no folder /nowhere"),
        (("import", "nope.zip"), 2, "there is no file nope.zip"),
        (("dance",), 2, "dance"),
        ((), 2, "COMMAND"),
        (("install", "network", "--python", "/no/such"), 2, "executor.python"),
    ],
)
def test_bad_words(shop: Shop, words: tuple[str, ...], code: int, said: str) -> None:
    done = shop.run(*words)
    assert (done.code, said in done.err) == (code, True), done.err
    assert "Traceback" not in done.err


def test_it_needs_no_hydra() -> None:
    heavy = ("hydra", "omegaconf", "rich", "numpy", "huggingface_hub")
    code = f"import sys, trtbuild.cli.toolchain; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_help_is_the_own_one(shop: Shop) -> None:
    done = shop.run("--help")
    assert done.code == 0
    for word in ("ls", "install", "path", "verify", "lock", "rm", "export", "import"):
        assert f"\n    {word} " in done.out

"""Where packages come from: what a user told uv holds for pip, which installs, and hashes before it unpacks."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support.cli import TRTBUILD
from tests.toolchains.shop import Shop, lock, sha256, wheel
from trtbuild.errors import InputError
from trtbuild.toolchains import indexes


def one(shop: Shop) -> Path:
    return lock(shop.project.root / "one.txt", wheel(shop.wheels, "tiny_a", "1.0"))


def test_variables_of_uv(shop: Shop) -> None:
    done = Shop(shop.project, "uv").run("install", one(shop))
    assert done.code == 0, done.err


def test_a_configuration_of_uv(shop: Shop, tmp_path: Path) -> None:
    config = tmp_path / "config" / "uv" / "uv.toml"
    config.parent.mkdir(parents=True)
    config.write_text(f"no-index = true\n[pip]\nfind-links = ['{shop.wheels}']\n")
    only = {"PIP_NO_INDEX": "", "PIP_FIND_LINKS": "", "XDG_CONFIG_HOME": str(tmp_path / "config")}
    done = shop.run("install", one(shop), **only)
    assert done.code == 0, done.err
    config.write_text("no-index = [\n")
    done = shop.run("install", one(shop), **only)
    assert done.code == 0, "what is installed asks nobody"
    assert shop.run("rm", "--all").code == 0
    done = shop.run("install", one(shop), **only)
    assert done.code == 2
    assert f"error: {config} cannot be read" in done.err


def test_nothing_is_unpacked_before_its_hash_is_known(shop: Shop) -> None:
    """A wheel of other bytes unpacks to a file larger than this command may write."""
    file = one(shop)
    made = wheel(shop.wheels, "tiny_a", "1.0", {"tiny_a/large.py": "#" * (64 << 20)})
    limited = 'ulimit -f 20000; exec "$@"'  # blocks of 1024 bytes, by dash, or of 512
    command = ["sh", "-c", limited, "sh", TRTBUILD, "toolchain", "install", str(file)]
    done = subprocess.run(
        command, cwd=shop.project.root, env=shop.environment(), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2
    assert f"its sha256 is {sha256(made)}" in done.stderr
    assert shop.lying_about() == []


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, {}),
        ({"PIP_INDEX_URL": "https://a/simple"}, {"PIP_INDEX_URL": "https://a/simple"}),
        (
            {"UV_DEFAULT_INDEX": "https://a/simple", "PIP_EXTRA_INDEX_URL": "https://b/simple"},
            {"PIP_INDEX_URL": "https://a/simple"},
        ),
        (
            {"UV_INDEX": "ours=https://a/simple https://b/simple"},
            {"PIP_EXTRA_INDEX_URL": "https://a/simple https://b/simple"},
        ),
        (
            {
                "UV_INDEX": "our-own=https://a/simple",
                "UV_INDEX_OUR_OWN_USERNAME": "ann",
                "UV_INDEX_OUR_OWN_PASSWORD": "a/b",
            },
            {"PIP_EXTRA_INDEX_URL": "https://ann:a%2Fb@a/simple"},
        ),
        ({"UV_OFFLINE": "1"}, {"PIP_NO_INDEX": "1"}),
        (
            {"UV_INSECURE_HOST": "a:80", "UV_HTTP_TIMEOUT": "9", "SSL_CERT_FILE": "/ca.pem"},
            {"PIP_TRUSTED_HOST": "a:80", "PIP_DEFAULT_TIMEOUT": "9", "PIP_CERT": "/ca.pem"},
        ),
        ({"SSL_CERT_FILE": "/ca.pem", "PIP_CERT": "/b.pem"}, {"PIP_CERT": "/b.pem"}),
    ],
)
def test_settings_of_uv_as_those_of_pip(environ: dict[str, str], expected: dict[str, str]) -> None:
    found = indexes.for_pip({"UV_NO_CONFIG": "1", **environ})
    assert {name: value for name, value in found.items() if name.startswith("PIP_")} == expected


UV_TOML = """
extra-index-url = ["https://c/simple"]
allow-insecure-host = ["c"]
[[index]]
name = "ours"
url = "https://a/simple"
default = true
[[index]]
url = "https://b/simple"
[[index]]
name = "torch"
url = "https://d/whl"
explicit = true
"""


def test_a_uv_toml_counts_where_no_variable_names_a_place(tmp_path: Path) -> None:
    file = tmp_path / "uv.toml"
    file.write_text(UV_TOML)
    named = {"UV_CONFIG_FILE": str(file), "UV_INDEX_OURS_PASSWORD": "word"}
    found = indexes.for_pip(named)
    assert found == named | {
        "PIP_INDEX_URL": "https://:word@a/simple",
        "PIP_EXTRA_INDEX_URL": "https://b/simple https://c/simple",
        "PIP_TRUSTED_HOST": "c",
    }
    assert indexes.for_pip({**named, "PIP_INDEX_URL": "https://e/simple"})["PIP_INDEX_URL"] == "https://e/simple"
    assert indexes.for_pip({**named, "UV_INDEX": "https://e/simple"}).get("PIP_INDEX_URL") is None


@pytest.mark.parametrize(
    "text",
    [b"[", b"\xff", b"a = " + b"[" * 100_000, b"a = 1" + b"0" * 5000],
    ids=["cut", "latin", "deep", "long"],
)
def test_a_uv_toml_that_is_none(tmp_path: Path, text: bytes) -> None:
    file = tmp_path / "uv.toml"
    file.write_bytes(text)
    with pytest.raises(InputError, match=r"uv\.toml cannot be read"):
        indexes.for_pip({"UV_CONFIG_FILE": str(file)})


@pytest.mark.parametrize("text", ["index = 1", "index = [1]", "pip = 1", "find-links = {}", "[[index]]\nurl = 1"])
def test_a_uv_toml_with_other_types_says_nothing(tmp_path: Path, text: str) -> None:
    file = tmp_path / "uv.toml"
    file.write_text(text)
    assert indexes.for_pip({"UV_CONFIG_FILE": str(file)}) == {"UV_CONFIG_FILE": str(file)}

"""A real podman with a store of its own, and an image of this Python and the stand-in for NVIDIA's tools.

No registry is asked: the image is imported from a tar of this machine's own files.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import tensorrt_llm_standin

#: What podman needs inside of a container that has no user namespaces, no cgroups of its own and low limits.
_ENGINE = ("--runtime=runc", "--cgroup-manager=cgroupfs", "--storage-driver=vfs")
RUN = ("--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024")
_LEFT_OUT = re.compile(
    r"(^|/)(test|tests|idlelib|lib2to3|tkinter|turtledemo|ensurepip|site-packages|config-[^/]+|__pycache__)(/|$)"
)


@dataclass(frozen=True)
class Podman:
    """`root` is a short path: podman takes 50 characters at most for what it keeps of running containers."""

    root: Path
    image: str = ""

    @property
    def engine_flags(self) -> list[str]:
        return [f"--root={self.root / 'storage'}", f"--runroot={self.root / 'run'}", *_ENGINE]

    def __call__(self, *words: str, check: bool = True) -> str:
        done = subprocess.run(
            ["podman", *self.engine_flags, *words],
            cwd=self.root,  # a container that is out of memory leaves a file there
            capture_output=True,
            text=True,
            timeout=120,
        )
        if check and done.returncode:
            raise RuntimeError(f"podman {words}: {done.stderr}")
        return done.stdout

    @property
    def words(self) -> list[str]:
        """The options that choose it."""
        listed = {"engine_flags": self.engine_flags, "flags": list(RUN)}
        return [
            "executor=container",
            "executor.engine=podman",
            "executor.gpus=none",
            f"compiler.image={self.image}",
            *(f"executor.{name}=[{','.join(repr(each) for each in value)}]" for name, value in listed.items()),
        ]

    def containers(self) -> list[str]:
        return self("ps", "--all", "--quiet").split()


@contextmanager
def podman() -> Iterator[Podman]:
    """Ready to run; skips, saying why, where podman or runc is missing or no container can be made."""
    root = Path(tempfile.mkdtemp(prefix="podman-", dir="/tmp"))  # short, and nobody else's
    try:
        yield _start(root)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _start(root: Path) -> Podman:
    for program in ("podman", "runc"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    if os.geteuid() != 0:
        pytest.skip("a container without a registry's image is made by root alone here")
    made = Podman(root)
    tar = root / "image.tar"
    with tarfile.open(tar, "w") as archive:
        _python(archive)
        tools = tensorrt_llm_standin.install(root / "tools", python="/usr/bin/python3")
        archive.add(tools.root, "app/tensorrt_llm")
        for name in tensorrt_llm_standin.PROGRAMS:
            _link(archive, f"usr/local/bin/{name}", f"/app/tensorrt_llm/bin/{name}")
    made("import", str(tar), "trtbuild/stand-in:test")
    tar.unlink()
    digest = made("image", "inspect", "--format", "{{.Digest}}", "trtbuild/stand-in:test").strip()
    made = Podman(root, f"localhost/trtbuild/stand-in@{digest}")
    try:
        made("run", "--rm", "--network=none", *RUN, made.image, "/usr/bin/python3", "-c", "import json")
    except RuntimeError as error:
        pytest.skip(f"no container can be made here: {error}")
    return made


def _python(archive: tarfile.TarFile) -> None:
    """This Python without packages, where it lies, and the libraries that it loads."""
    interpreter = Path(sys.executable).resolve()
    stdlib = Path(sysconfig.get_path("stdlib", vars={"base": sys.base_prefix}))
    archive.add(interpreter, str(interpreter)[1:])
    archive.add(stdlib, str(stdlib)[1:], filter=lambda info: None if _LEFT_OUT.search(info.name) else info)
    for library in sorted(set(_libraries([interpreter, *(stdlib / "lib-dynload").glob("*.so")]))):
        archive.add(library.resolve(), str(library)[1:])
    _link(archive, "usr/bin/python3", str(interpreter))
    for folder in ("tmp", "root"):
        info = tarfile.TarInfo(folder)
        info.type, info.mode = tarfile.DIRTYPE, 0o1777
        archive.addfile(info)


def _libraries(files: list[Path]) -> Iterator[Path]:
    told = subprocess.run(["ldd", *map(str, files)], capture_output=True, text=True)
    for found in re.findall(r"(?:=> )?(/\S+) \(0x", told.stdout):
        yield Path(found)


def _link(archive: tarfile.TarFile, name: str, target: str) -> None:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, target
    archive.addfile(info, io.BytesIO())

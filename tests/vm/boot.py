"""Runs a command on another Linux kernel: in QEMU, with this machine's files, read-only, and /run to write to.

    python -m tests.vm.boot COMMAND...      # prints what it prints; exit code that of the command

A store meets file systems and disks there that a kernel in hand may lack: fs-verity, and devices that fail. The kernel
is one of a Debian package (that on which linux-image-amd64 depends), which need not be installed: TRTBUILD_TEST_KERNEL
names the folder that it was unpacked to with `dpkg-deb -x`. Else one of this machine is taken.
"""

from __future__ import annotations

import lzma
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

#: What the kernel must load: its way to this machine's files, the file systems, and the devices that fail.
MODULES = ("virtio_pci", "qemu_fw_cfg", "virtio_blk", "9pnet_virtio", "9p", "loop", "ext4", "btrfs")
QUICKER = ("sha256-ssse3", "crc32c-intel")  # where the processor has it
DEVICES = ("dm-mod", "dm-flakey", "dm-log-writes")
FOLDER = Path(__file__).resolve().parents[2]
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
MARK = "the command ended with"


class Unavailable(Exception):
    """Why no machine can be had here."""


@dataclass(frozen=True)
class Kernel:
    """A kernel, and the folder of its modules."""

    image: Path
    modules: Path


def kernel() -> Kernel:
    """The newest one that is there. Raises Unavailable."""
    root = Path(os.environ.get("TRTBUILD_TEST_KERNEL", "/"))
    for image in sorted(root.glob("boot/vmlinuz-*"), reverse=True):
        modules = root / "lib" / "modules" / image.name.removeprefix("vmlinuz-")
        if (modules / "kernel" / "fs" / "9p").is_dir():
            return Kernel(image, modules)
    raise Unavailable(f"no kernel with 9p in {root}: unpack Debian's and set TRTBUILD_TEST_KERNEL")


def program(name: str) -> str:
    """Its path. Raises Unavailable."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:{PATH}")
    if found is None:
        raise Unavailable(f"{name} is not installed")
    return found


def run(command: Sequence[str], *, timeout: float = 600, disk: int = 0, memory: int = 2048) -> tuple[int, str]:
    """(exit code, what it printed) of `command`, run by root in this project's folder.

    `disk` is the megabytes of an empty disk, /dev/vda. Raises Unavailable, TimeoutExpired.
    """
    qemu, busybox, its = program("qemu-system-x86_64"), program("busybox"), kernel()
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        (home / "initramfs").write_bytes(_initramfs(Path(busybox), its))
        words = [qemu, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-machine", "q35"]
        # Emulated, for a nested /dev/kvm may be there and stand still.
        words += ["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", str(memory)]
        words += ["-kernel", str(its.image), "-initrd", str(home / "initramfs")]
        words += ["-append", "console=ttyS0 quiet panic=-1", "-serial", "stdio"]
        words += ["-virtfs", "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap"]
        (home / "command").write_text(f"cd {shlex.quote(str(FOLDER))} && {shlex.join(command)}\n")
        words += ["-fw_cfg", f"name=opt/command,file={home / 'command'}"]
        if disk:
            with (home / "disk").open("wb") as file:
                file.truncate(disk << 20)
            words += ["-drive", f"file={home / 'disk'},if=virtio,format=raw,cache=unsafe"]
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout, check=False)
    printed = done.stdout.decode(errors="replace").replace("\r\n", "\n")
    found = re.search(rf"(.*)^{MARK} (\d+)$", printed, re.DOTALL | re.MULTILINE)
    if found is None:
        return (
            1,
            f"{printed}\n{done.stderr.decode(errors='replace')}\nthe machine ended before the command did",
        )
    return int(found[2]), found[1]


def _initramfs(busybox: Path, its: Kernel) -> bytes:
    """A file system in memory, as a cpio archive: busybox, modules in the order of loading, and init."""
    modules = [_unpacked(path) for path in _in_order(its.modules, [*QUICKER, *MODULES, *DEVICES])]
    files = {"init": (Path(__file__).with_name("init").read_bytes(), 0o100755)}
    files["bin/busybox"] = (busybox.read_bytes(), 0o100755)
    files |= {f"modules/{at:03}.ko": (data, 0o100644) for at, data in enumerate(modules)}
    folders = dict.fromkeys(("bin", "modules", "host", "dev", "proc", "sys"), (b"", 0o040755))
    return b"".join(_member(name, *member) for name, member in (folders | files).items()) + _member(
        "TRAILER!!!", b"", 0
    )


def _member(name: str, data: bytes, mode: int) -> bytes:
    """A member of a cpio archive of the form "newc"."""
    fields = [0, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0]
    head = b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0"
    return head + b"\0" * (-len(head) % 4) + data + b"\0" * (-len(data) % 4)


def _in_order(folder: Path, names: Sequence[str]) -> list[Path]:
    """The files of the modules `names`, each after those that it needs. What is no file is a part of the kernel."""
    paths = {path.name.partition(".")[0].replace("_", "-"): path for path in folder.rglob("*.ko*")}
    order: dict[str, Path] = {}

    def add(name: str) -> None:
        path = paths.get(name.replace("_", "-"))
        if path is not None and path.name not in order:
            for needed in _needs(_unpacked(path)):
                add(needed)
            order[path.name] = path

    for name in names:
        add(name)
    return [*order.values()]


def _needs(module: bytes) -> Iterator[str]:
    for words in re.findall(rb"\0(?:depends=|softdep=pre: )([^\0]*)\0", module):
        yield from re.split(r"[ ,]+", words.partition(b" post:")[0].decode())


def _unpacked(path: Path) -> bytes:
    data = path.read_bytes()
    return lzma.decompress(data) if path.suffix == ".xz" else data


def main(words: Sequence[str]) -> int:
    code, text = run(words, disk=int(os.environ.get("DISK", "0")))
    sys.stdout.write(text)
    return code


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

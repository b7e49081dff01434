"""What of a user's settings reaches pip and uv: where packages come from, and how that is reached; nothing else.

A variable that says what is installed, where to, or by which Python is left out, as is what a uv.toml or pyproject.toml
in the working directory or above it says. The user's own files count: pip.conf, ~/.config/uv/uv.toml, .netrc.
"""

from __future__ import annotations

import os
import re
import sysconfig
from collections.abc import Mapping
from pathlib import Path

import pip

from trtbuild.processes import programs

#: Settings of pip that reach it, as variables.
_PIP = re.compile(
    r"PIP_(?:INDEX_URL|PYPI_URL|EXTRA_INDEX_URL|FIND_LINKS|NO_INDEX|PROXY|CERT|CLIENT_CERT|TRUSTED_HOST|TIMEOUT"
    r"|DEFAULT_TIMEOUT|RETRIES|RESUME_RETRIES|KEYRING_PROVIDER|CACHE_DIR|NO_CACHE_DIR|CONFIG_FILE|USE_FEATURE"
    r"|USE_DEPRECATED)"
)
_UV = re.compile(
    r"UV_(?:DEFAULT_INDEX|INDEX|INDEX_URL|EXTRA_INDEX_URL|FIND_LINKS|NO_INDEX|OFFLINE|INDEX_STRATEGY|INDEX_\w+_USERNAME"
    r"|INDEX_\w+_PASSWORD|KEYRING_PROVIDER|NATIVE_TLS|SYSTEM_CERTS|INSECURE_HOST|HTTP_TIMEOUT|HTTP_CONNECT_TIMEOUT"
    r"|HTTP_RETRIES|REQUEST_TIMEOUT|CONCURRENT_DOWNLOADS|CACHE_DIR|NO_CACHE|CONFIG_FILE|NO_CONFIG|CREDENTIALS_DIR"
    r"|EXCLUDE_NEWER)"
)
#: Of these, files and folders: they are meant from where the user is, not from where an installer runs.
_PLACES = (
    "PIP_CONFIG_FILE",
    "PIP_CERT",
    "PIP_CLIENT_CERT",
    "PIP_CACHE_DIR",
    "UV_CONFIG_FILE",
    "UV_CACHE_DIR",
)


def environment(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables that pip and uv get."""
    kept = {}
    for name, value in programs.cleaned(environ).items():
        if name.startswith("PIP_") and not _PIP.fullmatch(name):
            continue
        if name.startswith(("UV_", "_UV_")) and not _UV.fullmatch(name):
            continue
        kept[name] = str(Path(value).absolute()) if name in _PLACES and value else value
    kept |= {"PIP_USER": "0", "UV_NO_PROGRESS": "1", "UV_PYTHON_DOWNLOADS": "never"}
    return kept if _is_own(_uv_cache(kept)) else kept | {"UV_NO_CACHE": "1"}


def folder_for_uv(folder: Path) -> Path:
    """`folder` as uv's working directory. A file of its own ends uv's search for one in the folders above it."""
    (folder / "uv.toml").touch()
    return folder


def pip_command(interpreter: str | Path, folder: Path) -> list[str]:
    """pip by our own code, whichever Python runs it: `folder` gets a link to that, and nothing else is beside it."""
    code = folder / "pip"
    code.mkdir(exist_ok=True)
    link = code / "pip"
    if not link.is_symlink():
        link.symlink_to(Path(pip.__file__).parent)
    return programs.python(interpreter, "-u", link)


def find_uv() -> str | None:
    """uv beside this Python (the extra `uv`), else on PATH."""
    return programs.find("uv", beside=Path(sysconfig.get_path("scripts")))


def _uv_cache(environ: Mapping[str, str]) -> Path:
    if folder := environ.get("UV_CACHE_DIR"):
        return Path(folder)
    return Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "uv"


def _is_own(cache: Path) -> bool:
    """Whether no other user may write to uv's cache, whose content uv does not hash again."""
    try:
        status = cache.stat()
    except OSError:
        return True  # uv makes it
    return status.st_uid == os.getuid() and not status.st_mode & 0o002

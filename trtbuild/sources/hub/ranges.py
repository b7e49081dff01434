"""The first bytes of a file on the Hub, by a ranged request, whatever the server sends for it."""

from __future__ import annotations

import re
from typing import Any

from huggingface_hub import constants, get_session, hf_raise_for_status
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # public, but not in its __all__

from trtbuild.sources.hub.guard import SPARE, Guard, Unsound, check_encoding, shown
from trtbuild.sources.hub.pace import lookup, within

_PARTIAL = 206  # the status of an answer that is just the range


def more(url: str, head: bytes, count: int, size: int) -> bytes:
    """`head`, the first bytes that are known of a file of `size` bytes, and more up to `count` bytes.

    Raises one of the client's errors, or Unsound.
    """
    return within(lookup(), Guard(count + SPARE), lambda: _read(url, head, count, size))


def _read(url: str, head: bytes, count: int, size: int) -> bytes:
    headers = {
        **build_hf_headers(),
        "Range": f"bytes={len(head)}-{count - 1}",
        "Accept-Encoding": "identity",
    }
    with get_session().stream("GET", url, headers=headers, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT) as response:
        hf_raise_for_status(response)
        check_encoding(response)
        # A server may ignore the range: then it begins at the start, and reading stops all the same.
        partial = response.status_code == _PARTIAL
        _check_place(response.headers, len(head), size) if partial else _check_length(response.headers, size)
        data = bytearray(head if partial else b"")
        for piece in response.iter_raw():
            data += piece
            if len(data) >= count:
                break
    return bytes(data[:count])


def _check_place(headers: Any, start: int, size: int) -> None:
    sent = headers.get("Content-Range", "")
    match = re.fullmatch(r"bytes (\d{1,16})-\d{1,16}/(\d{1,16}|\*)", sent)
    if match is None or int(match[1]) != start or match[2] not in ("*", str(size)):
        raise Unsound(
            f"of a file of {size} bytes it sends the range {shown(sent) or 'nowhere'}, and byte {start} was asked for"
        )


def _check_length(headers: Any, size: int) -> None:
    sent = headers.get("Content-Length")
    if sent is not None and sent != str(size):
        raise Unsound(f"a file has {shown(sent)} bytes, and {size} are published")

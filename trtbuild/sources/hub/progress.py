"""The Hub client's progress bar, told to a callback instead of drawn."""

from __future__ import annotations

from collections.abc import Callable

from trtbuild.sources.base import Json, Progress


class _Bar:
    """What the client uses of tqdm.

    `update_transfer` and its postfix make the client use one bar for both of Xet's counts (on disk and over
    the wire); only those on disk are told.
    """

    what: str
    size: int  # bytes
    progress: Progress
    moves: Callable[[int], None]

    def __init__(self, *_args: Json, initial: int = 0, total: int | None = None, **_options: Json) -> None:
        self.n = initial
        self.total = total

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_failure: object) -> None: ...

    def update(self, n: float | None = 1) -> None:
        self.n += int(n or 0)
        self.moves(int(n or 0))
        # Clamped: a download that is resumed after an error counts some bytes twice.
        self.progress(self.what, max(0, min(self.n, self.size)), self.size)

    def update_transfer(self, n: float | None = 1) -> None:
        self.moves(int(n or 0))

    def set_description(self, desc: str | None = None, refresh: bool | None = True) -> None: ...

    def set_postfix_str(self, s: str = "", refresh: bool = True) -> None: ...

    def set_transfer_postfix_str(self, s: str = "", refresh: bool = True) -> None: ...

    def refresh(self, *_args: Json, **_options: Json) -> None: ...

    def close(self) -> None: ...


def bar_class(what: str, size: int, progress: Progress, moves: Callable[[int], None]) -> type:
    """A class that the client can use in place of tqdm for one download of `size` bytes, called `what`.

    `moves` is told of the bytes alone, and may raise to end the download.
    """
    told = {"progress": staticmethod(progress), "moves": staticmethod(moves)}
    return type("Bar", (_Bar,), {"what": what, "size": size, **told})

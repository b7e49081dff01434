"""A user's or a team's YAML, looked at before Hydra reads it: its size, depth and tags, and what its aliases unfold to.

Hydra's loader takes a file of any size, and unfolds aliases into copies: a kilobyte becomes all memory.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import yaml  # type: ignore[import-untyped]
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult

from trtbuild import untrusted
from trtbuild.errors import InputError

LIMIT = 256 << 10  # bytes of a file: a hundred times the longest of ours
MAX_DEPTH = 30
MAX_NODES = 20_000  # once aliases are unfolded
MAX_REFERENCES = 20  # ${…} in one text

_TAGS = frozenset(f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null", "seq", "map"))
_LONG = re.compile(rf"[-+]?(?:[0-9_:]{{{untrusted.MAX_DIGITS},}}|0[xobXOB][0-9a-fA-F_]{{{untrusted.MAX_DIGITS},}})")


class _Refused(ValueError):
    """What the file holds is not read; the text says why."""


class Bounded(FileConfigSource):
    """Hydra's source of the files in a folder, which looks at each before it is loaded. Raises InputError."""

    def load_config(self, config_path: str) -> ConfigResult:
        """Hydra's."""
        path = Path(self.path, self._normalize_file_name(config_path))
        try:
            check(path)
            return super().load_config(config_path)
        except yaml.YAMLError as error:
            said = getattr(error, "problem", None) or str(error).partition("\n")[0]
            mark = getattr(error, "problem_mark", None)
            why = f"is no YAML: {said}" + (f", in line {mark.line + 1}" if mark is not None else "")
        except OSError as error:
            why = f"cannot be read: {error.strerror}"
        except UnicodeDecodeError:
            why = "is no UTF-8"
        except RecursionError:
            why = "is nested too deeply"
        except (ValueError, TypeError) as error:
            why = str(error).partition("\n")[0]
        raise InputError(f"{path} {why}", option="--config-dir", hint="mend the file, or take it away")


def watch() -> None:
    """Let Hydra read files through `Bounded`. Idempotent."""
    Plugins.instance()  # it registers Hydra's own
    SourcesRegistry.instance().types["file"] = Bounded


def check(path: Path) -> None:
    """Raise where the YAML in `path` would take more than a config can need.

    Raises ValueError with words that follow the file's name, yaml.YAMLError, OSError.
    """
    try:
        text = untrusted.read_bytes(path, LIMIT).decode("utf-8")
    except untrusted.MalformedJson as error:
        raise _Refused(f"cannot be read: {error}") from None
    _count(yaml.parse(text, Loader=yaml.SafeLoader))


def _count(events: Iterator[yaml.Event]) -> None:
    """Unfold aliases in numbers alone: how many nodes each anchor has."""
    sizes: dict[str, int] = {}
    open_: list[tuple[str | None, int]] = [(None, 0)]
    for event in events:
        if isinstance(event, yaml.CollectionStartEvent):
            _check_tag(event.tag)
            open_.append((event.anchor, 1))
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, count = open_.pop()
            _add(open_, sizes, anchor, count)
        elif isinstance(event, yaml.ScalarEvent):
            _check_tag(event.tag)
            if event.style is None and _LONG.fullmatch(event.value):
                raise _Refused(f"holds a number of {len(event.value)} digits")
            if event.value.count("${") > MAX_REFERENCES:
                raise _Refused(f"holds a text with more than {MAX_REFERENCES} references")
            _add(open_, sizes, event.anchor, 1)
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise _Refused(f"refers to {untrusted.shown(event.anchor)}, which is not there or holds itself")
            _add(open_, sizes, None, sizes[event.anchor])
        if len(open_) > MAX_DEPTH + 1:
            raise _Refused(f"is nested more than {MAX_DEPTH} deep")


def _add(open_: list[tuple[str | None, int]], sizes: dict[str, int], anchor: str | None, count: int) -> None:
    outer, before = open_[-1]
    if before + count > MAX_NODES:
        raise _Refused(f"has more than {MAX_NODES} values, once its aliases are unfolded")
    open_[-1] = outer, before + count
    if anchor is not None:
        sizes[anchor] = count


def _check_tag(tag: str | None) -> None:
    if tag is not None and tag not in _TAGS and tag != "!":
        raise _Refused(f"has the tag {untrusted.shown(tag)}, and a config holds plain values alone")

"""A content-addressed store of build results: whole or absent, shared by processes, and honest about its disk.

These names are the whole interface: programs import from `trtstore` alone, and rooms below it may change. A name is
loaded when it is first used, so that a program pays for what it uses: only buckets need obstore, only signatures
need securesystemslib.

A few names are parts of a command line: `run_trtstore` is the command `trtstore`, which a program may install with its
own store as the default; with `command_parser`, `add_trust_options`, `Output`, `Progress` and `format_table` other
commands read options and print answers the same way.

    >>> store = Store.open(Path("store"))
    >>> kind, labels = "https://example.org/build/v1", {"model": "llama"}
    >>> record = store.publish("ab" * 32, Path("result"), predicate_type=kind, predicate={}, labels=labels)
    >>> store.lookup("ab" * 32).labels["model"]
    'llama'
    >>> (store.materialise(record).path / "engine.bin").read_bytes()
    b'engine'
"""

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trtstore.cli.arguments import command_parser
    from trtstore.cli.main import run_trtstore
    from trtstore.cli.output import Output
    from trtstore.cli.progress import Progress
    from trtstore.cli.team_args import add_trust_options
    from trtstore.content.stage import folder_manifest
    from trtstore.content.trees import Materialised
    from trtstore.deadlines import deadline
    from trtstore.disk.hashing import OnBytes, ignore_bytes, in_threads
    from trtstore.disk.locks import Holder
    from trtstore.disk.owners import is_own_group, other_writer
    from trtstore.disk.scratch import remove_folder
    from trtstore.environments.environment import Environment, verify_environment
    from trtstore.environments.environments import Environments
    from trtstore.errors import (
        Busy,
        Corrupt,
        Exposed,
        Invalid,
        Malformed,
        NoLocks,
        NoSpace,
        NotReadable,
        NotWritable,
        StoreFailure,
        TooManyOpenFiles,
        Unreachable,
        as_store_failures,
    )
    from trtstore.exchange.layered import Layered
    from trtstore.format.digest import is_hex
    from trtstore.format.expected import Expected
    from trtstore.format.labels import NEEDS, needs
    from trtstore.format.manifest import PLAIN, Entry, Manifest, make_manifest
    from trtstore.format.record import Attachment, Record
    from trtstore.format.trust import Role, TrustPolicy, trusted_lines
    from trtstore.index.index import Index, hash_files
    from trtstore.marks.doubts import Doubt
    from trtstore.remote.connect import connect
    from trtstore.remote.leases import HeldLease, LeaseOutcome, Leases
    from trtstore.remote.remote import Remote
    from trtstore.store import SAMPLE, Store, Verify
    from trtstore.table import format_table
    from trtstore.team.admin import team_summaries
    from trtstore.team.open import check_team, open_signer, open_team, trusted_signers
    from trtstore.team.signing import Signer
    from trtstore.team.team import Team
    from trtstore.transfer.protocols import Reader
    from trtstore.transfer.readonly import ReadOnly
    from trtstore.units import format_ago, format_seconds, format_size, format_span
    from trtstore.upkeep.catalog import OnParsed, Summary, catalog_of
    from trtstore.upkeep.maintenance import Maintenance
    from trtstore.upkeep.query import NotThere, find_key, find_record

#: The module of each public name.
_NAMES: Mapping[str, tuple[str, ...]] = {
    "cli.arguments": ("command_parser",),
    "cli.main": ("run_trtstore",),
    "cli.output": ("Output",),
    "cli.progress": ("Progress",),
    "cli.team_args": ("add_trust_options",),
    "content.stage": ("folder_manifest",),
    "content.trees": ("Materialised",),
    "deadlines": ("deadline",),
    "disk.hashing": ("OnBytes", "ignore_bytes", "in_threads"),
    "disk.locks": ("Holder",),
    "disk.owners": ("is_own_group", "other_writer"),
    "disk.scratch": ("remove_folder",),
    "environments.environment": ("Environment", "verify_environment"),
    "environments.environments": ("Environments",),
    "errors": (
        "Busy",
        "Corrupt",
        "Exposed",
        "Invalid",
        "Malformed",
        "NoLocks",
        "NoSpace",
        "NotReadable",
        "NotWritable",
        "StoreFailure",
        "TooManyOpenFiles",
        "Unreachable",
        "as_store_failures",
    ),
    "exchange.layered": ("Layered",),
    "format.digest": ("is_hex",),
    "format.expected": ("Expected",),
    "format.labels": ("NEEDS", "needs"),
    "format.manifest": ("Entry", "Manifest", "PLAIN", "make_manifest"),
    "format.record": ("Attachment", "Record"),
    "format.trust": ("Role", "TrustPolicy", "trusted_lines"),
    "index.index": ("Index", "hash_files"),
    "marks.doubts": ("Doubt",),
    "remote.connect": ("connect",),
    "remote.leases": ("HeldLease", "LeaseOutcome", "Leases"),
    "remote.remote": ("Remote",),
    "store": ("SAMPLE", "Store", "Verify"),
    "table": ("format_table",),
    "team.admin": ("team_summaries",),
    "team.open": ("check_team", "open_signer", "open_team", "trusted_signers"),
    "team.signing": ("Signer",),
    "team.team": ("Team",),
    "transfer.protocols": ("Reader",),
    "transfer.readonly": ("ReadOnly",),
    "units": ("format_ago", "format_seconds", "format_size", "format_span"),
    "upkeep.catalog": ("OnParsed", "Summary", "catalog_of"),
    "upkeep.query": ("NotThere", "find_key", "find_record"),
    "upkeep.maintenance": ("Maintenance",),
}
_MODULES = {name: module for module, names in _NAMES.items() for name in names}

__all__ = [
    "NEEDS",
    "PLAIN",
    "SAMPLE",
    "Attachment",
    "Busy",
    "Corrupt",
    "Doubt",
    "Entry",
    "Environment",
    "Environments",
    "Expected",
    "Exposed",
    "HeldLease",
    "Holder",
    "Index",
    "Invalid",
    "Layered",
    "LeaseOutcome",
    "Leases",
    "Maintenance",
    "Malformed",
    "Manifest",
    "Materialised",
    "NoLocks",
    "NoSpace",
    "NotReadable",
    "NotThere",
    "NotWritable",
    "OnBytes",
    "OnParsed",
    "Output",
    "Progress",
    "ReadOnly",
    "Reader",
    "Record",
    "Remote",
    "Role",
    "Signer",
    "Store",
    "StoreFailure",
    "Summary",
    "Team",
    "TooManyOpenFiles",
    "TrustPolicy",
    "Unreachable",
    "Verify",
    "add_trust_options",
    "as_store_failures",
    "catalog_of",
    "check_team",
    "command_parser",
    "connect",
    "deadline",
    "find_key",
    "find_record",
    "folder_manifest",
    "format_ago",
    "format_seconds",
    "format_size",
    "format_span",
    "format_table",
    "hash_files",
    "ignore_bytes",
    "in_threads",
    "is_hex",
    "is_own_group",
    "make_manifest",
    "needs",
    "open_signer",
    "open_team",
    "other_writer",
    "remove_folder",
    "run_trtstore",
    "team_summaries",
    "trusted_lines",
    "trusted_signers",
    "verify_environment",
]


def __getattr__(name: str) -> Any:
    """The public name, loaded. https://peps.python.org/pep-0562/"""
    module = _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module 'trtstore' has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(f"trtstore.{module}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""A content-addressed store of build results: whole or absent, shared by processes, and honest about its disk.

These names are the whole interface: programs import from `trtstore` alone, and rooms below it may change. A name is
loaded when it is first used, so that a program pays for what it uses: only buckets need obstore, only signatures
need securesystemslib.

    >>> store = Store.open(Path("store"))
    >>> kind, labels = "https://example.org/build/v1", {"model": "llama"}
    >>> record = store.publish("ab" * 32, Path("result"), predicate_type=kind, predicate={}, labels=labels)
    >>> store.lookup("ab" * 32).labels["model"]
    'llama'
    >>> (store.materialise(record).path / "engine.bin").read_bytes()
    b'engine'
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trtstore.cli.arguments import Parser as CommandParser
    from trtstore.cli.arguments import parser as command_parser
    from trtstore.cli.main import main as run_trtstore
    from trtstore.cli.output import Output
    from trtstore.cli.progress import Progress
    from trtstore.cli.team_args import trusting as add_trust_options
    from trtstore.content.stage import folder_manifest
    from trtstore.content.trees import Materialised
    from trtstore.deadlines import deadline
    from trtstore.disk.hashing import OnBytes, ignore_bytes, in_threads
    from trtstore.disk.locks import Holder
    from trtstore.disk.owners import is_own_group, other_writer
    from trtstore.disk.scratch import remove as remove_folder
    from trtstore.environments.environment import Environment
    from trtstore.environments.environment import verify as verify_environment
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
    )
    from trtstore.errors import translated as as_store_failures
    from trtstore.exchange.layered import Layered
    from trtstore.format.digest import is_hex
    from trtstore.format.expected import Expected
    from trtstore.format.labels import NEEDS, needs
    from trtstore.format.manifest import PLAIN, Entry, Manifest
    from trtstore.format.manifest import build as make_manifest
    from trtstore.format.record import Attachment, Record
    from trtstore.format.trust import Role, TrustPolicy
    from trtstore.format.trust import lines_of as trusted_lines
    from trtstore.index.index import Index, hash_files
    from trtstore.marks.doubts import Doubt
    from trtstore.remote.connect import connect
    from trtstore.remote.leases import Held, Leases
    from trtstore.remote.leases import Outcome as LeaseOutcome
    from trtstore.remote.remote import Remote
    from trtstore.store import SAMPLE, Store, Verify
    from trtstore.table import table as format_table
    from trtstore.team.admin import summaries as team_summaries
    from trtstore.team.open import check as check_team
    from trtstore.team.open import signer as open_signer
    from trtstore.team.open import signers as trusted_signers
    from trtstore.team.open import team as open_team
    from trtstore.team.signing import Signer
    from trtstore.team.team import Team
    from trtstore.transfer.protocols import Reader
    from trtstore.transfer.readonly import ReadOnly
    from trtstore.units import format_ago as format_ago
    from trtstore.units import seconds as format_seconds
    from trtstore.units import size as format_size
    from trtstore.units import span as format_span
    from trtstore.upkeep.catalog import OnParsed, Summary, catalog_of
    from trtstore.upkeep.query import NotThere
    from trtstore.upkeep.query import key_of as find_key
    from trtstore.upkeep.query import record_of as find_record
    from trtstore.upkeep.upkeep import Upkeep as Maintenance

#: Public name -> the module that has it, and its name there.
_PLACES = {
    "Attachment": ("format.record", "Attachment"),
    "Busy": ("errors", "Busy"),
    "CommandParser": ("cli.arguments", "Parser"),
    "Corrupt": ("errors", "Corrupt"),
    "Doubt": ("marks.doubts", "Doubt"),
    "Entry": ("format.manifest", "Entry"),
    "Environment": ("environments.environment", "Environment"),
    "Environments": ("environments.environments", "Environments"),
    "Expected": ("format.expected", "Expected"),
    "Exposed": ("errors", "Exposed"),
    "Held": ("remote.leases", "Held"),
    "Holder": ("disk.locks", "Holder"),
    "Index": ("index.index", "Index"),
    "Invalid": ("errors", "Invalid"),
    "Layered": ("exchange.layered", "Layered"),
    "LeaseOutcome": ("remote.leases", "Outcome"),
    "Leases": ("remote.leases", "Leases"),
    "Maintenance": ("upkeep.upkeep", "Upkeep"),
    "Malformed": ("errors", "Malformed"),
    "Manifest": ("format.manifest", "Manifest"),
    "Materialised": ("content.trees", "Materialised"),
    "NEEDS": ("format.labels", "NEEDS"),
    "NoLocks": ("errors", "NoLocks"),
    "NoSpace": ("errors", "NoSpace"),
    "NotReadable": ("errors", "NotReadable"),
    "NotThere": ("upkeep.query", "NotThere"),
    "NotWritable": ("errors", "NotWritable"),
    "OnBytes": ("disk.hashing", "OnBytes"),
    "OnParsed": ("upkeep.catalog", "OnParsed"),
    "Output": ("cli.output", "Output"),
    "PLAIN": ("format.manifest", "PLAIN"),
    "Progress": ("cli.progress", "Progress"),
    "ReadOnly": ("transfer.readonly", "ReadOnly"),
    "Reader": ("transfer.protocols", "Reader"),
    "Record": ("format.record", "Record"),
    "Remote": ("remote.remote", "Remote"),
    "Role": ("format.trust", "Role"),
    "SAMPLE": ("store", "SAMPLE"),
    "Signer": ("team.signing", "Signer"),
    "Store": ("store", "Store"),
    "StoreFailure": ("errors", "StoreFailure"),
    "Summary": ("upkeep.catalog", "Summary"),
    "Team": ("team.team", "Team"),
    "TooManyOpenFiles": ("errors", "TooManyOpenFiles"),
    "TrustPolicy": ("format.trust", "TrustPolicy"),
    "Unreachable": ("errors", "Unreachable"),
    "Verify": ("store", "Verify"),
    "add_trust_options": ("cli.team_args", "trusting"),
    "as_store_failures": ("errors", "translated"),
    "catalog_of": ("upkeep.catalog", "catalog_of"),
    "check_team": ("team.open", "check"),
    "command_parser": ("cli.arguments", "parser"),
    "connect": ("remote.connect", "connect"),
    "deadline": ("deadlines", "deadline"),
    "find_key": ("upkeep.query", "key_of"),
    "find_record": ("upkeep.query", "record_of"),
    "folder_manifest": ("content.stage", "folder_manifest"),
    "format_ago": ("units", "ago"),
    "format_seconds": ("units", "seconds"),
    "format_size": ("units", "size"),
    "format_span": ("units", "span"),
    "format_table": ("table", "table"),
    "hash_files": ("index.index", "hash_files"),
    "ignore_bytes": ("disk.hashing", "ignore_bytes"),
    "in_threads": ("disk.hashing", "in_threads"),
    "is_hex": ("format.digest", "is_hex"),
    "is_own_group": ("disk.owners", "is_own_group"),
    "make_manifest": ("format.manifest", "build"),
    "needs": ("format.labels", "needs"),
    "open_signer": ("team.open", "signer"),
    "open_team": ("team.open", "team"),
    "other_writer": ("disk.owners", "other_writer"),
    "remove_folder": ("disk.scratch", "remove"),
    "run_trtstore": ("cli.main", "main"),
    "team_summaries": ("team.admin", "summaries"),
    "trusted_lines": ("format.trust", "lines_of"),
    "trusted_signers": ("team.open", "signers"),
    "verify_environment": ("environments.environment", "verify"),
}

__all__ = [
    "NEEDS",
    "PLAIN",
    "SAMPLE",
    "Attachment",
    "Busy",
    "CommandParser",
    "Corrupt",
    "Doubt",
    "Entry",
    "Environment",
    "Environments",
    "Expected",
    "Exposed",
    "Held",
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
    try:
        module, own = _PLACES[name]
    except KeyError:
        raise AttributeError(f"module 'trtstore' has no attribute {name!r}") from None
    found = getattr(importlib.import_module(f"trtstore.{module}"), own)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES})

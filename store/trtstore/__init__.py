"""A content-addressed store of build results: whole or absent, shared by processes, and honest about its disk."""

from trtstore.errors import (
    Busy,
    Corrupt,
    Exposed,
    Invalid,
    NoLocks,
    NoSpace,
    NotReadable,
    NotWritable,
    StoreFailure,
    TooManyOpenFiles,
)
from trtstore.index import Index, hash_files
from trtstore.locks import Holder
from trtstore.records import Attachment, Record
from trtstore.staging import folder_manifest
from trtstore.store import Store
from trtstore.trees import Materialised

__all__ = [
    "Attachment",
    "Busy",
    "Corrupt",
    "Exposed",
    "Holder",
    "Index",
    "Invalid",
    "Materialised",
    "NoLocks",
    "NoSpace",
    "NotReadable",
    "NotWritable",
    "Record",
    "Store",
    "StoreFailure",
    "TooManyOpenFiles",
    "folder_manifest",
    "hash_files",
]

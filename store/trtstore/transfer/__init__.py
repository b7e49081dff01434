"""Artifacts from another store: the protocols of both sides, a store that is only read, and the receiver."""

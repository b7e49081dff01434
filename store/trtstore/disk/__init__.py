"""One folder on one machine: its layout, its writers, locks, temporary files and hashing."""

"""One folder on one machine: where things lie, who may write there, locks, temporary files and hashing."""

"""What is written, byte for byte: documents, digests, names and signed envelopes. Nothing here touches a disk."""

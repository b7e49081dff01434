"""What a store holds, and what a collection removes and keeps."""

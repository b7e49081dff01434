"""Facts that can be had again, kept to save time: digests by inode, seals of files, last uses."""

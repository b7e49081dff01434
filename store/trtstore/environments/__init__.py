"""Folders that can be made again at any time, such as installed toolchains, and their seals."""

"""Blobs, trees and records on disk: staged, committed, read, served and verified."""

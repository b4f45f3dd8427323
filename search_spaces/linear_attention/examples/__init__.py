"""Candidates that differ from a baseline in one part, for `nas probe` and `nas train` to hold against it."""

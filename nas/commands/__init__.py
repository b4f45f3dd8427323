"""What `nas` does, one command a file: each takes its settings or arguments and returns an exit code."""

"""Where trials run. The only importers of Ray."""

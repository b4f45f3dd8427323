"""Search spaces: what the engine searches over. Each is a plug-in that `nas` never imports by name."""

"""A distributed architecture search engine for linear attention."""

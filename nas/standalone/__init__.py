"""A trained model as a package that runs without this engine.

`sources` makes its modules: the mixer's source, and of engine and search space what that needs, with the imports put
right. `loading`, `decoding`, `shapes`, `byte_tokens`, `file_tokens` and `example` are written to go along. `checking`
runs in the box: the weights out of a checkpoint, and whether the package computes what the engine does.
"""

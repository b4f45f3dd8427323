"""Token mixers whose cost is linear in the sequence: linear attention, DeltaNet, gated linear attention, Mamba2.

`space.SPACE` is what the engine sees and imports no JAX. `ops` imports it, and candidates import `ops`.
"""

"""Baselines: one candidate file each, in the slots' shape wherever they can have it."""

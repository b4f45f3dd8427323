"""Baselines: one candidate file each, in the shape that the grammar's slots expect."""

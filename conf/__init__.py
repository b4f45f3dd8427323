"""Hydra's configuration groups. `nas_conf` once installed."""

"""What several tests look up: the search space, and where the project is."""

from pathlib import Path

from nas.space import load_space

SPACE = load_space("search_spaces.linear_attention.space")
ROOT = Path(__file__).resolve().parents[1]

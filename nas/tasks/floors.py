"""How well a text can be guessed without a model, in bits per byte, whatever its tokens are."""

import lzma

import numpy as np

_COMPRESSED_BYTES = 2**20  # of the text, to learn how well it can be compressed
_PIECE = 2**22


def bigram_bits_per_byte(train: np.ndarray, held_out: np.ndarray) -> float:
    """Bits per byte of `held_out` (uint8 [n]) under add-1/256 smoothed bigram counts of `train` (uint8 [m])."""
    counts = np.full(65536, 1 / 256)
    for start in range(0, len(train) - 1, _PIECE):
        piece = train[start : start + _PIECE + 1]
        counts += np.bincount(piece[:-1].astype(np.int64) * 256 + piece[1:], minlength=65536)
    table = counts.reshape(256, 256)
    log2 = np.log2(table / table.sum(axis=1, keepdims=True))
    return float(-log2[held_out[:-1], held_out[1:]].mean())


def compressed_bits_per_byte(text: bytes) -> float:
    """Bits of LZMA per byte of the beginning of `text`."""
    beginning = text[:_COMPRESSED_BYTES]
    return 8 * len(lzma.compress(beginning)) / len(beginning)

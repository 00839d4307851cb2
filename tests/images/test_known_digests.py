"""Pixels that were hashed before keep their digest, and others never get it."""

import hashlib

import numpy as np
import pytest
import torch

from sklearn_mm.images import PictureReader, _known_digests, _reading
from sklearn_mm.images._known_digests import KnownDigests

READER = PictureReader(8, 8)
PIXELS = np.random.default_rng(0).integers(256, size=(8, 6, 3), dtype=np.uint8)


@pytest.fixture
def n_hashed(monkeypatch):
    """Return a list that has an entry for each time pixels are hashed in full."""
    pytest.importorskip("xxhash")
    calls = []
    monkeypatch.setattr(_reading, "_KNOWN", KnownDigests(16))
    whole = _reading._pixel_digest
    monkeypatch.setattr(_reading, "_pixel_digest", lambda pixels: calls.append(1) or whole(pixels))
    return calls


def test_what_was_hashed_before_is_not_hashed_again(n_hashed):
    first = READER.digest(PIXELS)
    assert READER.digest(PIXELS.copy()) == first  # as a search copies its folds
    assert READER.digest(np.stack([PIXELS] * 2)[1]) == first
    assert len(n_hashed) == 1


def test_pixels_changed_in_place_are_others(n_hashed):
    pixels = PIXELS.copy()
    before = READER.digest(pixels)
    pixels[7, 5, 2] ^= 1
    assert READER.digest(pixels) != before
    pixels[7, 5, 2] ^= 1
    assert READER.digest(pixels) == before


def test_the_same_bytes_are_another_picture_in_another_shape_type_or_container(n_hashed):
    square = np.random.default_rng(0).integers(2, size=(3, 3, 3), dtype=np.uint8)
    others = [square.reshape(9, 3), square.astype(bool), square.view(np.int8), torch.from_numpy(square)]
    alone = [READER.digest(np.asfortranarray(PIXELS)), READER.digest(PIXELS)]
    assert alone[0] == alone[1]  # what does not lie in one piece is known by its pixels all the same
    digests = {bytes(READER.digest(other)) for other in (square, *others)}
    # int8 of these values is the same picture
    assert len(digests) == 4


@pytest.mark.parametrize("source", [PIXELS, PIXELS / 255, torch.from_numpy(PIXELS), PIXELS[..., 0]], ids=type)
def test_digests_are_what_they_are_without_it(source, monkeypatch):
    one = READER.digest(source)
    monkeypatch.setattr(_known_digests, "_fast_hash", None)
    pixels = READER.decode(source)
    assert READER.digest(source) == one == hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).digest()


def test_content_that_changes_while_it_is_hashed_is_not_remembered():
    pytest.importorskip("xxhash")
    known, content = KnownDigests(4), bytearray(b"old")

    def compute():
        content[:] = b"new"
        return b"digest of the new"

    assert known.digest("bytes", content, compute) == b"digest of the new"
    assert known.digest("bytes", b"old", lambda: b"digest of the old") == b"digest of the old"


def test_it_is_bounded():
    pytest.importorskip("xxhash")
    known = KnownDigests(4)
    for number in range(20):
        known.digest("bytes", bytes([number]), lambda number=number: bytes([number]))
    assert len(known._known) == 4
    assert known.digest("bytes", b"\x13", lambda: b"computed again") == b"\x13"

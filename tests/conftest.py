"""Fixtures that several test modules share; those the doctests need too are in the conftest of the root."""

import pytest
from sklearn.utils import Bunch

from sklearn_mm.datasets import make_captioned_shapes


@pytest.fixture(scope="session")
def shapes() -> Bunch:
    """Sixty captioned shapes of 32 pixels; read only."""
    data = make_captioned_shapes(60, image_size=32, random_state=0)
    data.images.setflags(write=False)
    return data

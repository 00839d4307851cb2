"""Files of format 1 name the files that classes were in, and open wherever those are now."""

import importlib
import json
import pickle
import sys
from dataclasses import dataclass

import numpy as np
import pytest
from sklearn.preprocessing import StandardScaler

from sklearn_mm.nn.text_ngram import TextNGram
from sklearn_mm.persistence import load, save
from sklearn_mm.persistence._codec import Reader
from sklearn_mm.persistence._folder import _CODECS
from sklearn_mm.persistence._format_1 import FORMAT_1_NAMES
from sklearn_mm.registry import find, stored_as
from sklearn_mm.texts import TokenRows

NAMES = FORMAT_1_NAMES.items()
GONE = "sklearn_mm.texts._no_such_file"


@pytest.fixture(params=["C", "Python"])
def unpickle(request):
    """Return a function that opens pickles: pickle's own, and the one that joblib builds on."""
    return pickle.loads if request.param == "C" else pickle._loads


@pytest.fixture
def gone(monkeypatch):
    """Let a class have been in a file that is no more."""
    monkeypatch.setitem(FORMAT_1_NAMES, f"{GONE}.OldRows", "texts.TokenRows")
    monkeypatch.setitem(FORMAT_1_NAMES, f"{GONE}.Dropped", "texts.NoSuchClass")
    yield
    sys.modules.pop(GONE, None)


def pickled_class(module, name):
    """Return a pickle, as protocols 0 and 4 write it, of a class that need not exist."""
    old = f"c{module}\n{name}\n.".encode()
    texts = b"".join(b"\x8c" + bytes([len(text)]) + text.encode() for text in (module, name))
    return old, b"\x80\x04" + texts + b"\x93."


@pytest.mark.parametrize(("old", "name"), NAMES)
def test_every_name_of_format_1_leads_to_the_class_of_today(old, name):
    module, _, own = old.rpartition(".")
    assert getattr(importlib.import_module(module), own) is find(name)


def test_pickles_find_classes_whose_file_is_gone(gone, unpickle):
    for pickled in pickled_class(GONE, "OldRows"):
        assert unpickle(pickled) is TokenRows


@pytest.mark.parametrize("name", ["Dropped", "NeverSaved"])
def test_pickles_of_classes_that_are_gone_say_what_to_do(gone, unpickle, name):
    for pickled in pickled_class(GONE, name):
        with pytest.raises(AttributeError, match=rf"{name}.*of an older sklearn_mm, and gone: fit the estimator again"):
            unpickle(pickled)


def test_only_files_that_are_gone_are_replaced():
    module = importlib.import_module("sklearn_mm.texts._token_rows")
    assert module.__file__.endswith("_token_rows.py")
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module(GONE)


def as_format_1(folder):
    """Let a folder name networks and dataclasses as format 1 did."""
    text = (folder / "config.json").read_text()
    for old, name in NAMES:
        text = text.replace(f'"sklearn_mm.{name}"', f'"{old}"')
    (folder / "config.json").write_text(json.dumps({**json.loads(text), "format_version": 1}))


def test_folders_of_format_1_open(tmp_path):
    rows = TokenRows(np.array([1, 2, 3]), np.array([0, 2, 3]))
    network = TextNGram(5, 3, term_dim=4)
    save(StandardScaler(copy=[rows, network]), tmp_path / "model")
    as_format_1(tmp_path / "model")
    assert "sklearn_mm.texts._token_rows.TokenRows" in (tmp_path / "model" / "config.json").read_text()
    opened = load(tmp_path / "model").copy
    np.testing.assert_array_equal(opened[0].ids, rows.ids)
    assert type(opened[1]) is TextNGram


@stored_as("texts.Refielded")
@dataclass(frozen=True)
class Refielded:
    new: int

    @classmethod
    def _from_format(cls, fields, number):
        return {"new": fields["old"] * 10} if number < 2 else fields


def test_fields_of_older_folders_are_brought_to_todays():
    node = {"$record": {"class": "sklearn_mm.texts.Refielded", "fields": {"old": 2}}}
    assert Reader(_CODECS, {}, format_version=1).decode(node, "model") == Refielded(20)
    node = {"$record": {"class": "sklearn_mm.texts.Refielded", "fields": {"new": 2}}}
    assert Reader(_CODECS, {}).decode(node, "model") == Refielded(2)

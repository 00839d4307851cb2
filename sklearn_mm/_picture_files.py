"""How files of pictures are called."""

__all__ = ["PICTURE_SUFFIXES", "names_picture"]

PICTURE_SUFFIXES = (
    ".avif", ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff",
    ".webp",
)  # fmt: skip


def names_picture(name: str) -> bool:
    """Whether a file of this name, or path, is called as pictures are."""
    return name.lower().endswith(PICTURE_SUFFIXES)

"""One form for texts that look alike: an accent is a part of its letter, or a sign behind it, as systems please."""

import unicodedata
from typing import Any

__all__ = ["UNICODE_FORMS", "normal_form", "normal_label", "same_texts"]

UNICODE_FORMS = ("NFC", "NFD", "NFKC", "NFKD")


def normal_form(text: str, form: str | None = "NFC") -> str:
    """Bring a text into a normal form of Unicode; None leaves it as it is."""
    # a flag of the str tells whether it is ASCII, which is every form of itself: no letter is looked at
    return text if form is None or text.isascii() else unicodedata.normalize(form, text)  # type: ignore[arg-type]


def normal_label(label: Any) -> Any:
    """Bring a label into a normal form, if it is a text; others are what they are."""
    return label if not isinstance(label, str) or label.isascii() else unicodedata.normalize("NFC", label)


def same_texts(text: str) -> list[str]:
    """Return a text as given, then its composed and its decomposed form, as far as they differ."""
    return list(dict.fromkeys((text, normal_form(text, "NFC"), normal_form(text, "NFD"))))

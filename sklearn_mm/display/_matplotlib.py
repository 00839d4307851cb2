"""The one door to matplotlib, which is optional, and the shared colours."""

from types import ModuleType

__all__ = ["BLUE", "GREEN", "GREY", "ORANGE", "import_pyplot"]

# Okabe and Ito's, which people who see fewer colours tell apart too.
BLUE = "#0072B2"
ORANGE = "#D55E00"
GREEN = "#009E73"
GREY = "#8a8a8a"


def import_pyplot(display: type) -> ModuleType:
    """Return ``matplotlib.pyplot``, or say how to get it."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(f"{display.__name__} needs matplotlib: pip install sklearn-mm[plot]") from error
    return plt

"""Run a command; turn what goes wrong into one line and an exit code."""

import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import click

from sklearn_mm.cli._app import app
from sklearn_mm.cli._errors import PROGRAM, tell

__all__ = ["run"]

FAILED, BUG, INTERRUPTED, PIPE_CLOSED = 1, 70, 130, 141


def run(arguments: list[str]) -> int:
    """Run a command and return its exit code."""
    # Not an option of click's alone: what goes wrong while options are read is to have its traceback too.
    debug = "--debug" in arguments or bool(os.environ.get("SKLEARN_MM_DEBUG"))
    with _told_warnings(), _terminated_as_interrupted():
        try:
            code = app.main(arguments, prog_name=PROGRAM, standalone_mode=False)
            sys.stdout.flush()
        except click.ClickException as error:
            if debug:
                traceback.print_exc()
            error.show()
            return error.exit_code
        except (click.Abort, KeyboardInterrupt):
            tell("interrupted; nothing is half written, and the same command goes on from what is there", "error")
            return INTERRUPTED
        except BrokenPipeError:
            # The reader (head, less) has seen enough. What is still to be flushed at exit has nowhere to go.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return PIPE_CLOSED
        except (OSError, ValueError, TypeError, KeyError, ImportError, MemoryError, RuntimeError) as error:
            if debug:
                traceback.print_exc()
            tell(_described(error), "error")
            return FAILED
        except Exception as error:
            if debug:
                traceback.print_exc()
            tell(f"{type(error).__name__}: {error}\nThis should not happen; --debug shows where it did.", "error")
            return BUG
    return code if isinstance(code, int) else 0


def _described(error: BaseException) -> str:
    """Return what an error says, with its kind where the text alone says too little (a key, an errno)."""
    # The text of a KeyError is the repr of what it says.
    text = str(error.args[0] if isinstance(error, KeyError) and error.args else error).strip()
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, MemoryError):
        return f"the memory is not enough {text}".strip()
    return text or type(error).__name__


@contextmanager
def _told_warnings() -> Iterator[None]:
    """Show each warning once, as a line of its own without the place in the code."""
    told: set[str] = set()

    def show(message: Warning | str, category: type[Warning], *rest: Any, **named: Any) -> None:
        text = str(message)
        if text not in told:
            told.add(text)
            tell(text, "warning")

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        # Of use to who writes code, and not to who types commands.
        for category in (DeprecationWarning, PendingDeprecationWarning, FutureWarning, ResourceWarning, ImportWarning):
            warnings.simplefilter("ignore", category)
        warnings.showwarning = show
        yield


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Let SIGTERM end a command as Ctrl-C does, so that what is half written is removed."""
    if threading.current_thread() is not threading.main_thread():  # signals are handled there alone
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)

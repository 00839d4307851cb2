"""A file that one process holds, and that the system gives back when that process ends, however it ends."""

import sys
from typing import Any

__all__ = ["lock", "unlock"]

if sys.platform == "win32":
    import msvcrt

    _FAR = 2**30  # of the content, which others may read

    def lock(file: Any) -> bool:
        """Take the lock; return whether nobody else had it."""
        file.seek(_FAR)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def unlock(file: Any) -> None:
        """Give the lock back."""
        file.seek(_FAR)
        msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def lock(file: Any) -> bool:
        """Take the lock; return whether nobody else had it."""
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def unlock(file: Any) -> None:
        """Give the lock back."""
        fcntl.flock(file, fcntl.LOCK_UN)

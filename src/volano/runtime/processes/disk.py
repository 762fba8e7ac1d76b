"""A disk that is full or read-only: whoever writes in the background says so once, waits, and goes on after that."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event
from typing import Final

from volano.errors import StoreError, StoreFullError, StoreReadOnlyError

PAUSE_S: Final = 1.0


class DiskTrouble:
    """Keeps a process at work over a disk that takes nothing for a while. Nothing that was accepted is lost meanwhile.

    Args:
        role: whose, in messages.
        say: hears when it begins and when it is over.
    """

    def __init__(self, role: str, stop: Event, say: Callable[[str], None]) -> None:
        self._role = role
        self._stop = stop
        self._say = say
        self._said = ""

    def tried(self, work: Callable[[], object]) -> bool:
        """Do some work; whether the disk took it. After a refusal it returns when it is time to try again.

        Raises:
            StoreError: any other one; and the disk's, when the process is to stop: what waits is kept where it is.
        """
        try:
            work()
        except (StoreFullError, StoreReadOnlyError) as error:
            if self._stop.is_set():
                raise
            self._tell(error)
            self._stop.wait(PAUSE_S)
            return False
        if self._said:
            self._say(f"{self._role}: the disk takes writes again")
            self._said = ""
        return True

    def _tell(self, error: StoreError) -> None:
        if self._said != error.code:
            self._say(f"{self._role} waits: {error}")
            self._said = error.code

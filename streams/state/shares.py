"""Memory that is divided equally among those who use it now."""

import threading


class Shares:
    """Equal shares of `bytes_max`; any thread."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._lock = threading.Lock()
        self._holders = self._used = 0

    @property
    def each(self) -> int:
        """Bytes of one share: fewer, the more hold one."""
        return self._bytes_max // max(1, self._holders)

    @property
    def bytes_used(self) -> int:
        """Bytes that all holders use."""
        return self._used

    def join(self) -> None:
        """Hold a share from now on: those of the others become smaller."""
        with self._lock:
            self._holders += 1

    def leave(self) -> None:
        """Give the share back: those of the others become larger."""
        with self._lock:
            self._holders -= 1

    def use(self, more: int) -> None:
        """Note that `more` bytes are used than before; fewer if it is negative."""
        with self._lock:
            self._used += more

"""Starts a trouble when a key is pressed, and prints what can be seen and what was counted."""

from collections.abc import Callable
from typing import Final

from streams.demo.parts import Demo
from streams.demo.snapshot import Snapshot
from streams.demo.troubles.base import Trouble
from streams.demo.troubles.killed_worker import KilledWorker
from streams.demo.troubles.poison import Poison
from streams.demo.troubles.tunnel import Tunnel
from streams.demo.worker_probe import READY

TUNNEL_S: Final = 20.0
TUNNEL_FAST_S: Final = 10.0
HELP: Final = (
    "t: a tenth of the vehicles drives into a tunnel, then sends what it has stored. p: a burst of records that "
    "cannot be processed. "
    "w: the worker is killed (SIGKILL) and started again. ?: this text. q or Ctrl-C: stop everything. After t, p "
    "and w it is counted what became of the events."
)


class Control:
    """What is under way: troubles of different kinds, at the same time if wanted."""

    def __init__(self, demo: Demo, say: Callable[[str], None]) -> None:
        """Prepare the troubles of `demo`; `say` is called once for each text."""
        self._demo, self._say = demo, say
        self._troubles: dict[str, Trouble] = {}
        self.kills = 0
        self.counted: list[str] = []
        """What was counted after each trouble."""

    @property
    def is_busy(self) -> bool:
        """Whether a trouble is under way."""
        return bool(self._troubles)

    def press(self, key: str, shot: Snapshot) -> None:
        """React to a key other than that to quit; an unknown one does nothing.

        Raises:
            StreamsError: the trouble cannot be made.

        """
        if key in {"?", "h"}:
            self._say(HELP)
        elif key in {"t", "p", "w"}:
            self._begin(key, shot)

    def look(self, shot: Snapshot) -> None:
        """Say what was counted, once it is known.

        Raises:
            StreamsError: it cannot be counted.

        """
        for key, trouble in list(self._troubles.items()):
            counted = trouble.look(shot)
            if counted is not None:
                self._troubles.pop(key).close()
                self.counted.append(counted)
                self._say(counted)

    def close(self) -> None:
        """Release the troubles that are under way."""
        while self._troubles:
            self._troubles.popitem()[1].close()

    def restart_worker(self) -> None:
        """Kill the worker and start it again, without a word.

        Raises:
            StreamsError: it had ended by itself.

        """
        self._demo.worker.check()
        self._demo.worker.kill()
        self._demo.worker_probe.restarted()
        self._demo.worker.start()
        self.kills += 1

    def _begin(self, key: str, shot: Snapshot) -> None:
        if key in self._troubles:
            self._say("That is still under way: the counts are printed here at its end.")
        elif not self._demo.feeder.is_simulating:
            self._say("The simulated traffic has not begun yet: real positions go first. Try again in a moment.")
        elif shot.worker.state != READY:
            self._say("The worker is not ready. Try again in a moment.")
        else:
            made = self._troubles[key] = self._made(key, shot)
            self._say(made.explain())

    def _made(self, key: str, shot: Snapshot) -> Trouble:
        if key == "t":
            return Tunnel(self._demo, TUNNEL_FAST_S if self._demo.options.is_fast else TUNNEL_S)
        if key == "p":
            return Poison(self._demo)
        return KilledWorker(self._demo, shot.lag_sum, self.restart_worker)

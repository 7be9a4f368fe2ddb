"""What is known of a flow's layouts: all that there were, and the growth that leads to the newest one."""

from collections.abc import Sequence
from dataclasses import dataclass

from streams.growth.home import Home
from streams.growth.layout import FIRST_EPOCH, Growth, Layout
from streams.growth.stages import Phase


@dataclass(frozen=True, slots=True)
class Layouts:
    """The layouts of a flow by epoch, from the first one on without a gap."""

    known: tuple[Layout, ...]
    phase: Phase | None = None
    """Phase of the growth that leads to the newest layout; None: there was no growth."""

    def __post_init__(self) -> None:
        if [one.epoch for one in self.known] != list(range(FIRST_EPOCH, FIRST_EPOCH + len(self.known))):
            raise ValueError(f"no layouts: {self.known}")
        if (len(self.known) > 1) is (self.phase is None):
            raise ValueError(f"{len(self.known)} layouts and the phase {self.phase}")

    @staticmethod
    def first(partitions: int) -> "Layouts":
        """Return the layouts of a flow that was never grown."""
        return Layouts((Layout(FIRST_EPOCH, partitions),))

    def grown(self, partitions: int, phase: Phase) -> "Layouts":
        """With a growth to `partitions` that follows, as far as `phase`."""
        return Layouts((*self.known, Layout(self.known[-1].epoch + 1, partitions)), phase)

    @property
    def growth(self) -> Growth | None:
        """The newest growth; None: there was none."""
        return None if len(self.known) == 1 else Growth(self.known[-2], self.known[-1])

    @property
    def before(self) -> Layout:
        """The layout that partitions without any state begin in, unless they are children."""
        return self.known[0] if len(self.known) == 1 else self.known[-2]

    def of(self, epoch: int) -> Layout | None:
        """The layout of an epoch; None: nothing is known of it."""
        place = epoch - FIRST_EPOCH
        return self.known[place] if 0 <= place < len(self.known) else None

    def is_child(self, partition: int) -> bool:
        """Whether the newest growth brings this partition."""
        return self.growth is not None and partition in self.growth.children

    def enter(self, home: Home, epoch: int) -> None:
        """Have a home be in the layout of `epoch`, where that is a later one than the first and is known."""
        layout = self.of(epoch)
        if layout is not None and epoch > FIRST_EPOCH:
            home.enter(layout, self.counts_before(epoch))

    def counts_before(self, epoch: int) -> Sequence[int]:
        """Numbers of partitions of the layouts before that of `epoch`."""
        return [one.partitions for one in self.known if one.epoch < epoch]

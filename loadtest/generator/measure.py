"""How fast the generator is, next to a loop that does nothing but `produce()` over records that lie ready."""

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from loadtest import clients
from loadtest.fleet import TrafficBatch
from loadtest.fleet.fill import PRODUCER_CONFIG, Filler
from loadtest.generator.sender import Sender, Stop
from loadtest.generator.tally import Tally
from streams.errors import StreamsError
from streams.settings import Settings

FLUSH_S_MAX: Final = 60.0


@dataclass(frozen=True, slots=True)
class Rates:
    """Records per second of each round, until the last one is in the log, and the CPU time they took."""

    raw: list[float]
    generated: list[float]
    raw_cpu_us: float
    """Per record, all threads of the process."""
    generated_cpu_us: float

    def as_dict(self) -> dict[str, Any]:
        """Medians, their ratio, and every round.

        `cpu_ratio` asks the same of the CPU: what a loop of `produce()` takes, over what the generator takes. It
        is what counts where no core is free, and other programs on the machine disturb it less.
        """
        raw, generated = statistics.median(self.raw), statistics.median(self.generated)
        return {
            "generated_per_s": round(generated),
            "raw_produce_per_s": round(raw),
            "ratio": round(generated / raw, 3),
            "generated_cpu_us_per_record": round(self.generated_cpu_us, 2),
            "raw_produce_cpu_us_per_record": round(self.raw_cpu_us, 2),
            "cpu_ratio": round(self.raw_cpu_us / self.generated_cpu_us, 3),
            "rounds": {
                "generated_per_s": [round(rate) for rate in self.generated],
                "raw_produce_per_s": [round(rate) for rate in self.raw],
            },
        }


def measure(
    settings: Settings, topic: str, batches: Callable[[], Iterator[TrafficBatch]], rounds: int, stop: Stop
) -> Rates:
    """Send the same records by turns: prepared ones in a bare loop, and made while they are sent.

    Raises:
        StreamsError: the broker did not take them, or it was told to stop.

    """
    prepared = list(batches())
    records = sum(map(len, prepared))
    raw, generated = [], []
    for _ in range(rounds):
        raw.append(_timed(lambda: _produce(settings, topic, prepared)))
        generated.append(_timed(lambda: _generate(settings, topic, batches(), stop)))
        if stop.is_set():
            raise StreamsError("stopped")
    raw_s, raw_cpu_s = zip(*raw, strict=True)
    generated_s, generated_cpu_s = zip(*generated, strict=True)
    return Rates(
        raw=[records / seconds for seconds in raw_s],
        generated=[records / seconds for seconds in generated_s],
        raw_cpu_us=1e6 * statistics.median(raw_cpu_s) / records,
        generated_cpu_us=1e6 * statistics.median(generated_cpu_s) / records,
    )


def _timed(work: Callable[[], None]) -> tuple[float, float]:
    """Seconds that it took, by the clock and of CPU time of all threads."""
    began_s, cpu_began_s = time.monotonic(), time.process_time()
    work()
    return time.monotonic() - began_s, time.process_time() - cpu_began_s


def _generate(settings: Settings, topic: str, batches: Iterator[TrafficBatch], stop: Stop) -> None:
    filler = Filler(settings.kafka_bootstrap_servers, stop=stop)
    Sender(filler, topic, Tally(settings.streams_quarantine_rejects), stop).send_history(batches)
    filler.flush()


def _produce(settings: Settings, topic: str, batches: list[TrafficBatch]) -> None:
    """The producer as the generator configures it, and the shortest loop there is."""
    producer: Any = clients.producer(settings, PRODUCER_CONFIG)
    produce = producer.produce
    for batch in batches:
        for key, value, timestamp_ms in zip(batch.keys, batch.values, batch.timestamps_ms, strict=True):
            while True:
                try:
                    produce(topic, value, key, -1, None, None, timestamp_ms)
                    break
                except BufferError:
                    producer.poll(0.05)
        producer.poll(0)
    if left := producer.flush(FLUSH_S_MAX):
        raise StreamsError(f"{left} records not delivered within {FLUSH_S_MAX:.0f} s")

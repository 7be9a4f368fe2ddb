"""`python -m loadtest.fleet`: simulated positions (or orders), now, at the pace of the clock, until SIGTERM or Ctrl-C.

For demonstrations: event times begin at the moment of the start and never lie before it, so the traffic carries the
watermark on. A share of the records is duplicated, out of order, late or cannot be processed. Where the broker and the
registry are, and what counts as late, comes from the environment, as for every command.
"""

import signal
import sys
import time
from collections.abc import Mapping
from typing import Annotated, Final

import typer

from loadtest.fleet import SOURCES, Fleet, FleetShape, Kind, send_open_loop
from streams.errors import StreamsError
from streams.operators.declaration import Pipeline
from streams.pipelines import select_pipelines
from streams.registry.catalog import Catalog
from streams.registry.client import Registry
from streams.settings import Settings, load_settings

DUPLICATES: Final = 0.03
DISORDERED: Final = 0.05
LATE: Final = 0.004
REJECTS: Final[Mapping[Kind, float]] = {
    Kind.MALFORMED: 0.001,
    Kind.INVALID: 0.001,
    Kind.NOT_FRAMED: 0.0005,
    Kind.FUTURE_TIMESTAMP: 0.0005,
}
LATENESS_MS_MIN: Final = 2_000
"""A fleet that reports once a second needs more lateness than that for records that are out of order, but not late."""
ENDLESS: Final = 1 << 62


def shape_of(
    settings: Settings,
    pipeline: Pipeline,
    *,
    rate: int,
    device_prefix: str | None,
    start_ms: int,
    duplicates: float = DUPLICATES,
) -> FleetShape:
    """A fleet in which every vehicle (or order) reports once a second, together about `rate` records a second.

    Raises:
        StreamsError: the registry does not know the schema.

    """
    schema = Catalog.load().versions(pipeline.subject)[0]
    unique = 1.0 - duplicates
    return FleetShape(
        devices=max(1, round(rate * unique / SOURCES[pipeline.name].events_per_tick)),
        start_ms=start_ms,
        schema=schema.text,
        schema_id=Registry(settings).lookup(schema.subject, schema.text),
        duplicate_immediate=duplicates / 2,
        duplicate_delayed=duplicates / 2,
        disordered=DISORDERED if settings.streams_lateness_ms > LATENESS_MS_MIN else 0.0,
        late=LATE,
        rejects=REJECTS,
        lateness_ms=settings.streams_lateness_ms,
        skew_ms_max=settings.streams_skew_ms_max,
        duplicate_delay_ms_max=10_000,
        device_prefix=device_prefix,
    )


def command(
    rate: Annotated[int, typer.Option(min=1, help="Records a second, about.")] = 2_000,
    device_prefix: Annotated[str | None, typer.Option(help="Ids of vehicles or orders begin so.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed makes the same drives.")] = 0,
    pipeline: Annotated[str, typer.Option(help="Pipeline whose events are sent.")] = "gps",
    duplicates: Annotated[float, typer.Option(min=0, max=0.9, help="Share of copies.")] = DUPLICATES,
) -> None:
    """Send simulated events to the source topic of a pipeline until SIGTERM or Ctrl-C."""
    settings = load_settings()
    (declared,) = select_pipelines([pipeline])
    shape = shape_of(
        settings,
        declared,
        rate=rate,
        device_prefix=device_prefix,
        start_ms=time.time_ns() // 1_000_000,
        duplicates=duplicates,
    )
    fleet = Fleet(seed, shape, SOURCES[pipeline])
    send_open_loop(settings.kafka_bootstrap_servers, declared.source, fleet.batches(ENDLESS))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        typer.run(command)
    except StreamsError as error:
        print(f"fleet: {error}", file=sys.stderr)
        sys.exit(error.exit_status)
    except KeyboardInterrupt:
        sys.exit(0)

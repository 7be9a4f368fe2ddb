"""The generator's command line."""

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Final

import typer
from confluent_kafka import KafkaError

from loadtest.fleet import SOURCES, Fleet, Positions
from loadtest.fleet.bound_orders import BoundOrders
from loadtest.fleet.fill import FLUSH_S_MAX, Filler
from loadtest.fleet.mix import CLOCK_SKEW_MS_MAX, REALISTIC, Bounds, Mix, Schemas, mix_of
from loadtest.fleet.traffic import FleetShape, PathsOf, Source
from loadtest.generator.holding import Holding, read_commands
from loadtest.generator.measure import measure
from loadtest.generator.plan import HISTORY_TICK_MS, Plan, Share, Traffic, plan_history, plan_open_loop, plan_vehicles
from loadtest.generator.sender import Sender, Stop
from loadtest.generator.tally import Tally, Window
from loadtest.generator.target import find_schemas, find_topic, own_topic, refuse_foreign_topic
from loadtest.histograms import encoded
from streams.errors import StreamsError, UsageError
from streams.flow.discover import select_pipelines
from streams.schemas.catalog import Catalog
from streams.settings import Settings, load_settings

PROGRESS_S: Final = 0.5
LEAD_MS: Final = 1_000
"""Time to build the first batch before the first record is due."""
STOP_FLUSH_S_MAX: Final = 15.0
DEVICES_MAX: Final = 200_000
"""A block holds four ticks of all devices: some 300 bytes of memory each."""
DISORDER_TICKS_MIN: Final = 2
OPEN_LOOP_CONFIG: Final = {"linger.ms": 5}
BEHIND_SHARE_MAX: Final = 0.1
"""Greatest difference in time between two generator processes, as a share of the lateness. With a greater one, each
would make the other's disordered events late."""

NOT_YET_KNOWN: Final = Schemas("", 0, "", 0, foreign_id=0)

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
_PANEL: Final = "The mix: shares of all records"


def _share(text: str, *, share_max: float = 1.0) -> Any:
    return typer.Option(min=0.0, max=share_max, help=text, rich_help_panel=_PANEL)


@app.callback(invoke_without_command=True)
def generate(
    context: typer.Context,
    *,
    pipeline: Annotated[str, typer.Option(help="Flow whose events are sent: gps or orders.")] = "gps",
    topic: Annotated[str | None, typer.Option(help="Where to. Default: the flow's source topic.")] = None,
    any_topic: Annotated[
        bool, typer.Option("--any-topic", help="Write to a topic whose name does not begin with `loadtest.`.")
    ] = False,
    bootstrap: Annotated[str | None, typer.Option(help="Default: KAFKA_BOOTSTRAP_SERVERS.")] = None,
    registry_url: Annotated[str | None, typer.Option(help="Default: SCHEMA_REGISTRY_URL.")] = None,
    events: Annotated[
        int | None, typer.Option(min=1, help="History: so many records, as fast as possible, that end about now.")
    ] = None,
    rate: Annotated[
        int | None, typer.Option(min=1, help="Open loop: about so many records a second, each at its time.")
    ] = None,
    seconds: Annotated[float | None, typer.Option(min=0.0, help="Of open loop. Default: until stopped.")] = None,
    start_ms: Annotated[
        int | None, typer.Option(min=0, help="Timestamp of the beginning, milliseconds since 1970.")
    ] = None,
    await_start: Annotated[
        bool,
        typer.Option(
            "--await-start",
            help='Say {"ready": true}, then wait for {"start_ms": ...} on standard input, with --count-* if wanted.',
        ),
    ] = False,
    commands: Annotated[
        bool,
        typer.Option(
            "--commands",
            help='Open loop: take lines from standard input, such as {"hold": {"endings": ["7"], "newest_first": '
            '["07"], "seconds": 20}}: keys that end so are kept back, then sent at once.',
        ),
    ] = False,
    count_from_ms: Annotated[
        int | None, typer.Option(min=0, help="Records are measured from this timestamp on, with --count-until-ms.")
    ] = None,
    count_until_ms: Annotated[int | None, typer.Option(min=0, help="Up to this timestamp, excluded.")] = None,
    report_ms: Annotated[
        int, typer.Option(min=100, help="History: from one report of a vehicle to its next one.")
    ] = HISTORY_TICK_MS,
    devices: Annotated[
        int | None, typer.Option(min=1, max=DEVICES_MAX, help="Vehicles, or orders under way at a time.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed, flags and --start-ms make the same bytes.")] = 0,
    index: Annotated[int, typer.Option(min=0, help="Which process this is, of those that send together.")] = 0,
    of: Annotated[
        int, typer.Option(min=1, help="Processes that send together; events, rate and devices are those of all.")
    ] = 1,
    device_prefix: Annotated[str | None, typer.Option(help="Ids of vehicles or orders begin so.")] = None,
    vehicles: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=DEVICES_MAX,
            help="Orders: bound to gps traffic of so many --devices, with the same --seed, --start-ms and --report-ms.",
        ),
    ] = None,
    vehicle_rate: Annotated[
        int | None,
        typer.Option(min=1, help="Orders: bound to gps traffic of this --rate, with the same --seed and --start-ms."),
    ] = None,
    vehicle_prefix: Annotated[str | None, typer.Option(help="Orders: --device-prefix of the gps traffic.")] = None,
    tracks: Annotated[
        PathsOf, typer.Option(help="What vehicles move along; real: committed tracks.")
    ] = REALISTIC.paths,
    duplicate_immediate: Annotated[float, _share("Sent again within 20 ms.")] = REALISTIC.duplicate_immediate,
    duplicate_delayed: Annotated[float, _share("Sent again up to 10 s later.")] = REALISTIC.duplicate_delayed,
    disordered: Annotated[
        float | None,
        _share(f"Overtaken, within lateness. (default {REALISTIC.disordered}, where lateness leaves room)"),
    ] = None,
    late: Annotated[float, _share("Overtaken, behind lateness.")] = REALISTIC.late,
    buffered: Annotated[float, _share("Stored while offline, then sent in one go.")] = REALISTIC.buffered,
    zone_devices: Annotated[
        int, typer.Option(min=1, help="No share: devices that share their dead zones.", rich_help_panel=_PANEL)
    ] = REALISTIC.zone_devices,
    newest_first: Annotated[
        float, _share("Of the devices: those that send what they stored in reverse.")
    ] = REALISTIC.newest_first,
    parked: Annotated[
        float | None, _share("Of the time of a vehicle: parked, one report in 30. (default 0)", share_max=0.55)
    ] = None,
    skewed: Annotated[float, _share("Of the devices: those with a wrong clock.")] = REALISTIC.skewed,
    clock_skew_ms_max: Annotated[
        int, typer.Option(min=1, help="No share: how wrong a clock is at most.", rich_help_panel=_PANEL)
    ] = CLOCK_SKEW_MS_MAX,
    zipf: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=2.0,
            help=f"No share: exponent of how unevenly vehicles report; 0: alike. (default {REALISTIC.zipf})",
            rich_help_panel=_PANEL,
        ),
    ] = None,
    version_2: Annotated[
        float | None, _share(f"Written with version 2 of the schema. (default {REALISTIC.version_2}, if there is one)")
    ] = None,
    speed_unknown: Annotated[float, _share("Of the positions: those without a speed.")] = REALISTIC.speed_unknown,
    not_framed: Annotated[float, _share("Rejects: JSON instead of Avro.")] = REALISTIC.not_framed,
    unknown_schema: Annotated[float, _share("Rejects: an id of no schema.")] = REALISTIC.unknown_schema,
    malformed: Annotated[float, _share("Rejects: cut off, or with junk behind.")] = REALISTIC.malformed,
    incompatible_schema: Annotated[
        float, _share("Rejects: the id of another subject's schema.")
    ] = REALISTIC.incompatible_schema,
    invalid: Annotated[float, _share("Rejects: impossible coordinates or times.")] = REALISTIC.invalid,
    key_mismatch: Annotated[float, _share("Rejects: a key that is not the device's.")] = REALISTIC.key_mismatch,
    future_timestamp: Annotated[float, _share("Rejects: further ahead than skew.")] = REALISTIC.future_timestamp,
    too_large: Annotated[
        float, _share("Rejects: larger than STREAMS_RECORD_BYTES_MAX.", share_max=0.001)
    ] = REALISTIC.too_large,
) -> None:
    """Write seeded traffic to one topic; print progress, then what must become of it, as JSON lines.

    Either --events (history) or --rate (open loop). SIGTERM or Ctrl-C ends it early: what was sent is then counted.
    """
    if context.invoked_subcommand is not None:
        return
    _refuse_what_does_not_fit(events, rate, seconds, count_from_ms, count_until_ms)
    _refuse_commands(rate, is_wanted=commands, await_start=await_start)
    settings = load_settings(kafka_bootstrap_servers=bootstrap, schema_registry_url=registry_url)
    (declared,) = select_pipelines([pipeline])
    topic = topic or declared.source
    if not any_topic:
        refuse_foreign_topic(topic)
    defaults = mix_of(declared.name)
    for name, value in (("--zipf", zipf), ("--version-2", version_2), ("--parked", parked)):
        if value and declared.name != "gps":
            raise UsageError(f"{name} is not for {declared.name}")
    is_bound = vehicles is not None or vehicle_rate is not None
    _refuse_what_is_not_bound(declared.name, is_bound=is_bound, has_start=start_ms is not None or await_start, of=of)
    mix = Mix(
        duplicate_immediate=duplicate_immediate,
        duplicate_delayed=duplicate_delayed,
        disordered=REALISTIC.disordered if disordered is None else disordered,
        late=late,
        buffered=buffered,
        zone_devices=zone_devices,
        newest_first=newest_first,
        parked=defaults.parked if parked is None else parked,
        skewed=skewed,
        clock_skew_ms_max=clock_skew_ms_max,
        zipf=defaults.zipf if zipf is None else zipf,
        version_2=defaults.version_2 if version_2 is None else version_2,
        paths=tracks,
        speed_unknown=speed_unknown,
        not_framed=not_framed,
        unknown_schema=unknown_schema,
        malformed=malformed,
        incompatible_schema=incompatible_schema,
        invalid=invalid,
        key_mismatch=key_mismatch,
        future_timestamp=future_timestamp,
        too_large=too_large,
    )
    if mix.unique_share <= 0:
        raise UsageError("copies cannot be everything: --duplicate-immediate and --duplicate-delayed add up to 1")
    share = Share(index, of)
    traffic = Traffic(
        mix=mix,
        schemas=NOT_YET_KNOWN,
        bounds=Bounds(settings.streams_lateness_ms, settings.streams_skew_ms_max, settings.streams_record_bytes_max),
        events_per_tick=SOURCES[declared.name].events_per_tick,
        device_prefix=device_prefix,
        seed=seed,
    )

    def planned(traffic: Traffic) -> Plan:
        now_ms = time.time_ns() // 1_000_000
        if events is not None:
            return plan_history(
                traffic, share, events=events, now_ms=now_ms, start_ms=start_ms, devices=devices, tick_ms=report_ms
            )
        begins_ms = now_ms + LEAD_MS if start_ms is None else start_ms
        return plan_open_loop(traffic, share, rate=rate or 1, seconds=seconds, start_ms=begins_ms, devices=devices)

    if disordered is None:
        calm = replace(traffic, mix=replace(mix, disordered=0.0))
        shape = planned(calm).shape
        if shape.disorder_ms[1] < DISORDER_TICKS_MIN * shape.disorder_ms[0]:
            traffic = calm
    planned(traffic)  # what is impossible is refused before anyone is asked for anything
    find_topic(settings, topic)
    traffic = replace(
        traffic,
        schemas=find_schemas(settings, declared, newer=mix.version_2 > 0, foreign=mix.incompatible_schema > 0),
    )
    if await_start:
        told = _awaited()
        start_ms = told["start_ms"]
        count_from_ms, count_until_ms = told.get("count_from_ms"), told.get("count_until_ms")
    window = None if count_from_ms is None or count_until_ms is None else Window(count_from_ms, count_until_ms)
    plan = planned(traffic)
    source: Callable[[int, FleetShape], Source] = SOURCES[declared.name]
    if is_bound:
        positions = Traffic(
            mix=REALISTIC, schemas=NOT_YET_KNOWN, bounds=traffic.bounds, events_per_tick=Positions.events_per_tick,
            device_prefix=vehicle_prefix, seed=seed,
        )  # fmt: skip
        source = partial(
            BoundOrders,
            vehicles=plan_vehicles(
                positions, start_ms=plan.shape.start_ms, rate=vehicle_rate, devices=vehicles, tick_ms=report_ms
            ),
        )
    _run(settings, topic, plan, source, of, context.obj, window, Holding(_print) if commands else None)


@app.command("measure")
def measure_command(
    context: typer.Context,
    pipeline: Annotated[str, typer.Option(help="Flow whose events are sent: gps or orders.")] = "gps",
    bootstrap: Annotated[str | None, typer.Option(help="Default: KAFKA_BOOTSTRAP_SERVERS.")] = None,
    events: Annotated[int, typer.Option(min=1_000, help="Records a round.")] = 600_000,
    rounds: Annotated[int, typer.Option(min=1, help="Of each of the two, by turns.")] = 3,
    partitions: Annotated[int, typer.Option(min=1, help="Of the topic, which is removed afterwards.")] = 12,
) -> None:
    """Print how fast the realistic mix is made and sent, next to a bare loop of produce() over prepared records."""
    settings = load_settings(kafka_bootstrap_servers=bootstrap)
    (declared,) = select_pipelines([pipeline])
    versions = Catalog.load().versions(declared.subject)
    traffic = Traffic(
        # No worker reads it, so that the ids of schemas matter to nobody, nor does what is too large for one.
        mix=replace(mix_of(declared.name), too_large=0.0),
        schemas=Schemas(versions[0].text, 1, versions[1].text if len(versions) > 1 else None, 2, foreign_id=3),
        bounds=Bounds(settings.streams_lateness_ms, settings.streams_skew_ms_max, settings.streams_record_bytes_max),
        events_per_tick=SOURCES[declared.name].events_per_tick,
    )
    now_ms = time.time_ns() // 1_000_000
    plan = plan_history(traffic, Share(), events=events, now_ms=now_ms, start_ms=None, devices=None)
    fleet = Fleet(plan.seed, plan.shape, SOURCES[declared.name])
    with own_topic(settings, "generator-measure", partitions) as topic:
        rates = measure(settings, topic, lambda: fleet.batches(plan.records), rounds, context.obj)
    _print(rates.as_dict())


def _run(
    settings: Settings,
    topic: str,
    plan: Plan,
    source: Callable[[int, FleetShape], Source],
    of: int,
    stop: Stop,
    window: Window | None,
    holding: Holding | None,
) -> None:
    tally = Tally(settings.streams_quarantine_rejects)
    config = {**(OPEN_LOOP_CONFIG if plan.open_loop else {}), "error_cb": _say_outage}
    filler = Filler(settings.kafka_bootstrap_servers, config, stop=stop)
    sender = Sender(filler, topic, tally, stop, window, holding)
    if holding is not None:
        read_commands(holding.begin)
    fleet = Fleet(plan.seed, plan.shape, source)
    batches = fleet.batches(plan.records)
    if window is not None:
        devices_all = plan.shape.devices_all or plan.shape.device_first + plan.shape.devices
        _print({"skewed_devices": fleet.skewed_devices(), "devices": devices_all})
    cpu_began_s = time.process_time()
    with _progress(sender, tally, stop, window):
        if plan.open_loop:
            sender.send_open_loop(batches, plan.ends_ms)
        else:
            sender.send_history(batches)
        filler.flush(STOP_FLUSH_S_MAX if stop.is_set() else FLUSH_S_MAX)
    seconds = 0.0 if sender.began_s is None else time.monotonic() - sender.began_s
    apart = sender.behind_ms_max > BEHIND_SHARE_MAX * settings.streams_lateness_ms or not plan.open_loop
    was_held = holding is not None and holding.was_used
    is_late_exact = (of == 1 or not apart) and not plan.shape.newest_first and not was_held
    _print(
        {
            "done": True,
            **tally.expected(late_exact=is_late_exact),
            "seconds": round(seconds, 3),
            "records_per_s": round(tally.records / seconds, 1) if seconds else 0.0,
            "behind_ms_max": round(sender.behind_ms_max, 1),
            "cpu_seconds": round(time.process_time() - cpu_began_s, 3),
            **({} if window is None else _due(window)),
        }
    )


def _refuse_what_does_not_fit(
    events: int | None, rate: int | None, seconds: float | None, count_from_ms: int | None, count_until_ms: int | None
) -> None:
    if (events is None) == (rate is None):
        raise UsageError("either --events (history, as fast as possible) or --rate (open loop) is needed")
    if seconds is not None and rate is None:
        raise UsageError("--seconds goes with --rate")
    if (count_from_ms is None) != (count_until_ms is None) or (count_from_ms is not None and rate is None):
        raise UsageError("--count-from-ms and --count-until-ms go together, and with --rate")


def _refuse_commands(rate: int | None, *, is_wanted: bool, await_start: bool) -> None:
    if is_wanted and (rate is None or await_start):
        raise UsageError("--commands goes with --rate, and not with --await-start, which reads standard input too")


def _refuse_what_is_not_bound(pipeline: str, *, is_bound: bool, has_start: bool, of: int) -> None:
    """Orders are bound to the vehicles of one process that begins at the same time."""
    if is_bound and pipeline != "orders":
        raise UsageError(f"--vehicles and --vehicle-rate are not for {pipeline}")
    if is_bound and not (has_start and of == 1):
        raise UsageError("--vehicles and --vehicle-rate need the gps traffic's --start-ms, and one process of each")


def _awaited() -> dict[str, int]:
    """Say that all is ready, and wait to be told when to begin; whoever has gone away wants nothing to be sent.

    Raises:
        UsageError: what was said is no time to begin.

    """
    _print({"ready": True})
    line = sys.stdin.readline()
    try:
        told = json.loads(line)
    except ValueError:
        told = None
    if not isinstance(told, dict) or "start_ms" not in told or not all(type(value) is int for value in told.values()):
        raise UsageError(f'--await-start wants a line like {{"start_ms": 1795997590013}}; got {line!r}')
    return told


def _due(window: Window) -> dict[str, Any]:
    return {"due": window.due, "due_final": True, "publish_delays": encoded(window.delays)}


def _say_outage(error: KafkaError) -> None:
    if error.code() == KafkaError._ALL_BROKERS_DOWN:  # noqa: SLF001 - public constant of librdkafka
        print("generator: no broker answers; what is due waits for it", file=sys.stderr, flush=True)


@contextmanager
def _progress(sender: Sender, tally: Tally, stop: Stop, window: Window | None) -> Iterator[None]:
    """Say twice a second how far it is; when nobody listens any more, stop."""
    ended = threading.Event()

    def report() -> None:
        while not ended.wait(PROGRESS_S):
            try:
                due = {} if window is None else {"due": window.due, "due_final": window.is_over}
                _print({"sent": tally.records, "behind_ms": round(sender.behind_ms, 1), **due})
            except BrokenPipeError:
                stop.set()
                return

    reporter = threading.Thread(target=report, name="progress", daemon=True)
    reporter.start()
    try:
        yield
    finally:
        ended.set()
        reporter.join()


def _print(values: dict[str, Any]) -> None:
    print(json.dumps(values), flush=True)


def main(stop: threading.Event) -> None:
    """Run the command line; `stop`, once set, ends it early."""
    try:
        app(prog_name="python -m loadtest.generator", obj=stop)
    except StreamsError as error:
        print(f"generator: {error}", file=sys.stderr)
        sys.exit(error.exit_status)
    except BrokenPipeError:
        sys.exit(1)

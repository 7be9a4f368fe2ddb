"""`make oncall`: a worker is stopped, a source falls silent, poison comes in a burst, a partition runs hot.

Each time: how long until the monitor's verdict, how long from there to the firing alert (a real Prometheus with the
rules of deploy/), a screenshot of the page, what `streams lag` says; then the cause is mended, and the same is awaited
the other way round. Exit status 1 if an alert came later than two evaluations behind the verdict, or did not go.
"""

import argparse
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from confluent_kafka import Producer
from playwright.sync_api import Page, sync_playwright

from loadtest.fleet import Fleet
from logistics.flows.gps import GPS
from streams.local.stack import Stack, running_stack
from streams.monitor.status import Status
from tests.integration.monitors import Monitor, asked, monitor_over, prometheus_over
from tests.integration.workers import Traffic, Worker, fresh_world, rough_shape, workers
from tests.left_out import chromium, prometheus

EVALUATION_S: Final = 5
SILENT_S: Final = 15
FOUND_S_MAX: Final = 420
RECORDS_PER_S: Final = 300
SETTINGS: Final = {
    "STREAMS_MONITOR_INTERVAL_S": "2",
    "STREAMS_MONITOR_WINDOW_S": "60",
    "STREAMS_SILENT_S": str(SILENT_S),
}
POISON: Final = 6_000
HOT_RECORDS_MAX: Final = 5_000_000


class Late(Exception):
    """Something that should have been noticed was not, or too late."""


@dataclass
class Row:
    """What became of one trouble; seconds."""

    trouble: str
    verdict_s: float
    alert_s: float
    alert: str
    well_s: float
    quiet_s: float

    def line(self) -> str:
        """A row of the table."""
        return (
            f"{self.trouble:<34} {self.verdict_s:>9.0f} {self.alert_s:>9.1f}  {self.alert:<13} {self.well_s:>9.0f}"
            f" {self.quiet_s:>9.0f}"
        )


HEADER: Final = (
    f"{'trouble':<34} {'verdict':>9} {'alert':>9}  {'':<13} {'well':>9} {'quiet':>9}\n"
    f"{'':<34} {'s after':>9} {'s after':>9}  {'':<13} {'s after':>9} {'s after':>9}\n"
    f"{'':<34} {'trouble':>9} {'verdict':>9}  {'':<13} {'mending':>9} {'mending':>9}"
)


class Run:
    """One stack, one worker, one monitor, one Prometheus, one browser."""

    def __init__(
        self, stack: Stack, worker: Worker, monitor: Monitor, prometheus_url: str, page: Page, out: Path
    ) -> None:
        self.stack, self.worker, self.monitor, self.page, self.out = stack, worker, monitor, page, out
        self._prometheus = prometheus_url
        self.rows: list[Row] = []

    def trouble(
        self,
        name: str,
        alert: str,
        labels: str = "",
        *,
        cause: Callable[[], None],
        mend: Callable[[], None],
        noticed: Callable[[], bool],
        group: str = GPS.group,
        for_s: float = 0.0,
    ) -> None:
        """Cause it, wait for verdict and alert, take pictures; mend it, wait until all is well and quiet.

        `for_s`: how long the verdict has to last before the alert fires.
        """
        print(f"--- {name}", flush=True)
        began_s = time.monotonic()
        cause()
        verdict_s = self._wait(noticed, f"{name}: a verdict") - began_s
        alert_s = self._wait(lambda: self._fires(alert, labels), f"{name}: the alert {alert}") - began_s - verdict_s
        print(f"    verdict after {verdict_s:.0f} s, {alert} fires {alert_s:.1f} s later", flush=True)
        self._picture(f"{name}-wrong", group)
        mended_s = time.monotonic()
        mend()
        well_s = self._wait(lambda: not noticed(), f"{name}: the verdict is well again") - mended_s
        quiet_s = self._wait(lambda: not self._fires(alert, labels), f"{name}: {alert} is over") - mended_s
        self._picture(f"{name}-well", group)
        print(f"    well {well_s:.0f} s after mending, quiet after {quiet_s:.0f} s", flush=True)
        self.rows.append(Row(name, verdict_s, alert_s, alert, well_s, quiet_s))
        if alert_s > for_s + 2 * EVALUATION_S + 1:
            raise Late(f"{name}: {alert} fired {alert_s:.1f} s after the verdict, evaluated every {EVALUATION_S} s")

    def _wait(self, condition: Callable[[], bool], what: str) -> float:
        ends_s = time.monotonic() + FOUND_S_MAX
        while not condition():
            if time.monotonic() > ends_s:
                raise Late(f"not within {FOUND_S_MAX} s: {what}")
            time.sleep(0.25)
        return time.monotonic()

    def _fires(self, alert: str, labels: str) -> bool:
        return bool(asked(self._prometheus, f'ALERTS{{alertname="{alert}",alertstate="firing",{labels}}}'))

    def verdicts(self) -> set[Status]:
        """Verdicts on the partitions of the pipeline's group."""
        rows = self.monitor.json(f"/v3/kafka/local/consumer/{GPS.group}/lag")["status"]["partitions"]
        return {Status[row["status"]] for row in rows}

    def silent(self) -> bool:
        """Whether the source is."""
        overview = self.monitor.json("/api/overview")
        return any(one["silent"] for one in overview["sources"] if one["source"] == GPS.source)

    def reject_share(self) -> float:
        """Of the last five minutes, as Prometheus sees it: the rule's own expression without its bound."""
        share = 'sum(rate(streams_events_total{outcome="rejected"}[5m])) / sum(rate(streams_events_total[5m]))'
        found = asked(self._prometheus, share)
        return float(found[0]["value"][1]) if found else 0.0

    def _picture(self, name: str, group: str) -> None:
        slug = name.replace(" ", "-")
        self.page.goto(f"{self.monitor.url}/#{group}")
        self.page.wait_for_selector("#partitions tbody tr")
        self.page.wait_for_timeout(2_500)
        self.page.screenshot(path=self.out / f"{slug}.png", full_page=True)
        told = subprocess.run(
            [sys.executable, "-m", "streams", "lag", "--group", group, "--for", "3"],
            env={**os.environ, **self.stack.environment()}, capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        (self.out / f"{slug}.txt").write_text(told.stdout + told.stderr)
        print("    " + "\n    ".join(told.stdout.strip().splitlines()[2:6]), flush=True)


class Tap:
    """Traffic that can be turned off and on."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._seed = 0
        self._open: Traffic | None = None

    def turn_on(self) -> None:
        """Have records come."""
        self._seed += 1
        start_ms = int(time.time()) * 1_000
        shape = rough_shape(self._stack, start_ms=start_ms, rejects={}, disordered=0.0, late=0.0)
        self._open = Traffic(self._stack, shape, seed=self._seed, records_per_s=RECORDS_PER_S).__enter__()

    def turn_off(self) -> None:
        """Have none come."""
        if self._open is not None:
            self._open.__exit__(None, None, None)
            self._open = None


def send_poison(stack: Stack) -> None:
    """A burst of records that are no Avro, of many devices."""
    producer = Producer(
        {"bootstrap.servers": stack.bootstrap_servers, "partitioner": "murmur2_random", "enable.idempotence": True}
    )
    for number in range(POISON):
        producer.produce(GPS.source, b"poison %d" % number, key=b"device-%d" % number)
    producer.flush(60)


class HotKey:
    """One device that sends without pause: all of it goes into one partition, faster than it can be worked off."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._send, name="hot-key")

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._ends.set()
        if self._thread.is_alive():
            self._thread.join()

    def _send(self) -> None:
        shape = rough_shape(self._stack, devices=1, start_ms=int(time.time()) * 1_000, rejects={})
        batch = next(iter(Fleet(1, shape).batches(1 << 40)))
        key, value = batch.keys[0], batch.values[0]
        producer = Producer(
            {"bootstrap.servers": self._stack.bootstrap_servers, "partitioner": "murmur2_random", "linger.ms": 20,
             "compression.type": "lz4", "batch.num.messages": 20_000, "queue.buffering.max.messages": 500_000}
        )  # fmt: skip
        for _ in range(HOT_RECORDS_MAX // 1_000):
            if self._ends.is_set():
                break
            for _ in range(1_000):
                while True:
                    try:
                        producer.produce(GPS.source, value, key)
                        break
                    except BufferError:
                        producer.poll(0.05)
            producer.poll(0)
        producer.flush(60)


@contextmanager
def running(out: Path) -> Iterator[tuple[Run, Tap]]:
    """Everything started, with all well."""
    with running_stack(out / "stack") as stack, sync_playwright() as playwright:
        fresh_world(stack)
        tap = Tap(stack)
        with workers(stack, out, "oncall") as (worker,):
            worker.start({"STREAMS_IDLE_MS": "3600000"}).wait_ready()
            tap.turn_on()
            browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
            try:
                with (
                    monitor_over(stack, worker, out, SETTINGS) as monitor,
                    prometheus_over(monitor, out, evaluation_s=EVALUATION_S) as prometheus_url,
                ):
                    page = browser.new_page(viewport={"width": 1280, "height": 900})
                    run = Run(stack, worker, monitor, prometheus_url, page, out)
                    run._wait(lambda: {Status.OK} == run.verdicts(), "all is well")
                    run._wait(lambda: bool(asked(prometheus_url, "streams_lag_status")), "Prometheus scrapes")
                    yield run, tap
            finally:
                tap.turn_off()
                browser.close()


def main() -> int:
    """Run it."""
    arguments = argparse.ArgumentParser(prog="make oncall", description=__doc__)
    arguments.add_argument("--out", type=Path, default=Path(".local/oncall"), help="where pictures and logs go")
    out: Path = arguments.parse_args().out / time.strftime("%Y%m%d-%H%M%S")
    missing = [name for name, found in (("chromium", chromium()), ("prometheus", prometheus())) if found is None]
    if missing:
        print(f"this needs {' and '.join(missing)}: apt-get install {' '.join(missing)}", file=sys.stderr)
        return 1
    out.mkdir(parents=True)
    rows: list[Row] = []
    try:
        with running(out) as (run, tap):
            rows = run.rows
            _troubles(run, tap)
    except Late as error:
        print(f"FAILED: {error}", file=sys.stderr)
        return 1
    finally:
        print(f"\n{HEADER}", *(row.line() for row in rows), f"\npictures and logs: {out}", sep="\n")
    return 0


def _troubles(run: Run, tap: Tap) -> None:
    bad = {Status.STOP, Status.STALL}

    def start_worker() -> None:
        run.worker.start({"STREAMS_IDLE_MS": "3600000"}).wait_ready()

    run.trouble(
        "a worker is stopped", "NoProgress",
        cause=lambda: _nothing(run.worker.terminate()), mend=start_worker, noticed=lambda: bool(run.verdicts() & bad),
    )  # fmt: skip
    run.trouble(
        "a source falls silent", "SourceSilent", f'source="{GPS.source}"',
        cause=tap.turn_off, mend=tap.turn_on, noticed=run.silent,
    )  # fmt: skip
    run.trouble(
        "poison comes in a burst", "RejectShare",
        cause=lambda: send_poison(run.stack), mend=lambda: None, noticed=lambda: run.reject_share() > 0.05,
        for_s=60,
    )  # fmt: skip
    hot = HotKey(run.stack)
    run.trouble(
        "a partition runs hot", "LagGrowing",
        cause=hot.start, mend=hot.stop, noticed=lambda: Status.WARN in run.verdicts(),
        for_s=120,
    )  # fmt: skip


def _nothing(_: Any) -> None:
    return None


if __name__ == "__main__":
    sys.exit(main())

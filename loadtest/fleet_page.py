"""`make bench-fleet`: the fleet page in Chromium while vehicles report: pictures a second, first paint, memory.

A stack, a worker, a generator and the monitor as a user starts them; Chromium without a window, which draws by the
processor and shares it with all the others. Every quarter of the time the map is moved, so that more than one view of
it is measured. `--use-running`: the stack of KAFKA_BOOTSTRAP_SERVERS.
"""

import json
import os
import shutil
import sys
import tempfile
import time
import urllib.request
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import psutil
import typer
from playwright.sync_api import sync_playwright

from loadtest.prepare import prepare_pipeline
from loadtest.program import run_to_the_end
from loadtest.subject import Subject
from loadtest.worker import free_port
from streams.errors import StreamsError, UsageError
from streams.local.stack import running_stack
from streams.settings import load_settings

FLOWS: Final = ("gps", "orders", "dispatch", "tracking")
CHROMIUMS: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
READY_S: Final = 300.0
MEGABYTE: Final = 1 << 20
MOVES: Final = ("0", "+", "+", "-")
"""Keys that are pressed at each quarter of the time."""
_FIRST_PAINT: Final = "() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? null"
_PREFIX: Final = "car-"


@dataclass(frozen=True, slots=True)
class Sample:
    """What was measured in one stretch of the run."""

    seconds: float
    pictures_per_s: float
    draw_ms: float
    """Mean time in milliseconds that drawing one picture took."""
    drawn: int
    """Vehicles that were drawn by themselves at its end; others were in circles."""
    positions_per_s: float
    js_heap_mb: float
    renderer_mb: float
    """Resident memory of the browser's process of the page."""
    monitor_mb: float


def command(
    vehicles: Annotated[int, typer.Option(min=1, help="Vehicles.")] = 2_000,
    rate: Annotated[int, typer.Option(min=1, help="Positions a second, of all of them.")] = 2_000,
    minutes: Annotated[float, typer.Option(min=0.1, help="How long the page is watched; 60 for the long form.")] = 3.0,
    output: Annotated[Path | None, typer.Option(help="A file for the figures as JSON.")] = None,
    *,
    use_running: Annotated[bool, typer.Option("--use-running", help="The stack of KAFKA_BOOTSTRAP_SERVERS.")] = False,
) -> None:
    """Watch the fleet page while vehicles report."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as ended:
        environment: dict[str, str] = {}
        if not use_running:
            environment = ended.enter_context(running_stack(Path(folder) / "stack")).environment()
        os.environ.update(environment)
        found = _run(Path(folder), vehicles, rate, minutes * 60)
    text = json.dumps(found, indent=2)
    print(text)
    if output is not None:
        output.write_text(text + "\n", encoding="utf-8")


def _run(folder: Path, vehicles: int, rate: int, seconds: float) -> dict[str, Any]:
    settings = load_settings()
    for flow in FLOWS:
        prepare_pipeline(settings, flow, 3)
    worker_port, monitor_port = free_port(), free_port()
    here = f"http://127.0.0.1:{monitor_port}"
    environment = {**settings.connection_environment(), "STREAMS_MONITOR_WORKERS": f"http://127.0.0.1:{worker_port}"}
    programs = {
        "worker": ["-m", "streams", "worker", "--data-dir", str(folder / "data"), "--web-port", str(worker_port)],
        "monitor": ["-m", "streams", "monitor", "--web-port", str(monitor_port)],
        "generator": ["-m", "loadtest.generator", "--any-topic", "--rate", str(rate), "--devices", str(vehicles),
                      "--device-prefix", _PREFIX],
    }  # fmt: skip
    with ExitStack() as running:
        for name, arguments in programs.items():
            running.enter_context(Subject(name, arguments, folder / f"{name}.log", environment=environment))
        _wait_for(f"{here}/readyz")
        samples, first_paint_ms = _watch(f"{here}/fleet/", vehicles, seconds)
    steady = samples[1:] or samples
    return {
        "vehicles": vehicles,
        "rate": rate,
        "seconds": round(sum(one.seconds for one in samples), 1),
        "first_paint_ms": first_paint_ms,
        "pictures_per_s": round(sum(one.pictures_per_s for one in steady) / len(steady), 1),
        "positions_per_s": round(sum(one.positions_per_s for one in steady) / len(steady), 1),
        "js_heap_mb_max": max(one.js_heap_mb for one in samples),
        "renderer_mb_max": max(one.renderer_mb for one in samples),
        "monitor_mb_max": max(one.monitor_mb for one in samples),
        "samples": [asdict(one) for one in samples],
    }


def _wait_for(url: str) -> None:
    deadline_s = time.monotonic() + READY_S
    while time.monotonic() < deadline_s:
        try:
            with urllib.request.urlopen(url, timeout=5):  # noqa: S310 - our own http address
                return
        except OSError:
            time.sleep(0.5)
    raise StreamsError(f"{url} does not answer within {READY_S:.0f} s")


def _watch(url: str, vehicles: int, seconds: float) -> tuple[list[Sample], float | None]:
    """Samples of the run, and milliseconds to the first paint of a second visit, when the monitor is warm."""
    browser = next((path for name in CHROMIUMS if (path := shutil.which(name))), None)
    if browser is None:
        raise UsageError("make bench-fleet needs Chromium (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": 1440, "height": 900})
        page.goto(url)
        page.wait_for_function("() => globalThis.fleetFigures?.positions > 0", timeout=READY_S * 1000)
        _wait_for_vehicles(page, vehicles)
        tools = page.context.new_cdp_session(page)
        tools.send("Performance.enable")
        tools.send("HeapProfiler.enable")
        samples = []
        for key in MOVES:
            page.keyboard.press(key)
            samples.append(_sample(page, tools, seconds / len(MOVES)))
            print(samples[-1], file=sys.stderr)
        page.goto(url)
        page.wait_for_timeout(3_000)
        first_paint_ms = page.evaluate(_FIRST_PAINT)
        chromium.close()
    return samples, None if first_paint_ms is None else round(first_paint_ms, 1)


def _wait_for_vehicles(page: Any, vehicles: int) -> None:
    """Until most of them are on the map: parked ones report every few minutes."""
    counted = "() => parseInt(document.getElementById('state').textContent.replaceAll(',', ''), 10) || 0"
    deadline_s = time.monotonic() + READY_S
    while page.evaluate(counted) < vehicles / 2:
        if time.monotonic() > deadline_s:
            raise StreamsError(f"fewer than half of {vehicles} vehicles are on the map after {READY_S:.0f} s")
        page.wait_for_timeout(1_000)


def _sample(page: Any, tools: Any, seconds: float) -> Sample:
    before = page.evaluate("() => ({...fleetFigures, at: performance.now()})")
    page.wait_for_timeout(seconds * 1_000)
    after = page.evaluate("() => ({...fleetFigures, at: performance.now()})")
    tools.send("HeapProfiler.collectGarbage")  # what is left is what the page holds
    heap = {one["name"]: one["value"] for one in tools.send("Performance.getMetrics")["metrics"]}
    passed_s = (after["at"] - before["at"]) / 1_000
    pictures = after["pictures"] - before["pictures"]
    return Sample(
        seconds=round(passed_s, 1),
        pictures_per_s=round(pictures / passed_s, 1),
        draw_ms=round((after["drawMs"] - before["drawMs"]) / max(1, pictures), 2),
        drawn=after["drawn"],
        positions_per_s=round((after["positions"] - before["positions"]) / passed_s, 1),
        js_heap_mb=round(heap["JSHeapUsedSize"] / MEGABYTE, 1),
        renderer_mb=_resident_mb("--type=renderer"),
        monitor_mb=_resident_mb("monitor"),
    )


def _resident_mb(argument: str) -> float:
    """Resident memory of the largest of this program's descendants that were started with an argument."""
    sizes = [one.memory_info().rss for one in psutil.Process().children(recursive=True) if argument in one.cmdline()]
    return round(max(sizes, default=0) / MEGABYTE, 1)


def main() -> None:
    """Run the command line."""
    run_to_the_end("fleet_page", command)


if __name__ == "__main__":
    main()

"""Figures of event time: watermark, dedup horizon, joins, and the course of a dead letter."""

from docsite.drawings.canvas import Canvas

ARRIVALS = (
    ("A", 2), ("A", 4), ("A", 3), ("A", 8), ("A", 11), ("A", 7), ("A", 14), ("A", 6), ("B", 5), ("A", 16),
)  # fmt: skip
"""Device and event time in seconds, in the order of the log; the eighth is late, the ninth is not."""
BOUND_S = 5
LATE, AT_ONCE = 7, 8


def watermark() -> Canvas:
    """Event time against the order of the log, and the watermark of a bound of five seconds."""
    drawn = Canvas(
        760,
        380,
        "Ten events in the order of the log, by event time, and the watermark, five seconds less than the newest. "
        "An event under the watermark is late if its own device has a later one that the watermark has passed.",
    )
    left, bottom, step, scale = 90, 320, 62, 16

    def place(index: int, seconds: float) -> tuple[float, float]:
        return left + 40 + index * step, bottom - seconds * scale

    drawn.axis(left, bottom, 650, "order of the log")
    drawn.arrow([(left, bottom), (left, 26)])
    drawn.text(left - 12, 22, "event time", "small", "middle")
    for seconds in (0, 5, 10, 15):
        drawn.text(left - 10, bottom - seconds * scale + 4, f"{seconds} s", "small", "end")
    newest = 0
    points: list[tuple[float, float]] = []
    for index, (_, seconds) in enumerate(ARRIVALS):
        x, _ = place(index, 0)
        before = max(newest - BOUND_S, 0)
        newest = max(newest, seconds)
        points += [(x, bottom - before * scale), (x, bottom - max(newest - BOUND_S, 0) * scale)]
    points.append((points[-1][0] + 30, points[-1][1]))
    drawn.line(points, "accent")
    drawn.text(points[-1][0] + 4, points[-1][1] + 18, "watermark", "small accent", "end")
    for index, (device, seconds) in enumerate(ARRIVALS):
        colour = {LATE: "warn", AT_ONCE: "good"}.get(index, "accent")
        drawn.dot(*place(index, seconds), colour, f"{device} {seconds} s")
    x, y = place(LATE, ARRIVALS[LATE][1])
    drawn.text(x - 12, y + 22, "late: A 8 s has passed", "small warn", "end")
    x, y = place(AT_ONCE, ARRIVALS[AT_ONCE][1])
    drawn.text(x + 4, y + 24, "not late: the first of device B", "small good", "middle")
    x, y = place(5, ARRIVALS[5][1])
    drawn.text(x + 22, y - 62, "in time: A 7 s waits,", "small", "middle")
    drawn.text(x + 22, y - 47, "then leaves before A 8 s", "small", "middle")
    drawn.line([(x, y - 40), (x, y - 26)], "quiet")
    drawn.text(90, 366, "The watermark is the newest event time so far, less 5 s (STREAMS_LATENESS_MS).", "small")
    return drawn


def dedup_horizon() -> Canvas:
    """Which copies are recognised."""
    drawn = Canvas(
        760,
        236,
        "On the axis of event time: ids of the last 24 hours before the watermark are remembered. A copy within them "
        "is dropped, an event older than the horizon is late.",
    )
    horizon, mark, end = 210, 600, 740
    drawn.area(horizon, 60, mark - horizon, 90, "accent")
    drawn.text(
        (horizon + mark) / 2,
        48,
        "24 h before the watermark (STREAMS_DEDUP_HORIZON_MS): ids are remembered",
        "small accent",
        "middle",
    )
    drawn.axis(20, 150, end - 20, "event time")
    for at, words in ((horizon, "horizon"), (mark, "watermark")):
        drawn.line([(at, 56), (at, 158)], "accent", dashed=True)
        drawn.text(at, 174, words, "small", "middle")
    drawn.dot(400, 122, "accent", "e1, first copy")
    drawn.dot(400, 84, "plain", "e1 again: dropped")
    drawn.dot(650, 122, "accent", "e2")
    drawn.dot(110, 122, "warn", "e0")
    drawn.text(110, 96, "late: beyond_horizon", "small warn", "middle")
    drawn.text(
        20,
        206,
        "Nobody can say whether e0 was seen before: its id is forgotten. So it goes to the late topic, and never",
        "small",
    )
    drawn.text(
        20, 222, "twice into the clean one. An id is (event id, event time); the first copy in the log wins.", "small"
    )
    return drawn


def joins() -> Canvas:
    """An event with the latest one of the other topic, and with all near it."""
    drawn = Canvas(
        760,
        330,
        "Two timelines of event time. A scan is joined with the latest temperature that is not later than the scan and "
        "at most ten minutes old; an interval join makes a pair with every event near in time.",
    )
    drawn.text(10, 30, "join_latest(within=10m): what was known then", "strong")
    scans, climate = ((220, "s1"), (430, "s2"), (680, "s3")), ((150, "4 °C"), (350, "9 °C"), (470, "5 °C"))
    drawn.text(10, 74, "scans", "small")
    drawn.text(10, 134, "climate", "small")
    drawn.line([(70, 70), (740, 70)])
    drawn.line([(70, 130), (740, 130)])
    for x, words in scans:
        drawn.dot(x, 70, "accent" if words != "s3" else "warn", words)
    for x, words in climate:
        drawn.dot(x, 130, "good")
        drawn.text(x, 153, words, "small", "middle")
    drawn.arrow([(220, 78), (156, 124)], "accent")
    drawn.arrow([(430, 78), (356, 124)], "accent")
    drawn.text(680, 94, "nothing within 10 min:", "small warn", "middle")
    drawn.text(680, 109, "nulls, or unmatched", "small warn", "middle")
    drawn.text(10, 194, "join_interval(before=5m, after=30m): each pair near in time", "strong")
    drawn.area(240, 214, 240, 76, "accent")
    drawn.line([(70, 234), (740, 234)])
    drawn.line([(70, 280), (740, 280)])
    drawn.text(10, 238, "orders", "small")
    drawn.text(10, 284, "scans", "small")
    drawn.dot(280, 234, "accent", "o1")
    for x in (160, 260, 400, 600):
        near = 240 <= x <= 480
        drawn.dot(x, 280, "good" if near else "plain")
        if near:
            drawn.arrow([(280, 242), (x, 272)], "accent")
    drawn.axis(70, 304, 670, "event time")
    return drawn


def dead_letter() -> Canvas:
    """From the reject to the outcome of its replay."""
    drawn = Canvas(
        760,
        250,
        "The course of a dead letter: a record of the source is rejected and written to the dead-letter topic, "
        "repaired, replayed into the source once, and its outcome is written to the audit topic.",
    )
    rows = (("source", 50), ("worker", 108), (".dlq", 166), (".dlq.audit", 224))
    for words, y in rows:
        drawn.text(10, y + 4, words, "mono")
        drawn.line([(100, y), (740, y)])
    drawn.dot(130, 50, "warn", "record")
    drawn.arrow([(130, 58), (130, 102)], "quiet")
    drawn.dot(130, 108, "warn")
    drawn.arrow([(150, 108), (210, 108), (210, 160)], "warn")
    drawn.text(152, 100, "rejected", "small warn")
    drawn.dot(210, 166, "warn")
    drawn.text(222, 160, "same bytes, attempt 1", "small")
    drawn.box(344, 94, 100, 44, "repair\nschema or value", "plain")
    drawn.arrow([(230, 166), (394, 166), (394, 138)], "quiet")
    drawn.arrow([(444, 116), (500, 116), (500, 58)], "accent")
    drawn.text(508, 90, "replay, once", "small accent")
    drawn.dot(500, 50, "accent", "record, attempt 2")
    drawn.arrow([(500, 116), (500, 218)], "accent", dashed=True)
    drawn.dot(500, 224, "accent")
    drawn.text(512, 218, "replayed, by whom", "small")
    drawn.arrow([(508, 50), (640, 50), (640, 102)], "quiet")
    drawn.dot(640, 108, "good")
    drawn.text(652, 102, "clean", "small good")
    drawn.arrow([(640, 116), (640, 218)], "good")
    drawn.dot(640, 224, "good")
    drawn.text(652, 218, "outcome", "small good")
    return drawn

"""Figures of the log: partitions, the commit cycle, growth."""

from docsite.drawings.canvas import Canvas

CELL = 46


def log_and_partitions() -> Canvas:
    """Keys to partitions, offsets, what is committed, and who reads."""
    drawn = Canvas(
        760,
        300,
        "A producer chooses the partition by the hash of the key. Each partition is a log of records with offsets; a "
        "worker reads it in order and commits the next offset.",
    )
    drawn.box(10, 112, 96, 52, "producer\nhash of the key")
    rows = (("0", "adada", "worker 1"), ("1", "bbeb", "worker 1"), ("2", "cfccfc", "worker 2"))
    for place, (partition, keys, worker) in enumerate(rows):
        top = 44 + place * 76
        drawn.arrow([(106, 138), (136, 138), (136, top + 20), (166, top + 20)])
        drawn.text(170, top - 9, f"partition {partition}", "small")
        for offset, key in enumerate(keys):
            done = offset < len(keys) - 2
            drawn.box(170 + offset * CELL, top, CELL - 4, 40, key, "good" if done else "plain")
            drawn.text(170 + offset * CELL + (CELL - 4) / 2, top + 53, str(offset), "small", "middle")
        committed = 168 + (len(keys) - 2) * CELL
        drawn.line([(committed, top - 6), (committed, top + 58)], "accent")
        end = 168 + len(keys) * CELL
        drawn.line([(end, top - 6), (end, top + 58)], "quiet", dashed=True)
        drawn.box(560, top, 90, 40, worker)
        drawn.arrow([(end + 8, top + 20), (560, top + 20)])
    drawn.text(306, 16, "committed: offset 3 is next", "small accent", "middle")
    drawn.text(414, 34, "end of the log", "small")
    drawn.text(666, 62, "own state,")
    drawn.text(666, 78, "own partitions", "small")
    drawn.text(666, 214, "own state,")
    drawn.text(666, 230, "own partitions", "small")
    drawn.text(170, 290, "Between the two lines: lag, 2 records in each partition.", "small")
    return drawn


def commit_cycle() -> Canvas:
    """The five steps of a commit, and what a crash between them means."""
    drawn = Canvas(
        760,
        262,
        "One commit cycle of about 200 milliseconds: begin, produce outputs, send offsets, commit, write the store. A "
        "crash before the commit aborts everything; after it the store is brought forward from the journal.",
    )
    steps = (
        ("1 begin", 74, "plain"),
        ("2 produce\nclean, late, tables,\ndead letters, journal", 196, "accent"),
        ("3 offsets\nof the source", 110, "accent"),
        ("4 commit", 84, "good"),
        ("5 store\none RocksDB batch", 138, "plain"),
    )
    x = 20.0
    edges: list[float] = []
    for words, width, colour in steps:
        drawn.box(x, 60, width, 66, words, colour)
        edges.append(x + width)
        x += width + 22
        if len(edges) < len(steps):
            drawn.arrow([(edges[-1], 93), (x, 93)])
    drawn.text(20, 30, "one Kafka transaction", "strong accent")
    drawn.line([(20, 40), (20, 46), (edges[3], 46), (edges[3], 40)], "accent")
    drawn.text(edges[3] + 22, 30, "only after the commit", "strong")
    drawn.axis(20, 148, edges[-1] - 10, "about every 200 ms")
    first, second = edges[1] + 11, edges[3] + 11
    for at in (first, second):
        drawn.cross(at, 148)
    drawn.line([(first, 158), (first, 196)], "warn", dashed=True)
    drawn.text(20, 214, "Killed here: Kafka aborts the transaction. Nobody sees its", "small")
    drawn.text(20, 230, "outputs; the records are read again from the committed offset.", "small")
    drawn.line([(second, 158), (second, 196)], "warn", dashed=True)
    drawn.text(420, 214, "Killed here: the outputs are visible. The store lacks this", "small")
    drawn.text(420, 230, "cycle; a restore reads it from the journal.", "small")
    return drawn


def growth() -> Canvas:
    """A parent cuts its log, children adopt the state of their keys."""
    drawn = Canvas(
        760,
        330,
        "Growing a topic from one partition to two: the parent goes on with the keys it keeps, forwards those that "
        "move from its cut on, and the child adopts their state before it consumes.",
    )
    cut, adopted, settled = 220, 430, 640
    for at, words in ((cut, "cut"), (adopted, "adopted"), (settled, "settled")):
        drawn.line([(at, 26), (at, 286)], "quiet", dashed=True)
        drawn.text(at, 18, words, "small", "middle")
    drawn.text(10, 62, "partition 0", "strong")
    drawn.text(10, 78, "the parent", "small")
    drawn.text(10, 232, "partition 3", "strong")
    drawn.text(10, 248, "the child", "small")
    drawn.box(100, 44, cut - 100, 40, "keys a and d", "plain")
    drawn.box(cut, 44, 736 - cut, 40, "key a: goes on without a pause", "good")
    drawn.box(cut, 120, settled - cut, 34, "records of key d by the old number are forwarded", "warn")
    drawn.arrow([(cut + 30, 154), (cut + 30, 214)], "warn")
    drawn.arrow([(adopted + 60, 154), (adopted + 60, 214)], "warn")
    drawn.box(cut, 214, adopted - cut, 40, "adopts: journal and tables of d", "accent")
    drawn.box(adopted, 214, 736 - adopted, 40, "key d: consumed here, in order", "good")
    drawn.axis(100, 286, 636, "time")
    drawn.text((cut + adopted) / 2, 304, "key d pauses: as long as its state is copied", "small warn", "middle")
    drawn.text(
        100, 324, "Settled: no record by the old number has come for ten minutes (STREAMS_GROWTH_QUIET_MS).", "small"
    )
    return drawn

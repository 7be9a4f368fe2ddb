"""The process that takes rounds of offsets: a request a line on standard input, an answer on standard output.

Its client may abort the process at any moment (`streams.kafka.offsets`); `streams.kafka.offsets_process` starts
another. It ends when its standard input ends, so it never outlives its parent, and after the first round that fails:
the next process starts with fresh connections.
"""

import json
import os
import resource
import signal
import struct
import sys
from typing import Final

from streams.errors import StreamsError
from streams.kafka.admin import wait_for_broker
from streams.kafka.offsets import OffsetRounds
from streams.settings import load_settings

FRAME: Final = struct.Struct(">BI")
"""Kind and length of an answer."""
ROUND: Final = 0
FAILED: Final = 1


def main() -> None:
    """Answer until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent process
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    rounds: OffsetRounds | None = None
    for line in sys.stdin.buffer:
        wanted = json.loads(line)
        try:
            if rounds is None:
                rounds = OffsetRounds(wait_for_broker(load_settings()))
            kind, answer = ROUND, rounds.take(wanted["groups"], newest=wanted["newest"]).to_bytes()
        except StreamsError as error:
            kind, answer, rounds = FAILED, str(error).encode(), None
        sys.stdout.buffer.write(FRAME.pack(kind, len(answer)))
        sys.stdout.buffer.write(answer)
        sys.stdout.buffer.flush()
        if kind == FAILED:
            os._exit(0)  # a client that was cut off may not answer, nor close, for a minute


if __name__ == "__main__":
    main()

"""A pin: the ends of dead-letter topics at the moment when somebody was asked about their letters.

What is done after the question is done to letters before these ends only, so that letters which arrive between question
and answer are not touched.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

TEXT_CHARACTERS_MAX: Final = 32_768
_TOPIC: Final = re.compile(r"([A-Za-z0-9._-]{1,249})@([0-9]{1,18}(?:,[0-9]{1,18})*)")


@dataclass(frozen=True, slots=True)
class Pin:
    """The letters that existed at one moment: none of another topic or partition."""

    ends: Mapping[str, tuple[int, ...]]
    """By topic, the offset after the last record of each partition, from 0 on."""

    def __str__(self) -> str:
        """As text without spaces, for an option or a form field: `topic@12,0,7/topic@3,4,5`."""
        return "/".join(f"{topic}@{','.join(map(str, self.ends[topic]))}" for topic in sorted(self.ends))


def pin_of(text: str) -> Pin:
    """Inverse of `str(pin)`.

    Raises:
        ValueError: it is not the text of a pin.

    """
    if len(text) > TEXT_CHARACTERS_MAX:
        raise ValueError(f"a pin has at most {TEXT_CHARACTERS_MAX} characters")
    ends: dict[str, tuple[int, ...]] = {}
    for part in text.split("/") if text else ():
        found = _TOPIC.fullmatch(part)
        if found is None or found[1] in ends:
            raise ValueError("this is no pin: TOPIC@END,END,... with the end offset of each partition")
        ends[found[1]] = tuple(map(int, found[2].split(",")))
    return Pin(ends)

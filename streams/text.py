"""Text for people: escapes control characters of foreign text, and writes counts in words."""

from typing import Final

_DAY_MS: Final = 86_400_000
_AHEAD: Final = (
    (1_000 * 365 * _DAY_MS, "1,000 years"), (365 * _DAY_MS, "a year"), (30 * _DAY_MS, "30 days"), (_DAY_MS, "a day"),
)  # fmt: skip


def printable(text: object) -> str:
    r"""`text` on one line, without characters that a terminal would act upon.

    For all external text: keys, headers, names of topics and groups, messages of others. Control characters
    (line ends too), escape sequences, marks that turn the direction of text and characters that cannot be encoded are
    written as `\x1b`, `\u202e` or `\U000e0001`. All else stays as it is; printing it twice changes nothing.
    """
    shown = str(text)
    return shown if shown.isprintable() else "".join(map(_visible, shown))


def printable_lines(text: object) -> str:
    """As `printable`, of a text of several lines: its line ends stay."""
    return "\n".join(map(printable, str(text).split("\n")))


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """A count with its noun: `1 record`, `1,200 records`; `plural`: where it is not the noun with an `s`."""
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"


def far_ahead(ms: int) -> str:
    """How far a time is ahead: in milliseconds, or how many days or years at least.

    What is no time at all (a telephone number in the wrong column, say) cannot be told from the words.
    """
    for least_ms, words in _AHEAD:
        if ms >= least_ms:
            return f"more than {words}"
    return f"{ms} ms"


def _visible(character: str) -> str:
    if character.isprintable():
        return character
    number = ord(character)
    if number <= 0xFF:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number <= 0xFFFF else f"\\U{number:08x}"

"""Text for people: escapes control characters of foreign text, and writes counts in words."""


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


def _visible(character: str) -> str:
    if character.isprintable():
        return character
    number = ord(character)
    if number <= 0xFF:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number <= 0xFFFF else f"\\U{number:08x}"

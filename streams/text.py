"""Text that people read: what comes from outside made harmless, and counts in words."""


def one_line(text: str, characters_max: int | None = None) -> str:
    r"""The text on one line, unable to do anything to a terminal or to pass for something else.

    Keys, names, headers and messages come from whoever can write to a topic. Every character that is not printable
    (escape sequences, line ends, characters that change the direction of writing, halves of surrogates) is shown as
    `\x1b`, `\u202e` or `\U000e0001`. `characters_max`: what is longer is cut there, and ends in `...`.
    """
    cut = text if characters_max is None or len(text) <= characters_max else f"{text[:characters_max]}..."
    return cut if cut.isprintable() else "".join(c if c.isprintable() else _escaped(c) for c in cut)


def lines(text: str) -> str:
    """As `one_line`, of a text that has several lines of its own: line ends stay."""
    return text if text.isprintable() else "\n".join(map(one_line, text.split("\n")))


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """A count with its noun: `1 record`, `1,200 records`; `plural`: where it is not the noun with an `s`."""
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"


def _escaped(character: str) -> str:
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"

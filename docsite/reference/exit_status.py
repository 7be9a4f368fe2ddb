"""The reference of exit statuses, from the errors that carry them."""

from docsite.reference.tables import table
from streams import errors
from streams.errors import StreamsError


def page() -> str:
    """The page as Markdown."""
    found = sorted(
        (one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, StreamsError)),
        key=lambda one: one.exit_status,
    )
    rows = [
        ("0", "done", "The command has done what was asked."),
        *((str(one.exit_status), f"`{one.__name__}`", (one.__doc__ or "").strip()) for one in found),
        ("130", "Ctrl-C", "Ended by an interrupt."),
        ("141", "closed output", "The reader of its output has gone, as in `streams dlq list | head`."),
    ]
    return "\n".join(
        [
            "# Exit status",
            "",
            "What each command ends with. The message on standard error says what to do about it.",
            "",
            *table(("status", "name", "meaning"), rows),
        ]
    )

"""The report as one HTML file that needs nothing else. Everything that is put into it is escaped."""

import datetime as dt
from typing import Final

import jinja2

from streams.reconcile.report import KEYS_SHOWN, Document, event_words, headline
from streams.text import counted

_ENVIRONMENT: Final = jinja2.Environment(
    loader=jinja2.PackageLoader("streams.reconcile"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.filters["event_words"] = event_words
_ENVIRONMENT.filters["counted"] = counted


def page_of(document: Document) -> str:
    """The report as an HTML page."""
    title = f"{document['flow']} at {document['at']}"
    return _ENVIRONMENT.get_template("report.html").render(
        report=document,
        title=title,
        headline=headline(document).partition(": ")[2] if ": " in headline(document) else headline(document),
        keys_shown=KEYS_SHOWN,
        made=f"{dt.datetime.now(dt.UTC):%Y-%m-%d %H:%M UTC}",
    )

"""Fields of a form as a browser sends them: bounded, and each at most once."""

from typing import Final
from urllib.parse import parse_qsl

from starlette.requests import ClientDisconnect, Request

from streams.deadletters.web.refused import Refused

FORM_BYTES_MAX: Final = 131_072
"""The longest pin (`streams.deadletters.letter.pin`), three bytes a character, and the rest."""
FORM_FIELDS_MAX: Final = 100
_KIND: Final = "application/x-www-form-urlencoded"


async def read_form(request: Request) -> dict[str, str]:
    """Fields of an urlencoded form.

    Raises:
        Refused: it is larger than any of ours, not a form, or has a field twice.

    """
    kind = request.headers.get("content-type", _KIND).partition(";")[0].strip().lower()
    if kind != _KIND:
        raise Refused(400, "this is not a form of this page")
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > FORM_BYTES_MAX:
                raise Refused(413, "the form is too large")
    except ClientDisconnect:
        raise Refused(400, "the form did not arrive") from None
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=FORM_FIELDS_MAX)
    except ValueError:
        raise Refused(400, "this is not a form of this page") from None
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise Refused(400, "a field of this form is there twice")
    return fields

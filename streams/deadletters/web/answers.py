"""Responses of pages that need a token: with security headers, and problems in words."""

from http import HTTPStatus
from importlib.resources import files
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from streams.deadletters.web.guard import HEADERS
from streams.deadletters.web.pages import rendered
from streams.deadletters.web.refused import Refused

_STYLE: Final = (files(__package__) / "templates" / "style.css").read_text(encoding="utf-8")


def base_of(request: Request) -> str:
    """Path that the application is mounted at."""
    return str(request.scope.get("root_path") or "").rstrip("/")


def refusal(request: Request, refused: Refused, **values: Any) -> Response:
    """The page for a refused request; `values`: for the template."""
    return problem(request, refused.status, refused.why, refused.retry_s, **values)


def problem(request: Request, status: int, why: str, retry_s: int = 0, **values: Any) -> Response:
    """A page that reports a problem."""
    title = HTTPStatus(status).phrase
    text = rendered("problem.html", base=base_of(request), session=None, title=title, why=why, **values)
    return answer(text, status, retry_s)


def answer(text: str, status: int, retry_s: int = 0) -> Response:
    """A page as a response."""
    response = HTMLResponse(text, status_code=status)
    if retry_s:
        response.headers["Retry-After"] = str(retry_s)
    return with_headers(response)


def with_headers(response: Response) -> Response:
    """The response with the headers of these pages, where it has none of its own."""
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    return response


async def style(_: Request) -> Response:
    """The style sheet of these pages."""
    return with_headers(Response(_STYLE, media_type="text/css", headers={"Cache-Control": "max-age=3600"}))

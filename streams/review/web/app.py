"""The routes of the review page: looking is a GET, changing is a page that asks and a POST that does."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Iterable
from http import HTTPStatus
from importlib.resources import files
from typing import Any, Final

import structlog
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from streams.deadletters.audit import Actor
from streams.errors import StreamsError, UsageError
from streams.review.web.guard import HEADERS, Guard, Refused, Session, check_origin, read_form
from streams.review.web.pages import PAGE_LETTERS, asked_of, rendered
from streams.review.web.steward import ACT_LETTERS_MAX, Steward
from streams.settings import Settings

log = structlog.get_logger(__name__)

FAILED_LOGIN_S: Final = 1.0
_STYLE: Final = (files(__package__) / "templates" / "style.css").read_text(encoding="utf-8")

Page = Callable[[Request, Session], Awaitable[Response]]


def dead_letters_app(
    settings: Settings, *, topics: Iterable[str] | None = None, steward: Steward | None = None
) -> Starlette:
    """The review page as an application of its own, to be mounted below any path.

    `topics`: dead-letter topics; default: those of the declared pipelines. `steward`: one that is shared, for instance
    with the metrics; it is then the caller's to close. Access: with the token in `settings.streams_admin_token`;
    without one from this machine only. Nothing is asked of Kafka before the first page is.
    """
    secret = settings.streams_admin_token
    pages = _Pages(
        steward or Steward(settings, tuple(topics) if topics is not None else None),
        Guard(secret.get_secret_value() if secret is not None else None),
    )
    return Starlette(
        routes=[
            Route("/", pages.guarded(pages.list), methods=["GET"], name="list"),
            Route("/letters/{letter_id}", pages.guarded(pages.show), methods=["GET"]),
            Route("/letters/{letter_id}/reveal", pages.guarded(pages.reveal), methods=["POST"]),
            Route("/replay", pages.guarded(pages.ask("replay")), methods=["GET"]),
            Route("/replay", pages.guarded(pages.replay), methods=["POST"]),
            Route("/discard", pages.guarded(pages.ask("discard")), methods=["GET"]),
            Route("/discard", pages.guarded(pages.discard), methods=["POST"]),
            Route("/login", pages.login_form, methods=["GET"]),
            Route("/login", pages.login, methods=["POST"]),
            Route("/style.css", _style, methods=["GET"]),
        ],
    )


class _Pages:
    def __init__(self, steward: Steward, guard: Guard) -> None:
        self._steward = steward
        self._guard = guard
        self._login = asyncio.Lock()

    def guarded(self, page: Page) -> Callable[[Request], Awaitable[Response]]:
        """The page for those who may see it; what fails becomes a page that says so."""

        async def serve(request: Request) -> Response:
            try:
                session = self._guard.admit(request)
            except Refused as refused:
                if refused.login and request.method == "GET":
                    return _with_headers(RedirectResponse(f"{_base(request)}/login", status_code=303))
                return _problem(request, refused.status, refused.why)
            try:
                response = await page(request, session)
            except Refused as refused:
                response = _problem(request, refused.status, refused.why)
            except UsageError as error:
                response = _problem(request, HTTPStatus.BAD_REQUEST, str(error))
            except StreamsError as error:
                log.warning("the review page could not be served", error=str(error))
                response = _problem(request, HTTPStatus.SERVICE_UNAVAILABLE, str(error))
            self._guard.keep(session, request, response)
            return _with_headers(response)

        return serve

    # --- looking ----------------------------------------------------------------------------------------------------

    async def list(self, request: Request, session: Session) -> Response:
        asked = asked_of(request.query_params)
        found, topics = await run_in_threadpool(
            self._steward.listing,
            asked.filter,
            group_by=asked.group_by,
            limit=PAGE_LETTERS,
            skip=asked.page * PAGE_LETTERS,
        )
        return _page(request, session, "list.html", asked=asked, found=found, topics=topics, letters=PAGE_LETTERS)

    async def show(self, request: Request, session: Session) -> Response:
        shown = await self._of_letter(request, self._steward.details)
        return _page(request, session, "show.html", shown=shown, revealed=False)

    async def reveal(self, request: Request, session: Session) -> Response:
        form = await self._form(request, session)
        actor = _actor(request, form, "why it has to be seen")
        shown = await self._of_letter(request, self._steward.reveal, actor)
        return _page(request, session, "show.html", shown=shown, revealed=True)

    async def _of_letter(self, request: Request, call: Callable[..., Any], *rest: Any) -> Any:
        letter_id = str(request.path_params["letter_id"])
        try:
            return await run_in_threadpool(call, letter_id, *rest)
        except StreamsError as error:
            if str(error).startswith("no dead letter"):
                raise Refused(HTTPStatus.NOT_FOUND, str(error)) from None
            raise

    # --- changing ---------------------------------------------------------------------------------------------------

    def ask(self, act: str) -> Page:
        """The page that says what is about to be done, and wants it confirmed."""

        async def page(request: Request, session: Session) -> Response:
            asked = asked_of(request.query_params)
            count = await run_in_threadpool(self._steward.count_open, asked.open_filter)
            return _page(request, session, "ask.html", act=act, asked=asked, count=count, most=ACT_LETTERS_MAX)

        return page

    async def replay(self, request: Request, session: Session) -> Response:
        form = await self._form(request, session)
        asked = asked_of(form)
        result = await run_in_threadpool(self._steward.replay, asked.open_filter, _actor(request, form, None))
        return _page(request, session, "done.html", act="replay", asked=asked, result=result, count=result.replayed)

    async def discard(self, request: Request, session: Session) -> Response:
        form = await self._form(request, session)
        asked = asked_of(form)
        actor = _actor(request, form, "why nothing more is to be done about them")
        count = await run_in_threadpool(self._steward.discard, asked.open_filter, actor)
        return _page(request, session, "done.html", act="discard", asked=asked, result=None, count=count)

    async def _form(self, request: Request, session: Session) -> dict[str, str]:
        form = await read_form(request)
        self._guard.check_change(request, session, form)
        return form

    # --- the token --------------------------------------------------------------------------------------------------

    async def login_form(self, request: Request) -> Response:
        if not self._guard.has_token:
            return _with_headers(RedirectResponse(f"{_base(request)}/", status_code=303))
        return _with_headers(HTMLResponse(rendered("login.html", base=_base(request), wrong=False)))

    async def login(self, request: Request) -> Response:
        try:
            check_origin(request)
            form = await read_form(request)
        except Refused as refused:
            return _problem(request, refused.status, refused.why)
        if not self._guard.is_token(form.get("token", "")):
            async with self._login:  # one try a second, whoever asks
                await asyncio.sleep(FAILED_LOGIN_S)
            log.warning("the review page was shown a wrong token", client=request.client and request.client.host)
            text = rendered("login.html", base=_base(request), wrong=True)
            return _with_headers(HTMLResponse(text, status_code=HTTPStatus.FORBIDDEN))
        response = RedirectResponse(f"{_base(request)}/", status_code=303)
        self._guard.keep(self._guard.begin(), request, response)
        return _with_headers(response)


def _actor(request: Request, form: dict[str, str], asks_why: str | None) -> Actor:
    by, why = form.get("by", "").strip(), form.get("why", "").strip()
    if not by:
        raise Refused(HTTPStatus.BAD_REQUEST, "say who you are: it is written down")
    if asks_why is not None and not why:
        raise Refused(HTTPStatus.BAD_REQUEST, f"say {asks_why}: it is written down")
    client = request.client.host if request.client is not None else "?"
    try:
        return Actor(f"{by} (review page, {client})", why, uuid.uuid4().hex[:12])
    except ValueError as error:
        raise Refused(HTTPStatus.BAD_REQUEST, str(error)) from None


def _base(request: Request) -> str:
    return str(request.scope.get("root_path") or "").rstrip("/")


def _page(request: Request, session: Session, template: str, **values: Any) -> Response:
    return HTMLResponse(rendered(template, base=_base(request), csrf=session.csrf, **values))


def _problem(request: Request, status: int, why: str) -> Response:
    text = rendered("problem.html", base=_base(request), title=HTTPStatus(status).phrase, why=why)
    return _with_headers(HTMLResponse(text, status_code=status))


def _with_headers(response: Response) -> Response:
    for name, value in HEADERS.items():
        response.headers[name] = value
    return response


async def _style(_: Request) -> Response:
    headers = {**HEADERS, "Cache-Control": "max-age=3600"}
    return Response(_STYLE, media_type="text/css", headers=headers)

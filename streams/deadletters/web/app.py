"""The routes of the review page: looking is a GET; changing is a page that asks, and a POST that acts."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Iterable
from http import HTTPStatus
from typing import Any

import structlog
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from streams.deadletters.letter.audit import Actor
from streams.deadletters.web.answers import base_of, problem, refusal, style, with_headers
from streams.deadletters.web.forms import read_form
from streams.deadletters.web.guard import Guard, Session
from streams.deadletters.web.pages import PAGE_LETTERS, asked_of, pinned_of, question_of, rendered
from streams.deadletters.web.refused import Refused
from streams.deadletters.web.sign_in import SignIn
from streams.deadletters.web.steward import ACT_LETTERS_MAX, Steward
from streams.deadletters.web.tokens import Right, Tokens
from streams.errors import StreamsError, UsageError
from streams.settings import Settings

log = structlog.get_logger(__name__)

Page = Callable[[Request, Session], Awaitable[Response]]


def dead_letters_app(
    settings: Settings, *, topics: Iterable[str] | None = None, steward: Steward | None = None
) -> Starlette:
    """The review page as an application of its own, to be mounted below any path.

    `topics`: dead-letter topics; default: those of the declared flows. `steward`: one that is shared, for instance
    with the metrics; it is then the caller's to close. Access: with a token of the settings (`STREAMS_ADMIN_TOKEN`,
    `STREAMS_REVIEW_TOKEN_*`); without any from this machine only, and only if the server listens on loopback
    (`STREAMS_WEB_HOST`). Kafka is contacted only when the first page is requested.
    """
    guard = Guard(Tokens.of(settings), bound_to=settings.streams_web_host)
    pages = _Pages(steward or Steward(settings, tuple(topics) if topics is not None else None), guard)
    sign_in = SignIn(guard, page="Dead letters")
    guarded = pages.guarded
    return Starlette(
        routes=[
            Route("/", guarded(pages.list, Right.READ), methods=["GET"], name="list"),
            Route("/letters/{letter_id}", guarded(pages.show, Right.READ), methods=["GET"]),
            Route("/letters/{letter_id}/reveal", guarded(pages.reveal, Right.REVEAL), methods=["POST"]),
            Route("/replay", guarded(pages.ask("replay"), Right.REPLAY), methods=["GET"]),
            Route("/replay", guarded(pages.replay, Right.REPLAY), methods=["POST"]),
            Route("/discard", guarded(pages.ask("discard"), Right.REPLAY), methods=["GET"]),
            Route("/discard", guarded(pages.discard, Right.REPLAY), methods=["POST"]),
            Route("/login", sign_in.form, methods=["GET"]),
            Route("/login", sign_in.take, methods=["POST"]),
            Route("/logout", guarded(pages.logout, Right.READ), methods=["POST"]),
            Route("/style.css", style, methods=["GET"]),
        ],
    )


class _Pages:
    def __init__(self, steward: Steward, guard: Guard) -> None:
        self._steward = steward
        self._guard = guard

    def guarded(self, page: Page, right: Right) -> Callable[[Request], Awaitable[Response]]:
        """Serve a page to users with the right; failures become a page that reports them."""

        async def serve(request: Request) -> Response:
            try:
                session = self._guard.admit(request)
            except Refused as refused:
                if refused.login and request.method == "GET":
                    return with_headers(RedirectResponse(f"{base_of(request)}/login", status_code=303))
                await asyncio.sleep(refused.pause_s)
                return refusal(request, refused)
            try:
                self._guard.demand(session, right)
                response = await page(request, session)
            except Refused as refused:
                response = refusal(request, refused)
            except UsageError as error:
                response = problem(request, HTTPStatus.BAD_REQUEST, str(error))
            except StreamsError as error:
                log.warning("the review page could not be served", error=str(error))
                response = problem(request, HTTPStatus.SERVICE_UNAVAILABLE, str(error))
            self._guard.keep(session, request, response)
            return with_headers(response)

        return serve

    # --- looking ----------------------------------------------------------------------------------------------------

    async def list(self, request: Request, session: Session) -> Response:
        asked = question_of(request.query_params.multi_items())
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
        actor = _actor(request, form, "why the data has to be shown")
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
        """The page that describes an action and asks to confirm it; `act`: `replay` or `discard`."""

        async def page(request: Request, session: Session) -> Response:
            asked = question_of(request.query_params.multi_items())
            found = await run_in_threadpool(self._steward.survey, asked.filter)
            choice = found.replay if act == "replay" else found.discard
            topics = choice.by_source if act == "replay" else choice.by_topic
            return _page(
                request, session, "ask.html",
                act=act, asked=asked, pin=str(found.pin), choice=choice, topics=topics, most=ACT_LETTERS_MAX,
            )  # fmt: skip

        return page

    async def replay(self, request: Request, session: Session) -> Response:
        form = await self._form(request, session)
        result = await run_in_threadpool(self._steward.replay, pinned_of(form), _actor(request, form, None))
        return _page(
            request, session, "done.html",
            act="replay", asked=asked_of(form), count=result.replayed, topics=result.into,
            refused=result.refused, refusals=result.refusals, result=result,
        )  # fmt: skip

    async def discard(self, request: Request, session: Session) -> Response:
        form = await self._form(request, session)
        actor = _actor(request, form, "why nothing more has to be done about them")
        result = await run_in_threadpool(self._steward.discard, pinned_of(form), actor)
        return _page(
            request, session, "done.html",
            act="discard", asked=asked_of(form), count=result.discarded, topics=result.by_topic,
            refused=result.refusals.count, refusals=result.refusals.shown, result=None,
        )  # fmt: skip

    async def _form(self, request: Request, session: Session) -> dict[str, str]:
        form = await read_form(request)
        self._guard.check_change(request, session, form)
        return form

    # --- the token --------------------------------------------------------------------------------------------------

    async def logout(self, request: Request, session: Session) -> Response:
        await self._form(request, session)
        response = RedirectResponse(f"{base_of(request)}/login", status_code=303)
        self._guard.end(request, response)
        return response


def _actor(request: Request, form: dict[str, str], asks_why: str | None) -> Actor:
    by, why = form.get("by", "").strip(), form.get("why", "").strip()
    if not by:
        raise Refused(HTTPStatus.BAD_REQUEST, "enter your name: it is recorded")
    if asks_why is not None and not why:
        raise Refused(HTTPStatus.BAD_REQUEST, f"enter {asks_why}: it is recorded")
    client = request.client.host if request.client is not None else "?"
    try:
        return Actor(f"{by} (review page, {client})", why, uuid.uuid4().hex[:12])
    except ValueError as error:
        raise Refused(HTTPStatus.BAD_REQUEST, str(error)) from None


def _page(request: Request, session: Session, template: str, **values: Any) -> Response:
    return HTMLResponse(rendered(template, base=base_of(request), session=session, **values))

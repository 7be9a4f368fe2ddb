"""The routes of the fleet page: an application to be mounted below any path. Reading only.

Access is that of the review page of dead letters: with a token of the settings; without any from this machine only.
Positions that are personal data are sent to who may see personal data; others get everything else.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import structlog
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from streams.deadletters.web.answers import base_of, refusal, style, with_headers
from streams.deadletters.web.forms import read_form
from streams.deadletters.web.guard import Guard, Session
from streams.deadletters.web.refused import Refused
from streams.deadletters.web.sign_in import SignIn
from streams.deadletters.web.steward import Steward
from streams.deadletters.web.tokens import Right, Tokens
from streams.errors import StreamsError
from streams.fleet.bounds import HISTORY_MS, REPLAY_MS_MAX, REPLAY_ROWS_MAX, STUCK_S
from streams.fleet.frames import past_message
from streams.fleet.letters import letters_of
from streams.fleet.picture import Picture
from streams.fleet.raw import RawEvents
from streams.fleet.service import FleetService, Sight, TooManyViewers
from streams.fleet.views import past, trail, vehicle
from streams.settings import Settings

log = structlog.get_logger(__name__)

STATIC: Final = Path(__file__).parent / "static"
PAGE: Final = "Fleet"
_BINARY: Final = "application/octet-stream"

Answer = Callable[[Request, Picture, int, Sight], dict[str, Any] | None]


class FleetWeb:
    """The application over a service; `steward` answers about dead letters."""

    def __init__(self, settings: Settings, service: FleetService, steward: Steward) -> None:
        self._settings, self._service, self._steward = settings, service, steward
        self._guard = Guard(Tokens.of(settings), bound_to=settings.streams_web_host)
        self._raw = RawEvents(settings, service.bound.feeds[0])
        sign_in = SignIn(self._guard, page=PAGE)
        self.app = Starlette(
            routes=[
                Route("/", self._page, methods=["GET"]),
                Mount("/static", GZipMiddleware(StaticFiles(directory=STATIC), compresslevel=5)),
                Route("/login", sign_in.form, methods=["GET"]),
                Route("/login", sign_in.take, methods=["POST"]),
                Route("/logout", self._guarded(self._logout), methods=["POST"]),
                Route("/style.css", style, methods=["GET"]),
                Route("/api/setup", self._guarded(self._setup), methods=["GET"]),
                Route("/api/stream", self._guarded(self._stream), methods=["GET"]),
                Route("/api/past", self._guarded(self._past), methods=["GET"]),
                Route("/api/vehicle", self._of_vehicle(self._details), methods=["GET"]),
                Route("/api/trail", self._of_vehicle(self._trail), methods=["GET"]),
                Route("/api/letters", self._of_vehicle(self._letters), methods=["GET"]),
                Route("/api/events", self._of_vehicle(self._events), methods=["GET"]),
            ],
        )
        self._policy = content_policy(settings.streams_fleet_tiles_url)

    def end(self) -> None:
        """End open streams: the server stops."""
        self._service.end()
        self._raw.close()

    # --- access -----------------------------------------------------------------------------------------------------

    def _guarded(
        self, serve: Callable[[Request, Session], Awaitable[Response]]
    ) -> Callable[[Request], Awaitable[Response]]:
        """Serve users with the right to read; failures become JSON errors."""

        async def endpoint(request: Request) -> Response:
            try:
                session = self._guard.admit(request)
                self._guard.demand(session, Right.READ)
                response = await serve(request, session)
            except Refused as refused:
                await asyncio.sleep(refused.pause_s)
                return self._said(refused.status, refused.why)
            except StreamsError as error:
                return self._said(HTTPStatus.SERVICE_UNAVAILABLE, str(error))
            self._guard.keep(session, request, response)
            return self._with_headers(response)

        return endpoint

    def _of_vehicle(self, answer: Answer) -> Callable[[Request], Awaitable[Response]]:
        """What is asked about the vehicle of a number, in a thread."""

        async def endpoint(request: Request, session: Session) -> Response:
            picture = self._known(request)
            number = _whole(request, "vehicle")
            found = await run_in_threadpool(answer, request, picture, number, self._sight(session))
            if found is None:
                raise Refused(HTTPStatus.NOT_FOUND, "there is no such vehicle")
            return JSONResponse(found)

        return self._guarded(endpoint)

    def _sight(self, session: Session) -> Sight:
        bound = self._service.bound
        return Sight(places=session.may_reveal or not bound.hides_places, ids=session.may_reveal or not bound.hides_ids)

    def _known(self, request: Request) -> Picture:
        """The picture that a number of a vehicle is of."""
        picture = self._service.known()
        if picture is None or picture.epoch != _whole(request, "epoch"):
            raise Refused(HTTPStatus.GONE, "the fleet was read again: reload the page")
        return picture

    def _said(self, status: int, why: str) -> Response:
        return self._with_headers(JSONResponse({"why": why}, status_code=status))

    def _with_headers(self, response: Response) -> Response:
        response.headers["Content-Security-Policy"] = self._policy
        return with_headers(response)

    # --- the page ---------------------------------------------------------------------------------------------------

    async def _page(self, request: Request) -> Response:
        try:
            session = self._guard.admit(request)
            self._guard.demand(session, Right.READ)
        except Refused as refused:
            if refused.login:
                return with_headers(RedirectResponse(f"{base_of(request)}/login", status_code=303))
            return refusal(request, refused, page=PAGE, back="Again")
        response = FileResponse(STATIC / "fleet.html")
        self._guard.keep(session, request, response)
        return self._with_headers(response)

    async def _setup(self, _: Request, session: Session) -> Response:
        sight = self._sight(session)
        return JSONResponse(
            {
                "tiles": self._settings.streams_fleet_tiles_url,
                "attribution": self._settings.streams_fleet_tiles_attribution,
                "csrf": session.csrf if session.is_signed_in and session.cookie else None,
                "masked": not sight.places,
                "cluster": self._settings.streams_cluster_name,
            }
        )

    async def _logout(self, request: Request, session: Session) -> Response:
        self._guard.check_change(request, session, await read_form(request))
        response = RedirectResponse(f"{base_of(request)}/login", status_code=303)
        self._guard.end(request, response)
        return response

    # --- data -------------------------------------------------------------------------------------------------------

    async def _stream(self, request: Request, session: Session) -> Response:
        sight = self._sight(session)
        try:
            self._service.enter()
        except TooManyViewers:
            raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, "too many viewers: try again later") from None
        if self._service.bound.hides_places and sight.places:
            log.info("positions are shown", client=request.client.host if request.client is not None else "?")
        return _LiveResponse(self._service, self._service.messages(sight), media_type=_BINARY)

    async def _past(self, request: Request, session: Session) -> Response:
        if not self._sight(session).places:
            raise Refused(HTTPStatus.FORBIDDEN, "your token does not permit to see positions")
        picture = self._known(request)
        first_ms, end_ms = _whole(request, "from"), _whole(request, "to")
        if not 0 <= end_ms - first_ms <= REPLAY_MS_MAX:
            raise Refused(HTTPStatus.BAD_REQUEST, f"ask for at most {REPLAY_MS_MAX // 60_000} minutes at a time")
        rows, oldest_ms = await run_in_threadpool(past, picture, first_ms, end_ms, REPLAY_ROWS_MAX)
        headers = {"X-Oldest-Ms": str(oldest_ms)}
        return Response(past_message(rows, self._service.now_ms()), media_type=_BINARY, headers=headers)

    def _details(self, _: Request, picture: Picture, number: int, sight: Sight) -> dict[str, Any] | None:
        return vehicle(picture, number, masked=not sight.places, ids=sight.ids, now_ms=self._service.now_ms())

    def _trail(self, _: Request, picture: Picture, number: int, sight: Sight) -> dict[str, Any] | None:
        if not sight.places:
            return {"points": []}
        return {"points": trail(picture, number, self._service.now_ms() - HISTORY_MS)}

    def _letters(self, _: Request, picture: Picture, number: int, __: Sight) -> dict[str, Any] | None:
        if not 0 <= number < len(picture.vehicles):
            return None
        return letters_of(self._steward, picture.vehicles.ids[number])

    def _events(self, _: Request, picture: Picture, number: int, sight: Sight) -> dict[str, Any] | None:
        return {"events": self._raw.newest(picture, number, masked=not sight.places, hides_ids=not sight.ids)}


def content_policy(tiles_url: str) -> str:
    """Content-Security-Policy of the page: everything from here, but for tiles of a map."""
    images = "'self' data:"
    parts = urlsplit(tiles_url)
    if parts.scheme and parts.netloc:
        images += f" {parts.scheme}://{parts.netloc}"
    return (
        f"default-src 'none'; script-src 'self'; style-src 'self'; img-src {images}; connect-src 'self'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    )


def _whole(request: Request, name: str) -> int:
    """A whole number that is asked for.

    Raises:
        Refused: it is none.

    """
    text = request.query_params.get(name, "")
    if not text.isascii() or not text.isdigit() or len(text) > 15:
        raise Refused(HTTPStatus.BAD_REQUEST, f"{name} is a whole number")
    return int(text)


class _LiveResponse(StreamingResponse):
    """Gives the viewer's place back; ends when the browser takes nothing for STUCK_S."""

    def __init__(self, service: FleetService, messages: AsyncIterator[bytes], **options: Any) -> None:
        super().__init__(messages, headers={"X-Accel-Buffering": "no"}, **options)
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send messages until the viewer leaves."""

        async def send_in_time(message: Any) -> None:
            async with asyncio.timeout(STUCK_S):
                await send(message)

        try:
            await super().__call__(scope, receive, send_in_time)
        except TimeoutError:
            log.info("a browser has taken nothing for a while: it is disconnected")
        finally:
            self._service.leave()

"""Signing in with a token: the form, and its handling. Every application with a `Guard` has its own."""

import asyncio
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from streams.deadletters.web.answers import answer, base_of, refusal, with_headers
from streams.deadletters.web.forms import read_form
from streams.deadletters.web.guard import Guard, check_origin
from streams.deadletters.web.pages import rendered
from streams.deadletters.web.refused import Refused


class SignIn:
    """The routes `/login` of an application; `page`: what it is called."""

    def __init__(self, guard: Guard, *, page: str) -> None:
        self._guard = guard
        self._page = page

    async def form(self, request: Request) -> Response:
        """Show the form for a token."""
        if not self._guard.has_token:
            return with_headers(RedirectResponse(f"{base_of(request)}/", status_code=303))
        return self._asking(request, None)

    async def take(self, request: Request) -> Response:
        """Handle a token that was entered."""
        try:
            check_origin(request)
            form = await read_form(request)
        except Refused as refused:
            return refusal(request, refused, page=self._page)
        try:
            rights = self._guard.check_token(request, form.get("token", "").encode(errors="replace"))
        except Refused as refused:
            await asyncio.sleep(refused.pause_s)
            return self._asking(request, refused)
        response = RedirectResponse(f"{base_of(request)}/", status_code=303)
        self._guard.keep(self._guard.begin(rights), request, response)
        return with_headers(response)

    def _asking(self, request: Request, refused: Refused | None) -> Response:
        why = refused.why if refused else None
        text = rendered("login.html", base=base_of(request), session=None, why=why, page=self._page)
        return answer(text, HTTPStatus.OK if refused is None else refused.status, refused.retry_s if refused else 0)

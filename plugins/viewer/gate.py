"""The gate: who may ask. Every request passes it before anything else sees it.

A stranger's page in the same browser can send requests to this address, so being asked from the loopback means
nothing. What does: the right `Host` (a name that a stranger's server resolves to 127.0.0.1 is not one of ours), the
cookie that only the printed URL sets, and for what changes something, an origin that is our own.
"""

from __future__ import annotations

import hashlib
import hmac
import html
import ipaddress
import re
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import HTMLResponse, RedirectResponse, Response

from plugins.viewer.answers import error
from plugins.viewer.settings import LOOPBACK

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from plugins.viewer.settings import Settings

POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"
)
"""Plotly sets styles inline. No script is, and none is evaluated."""

PAGES = re.compile(r"/|/live|/episodes|/episodes/[^/]+|/compare|/system")
"""The URLs at which the page lives."""

CHANGING = {"POST", "PUT", "PATCH", "DELETE"}


class Gate:
    """Refuses what may not come in, lets the token's bearer in, and puts the headers on what goes out."""

    def __init__(self, app: ASGIApp, settings: Settings, port: int, token: str) -> None:
        self._app = app
        self._token = token
        self._cookie = f"stepreel-{port}"  # a browser has one jar for all ports of a host
        self._secret = hmac.new(token.encode(), b"stepreel viewer cookie", hashlib.sha256).hexdigest()
        self._hosts = {"localhost", LOOPBACK, "[::1]", *(host.lower() for host in settings.hosts)}
        self._any_literal = settings.address in ("0.0.0.0", "::")  # noqa: S104 - asked for by an option of that name
        if settings.address not in (LOOPBACK, "::1"):
            self._hosts.add(f"[{settings.address}]" if ":" in settings.address else settings.address.lower())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if scope["type"] == "websocket":
            if self._host_is_ours(headers) and self._is_known(headers) and _is_same_origin(headers, required=True):
                await self._app(scope, receive, send)
            else:
                await send({"type": "websocket.close", "code": 1008})  # before it is accepted: 403
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                _secure(MutableHeaders(scope=message))
            await send(message)

        refusal = self._refusal(scope, headers)
        await (self._app if refusal is None else refusal)(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope, headers: Headers) -> Response | None:
        if not self._host_is_ours(headers):
            return error(421, "this address is not served under that host name; see docs/viewer.md, `hosts`")
        is_page = scope["method"] in ("GET", "HEAD") and PAGES.fullmatch(scope["path"]) is not None
        if is_page and (came_in := self._came_in(scope, headers)) is not None:
            return came_in
        if not self._is_known(headers):
            return HTMLResponse(_WHO, status_code=401) if is_page else error(401, "open the URL with the token first")
        if scope["method"] in CHANGING:
            if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
                return error(415, "what changes something takes application/json")
            if not _is_same_origin(headers, required=False):
                return error(403, "what changes something is taken from this page alone")
        return None

    def _came_in(self, scope: Scope, headers: Headers) -> Response | None:
        """The answer to a page's URL with the token in it: the cookie, and the way to the same URL without it."""
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        tokens = [value for name, value in query if name == "token"]
        if not tokens or not hmac.compare_digest(tokens[0].encode(), self._token.encode()):
            return None
        rest = urlencode([(name, value) for name, value in query if name != "token"])
        path = scope["raw_path"].decode("latin-1")
        url = f"{path}?{rest}" if rest else path
        answer: Response
        if (
            headers.get("sec-fetch-site") == "cross-site"
        ):  # a strict cookie does not come along on a redirect from there
            answer = HTMLResponse(f'<!doctype html><meta http-equiv="refresh" content="0;url={html.escape(url)}">')
        else:
            answer = RedirectResponse(url, status_code=303)
        answer.set_cookie(self._cookie, self._secret, httponly=True, samesite="strict", path="/")
        return answer

    def _host_is_ours(self, headers: Headers) -> bool:
        hosts = headers.getlist("host")
        host = re.fullmatch(r"([A-Za-z0-9.-]+|\[[0-9a-fA-F:.]+\])(:\d{1,5})?", hosts[0]) if len(hosts) == 1 else None
        if host is None:
            return False
        name = host[1].lower()
        return name in self._hosts or (self._any_literal and _is_literal(name))

    def _is_known(self, headers: Headers) -> bool:
        cookies: SimpleCookie = SimpleCookie()
        try:
            cookies.load(headers.get("cookie", ""))
        except CookieError:
            return False
        found = cookies.get(self._cookie)
        return found is not None and hmac.compare_digest(found.value.encode(), self._secret.encode())


def _is_same_origin(headers: Headers, *, required: bool) -> bool:
    """Whether our own page asks. Browsers name the origin of whatever changes something, and of each WebSocket."""
    origin = headers.get("origin")
    if origin is not None:
        parts = urlsplit(origin)
        return parts.scheme in ("http", "https") and parts.netloc.lower() == headers.get("host", "").lower()
    return not required and headers.get("sec-fetch-site") == "same-origin"


def _is_literal(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def _secure(headers: MutableHeaders) -> None:
    headers["Content-Security-Policy"] = POLICY
    headers["X-Content-Type-Options"] = "nosniff"
    headers["X-Frame-Options"] = "DENY"
    headers["Referrer-Policy"] = "no-referrer"
    headers["Cross-Origin-Resource-Policy"] = "same-origin"
    headers["Cross-Origin-Opener-Policy"] = "same-origin"


_WHO = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Stepreel</title>
<style>body{font:16px/1.5 system-ui;max-width:34em;margin:15vh auto;padding:0 1em;color-scheme:light dark}</style>
<h1>Who is there?</h1>
<p>Open the URL that the viewer printed in its terminal when it started; it has a token in it. The browser then
remembers it until the viewer is started anew.</p></html>"""

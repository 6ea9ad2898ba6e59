"""Latchkey in front of a WSGI or ASGI app. Needs latchkey_client.py beside it; see README.md."""

import asyncio
import json
import time
from http import HTTPStatus
from urllib.parse import quote

from latchkey_client import Latchkey


class _Middleware:
    def __init__(self, app, permissions=(), latchkey=None):
        """`permissions` that a request needs: a list, or a function of its environ or scope."""
        self.app, self.permissions, self.latchkey = app, permissions, latchkey or Latchkey()

    def check(self, request, authorization, api_key, user_agent, method, path, ip):
        """The verdict and headers to add; or None, and headers, status and body to refuse with."""
        needs = self.permissions(request) if callable(self.permissions) else self.permissions
        question = {"permissions": list(needs), "method": method, "user_agent": user_agent}
        # Behind a proxy, `ip` is what the app's own proxy handling sets. It may end in `%eth0`.
        question |= {"path": quote(path, "/:@!$&'()*+,;="), "ip": ip and ip.partition("%")[0]}
        verdict, headers = self.latchkey.ask(authorization, api_key, question)
        if verdict["valid"] is True:
            return verdict, headers, None, None
        status = HTTPStatus(verdict["status"])
        shown = ("status", "code", "request_id", "missing_permissions")
        problem = {n: verdict[n] for n in shown if verdict.get(n)} | {"title": status.phrase}
        headers += [("Content-Type", "application/problem+json"), ("Cache-Control", "no-store")]
        return None, headers, status, json.dumps(problem).encode()


class LatchkeyWSGI(_Middleware):
    def __call__(self, environ, start_response):
        sent = map(environ.get, ("HTTP_AUTHORIZATION", "HTTP_X_API_KEY", "HTTP_USER_AGENT"))
        path = (environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")).encode("latin-1")
        facts = environ["REQUEST_METHOD"], path, environ.get("REMOTE_ADDR") or None
        verdict, headers, status, body = self.check(environ, *sent, *facts)
        if verdict is None:
            start_response(f"{status.value} {status.phrase}", headers)
            return [body] if environ["REQUEST_METHOD"] != "HEAD" else []
        environ["latchkey"], began = verdict, time.monotonic()

        def start(line, own, *error):
            self.latchkey.note(verdict, int(line[:3]), began)
            return start_response(line, own + headers, *error)

        return self.app(environ, start)


class LatchkeyASGI(_Middleware):
    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        sent = {b"authorization": [], b"x-api-key": [], b"user-agent": []}
        for name, value in scope["headers"]:
            sent.get(name, []).append(value.decode("latin-1"))
        facts = scope.get("method", "GET"), scope["path"], (scope.get("client") or [None])[0]
        asked = asyncio.to_thread(self.check, scope, *map(",".join, sent.values()), *facts)
        verdict, headers, status, body = await asked
        headers = [(name.lower().encode(), value.encode()) for name, value in headers]
        if verdict is None and scope["type"] == "websocket":
            return await send({"type": "websocket.close", "code": 1008})
        if verdict is None:
            await send({"type": "http.response.start", "status": status.value, "headers": headers})
            return await send({"type": "http.response.body", "body": body})
        began = time.monotonic()

        async def answer(message):
            if message["type"] in ("http.response.start", "websocket.accept"):
                self.latchkey.note(verdict, message.get("status", 101), began)
                message = {**message, "headers": [*message.get("headers", ()), *headers]}
            await send(message)

        try:
            await self.app({**scope, "latchkey": verdict}, receive, answer)
        except Exception:
            self.latchkey.note(verdict, 500, began)
            raise

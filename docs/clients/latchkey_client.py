"""Asks Latchkey about requests and reports their outcomes, for the middlewares in latchkey.py."""

import atexit
import json
import logging
import os
import threading
import time
from contextlib import closing
from http.client import HTTPConnection, HTTPSConnection
from urllib.parse import urlsplit


class Latchkey:
    def __init__(self, url=None, key=None, timeout=2.0, **where):  # where: project, environment
        self.url = urlsplit((url or os.environ["LATCHKEY_URL"]).rstrip("/"))
        self.connect = {"http": HTTPConnection, "https": HTTPSConnection}[self.url.scheme]
        self.key, self.timeout, self.where = key or os.environ["LATCHKEY_KEY"], timeout, where
        self.outcomes, self.timer = {}, threading.Thread()
        atexit.register(self.report)

    def post(self, path, content):
        """Headers and JSON of an answer. No proxy, no redirect: neither is to learn a key."""
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        with closing(self.connect(self.url.netloc, timeout=self.timeout)) as connection:
            connection.request("POST", self.url.path + path, json.dumps(content), headers)
            answer = connection.getresponse()
            if answer.status != 200:
                raise ConnectionError(f"status {answer.status}")
            return answer.headers, json.loads(answer.read(1_000_000))

    def ask(self, authorization, api_key, question):
        """A verdict and headers for the client; where Latchkey gives none, a refusal of our own."""
        # Servers join repeated headers with commas, and no key contains one.
        pairs = [text.strip().partition(" ") for text in (authorization or "").split(",")]
        keys = {token.strip() for scheme, _, token in pairs if scheme.lower() == "bearer"}
        keys = (keys | {text.strip() for text in (api_key or "").split(",")}) - {""}
        if len(keys) > 1:
            return {"valid": False, "status": 400, "code": "INVALID"}, []
        try:
            # Latchkey takes 512 characters; no key has as many, and a cut makes none.
            question = question | self.where | {"key": "".join(keys)[:512]}
            told, verdict = self.post("/api/v1/verify", question)
            valid, status, code, _ = (verdict[n] for n in ("valid", "status", "code", "request_id"))
            if valid is not True and (valid is not False or status not in (401, 403, 429)):
                raise ValueError
            headers = [pair for pair in told.items() if "ratelimit" in pair[0].lower()]
            if status == 401:
                error = ', error="invalid_token"' if keys else ""
                headers.append(("WWW-Authenticate", f'Bearer realm="latchkey"{error}'))
            if code == "RATE_LIMITED":
                wait = int(verdict["rate_limit"]["reset"] - time.time()) + 1
                headers.append(("Retry-After", str(max(1, wait))))
            return verdict, headers
        except Exception as error:
            # The texts of other errors may quote a header, and in it the service's key.
            told = error if isinstance(error, OSError) else type(error).__name__
            logging.getLogger("latchkey").warning("no verdict: %s", told)
            return {"valid": False, "status": 503, "code": "UNAVAILABLE"}, [("Retry-After", "1")]

    def note(self, verdict, status, began):
        """Keeps an outcome. Batches leave a second after their first one, or when 100 wait."""
        took = round((time.monotonic() - began) * 1_000)
        outcome = {"request_id": verdict["request_id"], "status": status, "latency_ms": took}
        if len(self.outcomes) < 10_000:
            self.outcomes[verdict["request_id"]] = outcome
        if len(self.outcomes) == 100 or not self.timer.is_alive():  # none is, after a fork
            self.timer = threading.Timer(1.0 if len(self.outcomes) < 100 else 0.0, self.report)
            self.timer.daemon = True
            self.timer.start()

    def report(self):
        self.timer = threading.Thread()  # what is noted from now on needs another
        # Another timer may be at it too: what it took is None here.
        while taken := [self.outcomes.pop(name, None) for name in list(self.outcomes)[:1_000]]:
            try:
                self.post("/api/v1/audit-log/outcomes", list(filter(None, taken)))
            except Exception as error:
                return logging.getLogger("latchkey").warning("no report: %s", type(error).__name__)

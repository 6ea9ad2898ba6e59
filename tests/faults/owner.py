"""An owner of a running server, in a browser and by an access token."""

import re
from typing import Any

import requests

from tests.conftest import PASSWORD, V1, bearer
from tests.server import RunningServer

EMAIL = "ada@example.com"
WAIT_SECONDS = 60


def form_token(page: str) -> str:
    found = re.search(r'name="csrf_token" value="([^"]+)"', page)
    assert found
    return found[1]


class Owner:
    """Made on the command line; `secret` is of a key of the project shop. `answers` are all."""

    def __init__(self, server: RunningServer) -> None:
        self.server = server
        made = server.run("create-admin", "--email", EMAIL, "--password-stdin", stdin=PASSWORD)
        assert made.returncode == 0, made.stderr
        self.browser = requests.Session()
        self.answers: list[requests.Response] = []
        self.token = ""
        assert self.form("/login", email=EMAIL, password=PASSWORD).ok
        answer = self.api("POST", "/auth/token", {"email": EMAIL, "password": PASSWORD})
        self.token = answer.json()["access_token"]
        assert self.api("POST", "/projects", {"slug": "shop"}).status_code == 201
        self.secret = self.create().json()["key"]
        self.token_of_form = form_token(self.page("/projects/shop/settings").text)

    def api(self, method: str, path: str, body: Any = None, **more: str) -> requests.Response:
        headers = {**(bearer(self.token) if self.token else {}), **more}
        return self._noted(requests.request(
            method, f"{self.server.url}{V1}{path}", json=body, headers=headers,
            timeout=WAIT_SECONDS,
        ))  # fmt: skip

    def page(self, path: str, **headers: str) -> requests.Response:
        url = f"{self.server.url}{path}"
        return self._noted(self.browser.get(url, headers=headers, timeout=WAIT_SECONDS))

    def post(self, path: str, **fields: str) -> requests.Response:
        """A form that was opened before."""
        fields = {"csrf_token": self.token_of_form, **fields}
        url = f"{self.server.url}{path}"
        return self._noted(self.browser.post(url, fields, timeout=WAIT_SECONDS))

    def form(self, path: str, **fields: str) -> requests.Response:
        self.token_of_form = form_token(self.page(path).text)
        return self.post(path, **fields)

    def create(self) -> requests.Response:
        return self.api("POST", "/api-keys", {"name": "New", "project": "shop"})

    def can_create(self) -> bool:
        return self.create().status_code == 201

    def readyz(self) -> requests.Response:
        return requests.get(f"{self.server.url}/readyz", timeout=WAIT_SECONDS)

    def _noted(self, answer: requests.Response) -> requests.Response:
        self.answers += [*answer.history, answer]
        return answer

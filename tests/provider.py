"""A real provider of single sign-on (Canaille) as a process of its own, with one registered client.

`python -m tests.provider PORT REDIRECT_URI` serves it on loopback, in memory.
"""

import os
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import requests

from tests.server import ROOT, START_SECONDS, free_port

CLIENT_ID, CLIENT_SECRET = "latchkey", "a-secret-that-nobody-shows"
PASSWORD = "correct horse battery"
# Who may sign in there, and the group of each.
PEOPLE = {"ada": "platform", "bob": "payments", "eve": None}


class Provider:
    """Runs while its block does; `url` is its address, and the issuer it names."""

    def __init__(self, log_path: Path, redirect_uri: str) -> None:
        self.log_path, self.redirect_uri = log_path, redirect_uri
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with self.log_path.open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.provider", str(self.port), self.redirect_uri],
                cwd=ROOT,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                requests.get(f"{self.url}/.well-known/openid-configuration", timeout=5)
                return self
            except requests.ConnectionError:
                time.sleep(0.05)
        self.stop()
        raise AssertionError(f"the provider did not start:\n{self.log_path.read_text()}")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait()


def make_app(port: int, redirect_uri: str) -> Any:
    """Canaille with its people, groups and client; nobody is asked to consent to its own client."""
    from canaille import create_app
    from canaille.app import models
    from canaille.backends import Backend

    url = f"http://127.0.0.1:{port}"
    settings = {
        "SECRET_KEY": os.urandom(16).hex(),
        "SERVER_NAME": f"127.0.0.1:{port}",
        "PREFERRED_URL_SCHEME": "http",
        "CANAILLE": {"DATABASE": "memory", "SMTP": None, "JAVASCRIPT": False},
        "CANAILLE_OIDC": {},
    }
    app = create_app(settings)
    with app.app_context():
        for name, group in PEOPLE.items():
            person = models.User(
                user_name=name,
                formatted_name=name.title(),
                family_name=name.title(),
                emails=[f"{name}@example.com"],
                password=PASSWORD,
            )
            Backend.instance.save(person)
            if group is not None:
                Backend.instance.save(models.Group(display_name=group, members=[person]))
        client = models.Client(
            client_id=CLIENT_ID,
            client_secret=CLIENT_SECRET,
            client_name="Latchkey",
            client_uri=url,
            redirect_uris=[redirect_uri],
            grant_types=["authorization_code"],
            response_types=["code"],
            scope=["openid", "email", "profile", "groups"],
            token_endpoint_auth_method="client_secret_basic",
        )
        Backend.instance.save(client)
        client.audience = [client]
        Backend.instance.save(client)
    return app


if __name__ == "__main__":
    from werkzeug.serving import run_simple

    given_port = int(sys.argv[1])
    run_simple("127.0.0.1", given_port, make_app(given_port, sys.argv[2]), threaded=True)

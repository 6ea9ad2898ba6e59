"""Asks the server of these settings, on this machine, how it does: for a container's HEALTHCHECK.
Opens no data directory and no database."""

import http.client
import json
import socket
import threading
from contextlib import suppress

from config import Config

# Docker's and systemd's own limits are longer; for connecting, and for each piece of the answer.
TIMEOUT_SECONDS = 2.0
WHOLE_SECONDS = 4.0
ANSWER_MAX_BYTES = 10_000
OWN = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # who listens everywhere


class Unwell(Exception):
    """The server does not answer, or says that it is not well: why."""


def ask(config: Config, *, live: bool = False) -> str:
    """What /readyz, or /healthz if `live`, says of itself. Raises Unwell."""
    host = OWN.get(config.host, config.host)
    where = f"[{host}]:{config.port}" if ":" in host else f"{host}:{config.port}"
    connection = http.client.HTTPConnection(host, config.port, timeout=TIMEOUT_SECONDS)
    end = threading.Timer(WHOLE_SECONDS, _break_off, [connection])
    end.start()
    try:
        connection.request("GET", "/healthz" if live else "/readyz")
        answer = connection.getresponse()
        said = _words(answer.read(ANSWER_MAX_BYTES))
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise Unwell(f"{where} does not answer: {reason}") from None
    finally:
        end.cancel()
        connection.close()
    if answer.status != 200 or not said:
        raise Unwell(f"{where}: {said or f'somebody else answers, with {answer.status}'}")
    return said


def _break_off(connection: http.client.HTTPConnection) -> None:
    """Of an answer that comes a byte at a time no more is waited for."""
    with suppress(OSError, AttributeError):  # it has ended in this very moment, or not begun
        connection.sock.shutdown(socket.SHUT_RDWR)


def _words(body: bytes) -> str:
    """`status`, and the reason where there is one; '' where it is not ours that answers."""
    try:
        content = json.loads(body)
        words = [content["status"], *filter(None, [content.get("reason")])]
        return ": ".join(map(str, words))
    except (ValueError, KeyError, TypeError, AttributeError):
        return ""

"""Measures how long a wrong password takes for addresses that are known and for such as nobody has,
in turns, on a server with hashes as they are shipped. Prints both medians and quartiles: where the
two differ by more than each spreads, an address could be told by the clock.
"""

import http.client
import json
import statistics
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

from tests.server import RunningServer

PEOPLE = 30
TRIES = 4  # of each address: the brake begins at six
PASSWORD = "correct horse battery"


def main() -> None:
    with (
        tempfile.TemporaryDirectory() as directory,
        RunningServer(Path(directory) / "data") as server,
    ):
        server.run("create-admin", "--email", "ada@example.com", "--password-stdin", stdin=PASSWORD)
        owner = _post(server.url, "/auth/token", {"email": "ada@example.com", "password": PASSWORD})
        token = json.loads(owner[1])["access_token"]
        for number in range(PEOPLE):
            person = {"email": f"known{number}@example.com", "password": PASSWORD}
            assert _post(server.url, "/people", person, token=token)[0] == 201
        times: dict[str, list[float]] = {"known": [], "unknown": []}
        for turn in range(TRIES):
            for number in range(PEOPLE):
                for kind, found in times.items():
                    wrong = {"email": f"{kind}{number}@example.com", "password": f"wrong {turn}"}
                    began = time.perf_counter()
                    status, _ = _post(server.url, "/auth/token", wrong, network=number)
                    found.append((time.perf_counter() - began) * 1000)
                    assert status == 401
    for kind, found in times.items():
        low, middle, high = statistics.quantiles(found, n=4)
        print(
            f"{kind:8} {len(found)} times, ms: median {middle:.1f}, quartiles {low:.1f} {high:.1f}"
        )


def _post(
    url: str, path: str, body: object, *, token: str = "", network: int = 0
) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
    headers = {
        "Content-Type": "application/json",
        "X-Forwarded-For": f"203.0.{network}.1",
        **({"Authorization": f"Bearer {token}"} if token else {}),
    }
    connection.request("POST", f"/api/v1{path}", json.dumps(body), headers)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, content


if __name__ == "__main__":
    main()

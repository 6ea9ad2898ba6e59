"""Four processes on PostgreSQL and Redis behind nginx, under load: what one changes all obey, no
limit is exceeded, and neither `kill -9` of a process nor a restart of PostgreSQL or Redis loses an
answered entry, or gives a verdict that is wrong.

A few rounds each time; CHANGES=1000 ROUNDS=20 proves it at length.
"""

import http.client
import itertools
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

import peewee
import pytest

from tests.cluster import Cluster, cluster
from tests.server import RunningServer, wait_until
from tests.test_promises import Client, make_key

pytestmark = [pytest.mark.service, pytest.mark.outside]

CHANGES = int(os.environ.get("CHANGES", "15"))
ROUNDS = int(os.environ.get("ROUNDS", "1"))
CLIENTS = 4
# What a process that dies, or nginx that has lost it, may do to a request.
BROKEN = (OSError, http.client.HTTPException)


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("four")) as made:
        made.servers[0].run("create-project", "--slug", "shop")
        yield made


@pytest.fixture(scope="module")
def manager(four: Cluster) -> str:
    return make_key(four.servers[0], "--permission", "keys:manage")


class Balanced(Client):
    """A connection to nginx, and so to any of the processes."""

    def check(self, secret: str, path: str = "/tasks") -> tuple[int, str, str]:
        """The status of a check, its code, and its request's id; 503 too where nobody answers."""
        headers = {
            "Authorization": f"Bearer {secret}", "X-Forwarded-Method": "GET",
            "X-Forwarded-Uri": path,
        }  # fmt: skip
        try:
            self.connection.request("GET", "/forward-auth/traefik", headers=headers)
            answer = self.connection.getresponse()
            body = answer.read()
        except BROKEN:
            self.connection.close()
            return 503, "UNAVAILABLE", ""
        if answer.status in (502, 504):  # nginx's own
            return 503, "UNAVAILABLE", ""
        code = "VALID" if answer.status == 200 else json.loads(body)["code"]
        return answer.status, code, answer.headers["X-Request-Id"]


@dataclass
class Load:
    """What clients that check without pause were answered, key by key."""

    codes: dict[str, Counter[str]] = field(default_factory=dict)
    let_in: list[str] = field(default_factory=list)  # the ids of requests
    recorded: list[str] = field(default_factory=list)  # of all that have an entry

    def note(self, name: str, answer: tuple[int, str, str]) -> None:
        status, code, request_id = answer
        self.codes.setdefault(name, Counter())[code] += 1
        if status != 503:
            self.recorded.append(request_id)


@contextmanager
def load(four: Cluster, secrets: dict[str, str]) -> Iterator[Load]:
    """Clients that check these keys in turn, through nginx."""
    made, done = Load(), threading.Event()

    def run() -> None:
        with Balanced(four) as client:
            for name in itertools.cycle(secrets):
                if done.is_set():
                    return
                made.note(name, client.check(secrets[name]))

    with ThreadPoolExecutor(CLIENTS) as pool:
        running = [pool.submit(run) for _ in range(CLIENTS)]
        try:
            yield made
        finally:
            done.set()
    for one in running:
        one.result()


def missing(four: Cluster, request_ids: list[str]) -> set[str]:
    """Which of them have no entry."""
    stored = {row[0] for row in four.database.ask("select request_id from entry")}
    return set(request_ids) - stored


def nothing_is_lost_or_twice(four: Cluster, request_ids: list[str]) -> None:
    wait_until(lambda: not missing(four, request_ids))
    twice = "select request_id from entry group by 1 having count(*) > 1"
    assert four.database.ask(twice) == []


def new_key(server: RunningServer, manager: str, **settings: Any) -> dict[str, Any]:
    with Client(server) as client:
        made: dict[str, Any] = client.call("POST", "/api-keys", manager, {"name": "k", **settings})
        return made


def test_a_change_is_obeyed_by_every_process_from_its_answer_on(
    four: Cluster, manager: str
) -> None:
    busy = new_key(four.servers[1], manager)["key"]
    turns = itertools.cycle(four.servers)
    with load(four, {"busy": busy}) as made:
        for _ in range(CHANGES):
            changer = next(turns)
            with Client(changer) as client:
                key = client.call("POST", "/api-keys", manager, {"name": "changing"})
                assert codes_of(four, key["key"]) == ["VALID"] * 4
                path = f"/api-keys/{key['id']}"
                client.call("PATCH", path, manager, {"status": "revoked"})
                assert codes_of(four, key["key"]) == ["API_KEY_REVOKED"] * 4
                client.call("PATCH", path, manager, {"status": "active"})
                rotated = client.call("POST", f"{path}/rotate", manager)
                assert codes_of(four, key["key"]) == ["API_KEY_SUPERSEDED"] * 4
                client.call("DELETE", path, manager)
                assert codes_of(four, rotated["key"]) == ["API_KEY_INVALID"] * 4
    assert set(made.codes["busy"]) == {"VALID"}


def codes_of(four: Cluster, secret: str) -> list[str]:
    """What each process says to it."""
    found = []
    for server in four.servers:
        with Client(server) as client:
            found.append(client.check(secret)[1])
    return found


def test_no_limit_is_exceeded_by_several_processes(four: Cluster, manager: str) -> None:
    secret = new_key(four.servers[0], manager, monthly_quota=151)["key"]
    with Balanced(four) as client:  # Redis was new a moment ago
        wait_until(lambda: client.check(secret)[1] == "VALID")

    def ask(_: int) -> Counter[str]:
        with Balanced(four) as client:
            return Counter(client.check(secret)[1] for _ in range(60))

    with ThreadPoolExecutor(8) as pool:
        codes = sum(pool.map(ask, range(8)), Counter[str]())
    assert codes == {"VALID": 150, "QUOTA_EXCEEDED": 330}


def test_kill_9_of_any_process_loses_no_answered_entry(four: Cluster, manager: str) -> None:
    key = new_key(four.servers[0], manager, monthly_quota=10**9)
    recorded: list[str] = []
    for server in four.servers[:2] * ROUNDS:
        with load(four, {"busy": key["key"]}) as made:
            time.sleep(0.5)
            server.kill()
            time.sleep(0.2)
        recorded += made.recorded
        server.start()
    assert recorded
    nothing_is_lost_or_twice(four, recorded)


@pytest.mark.parametrize("what", ["postgresql", "redis"])
def test_a_restart_under_load_gives_503_and_no_wrong_verdict(
    four: Cluster, manager: str, what: str
) -> None:
    quota = 4_000 if what == "redis" else 10**9
    server = four.servers[0]
    secrets = {"free": new_key(server, manager)["key"]}
    secrets["limited"] = new_key(server, manager, monthly_quota=quota)["key"]
    revoked = new_key(server, manager)
    with Client(server) as client:
        client.call("PATCH", f"/api-keys/{revoked['id']}", manager, {"status": "revoked"})
    secrets["revoked"] = revoked["key"]
    with load(four, secrets) as made:
        for _ in range(ROUNDS):
            time.sleep(0.5)
            if what == "postgresql":
                four.database.stop("immediate")
                wait_until(lambda: made.codes["free"]["UNAVAILABLE"] > 5)
                four.database.start()
            else:
                four.counts.kill()
                wait_until(lambda: made.codes["limited"]["UNAVAILABLE"] > 5)
                four.counts.start()
            let_in = made.codes["limited"]["VALID"]
            wait_until(
                lambda let_in=let_in: (  # type: ignore[misc]
                    made.codes["limited"]["VALID"] > let_in + 50
                    or made.codes["limited"]["QUOTA_EXCEEDED"] > 0
                )
            )
    assert set(made.codes["free"]) <= {"VALID", "UNAVAILABLE"}
    assert set(made.codes["limited"]) <= {"VALID", "UNAVAILABLE", "QUOTA_EXCEEDED"}
    assert set(made.codes["revoked"]) <= {"API_KEY_REVOKED", "UNAVAILABLE"}
    if what == "redis":
        assert "UNAVAILABLE" not in made.codes["free"]  # it has no limit to count
        with Balanced(four) as client:
            while (answer := client.check(secrets["limited"]))[1] != "QUOTA_EXCEEDED":
                made.note("limited", answer)
        assert made.codes["limited"]["VALID"] == quota
    nothing_is_lost_or_twice(four, made.recorded)


def test_jobs_are_done_by_one_process_at_a_time(four: Cluster) -> None:
    """And by which is no matter: all are alive after what was done to them."""
    before = four.database.ask("select finished_at from job where name = 'watch'")
    wait_until(
        lambda: four.database.ask("select finished_at from job where name = 'watch'") != before
    )
    assert four.database.ask("select count(*) from job where error is not null") == [(0,)]
    for server in four.servers:
        with Client(server) as client:
            client.connection.request("GET", "/readyz")
            answer = client.connection.getresponse()
            assert (answer.status, answer.read()) == (200, b'{"status":"ok"}\n')


def test_a_lock_that_somebody_holds_for_long_gives_503_and_leaves_the_process_alive(
    four: Cluster, manager: str
) -> None:
    """More callers than a process has threads wait for it; whoever asks whether it lives does
    not, and after five seconds nobody does."""
    secret = new_key(four.servers[0], manager)["key"]
    holder = peewee.PostgresqlDatabase(four.database.url, prefer_psycopg3=True)

    def ask(_: int) -> str:
        with Client(four.servers[0]) as client:
            client.connection.timeout = 30  # some wait behind others
            return client.check(secret)[1]

    with closing(holder), holder.atomic(), ThreadPoolExecutor(24) as pool:
        holder.execute_sql("lock table key")
        asked = [pool.submit(ask, number) for number in range(24)]
        time.sleep(0.5)
        with Client(four.servers[0]) as client:
            client.connection.request("GET", "/healthz")
            assert client.connection.getresponse().status == 200
        assert not any(one.done() for one in asked)
        assert {one.result() for one in asked} == {"UNAVAILABLE"}
    assert ask(0) == "VALID"

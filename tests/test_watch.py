"""What the newest requests tell: new places, bursts of refusals, limits, old secrets, guessing;
each cause once in its window."""

import threading
import time as wall
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests
from flask import Flask

from console import alert_rules, audit, check, guessing, jobs, keys, projects, watch
from console.actor import Actor
from console.alert_rules import (
    GUESSING,
    LIMIT_NEAR,
    LIMIT_REACHED,
    NEW_COUNTRY,
    NEW_NETWORK,
    OLD_SECRET,
    REFUSALS,
)
from console.models import MUTED, Alert, Attempt, Event, Job, Place
from tests.conftest import Clock, MakeKey, checked
from tests.server import RunningServer

PARIS, LYON, BERLIN, ELSEWHERE = "2.2.2.2", "2.2.9.5", "46.4.0.1", "8.8.8.8"
UNKNOWN = "sk_live_" + "0" * 30 + "0aaaaa"

Look = Callable[[], list[Alert]]
Use = Callable[..., check.Verdict]


@pytest.fixture(autouse=True)
def begun(app: Flask, clock: Clock) -> None:
    """The job has run before: what came earlier is not looked at."""
    jobs.run_now(watch.TASK)


@pytest.fixture
def look() -> Look:
    """Looks through what is new, and returns the new alerts."""
    seen: set[str] = set()

    def run() -> list[Alert]:
        jobs.run_now(watch.TASK)
        new = [
            one for one in Alert.select().order_by(Alert.kind, Alert.cause) if one.id not in seen
        ]
        seen.update(one.id for one in new)
        return new

    return run


@pytest.fixture
def use() -> Use:
    def run(secret: str, ip: str | None = None, *, times: int = 1, **more: Any) -> check.Verdict:
        for _ in range(times):
            verdict = checked(check.Request(secret=secret, request_id="r", ip=ip, **more))
        return verdict

    return run


def kinds(alerts: list[Alert]) -> list[str]:
    return [one.kind for one in alerts]


# --- places ---------------------------------------------------------------------------------------


@pytest.fixture
def known(make_key: MakeKey, use: Use, look: Look, clock: Clock) -> str:
    """A key that was used from one place for longer than it takes to learn that."""
    _, secret = make_key()
    use(secret, PARIS)
    look()
    clock.move("8d")
    return secret


def test_a_new_country_is_told_once_the_key_is_known(known: str, use: Use, look: Look) -> None:
    use(known, PARIS)
    assert look() == []
    use(known, BERLIN)
    [alert] = look()
    assert (alert.kind, alert.facts["countries"], alert.facts["ip"]) == (
        NEW_COUNTRY, ["DE"], BERLIN
    )  # fmt: skip
    use(known, BERLIN)
    assert look() == []


def test_a_new_network_in_a_known_country_is_told_as_such(known: str, use: Use, look: Look) -> None:
    use(known, LYON)
    [alert] = look()
    assert (alert.kind, alert.facts["networks"]) == (NEW_NETWORK, ["2.2.9.0/24"])
    use(known, "2.2.9.99")
    assert look() == []


def test_while_a_key_is_learned_nothing_is_told(
    make_key: MakeKey, use: Use, look: Look, clock: Clock
) -> None:
    _, secret = make_key()
    for ip in (PARIS, LYON, BERLIN, ELSEWHERE):
        use(secret, ip)
        assert look() == []
        clock.move("2d")
    use(secret, "9.9.9.9")
    assert kinds(look()) in ([NEW_COUNTRY], [NEW_NETWORK])


def test_a_project_says_how_long_it_learns(
    make_key: MakeKey, use: Use, look: Look, clock: Clock, operator: Actor
) -> None:
    projects.edit("shop", {"alerts": {"learning_period": "30d"}}, by=operator)
    _, secret = make_key()
    use(secret, PARIS)
    look()
    clock.move("29d")
    use(secret, BERLIN)
    assert look() == []
    clock.move("2d")
    use(secret, ELSEWHERE)
    assert kinds(look()) == [NEW_COUNTRY]


def test_of_many_new_countries_in_a_day_the_first_five_are_told(
    known: str, use: Use, look: Look
) -> None:
    new = (BERLIN, ELSEWHERE, "1.1.1.1", "200.160.0.1", "133.11.0.1", "41.0.0.1", "91.198.174.1")
    for ip in new:
        use(known, ip)
        look()
    told = [one.cause for one in Alert.select().where(Alert.kind == NEW_COUNTRY)]
    assert len(told) == len(set(told)) == 5


def test_a_muted_kind_tells_nothing_in_the_next_window(
    known: str, use: Use, look: Look, clock: Clock, operator: Actor
) -> None:
    from console import alerts

    use(known, BERLIN)
    [alert] = look()
    alerts.change(alert.id, {"state": MUTED}, by=operator)
    clock.move("2d")
    use(known, ELSEWHERE)
    assert [one.state for one in look()] == [MUTED]
    assert Event.select().where(Event.action == "alert.new_country").count() == 1


def test_where_new_countries_are_not_told_their_networks_are(
    known: str, use: Use, look: Look, operator: Actor
) -> None:
    projects.edit("shop", {"alerts": {"off": [NEW_COUNTRY]}}, by=operator)
    use(known, BERLIN)
    assert kinds(look()) == [NEW_NETWORK]


def test_refused_requests_teach_no_place(known: str, use: Use, look: Look) -> None:
    use(known, BERLIN, permissions=("tasks:read",))
    look()
    assert NEW_COUNTRY not in {one.kind for one in Alert.select()}
    assert Place.select().where(Place.value == "DE").count() == 0


def test_ipv6_is_learned_by_48_bits_and_what_has_no_address_not_at_all(
    make_key: MakeKey, use: Use, look: Look
) -> None:
    _, secret = make_key()
    use(secret, "2a01:4f8:1:2::3")
    use(secret, None)
    look()
    networks = [one.value for one in Place.select().where(Place.kind == watch.NETWORK)]
    assert networks == ["2a01:4f8:1::/48"]


def test_a_key_used_from_everywhere_fills_no_table(
    known: str, use: Use, look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "PLACES_MAX", 3)
    for number in range(10):
        use(known, f"2.9.{number}.1")
        look()
    assert Place.select().where(Place.kind == watch.NETWORK).count() == 3


def test_places_that_nobody_comes_from_are_forgotten(
    known: str, use: Use, look: Look, clock: Clock
) -> None:
    clock.move("200d")
    use(known, PARIS)
    look()
    assert watch.prune_places(100) == 0
    clock.move("200d")
    assert watch.prune_places(1) == 1
    assert watch.prune_places(100) == 1
    assert Place.select().count() == 0


# --- refusals, old secrets ------------------------------------------------------------------------


def test_a_burst_of_refusals_is_told_once_an_hour(
    make_key: MakeKey, use: Use, look: Look, clock: Clock
) -> None:
    _, secret = make_key()
    use(secret, PARIS, times=49, permissions=("tasks:read",))
    assert look() == []
    use(secret, PARIS, permissions=("tasks:read",))
    [alert] = look()
    assert (alert.kind, alert.facts["refusals"], alert.facts["code"]) == (
        REFUSALS, 50, "PERMISSION_DENIED"
    )  # fmt: skip
    use(secret, PARIS, times=60, permissions=("tasks:read",))
    assert look() == []
    clock.move("1m")
    use(secret, PARIS, permissions=("tasks:read",))
    assert look() == []
    assert Alert.get().facts["refusals"] == 111
    clock.move("1h")
    use(secret, PARIS, times=50, permissions=("tasks:read",))
    assert kinds(look()) == [REFUSALS]


def test_a_project_says_what_a_burst_is(
    make_key: MakeKey, use: Use, look: Look, operator: Actor
) -> None:
    projects.edit("shop", {"alerts": {"refusals_per_hour": 3}}, by=operator)
    _, secret = make_key()
    use(secret, PARIS, times=3, permissions=("tasks:read",))
    assert kinds(look()) == [REFUSALS]


@pytest.mark.parametrize("how", ["revoke", "rotate"])
def test_a_secret_that_holds_no_more_and_is_still_used_is_told_once_a_day(
    make_key: MakeKey, use: Use, look: Look, clock: Clock, operator: Actor, how: str
) -> None:
    key, secret = make_key()
    if how == "revoke":
        keys.revoke(key.id, by=operator)
    else:
        keys.rotate(key.id, {}, by=operator)
    use(secret, BERLIN, times=3)
    [alert] = look()
    code = "API_KEY_REVOKED" if how == "revoke" else "API_KEY_SUPERSEDED"
    assert (alert.kind, alert.facts["code"], alert.facts["ip"]) == (OLD_SECRET, code, BERLIN)
    use(secret, BERLIN, times=100)
    assert look() == []
    clock.move("1d")
    use(secret, BERLIN)
    assert kinds(look()) == [OLD_SECRET]


def test_a_request_of_yesterday_that_is_read_again_is_not_told_again(
    make_key: MakeKey, use: Use, look: Look, clock: Clock, operator: Actor
) -> None:
    key, secret = make_key(rate_limit={"per_hour": 1})
    use(secret, BERLIN, times=2)
    keys.revoke(key.id, by=operator)
    use(secret, BERLIN)
    assert kinds(look()) == [LIMIT_REACHED, OLD_SECRET]
    clock.move("1d")
    Job.update(position=0).where(Job.name == "watch").execute()
    assert look() == []


def test_an_old_secret_in_its_grace_is_no_alert(
    make_key: MakeKey, use: Use, look: Look, operator: Actor
) -> None:
    key, secret = make_key()
    keys.rotate(key.id, {"grace_period": "24h"}, by=operator)
    use(secret, PARIS)
    assert look() == []


def test_keys_of_an_archived_project_are_no_news(
    make_key: MakeKey, use: Use, look: Look, operator: Actor
) -> None:
    _, secret = make_key()
    projects.edit("shop", {"archived": True}, by=operator)
    use(secret, PARIS, times=60)
    assert look() == []


# --- limits ---------------------------------------------------------------------------------------


def test_a_rate_limit_is_told_at_80_percent_and_when_it_is_reached(
    make_key: MakeKey, use: Use, look: Look
) -> None:
    _, secret = make_key(rate_limit={"per_hour": 10})
    use(secret, times=7)
    assert look() == []
    use(secret)
    [near] = look()
    assert (near.kind, near.cause, near.facts["used"]) == (LIMIT_NEAR, "hour", 8)
    use(secret, times=2)
    [reached] = look()
    assert (reached.kind, reached.cause) == (LIMIT_REACHED, "hour")
    use(secret, times=100)
    assert look() == []


def test_a_quota_is_told_once_in_its_month(
    make_key: MakeKey, use: Use, look: Look, clock: Clock
) -> None:
    _, secret = make_key(monthly_quota=10)
    use(secret, times=8)
    assert [(one.kind, one.cause) for one in look()] == [(LIMIT_NEAR, "month")]
    clock.move("1d")
    use(secret, times=1)
    assert look() == []
    use(secret, times=5)
    assert [(one.kind, one.cause) for one in look()] == [(LIMIT_REACHED, "month")]
    clock.move("1mo")
    use(secret, times=8)
    assert [(one.kind, one.cause) for one in look()] == [(LIMIT_NEAR, "month")]


def test_a_limit_that_began_anew_before_anybody_looked_is_told_by_its_refusals(
    make_key: MakeKey, use: Use, look: Look, clock: Clock
) -> None:
    _, secret = make_key(rate_limit={"per_minute": 5})
    use(secret, times=6)
    clock.move("2m")
    assert kinds(look()) == [LIMIT_REACHED]


def test_a_project_says_what_is_near(
    make_key: MakeKey, use: Use, look: Look, operator: Actor
) -> None:
    projects.edit("shop", {"alerts": {"limit_percent": 50}}, by=operator)
    _, secret = make_key(rate_limit={"per_hour": 10})
    use(secret, times=5)
    assert kinds(look()) == [LIMIT_NEAR]


def test_refusals_by_a_limit_are_no_burst(make_key: MakeKey, use: Use, look: Look) -> None:
    _, secret = make_key(rate_limit={"per_hour": 1})
    use(secret, times=80)
    assert kinds(look()) == [LIMIT_REACHED]


# --- guessing -------------------------------------------------------------------------------------


def guess(count: int, ip: str = ELSEWHERE) -> None:
    for _ in range(count):
        check.check(check.Request(secret=UNKNOWN, request_id="r", ip=ip))
    audit.store_attempts()


def test_who_tries_many_unknown_keys_is_told_to_the_installations_owners(look: Look) -> None:
    guess(alert_rules.GUESSES_PER_HOUR - 1)
    assert look() == []
    guess(1)
    [alert] = look()
    assert (alert.kind, alert.project_id, alert.subject) == (GUESSING, None, ELSEWHERE)
    guess(100)
    assert look() == []


def test_guessing_is_slowed_down_and_more_so_the_longer_it_lasts(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wait(ip: str) -> float:
        monkeypatch.setattr(guessing, "_refreshed_at", 0.0)
        guessing.refresh()
        return check.check(check.Request(secret=UNKNOWN, request_id="r", ip=ip)).delay_seconds

    assert wait(ELSEWHERE) == 0
    guess(alert_rules.GUESSES_PER_HOUR)
    assert 1 <= wait(ELSEWHERE) < 1.1
    guess(200)
    assert 3 <= wait(ELSEWHERE) < 3.1
    guess(1_000)
    assert wait(ELSEWHERE) == guessing.DELAY_MAX_SECONDS
    assert wait(PARIS) == 0
    clock.move("1h")
    assert wait(ELSEWHERE) == 0


def test_a_known_key_and_ones_own_proxies_are_never_slowed_down(
    make_key: MakeKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, secret = make_key()
    guess(200)
    guess(200, "127.0.0.1")
    monkeypatch.setattr(guessing, "_refreshed_at", 0.0)
    guessing.refresh()
    for text, ip in ((secret, ELSEWHERE), (UNKNOWN, "127.0.0.1"), (None, ELSEWHERE)):
        verdict = check.check(check.Request(secret=text, request_id="r", ip=ip))
        assert verdict.delay_seconds == 0


def test_of_ipv6_a_whole_64_is_one_guesser(look: Look) -> None:
    for number in range(alert_rules.GUESSES_PER_HOUR):
        guess(1, f"2a01:4f8:1:2::{number + 1:x}")
    [alert] = look()
    assert alert.subject == "2a01:4f8:1:2::"
    assert Attempt.select().count() == 1


def test_of_many_guessers_ten_are_told_in_a_day(look: Look) -> None:
    for number in range(12):
        guess(alert_rules.GUESSES_PER_HOUR, f"8.8.{number}.8")
        look()
    assert Alert.select().count() == 10


# --- the job --------------------------------------------------------------------------------------


def test_entries_are_looked_at_once_and_in_parts(
    make_key: MakeKey, use: Use, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "TOGETHER", 3)
    _, secret = make_key()
    read: list[tuple[int, int]] = []
    whole = watch._read
    monkeypatch.setattr(watch, "_read", lambda *ids: read.append(ids) or whole(*ids))
    use(secret, PARIS, times=8)
    jobs.run_now(watch.TASK)
    jobs.run_now(watch.TASK)
    assert read == [(0, 3), (3, 6), (6, 8)]
    assert Job.get_by_id("watch").position == 8


def test_what_nobody_looked_at_for_long_is_passed_over(
    make_key: MakeKey, use: Use, look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "BEHIND_MAX", 5)
    _, secret = make_key()
    use(secret, PARIS, times=60, permissions=("tasks:read",))
    assert look() == []
    assert Job.get_by_id("watch").position == 60


def test_the_hour_of_attempts_is_kept_apart(clock: Clock, look: Look) -> None:
    guess(alert_rules.GUESSES_PER_HOUR - 1)
    clock.move("1h")
    guess(alert_rules.GUESSES_PER_HOUR - 1)
    assert look() == []
    assert Attempt.select().count() == 2


@pytest.mark.service
def test_a_real_server_holds_answers_back_and_no_thread_with_them(tmp_path: Path) -> None:
    """Forty held back at once, more than there are threads; what comes after them is answered
    before them."""
    # Guesses are counted by the hour: none must begin meanwhile.
    if (left := 3_600 - wall.time() % 3_600) < 60:
        wall.sleep(left)
    with RunningServer(tmp_path / "data") as server:
        server.run("create-project", "--slug", "shop").check_returncode()
        made = server.run("create-key", "--project", "shop", "--name", "CI")
        known = made.stdout.strip()

        def ask(secret: str, ip: str = ELSEWHERE, path: str = "/api/v1/whoami") -> int:
            headers = {
                "Authorization": f"Bearer {secret}", "X-Forwarded-For": ip,
                "X-Original-Method": "GET", "X-Original-URL": "/",
            }  # fmt: skip
            return requests.get(server.url + path, headers=headers, timeout=20).status_code

        unknown = known[:-7] + ("0" if known[-7] != "0" else "1") + known[-6:]
        for _ in range(alert_rules.GUESSES_PER_HOUR):
            assert ask(unknown) == 401
        answered: list[str] = []
        lock = threading.Lock()

        def note(name: str, *more: str) -> int:
            status = ask(*more)
            with lock:
                answered.append(name)
            return status

        def is_slowed() -> bool:
            began = wall.monotonic()
            ask(unknown)
            return wall.monotonic() - began >= 1

        deadline = wall.monotonic() + 30
        while not is_slowed():
            assert wall.monotonic() < deadline
        with ThreadPoolExecutor(50) as pool:
            paths = ("/api/v1/whoami", "/forward-auth/nginx")
            held = [
                pool.submit(note, "held", unknown, ELSEWHERE, paths[number % 2])
                for number in range(40)
            ]
            wall.sleep(0.3)
            quick = [
                pool.submit(note, "known", known),
                pool.submit(note, "elsewhere", unknown, PARIS),
                pool.submit(note, "nginx", known, ELSEWHERE, "/forward-auth/nginx"),
            ]
            assert [one.result() for one in quick] == [200, 401, 200]
            assert {one.result() for one in held} == {401}
        assert set(answered[:3]) == {"known", "elsewhere", "nginx"}

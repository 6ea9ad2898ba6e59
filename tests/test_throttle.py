"""Guessing is slowed: for an account, from a network, in a browser; and nobody else is."""

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress

import pytest

from console import db, passwords, signin, throttle
from console.actor import Actor
from console.clock import DAY, HOUR, MINUTE, SECOND
from console.errors import Invalid, Limited, Refused, Unauthenticated, Unavailable
from console.models import Person, Throttle
from console.throttle import ACCOUNT, BRAKES, BROWSER, NETWORK, Brake
from tests.conftest import PASSWORD, Clock, add_person, at_once

ADA = "ada@example.com"
HOME = "198.51.100.7"
# What the policy lets through in a day: for an account and from a network that never stops.
ACCOUNT_MOST, NETWORK_MOST = 115, 330

pytestmark = pytest.mark.usefixtures("app", "clock")


class Wrong(Unauthenticated):
    """What was shown does not hold."""


def guess(email: str = ADA, *, ip: str | None = HOME, browser: str | None = None) -> int:
    """A wrong guess; how many seconds it was told to wait, 0 where it was looked at."""
    try:
        with throttle.attempt(email, ip=ip, browser=browser):
            raise Wrong("")
    except Limited as limited:
        assert limited.retry_after_seconds is not None
        return limited.retry_after_seconds
    except Wrong:
        return 0


def succeed(email: str = ADA, *, ip: str | None = HOME, browser: str | None = None) -> None:
    with throttle.attempt(email, ip=ip, browser=browser):
        pass


def guesses(count: int, email: str = ADA, **more: str | None) -> list[int]:
    return [guess(email, **more) for _ in range(count)]


def guess_until_it_waits_longest(clock: Clock) -> None:
    while (wait := guess()) < 900:
        clock.move_ms(wait * SECOND)


def addresses(count: int) -> Iterator[str]:
    """Each in a network of its own."""
    return (f"203.0.{number}.9" for number in range(count))


def count_of(kind: str) -> list[int]:
    return [row.count for row in Throttle.select().where(Throttle.subject.startswith(kind))]


def known(person: Actor) -> str:
    """What a browser presents in which the person has signed in."""
    return f"per_somebodyelse.abc {person.id}.mark"


# --- the policy -------------------------------------------------------------------------------


def test_five_failures_are_free_and_each_after_that_doubles_the_wait(clock: Clock) -> None:
    assert [guess(ip=ip) for ip in addresses(6)] == [0] * 6
    waits = []
    for number in range(12):
        waits.append(guess(ip=f"192.0.{number}.1"))
        clock.move_ms(waits[-1] * SECOND)
        assert guess(ip=f"192.0.{number}.2") == 0
    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900]


@pytest.mark.parametrize("brake", BRAKES, ids=lambda brake: brake.kind)
def test_a_brake_waits_as_long_as_is_documented(brake: Brake) -> None:
    assert brake.free == {"account": 5, "network": 30, "browser": 10}[brake.kind]
    assert [brake.wait(count) for count in (0, brake.free, brake.free + 1, brake.free + 2)] == [
        0, 0, SECOND, 2 * SECOND,
    ]  # fmt: skip
    longest = brake.wait(brake.free + throttle.DOUBLINGS + 1)
    assert longest == brake.wait(10**9) == throttle.LONGEST_WAIT == 15 * MINUTE


def test_what_is_refused_while_waiting_is_neither_counted_nor_looked_at(clock: Clock) -> None:
    guesses(6)
    before = list(Throttle.select().order_by(Throttle.subject).dicts())
    assert guesses(20) == [1] * 20
    with pytest.raises(Limited), throttle.attempt(ADA, ip=HOME):
        pytest.fail("looked at")
    assert list(Throttle.select().order_by(Throttle.subject).dicts()) == before
    clock.move_ms(SECOND)
    assert guess() == 0


def test_the_refusal_says_how_long_and_is_429(clock: Clock) -> None:
    guesses(6)
    clock.move_ms(500)
    with pytest.raises(Limited) as refused, throttle.attempt(ADA, ip=HOME):
        pass
    assert (refused.value.status, refused.value.code) == (429, "RATE_LIMITED")
    assert refused.value.retry_after_seconds == 1
    assert "this email address" in refused.value.message
    assert "Try again in 1 second," in refused.value.message
    guess_until_it_waits_longest(clock)
    with pytest.raises(Limited, match="in 15 minutes,"), throttle.attempt(ADA, ip=HOME):
        pass


def test_a_count_fades_by_one_for_each_quarter_of_an_hour_without_a_failure(clock: Clock) -> None:
    guesses(5)
    clock.move("29m")  # 5 - 1
    assert guesses(2) == [0, 0]
    assert guess() == 1
    clock.move("91m")  # 6 - 6
    assert guesses(6) == [0] * 6
    assert guess() == 1


def test_a_count_never_grows_past_what_waits_longest(clock: Clock) -> None:
    for _ in range(60):
        guess()
        clock.move("14m")
    assert max(count_of("account")) == ACCOUNT.free + throttle.DOUBLINGS + 1
    clock.move("4h")
    assert guesses(6) == [0] * 6


def test_successes_are_free(clock: Clock) -> None:
    guesses(5)
    before = list(Throttle.select().order_by(Throttle.subject).dicts())
    for _ in range(50):
        clock.move_ms(10)
        succeed()
    assert list(Throttle.select().order_by(Throttle.subject).dicts()) == before
    succeed("new@example.com", ip="192.0.2.1")
    assert Throttle.select().count() == len(before)


@pytest.mark.parametrize(
    ("error", "counted"),
    [
        (Unauthenticated("wrong"), 1),
        (Invalid({"password": "is wrong"}), 1),
        (Unavailable("the database is away"), 0),
        (OSError("ours"), 0),
    ],
    ids=lambda one: type(one).__name__,
)
def test_a_refusal_counts_and_a_fault_of_ours_does_not(error: Exception, counted: int) -> None:
    with pytest.raises(type(error)), throttle.attempt(ADA, ip=HOME):
        raise error
    assert sum(count_of("account")) == sum(count_of("network")) == counted


def test_a_complete_sign_in_clears_the_accounts_count_and_never_the_networks(clock: Clock) -> None:
    guesses(5)
    throttle.forgive(ADA)
    assert count_of("account") == [] and count_of("network") == [5]
    for number in range(25):  # an account of one's own buys nothing for guessing at others
        guess(f"victim{number}@example.com")
        succeed("mine@example.com")
        throttle.forgive("mine@example.com")
    assert guesses(2, "another@example.com") == [0, 1]


def test_a_restart_does_not_forget(clock: Clock) -> None:
    guesses(6)
    db.close()
    throttle.use_secret_key("k" * 40)
    assert guess() == 1


# --- networks ---------------------------------------------------------------------------------


def test_thirty_failures_from_a_network_are_free_whoever_is_tried() -> None:
    waits = [guess(f"p{number}@example.com", ip=f"192.0.2.{number}") for number in range(31)]
    assert waits == [0] * 31
    assert guess("fresh@example.com", ip="192.0.2.200") == 1
    assert guess("fresh@example.com", ip="192.0.3.200") == 0
    with pytest.raises(Limited, match="your network"):
        succeed("other@example.com", ip="192.0.2.201")


@pytest.mark.parametrize(
    ("ip", "network"),
    [
        ("198.51.100.7", "198.51.100.0/24"),
        ("::ffff:198.51.100.9", "198.51.100.0/24"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::6", "2001:db8:1:3::/64"),
        (None, "unknown"),
        ("", "unknown"),
        ("no address", "unknown"),
        ("fe80::1%eth0", "unknown"),
    ],
)
def test_addresses_are_counted_by_network(ip: str | None, network: str) -> None:
    assert throttle.network(ip) == network
    guess(ip=ip)
    assert Throttle.get_or_none(Throttle.subject == f"network:{network}") is not None


def test_who_comes_without_an_address_is_slowed_too() -> None:
    for number in range(31):
        guess(f"p{number}@example.com", ip=None)
    assert guess("fresh@example.com", ip=None) == 1


def test_what_names_no_account_is_counted_by_network_or_known_browser(owner: Actor) -> None:
    for _ in range(31):
        with suppress(Wrong), throttle.attempt(None, ip=HOME):
            raise Wrong("")
    assert count_of("network") == [31] and Throttle.select().count() == 1
    with pytest.raises(Limited), throttle.attempt(None, ip=HOME):
        pass
    with suppress(Wrong), throttle.attempt(None, ip=HOME, browser=known(owner)):
        raise Wrong("")
    assert count_of("browser") == [1] and count_of("network") == [31]


# --- whose account ----------------------------------------------------------------------------


def test_an_address_is_counted_however_it_is_written_and_never_stored() -> None:
    for email in (ADA, "ADA@Example.com", " ada@example.com ", "Ada@example.com\n", ADA, ADA):
        guess(email)
    assert guess() == 1
    assert count_of("account") == [6]
    stored = " ".join(row.subject for row in Throttle.select())
    assert "ada@" not in stored and "example" not in stored


def test_what_an_address_is_counted_as_needs_the_installations_key() -> None:
    guess()
    throttle.use_secret_key("another" * 8)
    guess()
    assert count_of("account") == [1, 1]


@pytest.mark.parametrize("email", ["", "no address", "a\udc80b", "a\0b", "x" * 100_000])
def test_what_is_no_address_is_counted_like_one(email: str) -> None:
    assert guesses(6, email) == [0] * 6
    assert guess(email) == 1


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every comparison of a password and every statement to the database, from now on."""
    done: list[str] = []
    verify, execute = passwords.hasher.verify, db.handle.obj.execute_sql

    def compared(*given: str) -> bool:  # dummy_verify, too, ends here
        done.append("compared")
        return bool(verify(*given))

    def noted(sql: str, *given: object) -> object:
        done.append(sql)
        return execute(sql, *given)

    monkeypatch.setattr(passwords.hasher, "verify", compared)
    monkeypatch.setattr(db.handle.obj, "execute_sql", noted)
    return done


def test_an_unknown_address_costs_the_same_work_and_the_same_words(
    owner: Actor, work: list[str]
) -> None:
    def tried(email: str, ip: str, browser: str | None) -> tuple[list[str], str]:
        work.clear()
        with pytest.raises(Refused) as refused:
            signin.with_password(email, "wrong", ip=ip, browser=browser)
        return list(work), refused.value.message

    guess("warm@example.com", ip="192.0.2.1")  # what is done once in a minute is done
    for browser in (None, known(Actor(kind="person", id="per_other", name="eve@example.com"))):
        for _ in range(8):  # the last two are told to wait
            own = tried(owner.name, "192.0.3.1", browser)
            other = tried("nobody@example.com", "192.0.4.1", browser)
            assert own == other
            assert own[0].count("compared") == ("Email or password" in own[1])
        assert "Too many" in own[1] and "compared" not in own[0]
        Throttle.delete().execute()


# --- known browsers ---------------------------------------------------------------------------


def test_a_thousand_wrong_passwords_from_a_hundred_addresses_never_lock_the_owner_out(
    owner: Actor, clock: Clock
) -> None:
    looked_at, home = 0, known(owner)
    for number in range(1000):
        looked_at += not guess(owner.name, ip=f"203.0.{number % 100}.{number // 100}")
        clock.move_ms(100)
        if number % 100 == 99:
            signin.with_password(owner.name, PASSWORD, ip=HOME, browser=home)
    # 5 are free, and 100 seconds have room for waits of 1, 2, 4, 8, 16 and 32 seconds.
    assert looked_at == 12
    assert guess(owner.name, ip="192.0.2.1") > 0


def test_a_day_of_guessing_is_bounded(owner: Actor, clock: Clock) -> None:
    end, looked_at, ever_new = clock.instant + DAY, 0, 0
    while clock.instant < end:
        wait = guess(owner.name, ip=f"10.{ever_new // 250}.{ever_new % 250}.1")
        looked_at, ever_new = looked_at + (not wait), ever_new + 1
        clock.move_ms(wait * SECOND)
    assert looked_at <= ACCOUNT_MOST


def test_a_day_of_trying_accounts_from_one_network_is_bounded(clock: Clock) -> None:
    end, looked_at = clock.instant + DAY, 0
    while clock.instant < end:
        wait = guess(f"p{looked_at}@example.com", ip="192.0.2.1")
        looked_at += not wait
        clock.move_ms(wait * SECOND)
    assert looked_at <= NETWORK_MOST


def test_strangers_in_the_same_network_do_not_hold_a_known_browser_up(owner: Actor) -> None:
    for number in range(40):
        guess(f"p{number}@example.com")
    guesses(10, owner.name)
    assert guess(owner.name) > 0
    succeed(owner.name, browser=known(owner))


def test_a_known_browser_has_ten_free_and_then_waits_alone(owner: Actor, clock: Clock) -> None:
    assert guesses(11, owner.name, browser=known(owner)) == [0] * 11
    assert guess(owner.name, browser=known(owner)) == 1
    assert count_of("account") == count_of("network") == []
    with pytest.raises(Limited, match="in this browser"):
        succeed(owner.name, browser=known(owner))
    assert guess(owner.name) == 0
    clock.move_ms(SECOND)
    succeed(owner.name, browser=known(owner))
    throttle.forgive(owner.name, browser=known(owner))
    assert count_of("browser") == [] and count_of("account") == [1]


def test_a_browser_is_known_for_its_own_people_alone(owner: Actor) -> None:
    bob = add_person("bob@example.com")
    guesses(6, bob.name, browser=known(owner))
    assert guess(bob.name, browser=known(owner)) == 1
    assert count_of("browser") == []
    both = f"{known(owner)} {bob.id}.another"
    succeed(bob.name, browser=both)
    succeed(owner.name, browser=both)


def test_a_browser_stays_known_when_the_address_changes(owner: Actor) -> None:
    Person.update(email="new@example.com").where(Person.id == owner.id).execute()
    guess("new@example.com", browser=known(owner))
    assert count_of("browser") == [1] and count_of("account") == []


@pytest.mark.parametrize("browser", ["", " ", "nonsense", "a.b.c d", ".", "per_gone.mark"])
def test_a_browser_that_is_nobodys_is_a_stranger(browser: str, owner: Actor) -> None:
    guess(owner.name, browser=browser)
    assert count_of("account") == count_of("network") == [1]


# --- races, clocks, disks ---------------------------------------------------------------------


def test_guesses_at_once_do_not_outrun_the_count(owner: Actor) -> None:
    def sign_in(number: int) -> object:
        return signin.with_password(owner.name, "wrong", ip=f"10.0.{number}.1")

    answers = at_once(16, sign_in)
    assert sum(isinstance(answer, Unauthenticated) for answer in answers) == 6
    assert sum(isinstance(answer, Limited) for answer in answers) == 10
    assert count_of("account") == [6]


def test_a_success_beside_a_failure_takes_back_only_its_own(clock: Clock) -> None:
    guesses(2)
    with throttle.attempt(ADA, ip=HOME):
        clock.move_ms(5)
        guess()
        clock.move_ms(5)
    assert count_of("account") == count_of("network") == [3]
    with throttle.attempt(ADA, ip=HOME):
        throttle.forgive(ADA)
    assert count_of("account") == []


@pytest.mark.parametrize("back", [HOUR, 30 * DAY])
def test_a_clock_that_is_set_back_makes_nobody_wait_longer(clock: Clock, back: int) -> None:
    guess_until_it_waits_longest(clock)
    clock.move_ms(-back)
    assert guess() == 900
    clock.move("14m")
    assert guess() == 60
    clock.move("1m")
    succeed()


def test_a_count_inside_a_transaction_is_refused() -> None:
    with pytest.raises(RuntimeError), db.write(), throttle.attempt(ADA, ip=HOME):
        pass


def test_what_has_faded_is_dropped(clock: Clock) -> None:
    for number in range(50):
        guess(f"p{number}@example.com", ip=f"10.0.{number}.1")
    assert Throttle.select().count() == 100
    clock.move("15m")
    guess("one@example.com", ip="192.0.2.1")
    assert Throttle.select().count() == 2
    throttle.allow("mail", "somebody", most=1, within_ms=DAY)
    clock.move("23h")
    guess("one@example.com", ip="192.0.2.1")
    assert count_of("mail") == [1]
    clock.move("2h")
    guess("one@example.com", ip="192.0.2.1")
    assert count_of("mail") == [] and Throttle.select().count() == 2


def test_the_networks_brake_bounds_the_rows_that_it_makes(clock: Clock) -> None:
    for number in range(2000):
        guess(f"p{number}@example.com", ip="192.0.2.1")
        clock.move_ms(100)
    assert Throttle.select().count() < NETWORK.free + 12


# --- other happenings -------------------------------------------------------------------------


def test_so_many_are_allowed_in_each_stretch_of_time(clock: Clock) -> None:
    def asked(text: str = ADA) -> bool:
        return throttle.allow("mail", text, most=3, within_ms=HOUR)

    assert [asked() for _ in range(5)] == [True, True, True, False, False]
    assert asked("bob@example.com")
    assert throttle.allow("other", ADA, most=1, within_ms=HOUR)
    clock.move("59m")
    assert not asked()
    clock.move("1m")
    assert [asked() for _ in range(4)] == [True, True, True, False]
    assert ADA not in " ".join(row.subject for row in Throttle.select())


def test_none_is_allowed_twice_at_once() -> None:
    answers = at_once(8, lambda _: throttle.allow("mail", ADA, most=2, within_ms=HOUR))
    assert sorted(answers, key=str) == [False] * 6 + [True] * 2


def test_a_clock_that_is_set_back_begins_a_new_stretch(clock: Clock) -> None:
    assert throttle.allow("mail", ADA, most=1, within_ms=HOUR)
    clock.move_ms(-DAY)
    assert throttle.allow("mail", ADA, most=1, within_ms=HOUR)


def test_brakes_differ_in_what_they_say() -> None:
    assert len({brake.words for brake in BRAKES}) == len(BRAKES) == 3
    assert BROWSER in BRAKES and all("{wait}" in brake.words for brake in BRAKES)


def test_right_passwords_at_once_wait_for_each_other(owner: Actor) -> None:
    answers = at_once(16, lambda _: signin.with_password(ADA, PASSWORD, ip=HOME))
    assert [one for one in answers if isinstance(one, Refused)] == []
    assert count_of("account") == []
    assert not throttle._under_way


def test_wrong_ones_at_once_are_refused_once_those_before_are_known(owner: Actor) -> None:
    answers = at_once(16, lambda _: signin.with_password(ADA, "wrong password", ip=HOME))
    kinds = Counter(type(one).__base__.__name__ for one in answers)  # of Unauthenticated, Limited
    assert len(answers) == 16 and kinds.total() == 16
    tried = [one for one in answers if getattr(one, "status", 0) == 401]
    assert len(tried) == 6 and not throttle._under_way

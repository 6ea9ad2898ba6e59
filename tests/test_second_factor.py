"""The second factor: the app's codes and the recovery codes, each of which opens once; how they
come and go, and who can undo that."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask

from console import clock as console_clock
from console import db, people, second_factor, sessions, signin
from console.actor import Actor
from console.errors import Conflict, Forbidden, Invalid, NotFresh, Unauthenticated, Unknown
from console.models import Event, Passkey, Person, RecoveryCode, Session, Throttle
from tests.conftest import PASSWORD, Clock, add_person, add_second_factor, at_once, code_of

STEP = second_factor.STEP
# RFC 6238, appendix B: SHA-1, the last 6 of its 8 digits.
RFC_SEED = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
RFC_CODES = {59: "287082", 1111111109: "081804", 1234567890: "005924", 20000000000: "353130"}


def enter(code: str, email: str = "ada@example.com") -> str:
    return signin.with_password(email, PASSWORD, code=code, ip="192.0.2.7")[0]


def refusal_of(code: str, email: str = "ada@example.com") -> str:
    """What is said of the code; so many wrong ones in a row are not what is tested here."""
    Throttle.delete().execute()
    with pytest.raises(Unauthenticated) as refusal:
        enter(code, email)
    assert refusal.value.code == "OTP_INVALID"
    return refusal.value.message


def last_event(action: str) -> Event:
    return Event.select().where(Event.action == action).order_by(Event.id.desc()).get()


# --- the app's codes --------------------------------------------------------------------------


@pytest.mark.parametrize("at, code", RFC_CODES.items())
def test_codes_are_those_of_rfc_6238(clock: Clock, at: int, code: str) -> None:
    clock.instant = at * 1000
    assert second_factor._step_of(RFC_SEED, code, after=None) == at // 30


@pytest.mark.parametrize(
    "steps, holds", [(-2, False), (-1, True), (0, True), (1, True), (2, False)]
)
def test_the_clocks_may_differ_by_one_step(
    owner: Actor, clock: Clock, steps: int, holds: bool
) -> None:
    seed, _ = add_second_factor(owner)
    clock.move("10m")
    if holds:
        assert sessions.by_session(enter(code_of(seed, steps)))
    else:
        refusal_of(code_of(seed, steps))


def other(code: str, figures: str) -> str:
    return code.translate(str.maketrans("0123456789", figures))


VARIANTS: dict[str, Callable[[str], str]] = {
    "as it was": lambda code: code,
    "a space inside": lambda code: f"{code[:3]} {code[3:]}",
    "a space behind": lambda code: f"{code} ",
    "a no-break space": lambda code: f"{code[:3]}\u00a0{code[3:]}",
    "a tab and a line end": lambda code: f"\t{code}\n",
    "a hyphen": lambda code: f"{code[:3]}-{code[3:]}",
    "a zero-width space": lambda code: f"{code[:3]}\u200b{code[3:]}",
    "full-width figures": lambda code: other(code, "０１２３４５６７８９"),
    "Arabic figures": lambda code: other(code, "٠١٢٣٤٥٦٧٨٩"),
    "superscript": lambda code: other(code, "⁰¹²³⁴⁵⁶⁷⁸⁹"),
}  # fmt: skip


@pytest.mark.parametrize("vary", VARIANTS.values(), ids=VARIANTS.keys())
def test_a_code_opens_once_however_it_is_typed(
    owner: Actor, clock: Clock, vary: Callable[[str], str]
) -> None:
    seed, _ = add_second_factor(owner)
    code = code_of(seed)
    enter(vary(code))
    for again in VARIANTS.values():
        refusal_of(again(code))
    clock.move_ms(STEP)
    refusal_of(code)
    enter(code_of(seed))


def test_an_older_code_does_not_open_after_a_newer_one(owner: Actor, clock: Clock) -> None:
    seed, _ = add_second_factor(owner)
    clock.move("5m")
    enter(code_of(seed))
    refusal_of(code_of(seed, -1))
    enter(code_of(seed, 1))
    refusal_of(code_of(seed))


def test_the_code_that_set_the_app_up_opens_nothing(owner: Actor, clock: Clock) -> None:
    seed, _ = add_second_factor(owner)
    refusal_of(code_of(seed, -1))


def test_of_two_that_use_a_code_at_once_one_gets_in(owner: Actor, clock: Clock, app: Flask) -> None:
    seed, _ = add_second_factor(owner)
    answers = at_once(4, lambda _: enter(code_of(seed)))
    assert [getattr(one, "code", "in") for one in answers].count("in") == 1
    assert Session.select().count() == 1


@pytest.mark.parametrize(
    "code", ["", "x", "12345", "1234567", "abcdef", "\0", "\ud800", "9" * 100_000, "a" * 24]
)
def test_another_code_opens_nothing(owner: Actor, clock: Clock, code: str) -> None:
    add_second_factor(owner)
    with pytest.raises(Unauthenticated) as refusal:
        enter(code)
    assert refusal.value.code == ("OTP_INVALID" if code else "OTP_REQUIRED")
    assert not Session.select().exists()


def test_anothers_code_opens_nothing(owner: Actor, member: Actor, clock: Clock) -> None:
    seed, codes = add_second_factor(owner)
    add_second_factor(member)
    refusal_of(code_of(seed), "bob@example.com")
    refusal_of(codes[0], "bob@example.com")
    enter(codes[0])


# --- set up -----------------------------------------------------------------------------------


def test_what_the_app_scans_names_the_person_and_us(owner: Actor) -> None:
    begun = second_factor.begin_enrolment(by=owner)
    assert begun.uri == (
        f"otpauth://totp/Latchkey:ada%40example.com?secret={begun.seed}&issuer=Latchkey"
    )
    assert len(begun.seed) == 32  # 160 bits, as RFC 4226 asks for
    assert begun.seed not in begun.sealed
    assert not second_factor.is_on(Person.get_by_id(owner.id))


def test_setting_up_needs_a_code_of_the_app(owner: Actor, clock: Clock) -> None:
    begun = second_factor.begin_enrolment(by=owner)
    other = second_factor.begin_enrolment(by=owner)
    for code in ("", "000000x", code_of(other.seed), code_of(begun.seed, 2)):
        with pytest.raises(Invalid, match="is not the one that the app shows now") as refusal:
            second_factor.enrol(begun.sealed, code, token="", by=owner)
        assert list(refusal.value.fields) == ["code"]
    assert not second_factor.state_of(owner.id or "").is_on
    assert second_factor.continue_enrolment(begun.sealed, by=owner) == begun
    second_factor.enrol(begun.sealed, code_of(begun.seed), token="", by=owner)
    assert second_factor.state_of(owner.id or "") == second_factor.State(True, True, 10)


def test_an_enrolment_waits_for_15_minutes(owner: Actor, clock: Clock) -> None:
    begun = second_factor.begin_enrolment(by=owner)
    clock.move("15m")
    clock.move_ms(-1)
    second_factor.continue_enrolment(begun.sealed, by=owner)
    clock.move_ms(1)
    for late in (
        lambda: second_factor.continue_enrolment(begun.sealed, by=owner),
        lambda: second_factor.enrol(begun.sealed, code_of(begun.seed), token="", by=owner),
    ):
        with pytest.raises(Conflict, match="more than 15 minutes ago"):
            late()


@pytest.mark.parametrize("spoil", [
    lambda text: "", lambda text: "x", lambda text: "\ud800", lambda text: text[:-8] + "AAAAAAA=",
    lambda text: text[::-1],
])  # fmt: skip
def test_a_seed_of_ones_own_making_is_not_taken(
    owner: Actor, clock: Clock, spoil: Callable[[str], str]
) -> None:
    begun = second_factor.begin_enrolment(by=owner)
    with pytest.raises(Conflict):
        second_factor.enrol(spoil(begun.sealed), code_of(begun.seed), token="", by=owner)


def test_a_seed_is_its_persons_alone(owner: Actor, member: Actor, clock: Clock) -> None:
    begun = second_factor.begin_enrolment(by=owner)
    with pytest.raises(Conflict):
        second_factor.enrol(begun.sealed, code_of(begun.seed), token="", by=member)
    # Nor can what is stored for one be handed to another.
    seed, _ = add_second_factor(owner)
    sealed = Person.get_by_id(owner.id).totp_secret
    Person.update(totp_secret=sealed).where(Person.id == member.id).execute()
    refusal_of(code_of(seed), "bob@example.com")


def test_a_second_app_needs_the_first_to_go(owner: Actor, clock: Clock) -> None:
    waiting = second_factor.begin_enrolment(by=owner)
    add_second_factor(owner)
    for again in (
        lambda: second_factor.begin_enrolment(by=owner),
        lambda: second_factor.enrol(waiting.sealed, code_of(waiting.seed), token="", by=owner),
    ):
        with pytest.raises(Conflict, match="Remove it first"):
            again()


def test_neither_seed_nor_codes_are_in_the_database_or_in_events(
    owner: Actor, clock: Clock
) -> None:
    seed, codes = add_second_factor(owner)
    enter(code_of(seed))
    enter(codes[0])
    told = json.dumps([[event.changes, event.target_name] for event in Event.select()])
    stored = bytes(Person.get_by_id(owner.id).totp_secret)
    digests = [row.digest for row in RecoveryCode.select()]
    assert seed.encode() not in stored
    for code in codes:
        assert code not in told and code not in digests and code.replace("-", "") not in digests
    assert seed not in told and all(len(one) == 64 for one in digests)


# --- recovery codes ---------------------------------------------------------------------------


def test_ten_codes_open_once_each_however_they_are_typed(owner: Actor, clock: Clock) -> None:
    _, codes = add_second_factor(owner)
    assert len(set(codes)) == 10
    typed = [codes[0], codes[1].upper(), codes[2].replace("-", ""), codes[3].replace("-", " "),
             f" {codes[4]}\n", codes[5].replace("o", "0").replace("l", "1").replace("b", "8"),
             *codes[6:]]  # fmt: skip
    for number, code in enumerate(typed, 1):
        assert sessions.by_session(enter(code))
        assert second_factor.state_of(owner.id or "").recovery_codes_left == 10 - number
        assert last_event("person.recovery_code_used").changes == {
            "recovery_codes": [11 - number, 10 - number]}  # fmt: skip
    for code in (*typed, *codes):
        refusal_of(code)
        clock.move("20m")


def test_of_two_that_use_a_recovery_code_at_once_one_gets_in(
    owner: Actor, clock: Clock, app: Flask
) -> None:
    _, codes = add_second_factor(owner)
    answers = at_once(4, lambda _: enter(codes[0]))
    assert [getattr(one, "code", "in") for one in answers].count("in") == 1
    assert second_factor.state_of(owner.id or "").recovery_codes_left == 9


def test_new_codes_end_the_old_ones(owner: Actor, clock: Clock) -> None:
    _, old = add_second_factor(owner)
    enter(old[0])
    new = second_factor.make_recovery_codes(by=owner)
    assert last_event("person.recovery_codes_made").changes == {"recovery_codes": [9, 10]}
    assert not {*old} & {*new}
    refusal_of(old[1])
    enter(new[1])


def test_a_sign_in_that_fails_otherwise_uses_no_code_up(owner: Actor, clock: Clock) -> None:
    seed, codes = add_second_factor(owner)
    for code in (codes[0], code_of(seed)):
        with pytest.raises(Unauthenticated) as refusal:
            signin.with_password("ada@example.com", "wrong", code=code, ip=None)
        assert refusal.value.code == "CREDENTIALS_INVALID"
        enter(code)


# --- another secret key -----------------------------------------------------------------------


def test_under_another_secret_key_recovery_codes_still_open(owner: Actor, clock: Clock) -> None:
    seed, codes = add_second_factor(owner)
    second_factor.use_secret_key("another secret key, quite as long as the first")
    words = refusal_of(code_of(seed))
    assert "secret key is another one" in words and "login-link" in words
    state = second_factor.state_of(owner.id or "")
    assert (state.is_on, state.is_readable) == (True, False)
    enter(codes[0])
    second_factor.remove(token="", by=owner)
    add_second_factor(owner)


# --- taking it away ---------------------------------------------------------------------------


def test_without_it_the_password_is_enough_again(owner: Actor, clock: Clock) -> None:
    seed, codes = add_second_factor(owner)
    second_factor.remove(token="", by=owner)
    assert last_event("person.second_factor_removed").changes == {"second_factor": ["on", "off"]}
    assert not RecoveryCode.select().exists()
    person = Person.get_by_id(owner.id)
    assert (person.totp_secret, person.totp_step) == (None, None)
    signin.with_password("ada@example.com", PASSWORD, ip=None)
    for gone in (lambda: second_factor.remove(token="", by=owner),
                 lambda: second_factor.make_recovery_codes(by=owner)):  # fmt: skip
        with pytest.raises(Conflict, match="no second factor"):
            gone()


@pytest.mark.parametrize("change", ["add", "remove"])
def test_a_change_ends_all_sessions_but_the_present_one(
    owner: Actor, member: Actor, clock: Clock, change: str
) -> None:
    code = None
    if change == "remove":
        seed, _ = add_second_factor(owner)
        code = code_of(seed)
    here, _ = signin.with_password("ada@example.com", PASSWORD, code=code, ip=None)
    script, _ = signin.with_password("bob@example.com", PASSWORD, ip=None)
    clock.move_ms(STEP)
    code = code and code_of(seed)
    there, _ = signin.with_password("ada@example.com", PASSWORD, code=code, ip=None)
    if change == "add":
        begun = second_factor.begin_enrolment(by=owner)
        second_factor.enrol(begun.sealed, code_of(begun.seed), token=here, by=owner)
    else:
        second_factor.remove(token=here, by=owner)
    assert sessions.by_session(here) and sessions.by_session(script)
    assert sessions.by_session(there) is None


def passkey_of(person: Actor) -> None:
    Passkey.create(id="credential", person=person.id, name="Phone", public_key=b"k", sign_count=0,
                   created_at=console_clock.now())  # fmt: skip


def test_an_owner_takes_all_factors_from_who_lost_them(
    owner: Actor, member: Actor, clock: Clock
) -> None:
    seed, _ = add_second_factor(member)
    passkey_of(member)
    token = enter(code_of(seed), "bob@example.com")
    second_factor.remove_all(member.id or "", by=owner)
    event = last_event("person.second_factor_removed")
    assert (event.actor_id, event.target_id) == (owner.id, member.id)
    assert event.changes == {"second_factor": ["on", "off"], "passkeys": [1, 0]}
    assert sessions.by_session(token) is None and not Passkey.select().exists()
    signin.with_password("bob@example.com", PASSWORD, ip=None)
    with pytest.raises(Conflict, match="bob@example.com has no second factor"):
        second_factor.remove_all(member.id or "", by=owner)
    passkey_of(member)
    second_factor.remove_all(member.id or "", by=owner)
    assert last_event("person.second_factor_removed").changes == {"passkeys": [1, 0]}


def test_nobody_else_takes_factors(owner: Actor, admin: Actor, member: Actor, clock: Clock) -> None:
    add_second_factor(member)
    for by in (admin, member):
        for person_id in (member.id or "", "per_missing"):
            with pytest.raises(Forbidden, match="Only an owner"):
                second_factor.remove_all(person_id, by=by)
    with pytest.raises(Unknown):
        second_factor.remove_all("per_missing", by=owner)
    assert second_factor.state_of(member.id or "").is_on


DOINGS: dict[str, Callable[[Actor], Any]] = {
    "begin": lambda by: second_factor.begin_enrolment(by=by),
    "continue": lambda by: second_factor.continue_enrolment("", by=by),
    "enrol": lambda by: second_factor.enrol("", "", token="", by=by),
    "remove": lambda by: second_factor.remove(token="", by=by),
    "remove all": lambda by: second_factor.remove_all(by.id or "", by=by),
    "recovery codes": lambda by: second_factor.make_recovery_codes(by=by),
}


@pytest.mark.parametrize("do", DOINGS.values(), ids=DOINGS.keys())
def test_changes_need_somebody_who_has_just_shown_that_they_are_there(
    owner: Actor, clock: Clock, do: Callable[[Actor], Any]
) -> None:
    add_second_factor(add_person("grace@example.com"))
    token, _ = signin.with_password("ada@example.com", PASSWORD, ip=None)
    clock.move("30m")
    stale = sessions.by_session(token)
    assert stale is not None
    with pytest.raises(NotFresh):
        do(stale)


def test_adding_it_is_an_event_in_the_same_transaction(
    owner: Actor, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = second_factor.begin_enrolment(by=owner)
    monkeypatch.setattr(second_factor, "record", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        second_factor.enrol(begun.sealed, code_of(begun.seed), token="", by=owner)
    assert not second_factor.state_of(owner.id or "").is_on
    assert not RecoveryCode.select().exists() and not db.handle.in_transaction()
    assert Session.select().where(Session.person == owner.id).exists()


def test_a_person_who_is_deleted_leaves_no_codes(owner: Actor, member: Actor, clock: Clock) -> None:
    add_second_factor(member)
    people.delete(member.id or "", by=owner)
    assert not RecoveryCode.select().exists()

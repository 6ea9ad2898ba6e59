"""The cookie of a known browser: given after a complete sign-in, believed only as it was given."""

import pytest
from flask import Flask, Response
from flask.testing import FlaskClient

from console import invitations
from console.actor import Actor
from console.web import known_browser
from tests.conftest import PASSWORD, Clock, add_person, sign_in, token_of

NAME = "latchkey-browser"

pytestmark = pytest.mark.usefixtures("clock")


def presented(app: Flask, cookie: str | None) -> str | None:
    headers = {"Cookie": f"{NAME}={cookie}"} if cookie else {}
    with app.test_request_context("/login", headers=headers):
        return known_browser.presented()


def cookie_of(browser: FlaskClient) -> str:
    cookie = browser.get_cookie(NAME)
    assert cookie is not None
    return cookie.value


def remembered(app: Flask, cookie: str | None, person_id: str) -> str:
    """The cookie once this person, too, has signed in."""
    headers = {"Cookie": f"{NAME}={cookie}"} if cookie else {}
    with app.test_request_context("/login", headers=headers):
        response = Response()
        known_browser.remember(response, person_id)
    return response.headers["Set-Cookie"].partition("=")[2].partition(";")[0]


def test_a_browser_is_known_after_a_sign_in_and_not_after_a_failure(
    app: Flask, owner: Actor
) -> None:
    stranger = app.test_client()
    stranger.post("/login", data={"email": owner.name, "password": "wrong"})
    assert stranger.get_cookie(NAME) is None
    content = presented(app, cookie_of(sign_in(app, owner)))
    assert content is not None and content.startswith(f"{owner.id}.")


def test_a_known_browser_signs_in_while_strangers_are_told_to_wait(
    app: Flask, owner: Actor
) -> None:
    known, stranger = sign_in(app, owner), app.test_client()
    known.post("/logout")
    wrong, right = ({"email": owner.name, "password": word} for word in ("wrong", PASSWORD))
    assert [stranger.post("/login", data=wrong).status_code for _ in range(7)] == [401] * 6 + [429]
    answer = stranger.post("/login", data=right)
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "1")
    assert "Too many wrong attempts for this email address." in answer.text
    assert 'name="password"' in answer.text and PASSWORD not in answer.text
    assert known.post("/login", data=right).status_code == 303


def test_what_was_not_given_is_not_believed(app: Flask, owner: Actor) -> None:
    given = cookie_of(sign_in(app, owner))
    content, time, signature = given.split(".")
    forged = given.replace(content, content[::-1])
    for cookie in (None, "", "nonsense", forged, f"{content}.{time}", f"{content}..{signature}"):
        assert presented(app, cookie) is None
    assert presented(app, given) is not None
    app.config["SECRET_KEY"] = "another" * 8
    assert presented(app, given) is None


def test_a_browser_is_forgotten_after_half_a_year(app: Flask, owner: Actor, clock: Clock) -> None:
    given = cookie_of(sign_in(app, owner))
    clock.move("180d")
    assert presented(app, given) is not None
    clock.move_ms(1000)
    assert presented(app, given) is None


def test_people_who_share_a_browser_are_all_known_the_last_five(app: Flask, owner: Actor) -> None:
    bob = add_person("bob@example.com")
    cookie = cookie_of(sign_in(app, owner))
    first = presented(app, cookie)
    cookie = remembered(app, cookie, str(bob.id))
    assert (presented(app, cookie) or "").split()[0] == first
    again = remembered(app, cookie, str(owner.id))  # a new mark, and the last
    people = [mark.split(".")[0] for mark in (presented(app, again) or "").split()]
    assert people == [bob.id, owner.id]
    for number in range(5):
        cookie = remembered(app, cookie, f"per_{number}")
    people = [mark.split(".")[0] for mark in (presented(app, cookie) or "").split()]
    assert people == [f"per_{number}" for number in range(5)]


def test_who_chooses_a_new_password_by_a_link_is_known_in_that_browser(
    app: Flask, owner: Actor, member: Actor, clock: Clock
) -> None:
    stranger = app.test_client()
    for _ in range(20):
        stranger.post("/login", data={"email": member.name, "password": "wrong"})
        clock.move("1m")
    token = token_of(invitations.reset(member.id or "", by=owner))
    browser = app.test_client()
    new = {"token": token, "password": "three new words"}
    assert browser.post("/reset", data=new).status_code == 303
    form = {"email": member.name, "password": "three new words"}
    assert stranger.post("/login", data=form).status_code == 429
    assert browser.post("/login", data=form).status_code == 303

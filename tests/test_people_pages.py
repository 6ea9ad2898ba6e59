"""The pages of people and of a project's members, through the browser's door without scripts: who
is shown them, what they say, and that a form does what its dialog said."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from console import clock, keys, members, people, second_factor, sessions
from console.actor import Actor
from console.models import Event, Key, Membership, Passkey, Person, Project, Session
from tests.conftest import PASSWORD, Clock, MakeKey, add_person, confirm, sign_in

MEMBERS = "/projects/shop/people"
HTMX = {"HX-Request": "true", "HX-Target": "dialog"}
FORMS = [
    "/people/new", "/people/{id}/edit", "/people/{id}/roles", "/people/{id}/owner",
    "/people/{id}/disable", "/people/{id}/enable", "/people/{id}/delete",
    "/people/{id}/invitation", "/people/{id}/password-reset", "/people/{id}/second-factor",
]  # fmt: skip
OF_MEMBERS = [f"{MEMBERS}/new", *(f"{MEMBERS}/{{id}}/{verb}" for verb in
                                  ("role", "remove", "invitation"))]  # fmt: skip


def text_of(page: str) -> str:
    """What is to be read on the page, without its marks."""
    main = page.partition("<main")[2] or page
    return " ".join(re.sub(r"<[^>]+>", " ", main).split())


@pytest.fixture
def admins(app: Flask, admin: Actor) -> FlaskClient:
    """A browser in which the project's admin is signed in."""
    return sign_in(app, admin)


@pytest.fixture
def bob(member: Actor) -> str:
    return member.id or ""


# --- who is let in --------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/people", "/people/{id}", *FORMS])
def test_people_are_an_owners_pages(
    app: Flask, client: FlaskClient, signed_in: FlaskClient, admins: FlaskClient, member: Actor,
    bob: str, path: str,
) -> None:  # fmt: skip
    path = path.format(id=bob)
    assert signed_in.get(path).status_code == 200
    for browser in (admins, sign_in(app, member)):
        answer = browser.get(path)
        assert answer.status_code == 403
        assert "Only an owner sees and changes people." in answer.text
        assert browser.post(path).status_code in (403, 405)
    assert client.get(path).location.startswith("/login")


@pytest.mark.parametrize("path", [MEMBERS, *OF_MEMBERS])
def test_members_are_the_pages_of_owners_and_admins(
    app: Flask, client: FlaskClient, signed_in: FlaskClient, admins: FlaskClient, viewer: Actor,
    stranger: Actor, bob: str, path: str,
) -> None:  # fmt: skip
    path = path.format(id=bob)
    assert signed_in.get(path).status_code == admins.get(path).status_code == 200
    answer = sign_in(app, viewer).get(path)
    assert answer.status_code == 403
    assert "Only owners, and admins of this project, see and change who is in it." in answer.text
    assert sign_in(app, stranger).get(path).status_code == 404
    assert client.get(path).location.startswith("/login")


@pytest.mark.parametrize("path", [path for path in OF_MEMBERS if "{id}" in path])
def test_a_foreign_and_a_missing_member_are_one_page(
    admins: FlaskClient, stranger: Actor, path: str
) -> None:
    told = set()
    for person_id in (stranger.id, "per_missing"):
        for answer in (
            admins.get(path.format(id=person_id)),
            admins.post(path.format(id=person_id)),
        ):
            assert answer.status_code == 404
            told.add(re.sub(r"req_\w+", "", text_of(answer.text)))
    assert len(told) == 1


@pytest.mark.parametrize("path", [*FORMS, *OF_MEMBERS])
def test_a_form_asks_first_who_is_there_and_its_sending_asks_too(
    app: Flask, signed_in: FlaskClient, bob: str, path: str
) -> None:
    Session.update(authenticated_at=clock.now() - sessions.FRESH).execute()
    events = Event.select().count()
    for answer in (signed_in.get(path.format(id=bob)), signed_in.post(path.format(id=bob))):
        assert "Confirm" in answer.text and PASSWORD not in answer.text
    assert Event.select().count() == events
    assert signed_in.get(MEMBERS).status_code == signed_in.get("/people").status_code == 200


# --- the list and one person ------------------------------------------------------------------


def test_the_list_says_who_each_is_and_what_they_may_do(
    signed_in: FlaskClient, owner: Actor, member: Actor, viewer: Actor
) -> None:
    people.create({"email": "grace@example.com"}, by=owner)
    people.edit(viewer.id or "", {"disabled": True}, by=owner)
    Passkey.create(id="x", person=member.id, name="x", public_key=b"", sign_count=0, created_at=0)
    rows = [text_of(row) for row in signed_in.get("/people").text.split("<tr id=")[1:]]
    by_name = {row.split("> ")[1].split()[0]: row for row in rows}
    assert "Owner Off just now Active" in by_name["ada"]
    beside = "Passkey; the password alone still works"
    assert f"Member of Shop {beside} just now Active" in by_name["bob"]
    assert beside in signed_in.get(f"/people/{member.id}").text
    assert "Remove second factor" in signed_in.get(f"/people/{member.id}").text
    Person.update(totp_secret=b"x").where(Person.id == member.id).execute()
    assert "Second factor On" in text_of(signed_in.get(f"/people/{member.id}").text)
    assert beside not in signed_in.get("/people").text
    assert "Viewer of Shop Off just now Disabled" in by_name["vera"]
    assert "None yet Off Never Invited" in by_name["grace"]


def test_people_are_found_by_name_or_address_in_pages(
    signed_in: FlaskClient, owner: Actor, member: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found(query: str) -> list[str]:
        page = signed_in.get(f"/people?{query}").text
        return re.findall(r'<a href="/people/per_\w+">(\w+)</a>', page)

    assert found("q=BOB%40") == ["bob"]
    assert sorted(found("q=example.com")) == ["ada", "bob"]
    assert "No name and no address has “nobody” in it." in signed_in.get("/people?q=nobody").text
    part = signed_in.get("/people?q=bob", headers={"HX-Request": "true", "HX-Target": "people"})
    assert part.text.lstrip().startswith("<section") and "<html" not in part.text
    assert signed_in.get("/people?cursor=x").status_code == 422
    assert signed_in.get("/people?q=%00").status_code == 422
    monkeypatch.setattr("console.web.people.ROWS", 1)
    first = signed_in.get("/people?q=example").text
    assert 'name="q" value="example"' in first
    cursor = re.search(r'id="people-next" name="cursor" value="([^"]+)"', first)
    assert cursor is not None
    pages = found("q=example") + found(f"q=example&cursor={cursor[1]}")
    assert sorted(pages) == ["ada", "bob"]


def test_a_persons_page_says_what_is_theirs(
    signed_in: FlaskClient, owner: Actor, bob: str, member: Actor, make_key: MakeKey
) -> None:
    make_key(by=member)
    keys.revoke(make_key(by=member, name="Old")[0].id, by=owner)
    people.edit(bob, {"name": "Robert"}, by=owner)
    page = signed_in.get(f"/people/{bob}")
    told = text_of(page.text)
    assert "Robert bob@example.com Active" in told
    assert "Shop Member" in told and "Shop 2 keys, 1 active" in told
    assert "edited the person" in told and "Name: bob → Robert" in told
    assert f"/people/{bob}/offboarding" in page.text and "Reset password" in told
    assert signed_in.get("/people/per_missing").status_code == 404


# --- inviting -------------------------------------------------------------------------------


def test_a_person_is_invited_with_roles_and_the_link_is_shown_once(
    signed_in: FlaskClient, client: FlaskClient, other_project: Project
) -> None:
    form = {"email": "grace@example.com", "name": "", "role.shop": "admin", "role.other": ""}
    answer = signed_in.post("/people/new", data=form, headers=HTMX)
    assert (answer.status_code, answer.headers["Cache-Control"]) == (200, "no-store")
    assert "keys-changed" in answer.headers["HX-Trigger"]
    link = re.search(r'<pre id="link"[^>]*>([^<]+)</pre>', answer.text)
    assert link is not None and "It works once, until" in text_of(answer.text)
    person = Person.get(Person.email == "grace@example.com")
    assert people.as_dict(person)["roles"] == {"shop": "admin"}
    path = link[1].partition("//")[2].partition("/")[2]
    assert client.get(f"/{path}").status_code == 200
    token = link[1].partition("token=")[2]
    for page in ("/people", f"/people/{person.id}", "/people/new"):
        assert token not in signed_in.get(page).text
    again = signed_in.post(f"/people/{person.id}/invitation")
    assert again.status_code == 200 and token not in again.text
    assert client.get(f"/{path}").status_code == 403


def test_a_form_at_fault_keeps_what_was_typed(signed_in: FlaskClient, member: Actor) -> None:
    form = {"email": "Bob@example.com", "name": "<Bo>", "role.shop": "viewer", "owner": "on"}
    answer = signed_in.post("/people/new", data=form)
    assert answer.status_code == 409 and "Is taken." in answer.text
    assert 'value="&lt;Bo&gt;"' in answer.text and 'name="owner" checked' in answer.text
    assert re.search(r'<option value="viewer" selected', answer.text)
    bad = signed_in.post("/people/new", data={**form, "email": "nobody"})
    assert bad.status_code == 422 and "e-mail address such as" in bad.text


def test_a_mail_that_could_not_be_sent_is_said_and_the_link_shown(
    signed_in: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def send(address: str, *letter: Any) -> None:
        if address.startswith("grace"):
            raise members.mail.NotSent("nobody answers")

    monkeypatch.setattr(members.mail, "is_on", lambda: True)
    monkeypatch.setattr(members.mail, "send", send)
    failed = signed_in.post("/people/new", data={"email": "grace@example.com"})
    assert "could not be sent: Nobody answers." in text_of(failed.text)
    assert '<pre id="link"' in failed.text
    mailed = text_of(signed_in.post("/people/new", data={"email": "edith@example.com"}).text)
    assert "The link was mailed to edith@example.com ." in mailed and "/invitation" not in mailed


# --- changing -------------------------------------------------------------------------------

CHANGES: dict[str, tuple[str, dict[str, str], Callable[[Person], Any], Any]] = {
    "name": ("edit", {"name": "Robert", "email": "bob@example.com"}, lambda one: one.name,
             "Robert"),
    "roles": ("roles", {"role.shop": "viewer", "role.other": "admin"},
              lambda one: people.as_dict(one)["roles"], {"shop": "viewer", "other": "admin"}),
    "no role": ("roles", {"role.shop": "", "role.other": ""},
                lambda one: people.as_dict(one)["roles"], {}),
    "owner": ("owner", {"owner": "yes"}, lambda one: one.is_owner, True),
    "disabled": ("disable", {}, lambda one: one.disabled_at is not None, True),
}  # fmt: skip


@pytest.mark.parametrize("verb, form, fact, expected", CHANGES.values(), ids=CHANGES.keys())
def test_a_form_changes_the_person(
    signed_in: FlaskClient, other_project: Project, bob: str, verb: str, form: dict[str, str],
    fact: Callable[[Person], Any], expected: Any,
) -> None:  # fmt: skip
    assert fact(Person.get_by_id(bob)) != expected
    answer = signed_in.post(f"/people/{bob}/{verb}", data=form)
    onwards = "/offboarding" if verb == "disable" else ""
    assert (answer.status_code, answer.location) == (303, f"/people/{bob}{onwards}")
    assert fact(Person.get_by_id(bob)) == expected


def test_a_role_in_a_project_that_the_form_did_not_show_stays(
    signed_in: FlaskClient, other_project: Project, bob: str
) -> None:
    Membership.create(person=bob, project=other_project, role="viewer")
    signed_in.post(f"/people/{bob}/roles", data={"role.shop": "admin"})
    assert people.as_dict(Person.get_by_id(bob))["roles"] == {"shop": "admin", "other": "viewer"}


def test_a_page_says_whose_account_it_tells_of(
    signed_in: FlaskClient, owner: Actor, bob: str
) -> None:
    assert "What was done to this account" in signed_in.get(f"/people/{owner.id}").text
    assert "What was done to their account" in signed_in.get(f"/people/{bob}").text


@pytest.mark.parametrize("verb, form", [("owner", {"owner": "no"}), ("disable", {})])
def test_the_last_owner_stays_and_the_dialog_says_why(
    signed_in: FlaskClient, owner: Actor, verb: str, form: dict[str, str]
) -> None:
    answer = signed_in.post(f"/people/{owner.id}/{verb}", data=form)
    assert answer.status_code == 409
    assert "is the last owner who can sign in" in text_of(answer.text)
    assert Person.get_by_id(owner.id).is_owner


def test_disabling_says_what_goes_on_and_leads_there(
    signed_in: FlaskClient, owner: Actor, member: Actor, bob: str, make_key: MakeKey
) -> None:
    assert "No active key is theirs." in text_of(signed_in.get(f"/people/{bob}/disable").text)
    Key.update(owner=owner.id).where(Key.id == make_key(by=member, name="Known")[0].id).execute()
    told = text_of(signed_in.get(f"/people/{bob}/disable").text)
    assert "they know the secret of 1 key that goes on working" in told
    told = text_of(signed_in.get(f"/people/{bob}/delete").text)
    assert "knows the secret of 1 key that still works. Rotate or revoke it first" in told
    assert "Show the keys" in told
    refused = signed_in.post(f"/people/{bob}/delete")
    assert refused.status_code == 409 and f"/people/{bob}/offboarding" in refused.text
    for name in ("CI", "Deploy"):
        make_key(by=member, name=name)
    keys.revoke(make_key(by=member, name="Old")[0].id, by=owner)
    told = text_of(signed_in.get(f"/people/{bob}/disable").text)
    assert "2 keys are theirs and go on working until you hand them over, rotate or revoke" in told
    assert "The next page has them, and 1 more whose secret they know" in told
    answer = signed_in.post(f"/people/{bob}/disable", headers=HTMX)
    assert answer.headers["HX-Redirect"] == f"/people/{bob}/offboarding"
    assert not Session.select().where(Session.person == bob).exists()


def test_a_disabled_person_is_enabled_or_deleted(
    signed_in: FlaskClient, owner: Actor, bob: str, member: Actor, make_key: MakeKey
) -> None:
    key, _ = make_key(by=member)
    people.edit(bob, {"disabled": True}, by=owner)
    page = text_of(signed_in.get(f"/people/{bob}").text)
    assert "Enable Delete" in page and "Reset password" not in page
    told = signed_in.get(f"/people/{bob}/delete")
    assert "1 key is theirs" in text_of(told.text) and "Show the keys" in told.text
    refused = signed_in.post(f"/people/{bob}/delete")
    assert refused.status_code == 409 and "owns 1 key" in text_of(refused.text)
    keys.delete(key.id, by=owner)
    assert signed_in.post(f"/people/{bob}/delete").location == "/people"
    assert not Person.select().where(Person.id == bob).exists()


def test_a_lost_second_factor_is_taken_away(signed_in: FlaskClient, owner: Actor, bob: str) -> None:
    assert "has no second factor" in signed_in.post(f"/people/{bob}/second-factor").text
    Passkey.create(id="x", person=bob, name="x", public_key=b"", sign_count=0, created_at=0)
    Person.update(totp_secret=b"x").where(Person.id == bob).execute()
    assert "Remove second factor" in signed_in.get(f"/people/{bob}").text
    assert signed_in.post(f"/people/{bob}/second-factor").location == f"/people/{bob}"
    person = Person.get_by_id(bob)
    assert not second_factor.is_on(person) and not people.as_dict(person)["second_factor"]


def test_a_password_reset_is_a_link_shown_once(
    signed_in: FlaskClient, client: FlaskClient, bob: str
) -> None:
    answer = signed_in.post(f"/people/{bob}/password-reset")
    link = re.search(r'<pre id="link"[^>]*>[^<]*(/reset\?token=[^<]+)</pre>', answer.text)
    assert link is not None and client.get(link[1]).status_code == 200
    refused = signed_in.post(f"/people/{bob}/invitation")
    assert refused.status_code == 409 and "has a password already" in refused.text


# --- members --------------------------------------------------------------------------------


def test_members_are_listed_with_what_may_be_done(
    admins: FlaskClient, signed_in: FlaskClient, member: Actor, bob: str, make_key: MakeKey
) -> None:
    make_key(by=member)
    page = admins.get(MEMBERS).text
    ada, alan, bobs = page.split("<tr id=")[1:]
    assert "Owner" in ada and "/remove" not in ada
    assert "· you" in alan and "Admin" in alan
    assert f"{MEMBERS}/{bob}/role" in bobs and "owner=bob@example.com" in bobs
    assert "/people/per_" not in page.replace(MEMBERS, "")
    assert f'href="/people/{bob}"' in signed_in.get(MEMBERS).text


def test_an_admin_adds_somebody_new_and_gets_the_link(admins: FlaskClient) -> None:
    form = {"email": "grace@example.com", "name": "Grace", "role": "viewer"}
    answer = admins.post(f"{MEMBERS}/new", data=form)
    assert answer.status_code == 200 and '<pre id="link"' in answer.text
    assert "Grace is invited" in text_of(answer.text)
    person = Person.get(Person.email == "grace@example.com")
    assert people.as_dict(person)["roles"] == {"shop": "viewer"}
    again = admins.post(f"{MEMBERS}/{person.id}/invitation")
    assert again.status_code == 200 and '<pre id="link"' in again.text


def test_an_admin_gets_no_link_for_who_is_more_elsewhere(
    admins: FlaskClient, owner: Actor, other_project: Project
) -> None:
    invited = {"email": "grace@example.com", "roles": {"other": "viewer"}}
    person, _ = people.create(invited, by=owner)
    form = {"email": "grace@example.com", "role": "viewer"}
    answer = admins.post(f"{MEMBERS}/new", data=form, follow_redirects=True)
    assert answer.request.path == MEMBERS and "token=" not in answer.text
    assert "an owner has to give them a link" in answer.text
    dialog = admins.get(f"{MEMBERS}/{person.id}/invitation").text
    assert "An owner has to give them the link." in dialog
    assert "New invitation</button>" not in dialog
    refused = admins.post(f"{MEMBERS}/{person.id}/invitation")
    assert refused.status_code == 403 and "token=" not in refused.text


@pytest.mark.parametrize(
    "form, status, words",
    [
        ({"email": "bob@example.com", "role": "viewer"}, 409, "Has a role here already."),
        ({"email": "nobody", "role": "viewer"}, 422, "Must be an e-mail address"),
        ({"email": "new@example.com", "role": "owner"}, 422, "Must be one of admin"),
        ({"email": "new@example.com"}, 422, "Must be one of admin"),
    ],
)
def test_who_cannot_be_added_is_said_beside_the_field(
    admins: FlaskClient, member: Actor, form: dict[str, str], status: int, words: str
) -> None:
    answer = admins.post(f"{MEMBERS}/new", data=form)
    assert answer.status_code == status and words in answer.text
    assert form["email"] in answer.text


def test_a_role_is_changed_and_taken_by_forms(admins: FlaskClient, bob: str) -> None:
    dialog = admins.get(f"{MEMBERS}/{bob}/role").text
    assert re.search(r'value="member" checked', dialog)
    assert admins.post(f"{MEMBERS}/{bob}/role", data={"role": "admin"}).location == MEMBERS
    assert people.as_dict(Person.get_by_id(bob))["roles"] == {"shop": "admin"}
    assert admins.post(f"{MEMBERS}/{bob}/remove").location == MEMBERS
    assert people.as_dict(Person.get_by_id(bob))["roles"] == {}


def test_who_owns_keys_is_not_removed_silently(
    app: Flask, admins: FlaskClient, signed_in: FlaskClient, member: Actor, bob: str,
    make_key: MakeKey, project: Project,
) -> None:  # fmt: skip
    Project.update(key_limit=50).execute()
    for number in range(12):
        make_key(by=member, name=f"Key {number:02}")
    before = text_of(admins.get(f"{MEMBERS}/{bob}/remove").text)
    assert "12 keys of this project are theirs and stay so." in before
    assert "Key 00" in before and "and 2 more" in before
    after = admins.post(f"{MEMBERS}/{bob}/remove", headers=HTMX)
    assert after.status_code == 200 and "keys-changed" in after.headers["HX-Trigger"]
    assert "12 keys of this project are still theirs." in text_of(after.text)
    assert "Key 09" in after.text and "owner=bob@example.com" in after.text
    assert "offboarding" not in after.text
    assert Key.select().where(Key.owner == bob).count() == 12
    owners = signed_in.post(f"{MEMBERS}/new", data={"email": "bob@example.com", "role": "viewer"})
    assert owners.status_code == 303
    assert f"/people/{bob}/offboarding" in signed_in.post(f"{MEMBERS}/{bob}/remove").text


def test_an_owner_is_not_changed_among_members(admins: FlaskClient, owner: Actor) -> None:
    for verb, form in (("role", {"role": "viewer"}), ("remove", {})):
        answer = admins.post(f"{MEMBERS}/{owner.id}/{verb}", data=form)
        assert answer.status_code == 409 and "changed under People" in answer.text


def test_names_and_addresses_are_never_markup(
    app: Flask, signed_in: FlaskClient, project: Project
) -> None:
    mallory = add_person("mallory@example.com", shop="viewer")
    nasty = "<img src=x onerror=alert(1)>"
    Person.update(name=nasty).where(Person.id == mallory.id).execute()
    for path in ("/people", MEMBERS, f"/people/{mallory.id}", f"{MEMBERS}/{mallory.id}/remove"):
        page = signed_in.get(path).text
        assert nasty not in page and "&lt;img src=x" in page


IN_DIALOG = {"HX-Request": "true", "HX-Target": "dialog"}

# --- nothing is lost --------------------------------------------------------------------------


def test_what_was_typed_is_kept_while_one_confirms(
    clock: Clock, signed_in: FlaskClient, member: Actor
) -> None:
    clock.move("31m")
    forms = {
        "/people/new": {"email": "grace@example.com", "name": "Grace", "role.shop": "viewer"},
        f"/people/{member.id}/edit": {"email": "bob@example.org", "name": "Robert"},
        f"/people/{member.id}/roles": {"role.shop": "viewer"},
        "/projects/shop/people/new": {"email": "grace@example.com", "role": "viewer"},
        f"/projects/shop/people/{member.id}/role": {"role": "viewer"},
    }
    before = Event.select().count()
    for address, form in forms.items():
        for headers in ({}, IN_DIALOG):
            page = signed_in.post(address, data=form, headers=headers)
            assert page.status_code == 403, address
            assert "Confirm that it is you first. Nothing was done." in page.text
            for value in form.values():
                assert f'value="{value}"' in page.text, (address, value)
    assert Event.select().count() == before
    confirm(signed_in)
    answer = signed_in.post("/people/new", data=forms["/people/new"])
    assert answer.status_code == 200 and "is invited" in answer.text


def test_of_two_who_change_somebodys_roles_the_second_is_told(
    signed_in: FlaskClient, owner: Actor, member: Actor, other_project: Project
) -> None:
    address = f"/people/{member.id}/roles"
    seen = re.findall(r'name="seen" value="(\w+)"', signed_in.get(address).text)[0]
    people.edit(member.id or "", {"roles": {"shop": "member", "other": "admin"}}, by=owner)
    form = {"role.shop": "viewer", "role.other": "", "seen": seen}
    page = signed_in.post(address, data=form)
    assert page.status_code == 409
    assert "Somebody changed these roles since you opened them. Nothing was saved" in page.text
    assert "Now: Admin of Other, Member of Shop." in page.text
    assert people.as_dict(Person.get_by_id(member.id))["roles"] == {
        "other": "admin", "shop": "member"}  # fmt: skip
    again = re.findall(r'name="seen" value="(\w+)"', page.text)[0]
    assert signed_in.post(address, data={**form, "seen": again}).status_code == 303
    assert people.as_dict(Person.get_by_id(member.id))["roles"] == {"shop": "viewer"}


def test_a_project_that_has_gone_is_said_where_roles_are_chosen(
    signed_in: FlaskClient, owner: Actor, member: Actor
) -> None:
    for address in ("/people/new", f"/people/{member.id}/roles"):
        form = {"email": "grace@example.com", "role.gone": "member"}
        page = signed_in.post(address, data=form)
        assert page.status_code == 422
        assert "gone: there is no such project. Nobody’s role was changed." in page.text
        assert "roles.gone" not in page.text

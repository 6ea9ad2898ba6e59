"""Passkeys: what the browser's script asks for, in JSON, and the dialogs that name and remove them.

What is to be signed waits in the session's cookie until its answer comes; once, and not for long.
"""

import json
from collections.abc import Callable
from functools import wraps
from typing import Any

from flask import Blueprint, g, jsonify, render_template, request, session, url_for
from flask_login import current_user
from werkzeug.wrappers import Response as BaseResponse

from console import passkeys, wire
from console.errors import Invalid, Refused
from console.models import Passkey
from console.web import (
    access,
    actor,
    client_ip,
    confirm,
    confirm_first,
    done,
    invalid,
    known_browser,
)
from console.web.account import client_words
from console.web.words import sentence

blueprint = Blueprint("passkeys", __name__, url_prefix="/account/passkeys")

Answer = str | tuple[str, int] | BaseResponse
CHALLENGE = "passkey"  # in the session

blueprint.add_app_template_global(passkeys.are_possible, "passkeys_are_possible")
blueprint.add_app_template_global(passkeys.why_not, "why_no_passkeys")


@blueprint.app_template_global("my_passkeys")
def my_passkeys() -> list[Passkey]:
    """Those of whoever is signed in."""
    return passkeys.of_person(by=actor())


def for_script(view: Callable[[], BaseResponse]) -> Callable[[], BaseResponse]:
    """A view whose answers the script reads: JSON, refusals too; of a redirect the address, with
    all that it sets, for a script does not see where it is led."""

    @wraps(view)
    def answer() -> BaseResponse:
        try:
            response = view()
        except Refused as error:
            return _refused(error)
        if response.location:
            response.set_data(json.dumps({"location": response.headers.pop("Location")}))
            response.mimetype, response.status_code = "application/json", 200
        return response

    return answer


def _refused(error: Refused) -> BaseResponse:
    told = [sentence(f"{field} {words}") for field, words in error.fields.items()]
    response = jsonify(message=" ".join(told) or error.message)
    response.status_code = 422 if isinstance(error, Invalid) else error.status
    if error.retry_after_seconds is not None:
        response.headers["Retry-After"] = str(error.retry_after_seconds)
    return response


def _sent() -> dict[str, Any]:
    """What the script sent. Raises Invalid."""
    body = wire.parse_json(request.get_data())
    if not isinstance(body, dict):
        raise Invalid({"body": "must be an object"})
    return body


def _asked(options: passkeys.Options) -> BaseResponse:
    session[CHALLENGE] = options["challenge"]
    return jsonify(options)


def _challenge() -> str:
    """What this browser was asked to have signed; not again after this."""
    return str(session.pop(CHALLENGE, ""))


def _text(body: dict[str, Any], name: str) -> str:
    value = body.get(name)
    return value if isinstance(value, str) else ""


# --- sign in, confirm -------------------------------------------------------------------------


@access.blueprint.post("/login/passkey/options")
@for_script
def begin_sign_in() -> BaseResponse:
    return _asked(passkeys.begin_sign_in(ip=client_ip(), browser=known_browser.presented()))


@access.blueprint.post("/login/passkey")
@for_script
def sign_in_with_passkey() -> BaseResponse:
    challenge, body = _challenge(), _sent()
    token, person = passkeys.sign_in(
        challenge, body.get("credential"), ip=client_ip(), browser=known_browser.presented(),
        user_agent=request.headers.get("User-Agent", ""), request_id=g.request_id,
    )  # fmt: skip
    return access.enter(token, person.id, _text(body, "next"))


@confirm.blueprint.post("/confirm/passkey/options")
@for_script
def begin_confirming() -> BaseResponse:
    return _asked(passkeys.begin_confirming(by=actor()))


@confirm.blueprint.post("/confirm/passkey")
@for_script
def confirm_with_passkey() -> BaseResponse:
    challenge, body = _challenge(), _sent()
    token = passkeys.confirm(
        current_user.token, challenge, body.get("credential"), by=actor(),
        browser=known_browser.presented(),
    )  # fmt: skip
    return confirm.go_on(token, _text(body, "next"), _text(body, "place"))


# --- one's own --------------------------------------------------------------------------------


@blueprint.get("/new")
def add_passkey() -> Answer:
    """The form that names it; what it sends, the script sends."""
    confirm_first()
    name = client_words(request.headers.get("User-Agent", ""))
    return render_template("account/passkey_add.html", form={"name": name}, errors={})


@blueprint.post("/options")
@for_script
def begin_adding() -> BaseResponse:
    return _asked(passkeys.begin_adding({"name": _sent().get("name")}, by=actor()))


@blueprint.post("")
@for_script
def finish_adding() -> BaseResponse:
    challenge, body = _challenge(), _sent()
    named = {"name": body.get("name")}
    made = passkeys.add(challenge, body.get("credential"), named, by=actor())
    return _done(f"Passkey {made.name} added")


@blueprint.route("/<passkey_id>/rename", methods=["GET", "POST"])
def rename_passkey(passkey_id: str) -> Answer:
    passkey = passkeys.find_own(passkey_id, by=actor())
    if request.method != "POST":
        confirm_first()
        form = {"name": passkey.name}
        return render_template(
            "account/passkey_rename.html", passkey=passkey, form=form, errors={}
        )  # fmt: skip
    try:
        passkeys.rename(passkey_id, {"name": request.form.get("name", "")}, by=actor())
    except Invalid as error:
        form = request.form.to_dict()
        return invalid("account/passkey_rename.html", error, passkey=passkey, form=form)
    return _done("Passkey renamed")


@blueprint.route("/<passkey_id>/remove", methods=["GET", "POST"])
def remove_passkey(passkey_id: str) -> Answer:
    passkey = passkeys.find_own(passkey_id, by=actor())
    if request.method != "POST":
        confirm_first()
        return render_template("account/passkey_remove.html", passkey=passkey)
    passkeys.remove(passkey_id, token=current_user.token, by=actor())
    return _done(f"Passkey {passkey.name} removed")


def _done(notice: str) -> BaseResponse:
    return done(notice, url_for("account.show_account"), leaves=True)

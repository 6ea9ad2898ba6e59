"""Pages that one-time links lead to: a new password, and a sign-in for who is locked out. To open
one uses nothing up, for mail scanners open links; the form that it shows does."""

from flask import Blueprint, g, redirect, render_template, request, session, url_for
from flask_login import current_user, logout_user

from console import invitations, mail, sessions
from console.errors import Invalid
from console.web import actor, anonymous, client_ip, done, invalid, known_browser
from console.web.access import Answer, enter

blueprint = Blueprint("links", __name__)


@blueprint.route("/forgot", methods=["GET", "POST"])
def forgot() -> Answer:
    """Who has forgotten their password asks for a link by mail, or reads where else to get one."""
    if request.method == "POST" and mail.is_on():
        invitations.forgot(request.form.get("email", ""), by=anonymous("sign-in page"))
        return redirect(url_for("links.forgot", sent=1), 303)
    context = {"is_mail_on": mail.is_on(), "is_sent": "sent" in request.args}
    return render_template("access/forgot.html", **context)


@blueprint.route("/reset", methods=["GET", "POST"])
def reset_password() -> Answer:
    """Somebody chooses a new password, by the link that they were sent."""
    token = request.values.get("token", "")
    context = {"token": token, "email": invitations.who_resets(token).email}
    if request.method != "POST":
        return render_template("access/reset.html", errors={}, **context)
    fields = {"password": request.form.get("password", "")}
    try:
        person = invitations.reset_password(token, fields, by=anonymous())
    except Invalid as error:
        return invalid("access/reset.html", error, **context)
    if current_user.is_authenticated:  # as whoever it was: the next one to sign in is this person
        sessions.sign_out(current_user.token, by=actor())
        logout_user()
    session.clear()
    response = done("Your password is changed. Sign in with it.", url_for("access.log_in"))
    # The link was theirs: nobody's guessing keeps them out of this browser.
    known_browser.remember(response, person.id)
    return response


@blueprint.route("/login-link", methods=["GET", "POST"])
def log_in_by_link() -> Answer:
    """The operator vouches for whoever has this link: no password, no second factor."""
    token = request.values.get("token", "")
    person = invitations.who_signs_in(token)
    if request.method != "POST":
        return render_template("access/login_link.html", token=token, email=person.email)
    agent = request.headers.get("User-Agent", "")
    begun, person = invitations.sign_in(
        token, ip=client_ip(), user_agent=agent, request_id=g.request_id
    )
    return enter(begun, person.id, url_for("account.show_account"))

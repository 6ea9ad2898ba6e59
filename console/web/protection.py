"""What browsers are told to refuse (headers), and what is refused for the site that it comes from.

Whether somebody may do a thing is not asked here: a request that another site made somebody's
browser send is refused before anybody looks at who that is.
"""

from urllib.parse import urlsplit

from flask import Flask, Response, current_app, request

from config import Config
from console import api
from console.errors import Forbidden

CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; font-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'; object-src 'none'"
)
# What a script of ours could ask of a machine, were one ever not ours. Passkeys are ours to ask.
FEATURES = (
    "camera=(), display-capture=(), geolocation=(), hid=(), microphone=(), midi=(), payment=(), "
    "serial=(), usb=(), publickey-credentials-create=(self), publickey-credentials-get=(self)"
)
HEADERS = {
    "Content-Security-Policy": CONTENT_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": FEATURES,
}
# A year, for this name alone: what else lives under it is not ours to decide about.
HTTPS_ONLY = "max-age=31536000"

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
# "none": the person's own doing, such as a bookmark; no site can send it.
OWN_SITES = ("same-origin", "none")


def register(app: Flask) -> None:
    """Refuses other sites' requests from here on, and adds the headers to every answer."""
    config: Config = app.config["LATCHKEY"]
    app.before_request(_refuse_other_sites)
    app.after_request(_add_headers)
    if config.is_https:
        app.after_request(_keep_to_https)


def _refuse_other_sites() -> None:
    """Fetch Metadata (W3C), beside the token: a change is asked for by our own pages alone."""
    if not _changes_by_cookie():
        return
    if not _is_own(request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")):
        raise Forbidden(
            "Another site asked for this, so nothing was done. If it was you, open the page in "
            "this console and do it there."
        )


def _changes_by_cookie() -> bool:
    """The API takes no cookie, so nobody's browser can be made to act in it; nowhere, nothing is
    done at all."""
    is_page = request.endpoint is not None and request.blueprint != api.blueprint.name
    return is_page and request.method not in SAFE_METHODS


def _is_own(site: str | None, origin: str | None) -> bool:
    """Browsers before 2023 say no site, only the origin; who says neither has the token to show."""
    if site is not None:
        return site in OWN_SITES
    return origin is None or _is_own_origin(origin)


def _is_own_origin(origin: str) -> bool:
    """Whether it is the public address, or the one that this request was sent to.

    The latter's scheme is not known behind a proxy that ends TLS; http is never ours where the
    public address is https.
    """
    config: Config = current_app.config["LATCHKEY"]
    public, given = urlsplit(config.base_url), urlsplit(origin)
    is_own_scheme = given.scheme == "https" or (given.scheme == "http" and not config.is_https)
    return is_own_scheme and given.netloc in (public.netloc, request.host)


def _add_headers(response: Response) -> Response:
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers.setdefault("Cache-Control", "no-store")
    if request.endpoint != "static":
        response.vary.add("HX-Request")
    return response


def _keep_to_https(response: Response) -> Response:
    response.headers.setdefault("Strict-Transport-Security", HTTPS_ONLY)
    return response

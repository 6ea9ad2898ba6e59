"""Keys in JSON: the same operations as the console's, by the same functions."""

from flask import Response, url_for

from console import clock, key_import, key_list, keys, usage
from console.api import answer, caller, listed, nothing, object_body, once, query
from console.api.calls import ListOf, call
from console.key_fields import (
    GraceChange,
    KeyChange,
    KeyObject,
    KeyWithGrace,
    KeyWithSecret,
    KeyWithUsage,
    NewKey,
    RotatedKey,
    Rotation,
)
from console.key_import import Import, ImportReport
from console.models import Key
from console.permissions import KEYS_READ, KEYS_WRITE

LIMIT_REACHED = "`KEY_LIMIT_REACHED`: the project has as many live keys as it may"


@call("GET", "/api-keys", needs=KEYS_READ, query=key_list.KeyQuery, gives=ListOf(KeyObject))
def list_keys() -> Response:
    """The keys that you see, newest first."""
    given = query()
    page = key_list.page(by=caller().actor, **given.model_dump(exclude_unset=True))
    return answer(listed(page, keys.as_dict))


@call(
    "POST",
    "/api-keys",
    needs=KEYS_WRITE,
    takes=NewKey,
    gives=KeyWithSecret,
    status=201,
    idempotent=True,
    refuses={409: LIMIT_REACHED},
    example={"name": "CI pipeline", "permissions": ["tasks:read"], "expires_in": "90d"},
)
def create_key() -> Response:
    """Makes a key. Its secret, `key`, is in this one answer."""
    given, by = object_body(), caller().actor

    def create() -> tuple[str, KeyWithSecret]:
        key, secret = keys.create(given, by=by)
        return key.project_id, {**keys.as_dict(key), "key": secret}

    content, again = once("create_key", given, create)
    location = url_for("api.read_key", key_id=content["id"])
    return answer(content, 201, Location=location, **again)


@call("GET", "/api-keys/<key_id>", needs=KEYS_READ, gives=KeyWithUsage)
def read_key(key_id: str) -> Response:
    """One key, and how much it is used."""
    return answer(_with_usage(keys.key_to_read(key_id, by=caller().actor)))


@call(
    "PATCH",
    "/api-keys/<key_id>",
    needs=KEYS_WRITE,
    takes=KeyChange,
    gives=KeyWithUsage,
    refuses={409: LIMIT_REACHED},
    example={"ip_allowlist": ["203.0.113.0/24"], "expires_at": None},
)
def edit_key(key_id: str) -> Response:
    """Changes what is sent, nothing else. `status` revokes a key, or enables it again."""
    return answer(_with_usage(keys.edit(key_id, object_body(), by=caller().actor)))


@call(
    "POST",
    "/api-keys/<key_id>/rotate",
    needs=KEYS_WRITE,
    takes=Rotation,
    gives=RotatedKey,
    idempotent=True,
    example={"grace_period": "24h"},
)
def rotate_key(key_id: str) -> Response:
    """Makes a new secret for the same key; the old one stops at once, or after the grace period."""
    given, by = object_body(), caller().actor

    def rotate() -> tuple[str, RotatedKey]:
        key, secret, ends_at = keys.rotate(key_id, given, by=by)
        ends = clock.iso(ends_at)
        return key.project_id, {
            **keys.as_dict(key), "key": secret, "previous_secret_expires_at": ends,
        }  # fmt: skip

    content, again = once(f"rotate_key {key_id}", given, rotate)
    return answer(content, 200, **again)


@call(
    "POST",
    "/api-keys/<key_id>/grace",
    needs=KEYS_WRITE,
    takes=GraceChange,
    gives=KeyWithGrace,
    refuses={409: "`CONFLICT`: no old secret works any more"},
    example={"grace_period": "24h"},
)
def set_grace(key_id: str) -> Response:
    """Lets the old secret work for longer, or ends it at once.

    `grace_period` counts from now on; with null whatever still presents the old secret is refused
    from the next request on, and no call brings it back."""
    key, ends_at = keys.set_grace(key_id, object_body(), by=caller().actor)
    return answer({**keys.as_dict(key), "previous_secret_expires_at": clock.iso(ends_at)})


@call("DELETE", "/api-keys/<key_id>", needs=KEYS_WRITE, status=204)
def delete_key(key_id: str) -> Response:
    """Removes the key for good."""
    keys.delete(key_id, by=caller().actor)
    return nothing()


@call(
    "POST",
    "/api-keys/import",
    needs=KEYS_WRITE,
    takes=Import,
    gives=ImportReport,
    status=201,
    idempotent=True,
    refuses={409: f"{LIMIT_REACHED}, or `CONFLICT`: a secret is known here already"},
    example={
        "keys": [
            {
                "name": "Old CI",
                "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                "prefix": "sk_live_0Vb5",
                "permissions": ["tasks:read"],
            }
        ]
    },
)
def import_keys() -> Response:
    """Takes over keys whose secrets are in their clients' hands already, by their SHA-256.

    At most 1,000 a call, all of them or none; `errors` names each row at fault (`keys.3.sha256`).
    The secrets may have any shape and go on working as they are."""
    given, by = object_body(), caller().actor

    def take_over() -> tuple[str, ImportReport]:
        imported = key_import.import_keys(given, by=by)
        return imported[0].project_id, key_import.as_dict(imported)

    content, again = once("import_keys", given, take_over)
    return answer(content, 201, **again)


def _with_usage(key: Key) -> KeyWithUsage:
    return {**keys.as_dict(key), "usage": usage.totals_of(key)}

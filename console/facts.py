"""A few facts that the installation remembers of itself: when it was last backed up, and with which
secret key it is used, as a digest."""

import hashlib
import hmac
import logging

from console import clock, db
from console.models import Fact

log = logging.getLogger(__name__)

LAST_BACKUP, SECRET_KEY = "last_backup", "secret_key"
PURPOSE = b"latchkey which secret key"


def read(name: str) -> str | None:
    """What was noted last under this name."""
    fact = Fact.get_or_none(Fact.name == name)
    return None if fact is None else str(fact.value)


def noted_at(name: str) -> int | None:
    """When it was."""
    fact = Fact.get_or_none(Fact.name == name)
    return None if fact is None else int(fact.at)


def note(name: str, value: str) -> None:
    """Takes the place of what was noted before."""
    row = Fact.insert(name=name, value=value, at=clock.now())
    with db.write():
        row.on_conflict(conflict_target=[Fact.name], preserve=[Fact.value, Fact.at]).execute()


def key_digest(secret_key: str) -> str:
    """By which a secret key is known again; it cannot be found from it."""
    return hmac.digest(secret_key.encode(), PURPOSE, hashlib.sha256).hex()


def note_secret_key(secret_key: str) -> None:
    """Remembers the key that is used now, and says so in the log when it is another than before."""
    digest, before = key_digest(secret_key), read(SECRET_KEY)
    if digest == before:
        return
    if before is not None:
        log.warning(
            "this database was used with another secret key before: sessions have ended, and "
            "second factors and the secrets of webhooks cannot be read. If that was not meant, set "
            "LATCHKEY_SECRET_KEY, or put the file secret_key back; several processes need the same"
        )
    note(SECRET_KEY, digest)

"""The same answer again to a call that is tried again under the same Idempotency-Key.

An answer may hold a secret, which is stored nowhere else. So it is kept sealed under a key that is
derived from the header's value and the installation's secret key, and neither of them is in the
database. Knows nothing of what is answered.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator
from pydantic_core import from_json, to_json

from console import clock, db
from console.actor import Actor
from console.errors import Invalid, Mismatch
from console.fields import text_schema
from console.models import KeptAnswer
from console.permissions import KEYS_WRITE
from console.seal import Seal, derive

HEADER = "Idempotency-Key"
LENGTH_MIN, LENGTH_MAX = 16, 255
KEPT = clock.DAY

Answer = Mapping[str, Any]


def _header(text: str) -> str:
    if not LENGTH_MIN <= len(text) <= LENGTH_MAX or not all("!" <= one <= "~" for one in text):
        raise ValueError(
            f"must have {LENGTH_MIN} to {LENGTH_MAX} visible ASCII characters, random ones"
        )
    return text


IdempotencyKey = Annotated[
    str,
    AfterValidator(_header),
    text_schema(
        "5f0c2b9e-8a44-4c53-9c39-0f3f6c1b7d55",
        pattern=f"^[!-~]{{{LENGTH_MIN},{LENGTH_MAX}}}$",
        description="A random text: sent again within 24 hours, the call does nothing anew and "
        "answers what it answered, the secret included",
    ),
]


def once(
    given: str | None,
    *,
    signing_key: str,
    request: Any,
    by: Actor,
    work: Callable[[], tuple[str, Answer]],
) -> tuple[Answer, bool]:
    """What `work` answers, done once in 24 hours for this actor and header, and whether it is an
    answer from before.

    `work` returns the id of its project and the answer; what it changes and what is kept of it are
    one transaction. `request` is what must be the same each time. Raises Invalid for a header of
    another shape, Mismatch for another request, Forbidden for who may write there no more, and
    whatever `work` raises: of a refusal nothing is kept.
    """
    if given is None:
        return work()[1], False
    try:
        row_id, seal = _derived(_header(given), signing_key, by)
    except ValueError as error:
        raise Invalid({HEADER: str(error)}) from None
    fingerprint = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
    with db.write(by):
        db.hold_name(row_id)
        now = clock.now()
        KeptAnswer.delete().where(KeptAnswer.expires_at <= now).execute()
        row = KeptAnswer.get_or_none(KeptAnswer.id == row_id)
        if row is not None:
            return _opened(row, seal, fingerprint, by), True
        project_id, answer = work()
        content = to_json([fingerprint, project_id, answer])
        KeptAnswer.create(id=row_id, content=seal.close(content, row_id), expires_at=now + KEPT)
        return answer, False


def _derived(given: str, signing_key: str, by: Actor) -> tuple[str, Seal]:
    """Under which id an answer is kept, and what seals it."""
    purpose = f"latchkey/{HEADER}/{by.kind}/{by.id}"
    row_id, key = derive(given, purpose, salt=signing_key, keys=2)
    return row_id.hex(), Seal(key)


def _opened(row: KeptAnswer, seal: Seal, fingerprint: str, by: Actor) -> Answer:
    kept, project_id, answer = from_json(seal.open(row.content, row.id))
    if kept != fingerprint:
        raise Mismatch(
            f"This {HEADER} came with another request within the last 24 hours: "
            "send that one again, or a new key with this one."
        )
    by.require(KEYS_WRITE, project_id)
    return answer  # type: ignore[no-any-return]

"""Messages to people, by mail and Apprise: written in the transaction of what they tell, and sent
until they are taken, or for about a day.

At least once, however a process ends: the same message has the same id at every attempt, in mail as
its Message-ID. What a message says is letters.py's to know.
"""

import hashlib
import logging
import re
from collections.abc import Iterable, Sequence

from console import clock, db, mail, outbox, secret
from console.models import FAILED, PENDING, Letter, Person

log = logging.getLogger(__name__)

MAIL, APPRISE = "mail", "apprise"
LEASE = 120 * clock.SECOND  # longer than any attempt takes
KEPT = 30 * clock.DAY
AN_HOUR = 30  # letters to one recipient; what else there is to tell goes into one an hour later
TEXT_MAX_LENGTH = 100_000
SUBJECT_MAX_LENGTH = 200
NOBODY = "The person was disabled meanwhile."
MENTION = re.compile("@(?=everyone|here)")
NAME_LENGTH = 16  # of what an Apprise URL goes by: it holds secrets itself

_services: dict[str, str] = {}


def use_apprise(urls: Iterable[str]) -> None:
    """Sends every message to these Apprise URLs, too."""
    global _services
    _services = {_name_of(url): url for url in urls}


def refuse_apprise(url: str) -> None:
    """Raises ValueError where Apprise does not know what is meant; ImportError without it."""
    import apprise  # here, for it takes a while and most installations do without

    if not apprise.Apprise().add(url):
        raise ValueError("is no address that Apprise knows")


def _name_of(url: str) -> str:
    return hashlib.sha256(url.encode()).hexdigest()[:NAME_LENGTH]


# --- write ------------------------------------------------------------------------------------


def mail_to(recipients: Iterable[str], subject: str, text: str) -> None:
    """One message to each, in the caller's transaction; none where no mail is sent at all."""
    if mail.is_on():
        for recipient in sorted(set(recipients)):
            _put(MAIL, recipient, subject, text)


def tell_services(subject: str, text: str) -> None:
    """One message to each service of Apprise, in the caller's transaction."""
    for name in _services:
        _put(APPRISE, name, subject, text)


def _put(channel: str, recipient: str, subject: str, text: str) -> None:
    now = clock.now()
    due_at = now
    if _number(channel, recipient, now - clock.HOUR) >= AN_HOUR:
        gathered = _gathered(channel, recipient, now)
        if gathered is not None:
            more = f"{gathered.text}\n{text}"[:TEXT_MAX_LENGTH]
            waits = Letter.id == gathered.id, Letter.attempts == 0
            if Letter.update(text=more).where(*waits).execute():
                return
        subject, due_at = "Latchkey: more alerts", now + clock.HOUR
    Letter.create(
        id=secret.random_id("ltr"),
        channel=channel,
        recipient=recipient,
        subject=subject[:SUBJECT_MAX_LENGTH],
        text=text,
        status=PENDING,
        created_at=now,
        next_attempt_at=due_at,
    )


def _number(channel: str, recipient: str, since: int) -> int:
    """How many letters were written to them since then, as far as it matters."""
    theirs = Letter.channel == channel, Letter.recipient == recipient
    some = Letter.select(Letter.id).where(Letter.created_at > since, *theirs)
    return len(some.limit(AN_HOUR))


def _gathered(channel: str, recipient: str, now: int) -> Letter | None:
    """The letter that waits to take on what else is to be told within the hour."""
    waits = Letter.next_attempt_at > now, Letter.attempts == 0
    theirs = Letter.channel == channel, Letter.recipient == recipient
    return Letter.get_or_none(*waits, *theirs)


# --- send -------------------------------------------------------------------------------------


def claim(channel: str = MAIL, under_way: Iterable[str] = ()) -> Letter | None:
    """A letter that is due, leased until it is concluded: no other process sends it meanwhile; and
    not this one again, whatever the clock says of the lease."""
    now = clock.now()
    meant = Letter.channel == channel, Letter.status == PENDING
    is_free = Letter.leased_until <= now, Letter.id.not_in(list(under_way))
    is_due = Letter.next_attempt_at <= now, *meant, *is_free
    letter = Letter.select().where(*is_due).order_by(Letter.next_attempt_at).first()
    if letter is None:
        return None
    claimed = {
        Letter.leased_until: now + LEASE,
        Letter.attempts: Letter.attempts + 1,
        Letter.last_attempt_at: now,
    }
    with db.write():
        if not Letter.update(claimed).where(Letter.id == letter.id, *is_due).execute():
            return None  # another process was first
        if _is_to_nobody(letter):
            ended = {"status": FAILED, "next_attempt_at": None, "error": NOBODY}
            Letter.update(ended).where(Letter.id == letter.id).execute()
            return claim(channel, under_way)
    return Letter.get_or_none(Letter.id == letter.id)


def _is_to_nobody(letter: Letter) -> bool:
    """Whether it is for a person who has been disabled since it was written."""
    theirs = Person.email == letter.recipient, Person.disabled_at.is_null(False)
    return letter.channel == MAIL and Person.select().where(*theirs).exists()


def send(letter: Letter) -> str | None:
    """Hands the letter over; what went wrong, in one sentence. Asks no database."""
    if letter.channel == APPRISE:
        return _send_by_apprise(letter)
    if not mail.is_on():
        return "No mail is sent any more: LATCHKEY_SMTP_URL is not set."
    try:
        mail.send(letter.recipient, letter.subject, letter.text, name=letter.id)
    except mail.NotSent as error:
        return str(error)
    return None


def _send_by_apprise(letter: Letter) -> str | None:
    url = _services.get(letter.recipient)
    if url is None:
        return "The address is not in LATCHKEY_APPRISE_URLS any more."
    import apprise

    service = apprise.Apprise()
    service.add(url)
    # Names are whatever somebody typed: neither markup nor a call to everybody.
    title, body = (MENTION.sub("@\N{WORD JOINER}", text) for text in (letter.subject, letter.text))
    taken = service.notify(body=body, title=title, body_format=apprise.NotifyFormat.TEXT)
    return None if taken else "The service did not take it; the log may say why."


def conclude(claimed: Letter, error: str | None) -> None:
    """Writes down what came of an attempt."""
    with db.write():
        db.hold(Letter, claimed.id)
        letter = Letter.get_or_none(Letter.id == claimed.id)
        is_ours = letter is not None and letter.leased_until == claimed.leased_until
        if letter is None or letter.status != PENDING or (error and not is_ours):
            return  # whoever took over an old lease has sent it, or will
        now = clock.now()
        if is_ours:
            letter.leased_until = now
        outbox.note_attempt(letter, error, now)
        letter.save(only=letter.dirty_fields)
    if error:
        log.warning("letter %s: %s", claimed.id, error)


def hurry() -> None:
    """What outbox.hurry does, for letters."""
    now = clock.now()
    with db.write():
        far = now + LEASE + outbox.SLACK
        Letter.update(leased_until=0).where(Letter.leased_until > far).execute()
        later = now + outbox.SLACK
        early = (Letter.created_at > later) | (Letter.last_attempt_at > later)
        Letter.update(next_attempt_at=now).where(Letter.next_attempt_at > now, early).execute()


def waiting() -> Sequence[tuple[str, int]]:
    """How many letters wait, by channel."""
    counts = {MAIL: 0, APPRISE: 0}
    for letter in Letter.select(Letter.channel).where(Letter.next_attempt_at.is_null(False)):
        counts[letter.channel] += 1
    return list(counts.items())


def prune(most: int) -> int:
    """Deletes at most so many letters that have long been done; returns how many went."""
    old = Letter.created_at < clock.now() - KEPT, Letter.next_attempt_at.is_null()
    some = Letter.select(Letter.id).where(*old).limit(most)
    return int(Letter.delete().where(Letter.id.in_(some)).execute())

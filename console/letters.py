"""What our mails say, in plain text. To whom and when they go is said in invitations.py."""

from urllib.parse import urlsplit

from console import clock, links
from console.actor import PERSON, Actor
from console.links import INVITATION, RESET


def letter(kind: str, token: str, ends_at: int, *, by: Actor) -> tuple[str, str]:
    """The subject and the text that bring a link of this kind."""
    here = links.base_url()
    begins, ends = {INVITATION: _invitation, RESET: _reset}[kind](here, by)
    paragraphs = (
        begins,
        links.address(kind, token),
        f"The link works once, until {clock.to_datetime(ends_at):%-d %B %Y, %H:%M} UTC.",
        ends,
    )
    subject = {INVITATION: "Join Latchkey at {}", RESET: "Choose a new password for {}"}[kind]
    return subject.format(urlsplit(here).netloc), "\n\n".join(paragraphs) + "\n"


def _invitation(here: str, by: Actor) -> tuple[str, str]:
    who = f"{by.name} has invited you" if by.kind == PERSON else "You are invited"
    return (
        f"{who} to Latchkey, the console for API keys at {here}\n"
        "Choose your password on this page:",
        "You do not know what this is? Then do nothing: without this link nobody joins as you.",
    )


def _reset(here: str, by: Actor) -> tuple[str, str]:
    if by.id is None:
        why = "Somebody, most likely you, asked for a new password"
    else:
        why = f"{by.name} has made you a link to a new password"
    return (
        f"{why} for Latchkey at {here}\nChoose it on this page:",
        "Choosing it signs you out everywhere. Until you do, the present password holds. You did "
        "not want a new one? Then do nothing, and pass this link on to nobody.",
    )

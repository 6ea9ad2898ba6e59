"""Fills an empty installation with an example: people, projects, keys and 30 days of requests.

It is lived through in order, the clock set by hand: each change is made by the operation that makes
it for people, each request is decided by the check. So what is shown of it holds together. All of
it is one transaction.
"""

import secrets
import tempfile
from collections import defaultdict, deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from console import (
    actor,
    audit,
    batch,
    check,
    clock,
    db,
    journal,
    keys,
    mail,
    outcomes,
    people,
    person_rows,
    projects,
    secret,
    sessions,
    usage,
    webhooks,
)
from console.actor import PERSON, Actor
from console.demo import story, traffic
from console.demo.story import ADA, DOMAIN, GATEWAY, SHOP, DemoKey, DemoPerson
from console.demo.traffic import Burst, Call, Client
from console.errors import Conflict, Refused, Unknown
from console.models import Entry, Key, Person, Project, Secret, Usage

SEED = 20261120
DAYS = 30
OWNER = f"{ADA}@{DOMAIN}"
# Who else can sign in, and as what in the main project.
OTHERS = {
    f"{one.who}@{DOMAIN}": one.roles[SHOP]
    for one in story.PEOPLE
    if SHOP in one.roles and not one.is_invited
}
PASSWORD_LETTERS, PASSWORD_LENGTH = "abcdefghijkmnpqrstuvwxyz23456789", 16
WORK_BEGINS, WORKING_HOURS = 8 * clock.HOUR, 9 * clock.HOUR
TIMED = 400  # of the latest requests it is known how long they took
REFUSED_BEFORE = 0.03  # at most, of the requests of a day long ago
FIRST_MONTH = 0.45  # of today's requests were made when it all began
ROWS_AT_ONCE = 150
# Clients that ask so often a day have also asked a moment ago.
BUSY_PER_DAY, MOMENT = 30, 90 * clock.SECOND


class Filled(NamedTuple):
    """What there is now, and what is told of it this one time."""

    password: str  # of everybody
    secret: str  # of a key that may check others
    projects: int
    keys: int
    entries: int


def fill(password: str | None = None, *, seed: int = SEED, share: float = 1.0) -> Filled:
    """Fills the installation; `share` is how much of the usual requests there are.

    Only where nothing else happens in the process. Raises Conflict where there is anything yet.
    """
    password = password or _new_password()
    mail.use("", "")  # its people are nobody's
    with db.write():
        _refuse_unless_empty()
        with (
            tempfile.TemporaryDirectory() as directory,
            clock.set_by_hand() as move,
            journal.apart(Path(directory), batch.store),
        ):
            life = _Life(password, Random(seed), share, move)
            life.live()
        outcomes.record_outcomes(list(life.outcomes), by=actor.command_line())
        audit.store_attempts()
        return Filled(
            password,
            life.secrets[SHOP, GATEWAY][-1],
            Project.select().count(),
            Key.select().count(),
            Entry.select().count(),
        )


def renew_password(password: str | None = None) -> str:
    """A new password for the demo's owner, whose old one nobody knows any more; their sessions end.

    Raises Unknown where there is no demo.
    """
    owner = Person.get_or_none(Person.email == OWNER)
    if owner is None:
        raise Unknown("This installation is no demo.")
    password = password or _new_password()
    people.edit(owner.id, {"password": password}, by=actor.command_line())
    return password


def is_there() -> bool:
    """Whether this installation was filled here."""
    return bool(Person.select().where(Person.email == OWNER).exists())


def _new_password() -> str:
    return "".join(secrets.choice(PASSWORD_LETTERS) for _ in range(PASSWORD_LENGTH))


def _refuse_unless_empty() -> None:
    person_rows.hold_people()
    db.hold_table(Project)
    if people.anybody_yet() or projects.any_yet():
        raise Conflict(
            "There are people or projects here already, and a demo fills only what is empty. "
            "Name another directory: LATCHKEY_DATA_DIR=./data-demo"
        )


Step = Callable[[], object]


class _Life:
    """The installation's past: what happens when, and who and what there is by then."""

    def __init__(
        self, password: str, chance: Random, share: float, move: Callable[[int], None]
    ) -> None:
        self.now = clock.now()
        self.began = clock.start_of("day", self.now) - DAYS * clock.DAY
        self.password = password
        self.chance = chance
        self.share = share
        self.move = move
        self.steps: list[tuple[int, int, Step]] = []
        self.people: dict[str, Person] = {}
        self.projects: dict[str, Project] = {}
        self.keys: dict[tuple[str, str], Key] = {}
        self.secrets: dict[tuple[str, str], list[str]] = {}
        self.outcomes: deque[dict[str, Any]] = deque(maxlen=TIMED)

    def live(self) -> None:
        for project in story.PROJECTS:
            self._at(project.days_ago, partial(self._create_project, project))
        for person in story.PEOPLE:
            self._at(person.days_ago, partial(self._create_person, person))
        for key in story.KEYS:
            self._at(key.days_ago, partial(self._create_key, key))
        for change in story.CHANGES:
            self._at(change.days_ago, partial(self._change, change))
        for sign_in in story.SIGN_INS:
            self._at(sign_in.days_ago, partial(self._sign_in, sign_in))
        self._at(story.WEBHOOK_DAYS_AGO, self._create_webhook)
        self._then(self.began, self._count_before)
        for client in traffic.CLIENTS:
            self._plan_client(client)
        for burst in traffic.BURSTS:
            self._plan_burst(burst)
        for what, ip, hours_ago, number in traffic.ATTEMPTS:
            at = self.now - round(hours_ago * clock.HOUR)
            for _ in range(number):
                self._then(at, partial(self._attempt, what, ip))
        for at, _, step in sorted(self.steps, key=lambda one: one[:2]):
            self.move(at)
            step()

    # --- when -------------------------------------------------------------------------------

    def _then(self, at: int, step: Step) -> None:
        self.steps.append((at, len(self.steps), step))

    def _at(self, days_ago: float, step: Step) -> None:
        self._then(self._worked_at(days_ago), step)

    def _worked_at(self, days_ago: float) -> int:
        """The instant; what was done on another day was done while people work, the earlier the
        larger the fraction."""
        if days_ago < 1:
            return self.now - round(days_ago * clock.DAY)
        day = clock.start_of("day", self.now) - int(days_ago) * clock.DAY
        return day + WORK_BEGINS + round((1 - days_ago % 1) * WORKING_HOURS)

    # --- people -----------------------------------------------------------------------------

    def _create_project(self, project: story.DemoProject) -> None:
        offered = [{"name": name, "description": why} for name, why in project.offered.items()]
        fields = {"slug": project.slug, "permission_catalogue": offered, **project.fields}
        self.projects[project.slug] = projects.create(fields, by=self._actor(ADA))
        for person in story.PEOPLE:
            if person.who in self.people and project.slug in person.roles:
                roles = self._roles(person)
                people.edit(self.people[person.who].id, {"roles": roles}, by=self._actor(ADA))

    def _roles(self, person: DemoPerson) -> dict[str, str]:
        """The person's roles in the projects that there are by now."""
        return {slug: role for slug, role in person.roles.items() if slug in self.projects}

    def _create_person(self, person: DemoPerson) -> None:
        fields: dict[str, Any] = {"email": f"{person.who}@{DOMAIN}", "name": person.name}
        if not person.is_invited:
            fields["password"] = self.password
        if person.owner:
            made = people.create_owner(fields, by=actor.command_line())
        else:
            made, _ = people.create({**fields, "roles": self._roles(person)}, by=self._actor(ADA))
        self.people[person.who] = made

    def _actor(self, who: str) -> Actor:
        person = next(one for one in story.PEOPLE if one.who == who)
        made = self.people[who]
        roles = {self.projects[slug].id: role for slug, role in self._roles(person).items()}
        return Actor(
            kind=PERSON,
            id=made.id,
            name=made.email,
            owner_id=made.id,
            is_owner=person.owner,
            roles=roles,
            ip=person.ip,
            request_id=self._request_id(),
        )

    def _sign_in(self, sign_in: story.SignIn) -> None:
        """The session's token is thrown away: nobody holds it."""
        person = next(one for one in story.PEOPLE if one.who == sign_in.who)
        sessions.begin(
            self.people[sign_in.who],
            method=sessions.PASSWORD,
            ip=person.ip,
            user_agent=sign_in.agent,
        )

    def _create_webhook(self) -> None:
        webhooks.create({**story.WEBHOOK, "project": SHOP}, by=self._actor(story.MAREK))

    # --- keys -------------------------------------------------------------------------------

    def _create_key(self, key: DemoKey) -> None:
        fields: dict[str, Any] = {
            "name": key.name,
            "project": key.project,
            "environment": key.environment,
            "permissions": list(key.permissions),
            "description": key.description,
            **key.more,
        }
        if key.ends_in is not None:
            fields["expires_at"] = clock.iso(self.now + round(key.ends_in * clock.DAY))
        made, text = keys.create(fields, by=self._actor(key.by))
        self.keys[key.project, key.name] = made
        self.secrets[key.project, key.name] = [text]

    def _change(self, change: story.Change) -> None:
        place = self._place(change.key)
        key_id, by = self.keys[place].id, self._actor(change.by)
        if change.operation == "rotate":
            _, text, _ = keys.rotate(key_id, change.fields, by=by)
            self.secrets[place].append(text)
        elif change.operation == "edit":
            keys.edit(key_id, change.fields, by=by)
        else:
            getattr(keys, change.operation)(key_id, by=by)

    def _place(self, name: str) -> tuple[str, str]:
        """The key's project and name."""
        return next((key.project, name) for key in story.KEYS if key.name == name)

    # --- requests ---------------------------------------------------------------------------

    def _plan_client(self, client: Client) -> None:
        start, end = self._active(client)
        calls, weights = client.calls, [call.often for call in client.calls]
        asked = traffic.instants(client, max(start, self.began), end, self.share, self.chance)
        just_now = [end - self.chance.randrange(1, MOMENT)] if _is_busy(client) else []
        for at in [*asked, *just_now]:
            call = self.chance.choices(calls, weights)[0]
            self._then(at, partial(self._ask, client, call))

    def _active(self, client: Client) -> tuple[int, int]:
        """From when until when the client asks."""
        key = next(one for one in story.KEYS if one.name == client.key)
        made_at = self._worked_at(key.days_ago) + clock.MINUTE
        if client.begins is not None:
            made_at = max(made_at, self.now - round(client.begins * clock.DAY))
        return made_at, self.now - round(client.ends * clock.DAY)

    def _plan_burst(self, burst: Burst) -> None:
        client = next(one for one in traffic.CLIENTS if one.key == burst.key)
        minute = clock.start_of("minute", self.now - round(burst.hours_ago * clock.HOUR))
        for number in range(burst.requests):
            at = minute + number * clock.MINUTE // burst.requests
            self._then(at, partial(self._ask, client, client.calls[0]))

    def _ask(self, client: Client, call: Call) -> None:
        place = self._place(client.key)
        texts = self.secrets[place]
        verdict = self._check(
            texts[0] if client.keeps_old_secret else texts[-1],
            self.chance.choice(client.addresses),
            method=call.method,
            endpoint=traffic.path(call, self.chance),
            user_agent=client.agent,
            permissions=(call.permission,) if call.permission else (),
            project=client.asks_of or place[0],
            environment=client.environment,
        )
        if verdict.is_valid:
            self._answer(verdict, call)

    def _answer(self, verdict: check.Verdict, call: Call) -> None:
        """What the service did; the latest requests also say how long it took."""
        status = traffic.outcome(call, self.chance)
        took = traffic.latency_ms(call, self.chance)
        if status != verdict.status:
            audit.record_outcome(verdict.request_id, status)
        if not traffic.is_ours(call):
            asked = {"request_id": verdict.request_id}
            self.outcomes.append({**asked, "status": status, "latency_ms": took})

    def _attempt(self, what: str, ip: str) -> None:
        """A request without a key that is known here."""
        texts = {
            traffic.NOTHING: None,
            traffic.GARBAGE: "sk_test_123",
            traffic.FORGED: secret.mint("sf", "live"),
        }
        self._check(texts[what], ip)

    def _check(self, text: str | None, ip: str, **asked: Any) -> check.Verdict:
        request = check.Request(text, self._request_id(), ip, **asked)
        verdict = check.check(request)
        if verdict.code == check.UNAVAILABLE:
            raise Refused("The demo's requests cannot be recorded; the log says why.")
        return verdict

    def _request_id(self) -> str:
        return f"req_{clock.now():012x}{self.chance.getrandbits(64):016x}"

    # --- the months before --------------------------------------------------------------------

    def _count_before(self) -> None:
        """What was counted before the first entry that is kept."""
        counts: dict[tuple[str, str, int], list[int]] = defaultdict(lambda: [0, 0])
        for client in traffic.CLIENTS:
            start, end = self._active(client)
            if start < self.began:
                self._count_client(client, start, min(end, self.began), counts)
        rows = [(*group, *count) for group, count in counts.items()]
        for first in range(0, len(rows), ROWS_AT_ONCE):
            fields = [Usage.subject_id, Usage.unit, Usage.start_at, Usage.allowed, Usage.denied]
            Usage.insert_many(rows[first : first + ROWS_AT_ONCE], fields).execute()

    def _count_client(
        self, client: Client, start: int, end: int, counts: dict[tuple[str, str, int], list[int]]
    ) -> None:
        key = self.keys[self._place(client.key)]
        total = last_at = 0
        for day in range(clock.start_of("day", start) + clock.DAY, end, clock.DAY):
            number = traffic.of_day(client, day, self._growth(day), self.share, self.chance)
            if not number:
                continue
            refused = round(number * self.chance.uniform(0, REFUSED_BEFORE))
            for subject in (key.id, key.project_id):
                for unit in (usage.DAY, usage.MONTH):
                    count = counts[subject, unit, clock.start_of(unit, day)]
                    count[0] += number - refused
                    count[1] += refused
            total += number
            last_at = min(day + WORK_BEGINS, end)
        if total:
            _note_use(key, total, last_at, client.addresses[0])

    def _growth(self, day: int) -> float:
        """How much less went on so long ago than today."""
        oldest = story.PROJECTS[0].days_ago * clock.DAY
        return 1 - (1 - FIRST_MONTH) * (self.began - day) / oldest


def _is_busy(client: Client) -> bool:
    return client.per_day >= BUSY_PER_DAY and not client.ends


def _note_use(key: Key, requests: int, last_at: int, ip: str) -> None:
    used = {"requests_total": Key.requests_total + requests, "last_used_at": last_at}
    Key.update({**used, "last_used_ip": ip}).where(Key.id == key.id).execute()
    for one in Secret.select().where(Secret.key == key, Secret.created_at < last_at):
        one.last_used_at = min(last_at, one.works_until or last_at)
        one.save(only=[Secret.last_used_at])

"""Who is acting, and what they may do in a project: one answer for every door."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from console import clock, permissions
from console.errors import Forbidden, NotFresh, Unknown
from console.permissions import (
    ADMIN,
    ANALYTICS_READ,
    AUDIT_READ,
    KEYS_READ,
    KEYS_VERIFY,
    KEYS_WRITE,
)

PERSON, KEY, COMMAND = "person", "key", "command"

ADMIN_ROLE, MEMBER, VIEWER = "admin", "member", "viewer"
ROLE_PERMISSIONS: Mapping[str, frozenset[str]] = {
    ADMIN_ROLE: frozenset({ADMIN}),
    MEMBER: frozenset({KEYS_READ, KEYS_WRITE, KEYS_VERIFY, AUDIT_READ, ANALYTICS_READ}),
    VIEWER: frozenset({KEYS_READ, AUDIT_READ, ANALYTICS_READ}),
}
# A member's own rights end at their own keys; a key that carried them would reach everybody's.
MEMBER_GRANTS = frozenset({KEYS_VERIFY})


@dataclass(frozen=True, slots=True)
class Actor:
    """A person (browser or access token), a key, or the command line, in one request."""

    kind: str
    id: str | None
    name: str
    owner_id: str | None = None  # the person behind it: new keys are theirs, and they see secrets
    is_owner: bool = False
    roles: Mapping[str, str] = field(default_factory=dict)  # project id -> role
    project_id: str | None = None  # a key acts inside its own
    permissions: frozenset[str] = frozenset()  # a key's
    fresh_until: int | None = None  # of a session; who is not asked again has none
    # Raises where the session or key has ended, or changed, since the request came with it.
    refuse_ended: Callable[[], None] | None = field(default=None, compare=False, repr=False)
    ip: str | None = None
    request_id: str | None = None

    @property
    def person_id(self) -> str | None:
        """Who is there to see what is answered; nobody, where a key or a command acts."""
        return self.id if self.kind == PERSON else None

    def permissions_in(self, project_id: str) -> frozenset[str]:
        """What this actor holds in the project; nothing where they have no business."""
        if self.is_owner:
            return frozenset({ADMIN})
        if self.kind == KEY:
            return self.permissions if project_id == self.project_id else frozenset()
        return ROLE_PERMISSIONS.get(self.roles.get(project_id, ""), frozenset())

    def may(self, permission: str, project_id: str) -> bool:
        return permissions.met(self.permissions_in(project_id), permission)

    def sees(self, project_id: str) -> bool:
        return (
            self.project_id == project_id
            if self.kind == KEY
            else bool(self.permissions_in(project_id))
        )

    def sees_only_own(self, project_id: str) -> bool:
        """A member sees and changes the keys that they own, and no others."""
        return not self.is_owner and self.roles.get(project_id) == MEMBER

    def require(self, permission: str, project_id: str) -> None:
        """Raises Unknown where the project is not theirs to see, Forbidden without the right."""
        if not self.sees(project_id):
            raise Unknown("There is no such thing here.")
        if not self.may(permission, project_id):
            raise self.denied(permission)

    def require_open(self) -> None:
        """Raises Unauthenticated, or what a check says of the key, where what this actor came with
        holds no more. For the transaction that acts on their rights: those were read before it."""
        if self.refuse_ended is not None:
            self.refuse_ended()

    def require_fresh(self, spare: int = 0) -> None:
        """Raises NotFresh where the person proved too long ago that they are there, or will have in
        `spare` milliseconds."""
        if self.fresh_until is not None and self.fresh_until <= clock.now() + spare:
            raise NotFresh("Confirm that it is you: you signed in a while ago.")

    def denied(self, *missing: str) -> Forbidden:
        """The refusal that fits: a key lacks a permission, a person lacks a role."""
        if self.kind == KEY:
            return Forbidden(
                f"This key needs {' and '.join(missing)}.",
                code="PERMISSION_DENIED",
                missing_permissions=missing,
            )
        return Forbidden("Your role in this project does not allow this.")

    def not_grantable(self, held: list[str], project_id: str) -> tuple[str, ...]:
        """Which of Latchkey's own permissions in `held` this actor may not hand out."""
        own = self.permissions_in(project_id)
        if self.sees_only_own(project_id):
            own = MEMBER_GRANTS
        return permissions.missing(own, permissions.console_permissions(held))


def command_line() -> Actor:
    """The operator at the machine: may do everything."""
    return Actor(kind=COMMAND, id=None, name="command line", is_owner=True)


def latchkey() -> Actor:
    """Latchkey itself, where it does by the clock what a person asked for before."""
    return Actor(kind=COMMAND, id=None, name="Latchkey", is_owner=True)

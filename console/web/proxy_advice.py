"""What a call of a proxy lacks, and how to mend it: one finding for each thing that such a call has
to carry. What came is proxy_calls.py's to keep."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from config import Network
from console import addresses, route_rules
from console.forward_auth import (
    CADDY,
    ENVOY,
    ENVOY_OPTIONS,
    ENVOY_PATH,
    FAMILIES,
    FORWARDED,
    HAPROXY,
    NGINX,
    ORIGINAL,
    REQUIRED_PERMISSION,
    TRAEFIK,
)
from console.models import Project
from console.proxy_calls import AUTHORIZATION, FORWARDED_FOR, X_API_KEY, ProxyCall

CAME, MISSING, WRONG, IGNORED, UNTRUSTED = "came", "missing", "wrong", "ignored", "not trusted"


@dataclass(frozen=True)
class Finding:
    """One thing: what it is, whether it came as it must, what came, why it matters, what mends it.

    `line` is to be put into the proxy's configuration, or into Latchkey's settings.
    """

    name: str
    state: str
    value: str = ""
    why: str = ""
    line: str = ""

    @property
    def is_fault(self) -> bool:
        return self.state in (MISSING, WRONG, UNTRUSTED)

    @property
    def is_good(self) -> bool:
        return self.state == CAME and not self.why


# What each proxy's configuration has for a header that did not come.
SETS: Mapping[str, Mapping[str, str]] = {
    NGINX: {
        ORIGINAL.method: "proxy_set_header X-Original-Method $request_method;",
        ORIGINAL.url: "proxy_set_header X-Original-URL $request_uri;",
        FORWARDED_FOR: "proxy_set_header X-Forwarded-For $remote_addr;",
        AUTHORIZATION: "proxy_set_header Authorization $http_authorization;",
    },
    CADDY: {
        FORWARDED.method: "header_up X-Forwarded-Method {method}",
        FORWARDED.url: "header_up X-Forwarded-Uri {uri}",
    },
    TRAEFIK: {AUTHORIZATION: "authRequestHeaders: [Authorization, X-API-Key, User-Agent]"},
    HAPROXY: {},
    ENVOY: {
        FORWARDED_FOR:
            '{ key: X-Forwarded-For, value: "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%" }',
        AUTHORIZATION: "{ exact: x-api-key, ignore_case: true }",
        ENVOY_PATH: '{ key: X-Latchkey-Path, value: "%REQ(:PATH)%" }',
    },
}  # fmt: skip
NOT_THIS_PROXY = "Is it really that proxy who asks? Compare its configuration with the one above."


def findings(call: ProxyCall, project: Project, trusted: Sequence[Network]) -> list[Finding]:
    """What came with a call, what is missing and what does not count; faults first."""
    if not call.is_trusted:
        return [_stranger(call, trusted)]
    found = [*_line(call), _client(call, trusted), _key(call), *_options(call, project)]
    found += _of_others(call)
    return sorted(found, key=lambda one: (not one.is_fault, one.is_good))


def _stranger(call: ProxyCall, trusted: Sequence[Network]) -> Finding:
    named = ",".join([*map(str, trusted), call.peer])
    return Finding(
        "The caller", UNTRUSTED, call.peer,
        "Latchkey answers only proxies that it trusts, so it has not looked at the rest. "
        "If this is your proxy, add its address, or its network, to the settings, and start "
        "Latchkey again.",
        f"LATCHKEY_TRUSTED_PROXIES={named}",
    )  # fmt: skip


def _line(call: ProxyCall) -> list[Finding]:
    """The client's method and path, by the headers of the family."""
    family = FAMILIES.get(call.route)
    if family is None:
        return _envoys_line(call)
    return [_said(call, family.method), _said(call, family.url)]


def _said(call: ProxyCall, name: str) -> Finding:
    value, fault = call.headers.get(name, ""), call.faults.get(name, "")
    if value and not fault:
        return Finding(name, CAME, value)
    line = SETS[call.route].get(name, "")
    why = f"It {fault}." if fault else "Without it nobody knows what the client asked for."
    return Finding(name, WRONG if value else MISSING, value, why if line else
                   f"{why} {NOT_THIS_PROXY}", line)  # fmt: skip


def _envoys_line(call: ProxyCall) -> list[Finding]:
    found = [Finding("Method and path", CAME, f"{call.method} {call.endpoint}".strip())]
    if "path" in call.faults:
        found = [Finding("Method and path", MISSING, "", f"The path {call.faults['path']}.")]
    if not call.headers.get(ENVOY_PATH):
        found.append(Finding(
            ENVOY_PATH, MISSING, "", "Without it %2F in a path is logged as a slash.",
            SETS[ENVOY][ENVOY_PATH],
        ))  # fmt: skip
    return found


def _client(call: ProxyCall, trusted: Sequence[Network]) -> Finding:
    value = call.headers.get(FORWARDED_FOR, "")
    if not value:
        return Finding(
            FORWARDED_FOR, MISSING, "",
            "So the client's address is taken to be the proxy's own: allowlists and the audit log "
            "see nobody else.",
            SETS[call.route].get(FORWARDED_FOR, ""),
        )  # fmt: skip
    if not call.was_read:
        return Finding(FORWARDED_FOR, CAME, value)
    if call.ip is None:
        return Finding(
            FORWARDED_FOR, WRONG, value,
            "Its last address that is not a trusted proxy's is no IP address, so the client is not "
            "known, and no key with an allowlist is let in.",
        )  # fmt: skip
    if addresses.is_one_of(call.ip, tuple(trusted)):
        return Finding(
            FORWARDED_FOR, CAME, value,
            f"{call.ip} is itself one of LATCHKEY_TRUSTED_PROXIES. That is right only where the "
            "client runs there, as you do when you try it on the same machine.",
        )  # fmt: skip
    return Finding(FORWARDED_FOR, CAME, f"{value} (the client is {call.ip})")


def _key(call: ProxyCall) -> Finding:
    sent = [name for name in (AUTHORIZATION, X_API_KEY) if name in call.headers]
    values = ", ".join(f"{name}: {call.headers[name]}" for name in sent)
    if X_API_KEY in call.faults:
        return Finding("The key", WRONG, values, f"{X_API_KEY} {call.faults[X_API_KEY]}.")
    if not sent and "OPTIONS" in (call.method, call.headers.get(ORIGINAL.method, "")):
        return Finding(
            "The key", MISSING, "",
            "A browser sends no key when it asks for leave (CORS). Where your service answers "
            "that, add this option.",
            "preflight=allow",
        )  # fmt: skip
    if not sent:
        return Finding(
            "The key", MISSING, "",
            "Either the client sent none, or the proxy does not hand it on.",
            SETS[call.route].get(AUTHORIZATION, ""),
        )  # fmt: skip
    return Finding("The key", CAME, values)


def _options(call: ProxyCall, project: Project) -> list[Finding]:
    """What the proxy's own address asks for."""
    family = FAMILIES.get(call.route, ())
    known = {*family, X_API_KEY, "path", "method"}
    found = [
        Finding(name, WRONG, call.headers.get(name, ""), f"{why[:1].upper()}{why[1:]}.")
        for name, why in call.faults.items()
        if name not in known
    ]
    if found:
        return found
    if call.names_project:
        found.append(Finding("project", CAME, project.slug))
    else:
        found.append(Finding(
            "project", MISSING, "", "So keys of every project pass.", f"project={project.slug}"
        ))  # fmt: skip
    if call.names_permission:
        found.append(Finding("permission", CAME, " ".join(call.permissions)))
    elif route_rules.ask_anything(project.route_rules, project.route_default):
        needs = " ".join(call.permissions) or "nothing"
        found.append(Finding("permission", CAME, f"by the project's routes: {needs}"))
    else:
        found.append(Finding(
            "permission", MISSING, "",
            "The address names none and the project has no routes, so any key of it will do.",
            "permission=tasks:read",
        ))  # fmt: skip
    return found


def _of_others(call: ProxyCall) -> list[Finding]:
    """Headers by which other proxies say what was asked for: here they mean nothing."""
    own = FAMILIES.get(call.route, ())
    names = [*ORIGINAL, *FORWARDED]
    if call.route != ENVOY:
        names += [REQUIRED_PERMISSION, ENVOY_OPTIONS, ENVOY_PATH]
    return [
        Finding(name, IGNORED, call.headers[name],
                f"It is not one that the route for {call.route} reads.")
        for name in names
        if name not in own and name in call.headers
    ]  # fmt: skip

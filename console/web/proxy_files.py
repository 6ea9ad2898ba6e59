"""The shipped configurations of proxies, filled in for a project: where Latchkey and the service
are, what a key needs, which header carries it. The files under docs/proxies/ are their one source.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple
from urllib.parse import urlencode, urlsplit

from pydantic import AfterValidator

from config import Config
from console import ROOT
from console.fields import Fields, OneOf
from console.forward_auth import CADDY, ENVOY, HAPROXY, NGINX, TRAEFIK
from console.key_fields import Environment, Permissions
from console.models import Project
from console.wire import AUTHORIZATION, KEY_HEADERS, X_API_KEY

SERVICE, LATCHKEY = "127.0.0.1:9000", "127.0.0.1:8000"
PERMISSION = "tasks:read"
# A host and a port, or an address in brackets; nothing that any of the files could read otherwise.
PLACE = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]{0,252})|\[[0-9A-Fa-f:.]{2,45}\]):([0-9]{1,5})")
PORT_MAX = 65_535
SAFE_IN_OPTIONS = ":*/"


def read_shipped(folder: str, name: str) -> str:
    """A file under docs/; empty where it was not installed, for nothing else depends on it."""
    try:
        return Path(ROOT, "docs", folder, name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


class KeyLines(NamedTuple):
    """The lines by which a proxy keeps one of the two headers, as the key's, from the service."""

    authorization: tuple[str, ...]
    x_api_key: tuple[str, ...]


@dataclass(frozen=True)
class Proxy:
    """A proxy, its file and how it is put to work; `more` files go beside it as they are."""

    title: str
    file: str
    where: str
    key_lines: KeyLines
    load: str  # the command, for sh
    more: tuple[str, ...] = ()
    saved_as: str = ""  # where the file's own name would be taken for another's


PROXIES: Mapping[str, Proxy] = {
    NGINX: Proxy(
        "nginx",
        "nginx.conf",
        "/etc/nginx/conf.d/latchkey.conf",
        KeyLines(
            (
                '        proxy_set_header Authorization     "";\n',
                "        proxy_set_header Authorization     $http_authorization;\n",
            ),
            (
                '        proxy_set_header X-API-Key         "";\n',
                "        proxy_set_header X-API-Key         $http_x_api_key;\n",
            ),
        ),
        "sudo nginx -t && sudo systemctl reload nginx",
    ),
    CADDY: Proxy(
        "Caddy",
        "Caddyfile",
        "/etc/caddy/Caddyfile",
        KeyLines(("\t\t\theader_up -Authorization\n",), ("\t\t\theader_up -X-API-Key\n",)),
        "sudo caddy validate --config /etc/caddy/Caddyfile && sudo systemctl reload caddy",
    ),
    TRAEFIK: Proxy(
        "Traefik",
        "traefik.yaml",
        "/etc/traefik/latchkey.yaml",
        KeyLines(('          Authorization: ""\n',), ('          X-API-Key: ""\n',)),
        "",
        saved_as="latchkey.yaml",
    ),
    HAPROXY: Proxy(
        "HAProxy",
        "haproxy.cfg",
        "/etc/haproxy/haproxy.cfg",
        KeyLines(
            ("    http-request del-header Authorization\n",),
            ("    http-request del-header X-API-Key\n",),
        ),
        "sudo haproxy -c -f /etc/haproxy/haproxy.cfg && sudo systemctl reload haproxy",
        ("latchkey.lua",),
    ),
    ENVOY: Proxy(
        "Envoy",
        "envoy.yaml",
        "envoy.yaml",
        KeyLines(
            ("                        - authorization\n",),
            ("                        - x-api-key\n",),
        ),
        "envoy --mode validate -c envoy.yaml && envoy -c envoy.yaml",
    ),
}
SHIPPED = {
    name: read_shipped("proxies", name)
    for proxy in PROXIES.values()
    for name in (proxy.file, *proxy.more)
}


def _service(text: str) -> str:
    found = PLACE.fullmatch(text.strip())
    if not found or not 0 < int(found[1]) <= PORT_MAX:
        raise ValueError("must be a host and a port, such as 127.0.0.1:9000")
    return text.strip()


class Filling(Fields):
    """What a configuration is filled in with."""

    service: Annotated[str, AfterValidator(_service)] = SERVICE
    permissions: Permissions = []
    header: Annotated[str, OneOf(*KEY_HEADERS)] | None = None
    environment: Environment | None = None
    preflight: bool = False

    def options(self, project: Project) -> str:
        """As they stand in a proxy's address."""
        found: list[tuple[str, str]] = [("project", project.slug)]
        found += [("permission", name) for name in self.permissions]
        if self.environment:
            found.append(("environment", self.environment))
        if self.header:
            found.append(("header", self.header))
        if self.preflight:
            found.append(("preflight", "allow"))
        return urlencode(found, safe=SAFE_IN_OPTIONS)


def filled(name: str, filling: Filling, project: Project, config: Config) -> str:
    """The file of a proxy for this installation, this project and this service."""
    proxy = PROXIES[name]
    text = SHIPPED[proxy.file]
    latchkey = address(config)
    if name == ENVOY:
        in_header = filling.model_copy(update={"permissions": []}).options(project)
        changes = {
            "{ address: 127.0.0.1, port_value: 8000 }": _in_envoy(latchkey),
            "{ address: 127.0.0.1, port_value: 9000 }": _in_envoy(filling.service),
            f'value: "{PERMISSION}"': f'value: "{" ".join(filling.permissions)}"',
            'X-Latchkey-Options, value: ""': f'X-Latchkey-Options, value: "{in_header}"',
        }
    else:
        changes = {
            LATCHKEY: latchkey,
            SERVICE: filling.service,
            f"permission={PERMISSION}": filling.options(project),
        }
    kept = {AUTHORIZATION: proxy.key_lines.x_api_key, X_API_KEY: proxy.key_lines.authorization}
    changes |= dict.fromkeys(kept.get(filling.header or "", ()), "")
    # In one go: what one change puts in may be what another looks for.
    places = re.compile("|".join(map(re.escape, changes)))
    return places.sub(lambda found: changes[found[0]], text)


def _in_envoy(place: str) -> str:
    host, _, port = place.rpartition(":")
    return f'{{ address: "{host.strip("[]")}", port_value: {port} }}'


def load(name: str) -> str:
    """What has a proxy read its file, for sh. Traefik is told more than can stand in there: what it
    starts with stands at the top of the file, as a comment."""
    if name != TRAEFIK:
        return PROXIES[name].load
    flags = re.findall(r"^#     (--.*)$", SHIPPED[PROXIES[name].file], re.MULTILINE)
    return " \\\n  ".join(["traefik", *flags])


def address(config: Config) -> str:
    """Host and port where Latchkey itself answers, rather than what stands in front for browsers:
    it must see the proxy that asks."""
    if not config.is_https:
        parts = urlsplit(config.base_url)
        return parts.netloc if parts.port else f"{parts.netloc}:80"
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(config.host, config.host)
    return f"[{host}]:{config.port}" if ":" in host else f"{host}:{config.port}"


def files(filling: Filling, project: Project, config: Config) -> dict[str, str]:
    """Every file of every proxy, by its name."""
    found: dict[str, Any] = {
        proxy.file: filled(name, filling, project, config) for name, proxy in PROXIES.items()
    }
    return {**SHIPPED, **found}

"""What Integrate has ready to paste for each proxy: the shipped file, filled in for the project.
The real proxies run it, and let in keys of the project alone, by the header that was chosen.
"""

import html
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

import config as settings
from console import forward_auth, projects
from console.actor import Actor
from console.models import Project
from console.web import proxy_files
from console.web.proxy_files import PROXIES, SHIPPED, Filling, filled
from tests import proxies
from tests.conftest import bearer
from tests.proxies import Backend, Site, call, proxying, serving
from tests.server import RunningServer

PAGE = "/projects/shop/integrate"
IN_WAYS = {"HX-Request": "true", "HX-Target": "ways"}
WHERE = {
    "nginx": "server {};", "caddy": "reverse_proxy {} {{", "traefik": '"http://{}',
    "haproxy": " {}    # CHANGE", "envoy": "",
}  # fmt: skip
ENVIRON = {
    "as it starts": ({}, "127.0.0.1:8000"),
    "another port": ({"LATCHKEY_PORT": "9321"}, "127.0.0.1:9321"),
    "an address": ({"LATCHKEY_BASE_URL": "http://keys.internal:8080"}, "keys.internal:8080"),
    "no port": ({"LATCHKEY_BASE_URL": "http://keys.internal"}, "keys.internal:80"),
    # Behind TLS that is not the public address: there Latchkey would not see who asks.
    "https": ({"LATCHKEY_BASE_URL": "https://keys.example.com"}, "127.0.0.1:8000"),
    "https, everywhere": (
        {"LATCHKEY_BASE_URL": "https://k.example", "LATCHKEY_HOST": "0.0.0.0"}, "127.0.0.1:8000",
    ),
    "https, v6": ({"LATCHKEY_BASE_URL": "https://k.example", "LATCHKEY_HOST": "::"}, "[::1]:8000"),
}  # fmt: skip


def file_of(name: str, environ: dict[str, str] | None = None, **filling: Any) -> str:
    return filled(name, Filling(**filling), Project(slug="shop"), settings.load(environ or {}))


@pytest.mark.parametrize("environ, address", ENVIRON.values(), ids=ENVIRON.keys())
@pytest.mark.parametrize("name", PROXIES)
def test_a_proxy_is_told_where_latchkey_itself_answers(
    name: str, environ: dict[str, str], address: str
) -> None:
    text = file_of(name, environ, service="10.0.0.9:3000")
    for place in (address, "10.0.0.9:3000"):
        if name == "envoy":
            host, _, port = place.rpartition(":")
            assert f'address: {{ address: "{host.strip("[]")}", port_value: {port} }}' in text
        else:
            assert WHERE[name].format(place) in text
    assert "127.0.0.1:9000" not in text
    assert "project=shop" in text


@pytest.mark.parametrize("name", PROXIES)
def test_what_is_filled_in_occurs_once_in_the_shipped_file(name: str) -> None:
    text = SHIPPED[PROXIES[name].file]
    lines = [*PROXIES[name].key_lines.authorization, *PROXIES[name].key_lines.x_api_key]
    places = (
        ["address: 127.0.0.1, port_value: 8000", "address: 127.0.0.1, port_value: 9000",
         'value: "tasks:read"', 'X-Latchkey-Options, value: ""']
        if name == "envoy"
        else ["127.0.0.1:8000", "127.0.0.1:9000", "permission=tasks:read"]
    )  # fmt: skip
    for part in (*lines, *places):
        assert text.count(part) == 1, part


@pytest.mark.parametrize("name", PROXIES)
def test_only_what_was_said_is_changed(name: str) -> None:
    shipped = SHIPPED[PROXIES[name].file].splitlines()
    text = file_of(name, service="10.0.0.9:3000", permissions=["a:b"]).splitlines()
    assert len(text) == len(shipped)
    changed = [new for old, new in zip(shipped, text, strict=True) if old != new]
    assert 2 <= len(changed) <= 4
    without = file_of(name, header="x-api-key").splitlines()
    missing = len(shipped) - len(without)
    assert missing == len(PROXIES[name].key_lines.authorization)


@pytest.mark.parametrize("name", PROXIES)
def test_addresses_that_cross_are_not_exchanged(name: str) -> None:
    """Latchkey where the shipped file has the service, and the reverse."""
    environ = {"LATCHKEY_PORT": "9000"}
    crossed = file_of(name, environ, service="127.0.0.1:8000")
    kept = file_of(name, environ, service="10.0.0.9:8000")
    assert crossed.count("9000") == kept.count("9000") == 1
    lines = dict(zip(kept.splitlines(), crossed.splitlines(), strict=True))
    changed = [(old, new) for old, new in lines.items() if old != new]
    assert len(changed) == 1 and "10.0.0.9" in changed[0][0] and "127.0.0.1" in changed[0][1]


def test_the_options_are_those_that_a_proxys_address_may_have() -> None:
    filling = Filling(
        permissions=["a:b", "c/d:*"], header="x-api-key", environment="test", preflight=True
    )
    text = filling.options(Project(slug="shop"))
    assert text == (
        "project=shop&permission=a:b&permission=c/d:*&environment=test&header=x-api-key"
        "&preflight=allow"
    )
    assert forward_auth.parse_options(text) == forward_auth.Options(
        ("a:b", "c/d:*"), "shop", "test", True, "x-api-key"
    )


# --- the form ---------------------------------------------------------------------------------


def shown(answer: Any, name: str) -> str:
    """The file as the page shows it."""
    file = PROXIES[name].file.replace(".", "-")
    found = re.search(rf'<pre id="file-{file}"[^>]*>(.*?)</pre>', answer.text, re.DOTALL)
    assert found
    return html.unescape(found[1])


@pytest.mark.parametrize("headers", [{}, IN_WAYS], ids=["page", "fragment"])
@pytest.mark.parametrize("name", PROXIES)
def test_what_is_typed_is_in_the_file_and_in_the_download(
    name: str, headers: dict[str, str], signed_in: FlaskClient
) -> None:
    typed = {"service": "tasks.internal:3000", "permissions": "tasks:read, tasks:write",
             "header": "x-api-key", "environment": "live", "preflight": "allow"}  # fmt: skip
    answer = signed_in.get(PAGE, query_string={"way": name, **typed}, headers=headers)
    text = shown(answer, name)
    expected = filled(
        name,
        Filling(service="tasks.internal:3000", permissions=["tasks:read", "tasks:write"],
                header="x-api-key", environment="live", preflight=True),
        Project(slug="shop"),
        settings.load({}),
    )  # fmt: skip
    assert text.strip() == expected.strip()
    [address] = re.findall(rf'href="([^"]+/files/{PROXIES[name].file}[^"]*)" download', answer.text)
    assert signed_in.get(html.unescape(address)).text == expected
    assert 'value="tasks.internal:3000"' in answer.text
    assert "X-API-Key: $KEY" in html.unescape(answer.text)


def test_permissions_are_left_to_the_routes_where_there_are_any(
    signed_in: FlaskClient, operator: Actor
) -> None:
    assert "project=shop&permission=tasks:read" in shown(signed_in.get(PAGE), "nginx")
    assert "?project=shop;" in shown(signed_in.get(f"{PAGE}?permissions="), "nginx")
    projects.edit("shop", {"route_rules": [{"path": "/**"}]}, by=operator)
    assert "?project=shop;" in shown(signed_in.get(PAGE), "nginx")


BAD = [
    ("service", "localhost"), ("service", "127.0.0.1:0"), ("service", "127.0.0.1:65536"),
    ("service", "http://127.0.0.1:9000"), ("service", "a:1; } evil {"), ("service", "$host:80"),
    ("service", 'a":1'), ("service", "a:1\nb"), ("service", "{env.X}:80"), ("service", "[::1]"),
    ("permissions", "tasks"), ("permissions", 'a:b";'), ("permissions", "a:{b}"),
    ("header", "cookie"), ("environment", "prod"),
]  # fmt: skip


@pytest.mark.parametrize(("field", "text"), BAD)
def test_what_could_break_a_configuration_is_refused_beside_its_field(
    field: str, text: str, signed_in: FlaskClient
) -> None:
    """And nothing is handed out that lacks it."""
    for name in PROXIES:
        typed = {"way": name, field: text}
        answer = signed_in.get(PAGE, query_string=typed)
        assert answer.status_code == 200
        [why] = re.findall(rf'<p class="error" id="fill-{field}-error">([^<]+)</p>', answer.text)
        assert why
        assert answer.text.count('aria-invalid="true"') == 1
        assert "Nothing is filled in: a field above is at fault." in answer.text
        assert f'id="file-{PROXIES[name].file.replace(".", "-")}"' not in answer.text
        file = f"{PAGE}/files/{PROXIES[name].file}"
        assert signed_in.get(file, query_string=typed).status_code == 400
        if field in ("service", "permissions"):
            assert html.escape(text).replace("&#x27;", "&#39;").replace("&quot;", "&#34;") in (
                answer.text
            )


def test_who_types_goes_on_in_the_field(signed_in: FlaskClient) -> None:
    """Only what is filled in is exchanged, and the words beside the fields."""
    headers = {"HX-Request": "true", "HX-Target": "filled"}
    answer = signed_in.get(f"{PAGE}?way=caddy&service=x", headers=headers).text
    assert "<input" not in answer and "<form" not in answer
    assert answer.lstrip().startswith('<div id="filled">') or '<div id="filled">' in answer
    assert re.findall(r'id="fill-(\w+)-error" hx-swap-oob="true">([^<]*)<', answer) == [
        ("service", "Must be a host and a port, such as 127.0.0.1:9000."),
        ("permissions", ""), ("header", ""), ("environment", ""),
    ]  # fmt: skip
    again = signed_in.get(f"{PAGE}?way=caddy&service=x:1", headers=headers).text
    assert "reverse_proxy x:1" in again


def test_traefiks_file_is_saved_under_a_name_that_it_does_not_take_for_its_own(
    signed_in: FlaskClient,
) -> None:
    """traefik.yaml where Traefik starts would be its static configuration."""
    answer = signed_in.get(f"{PAGE}/files/traefik.yaml")
    assert answer.headers["Content-Disposition"] == 'attachment; filename="latchkey.yaml"'
    page = html.unescape(signed_in.get(f"{PAGE}?way=traefik").text)
    assert "--providers.file.filename=/etc/traefik/latchkey.yaml" in page


@pytest.mark.parametrize(
    "place",
    ["127.0.0.1:9000", "tasks:80", "t.a-b_c.internal:65535", "[::1]:1", "[2001:db8::1]:443"],
)
def test_a_host_and_a_port_are_a_service(place: str) -> None:
    assert Filling.read({"service": f" {place} "}).service == place


# --- in real proxies --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    data = tmp_path_factory.mktemp("filled") / "data"
    with RunningServer(data) as latchkey, serving(Backend()) as backend:
        yield Site(latchkey, backend, 0, Path())


@pytest.fixture(scope="module")
def wrong(site: Site) -> dict[str, str]:
    """Secrets of good keys that this proxy is not for, by the code of their refusal."""
    site.latchkey.run("create-project", "--slug", "other").check_returncode()
    wanted = {
        "PROJECT_MISMATCH": {"project": "other"},
        "ENVIRONMENT_MISMATCH": {"project": "shop", "environment": "test"},
    }
    return {code: site.make_key(**settings)["key"] for code, settings in wanted.items()}


@pytest.mark.service
@pytest.mark.outside
@pytest.mark.parametrize("name", PROXIES)
def test_a_real_proxy_runs_what_is_to_be_pasted(
    name: str, site: Site, wrong: dict[str, str], tmp_path: Path
) -> None:
    """For a service that has Authorization for itself, and that browsers call, with live keys."""
    environ = {"LATCHKEY_PORT": str(site.latchkey.port)}
    text = file_of(
        name, environ, service=f"127.0.0.1:{site.backend.server_port}", permissions=["tasks:read"],
        header="x-api-key", environment="live", preflight=True,
    )  # fmt: skip
    with proxying(
        tmp_path / name, latchkey=0, backend=0, proxy=proxies.PROXIES[name], text=text
    ) as port:
        site.backend.calls.clear()
        own = {"X-API-Key": site.secret, "Authorization": "Bearer the.services.own"}
        assert call(port, headers=own).status == 200
        [seen] = site.backend.calls
        assert seen.headers["Authorization"] == "Bearer the.services.own"
        assert "X-API-Key" not in seen.headers
        assert seen.headers["X-Key-Project"] == "shop"
        preflight = {"Origin": "https://app.example", "Access-Control-Request-Method": "PUT"}
        assert call(port, method="OPTIONS", headers=preflight).status == 200
        assert site.backend.calls[1].headers["X-Key-Id"] == "-"
        refused = {code: {"X-API-Key": secret} for code, secret in wrong.items()}
        for code, headers in {**refused, "API_KEY_MISSING": bearer(site.secret)}.items():
            assert call(port, headers=headers).problem["code"] == code
        assert len(site.backend.calls) == 2


@pytest.mark.service
@pytest.mark.outside
@pytest.mark.parametrize("name", PROXIES)
def test_a_real_proxy_asks_the_routes_where_no_permission_is_named(
    name: str, site: Site, tmp_path: Path
) -> None:
    rules = [{"methods": ["GET"], "path": "/tasks/**", "permissions": ["tasks:read"]},
             {"path": "/admin/**", "permissions": ["admin:all"]}]  # fmt: skip
    site.api("PATCH", "/projects/shop", {"route_rules": rules, "route_default": "deny"})
    environ = {"LATCHKEY_PORT": str(site.latchkey.port)}
    text = file_of(name, environ, service=f"127.0.0.1:{site.backend.server_port}")
    with proxying(
        tmp_path / name, latchkey=0, backend=0, proxy=proxies.PROXIES[name], text=text
    ) as port:
        site.backend.calls.clear()

        def answered(path: str, method: str = "GET") -> int:
            return call(port, path, method, headers=bearer(site.secret)).status

        assert answered("/tasks/1?x=/admin") == 200
        assert answered("/tasks/1", "HEAD") == 200
        assert len(site.backend.calls) == 2
        for path, method in (
            ("/tasks/1", "DELETE"), ("/admin", "GET"), ("//admin", "GET"), ("/%61dmin", "GET"),
            ("/tasks/%2e%2e/admin", "GET"), ("/tasks/..%2Fadmin", "GET"), ("/ADMIN/x", "GET"),
            ("/elsewhere", "GET"), ("/tasks/../admin", "GET"), ("/tasks/..;/admin", "GET"),
            ("/tasks/..;/../admin", "GET"), ("/tasks/x%5Cy/../../admin", "GET"),
            ("/tasks/%252e%252e/../../admin", "GET"), ("/tasks//../admin", "GET"),
            ("/tasks/%00", "GET"), ("/tasks/..\\..\\admin", "GET"), ("//x/admin", "GET"),
        ):  # fmt: skip
            site.backend.calls.clear()
            if answered(path, method) == 200:
                # The proxy has resolved it first, so it is this path that was asked about.
                assert [seen.path for seen in site.backend.calls] == ["/tasks/admin"], path
            else:
                assert site.backend.calls == [], path
        site.backend.calls.clear()
        # What the client says of the host is no part of the path, and a path has no end before it.
        for line, host in (
            ("/admin", "a?"), ("/admin", "a#"), ("/admin", "tasks/1?"), ("/admin", "a?/tasks/1"),
            ("/admin", "x@y?"), ("/tasks/1#/../../admin", "h"), ("/tasks#/../admin", "h"),
            ("http://h?/tasks/1", "h"), ("http://a/admin", "h"), ("http://a?/admin", "h?"),
        ):  # fmt: skip
            said = raw(port, f"GET {line} HTTP/1.1\r\nHost: {host}\r\nX-API-Key: {site.secret}")
            assert int(said) in (400, 403, 404), (line, host)
        assert site.backend.calls == []


def raw(port: int, head: str) -> str:
    """The status of the answer to a request that no client library would send."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(f"{head}\r\nConnection: close\r\n\r\n".encode("latin-1"))
        return connection.makefile("rb").readline().split()[1].decode()


def test_without_the_documents_nothing_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SHIPPED:
        monkeypatch.setitem(proxy_files.SHIPPED, name, "")
    assert file_of("envoy") == ""

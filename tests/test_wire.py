"""What every door reads and writes: hostile JSON is refused by one sentence and never crashes, a
credential comes from two headers alone, and refusals and limits have the promised form."""

import io
import json
from typing import Any

import pytest

from console import wire
from console.check import (
    IP_NOT_ALLOWED,
    MISSING,
    PERMISSION_DENIED,
    QUOTA_EXCEEDED,
    RATE_LIMITED,
    REVOKED_KEY,
    UNAVAILABLE,
    VALID,
    Verdict,
)
from console.errors import Invalid, MethodNotAllowed, Refused, TooLarge, UnsupportedType
from console.limits import HOUR, MINUTE, MONTH, Allowance, Window

# --- JSON in --------------------------------------------------------------------------------

REFUSED_JSON = {
    "nothing": (b"", "is not JSON"),
    "cut off": (b'{"name": ', "is not JSON"),
    "two values": (b"{} {}", "is not JSON"),
    "single quotes": (b"{'name': 1}", "is not JSON"),
    "a trailing comma": (b"[1,]", "is not JSON"),
    "a comment": (b"/* */ {}", "is not JSON"),
    "NaN": (b'{"cost": NaN}', "NaN"),
    "Infinity": (b"[Infinity]", "Infinity"),
    "minus Infinity": (b"-Infinity", "Infinity"),
    "a float beyond every float": (b"1e400", "out of range"),
    "2**63": (b"9223372036854775808", "out of range"),
    "-2**63-1": (b"-9223372036854775809", "out of range"),
    "an integer of 100,000 digits": (b"1" * 100_000, "out of range"),
    "a name twice": (b'{"key": "a", "key": "b"}', "'key' occurs twice"),
    "a name twice, by escapes": (b'{"key": 1, "\\u006bey": 2}', "'key' occurs twice"),
    "a name twice, deep inside": (b'{"a": [{"b": 1, "b": 1}]}', "'b' occurs twice"),
    "65 levels": (b"[" * 66 + b"]" * 66, "nested too deeply"),
    "65 levels of objects": (b'{"a":' * 66 + b"1" + b"}" * 66, "nested too deeply"),
    "100,000 levels": (b"[" * 100_000 + b"]" * 100_000, "nested too deeply"),
    "100,000 levels, not closed": (b'{"a":' * 100_000, "nested too deeply"),
    "half a surrogate pair": (b'{"name": "\\ud800"}', "surrogate"),
    "the other half": (b'["\\udc00"]', "surrogate"),
    "halves the wrong way round": (b'["\\udc00\\ud800"]', "surrogate"),
    "half a surrogate pair in a name": (b'{"\\ud83d": 1}', "surrogate"),
    "NUL": (b'{"name": "a\\u0000b"}', "NUL"),
    "NUL in a name": (b'{"a": {"\\u0000": 1}}', "NUL"),
    "a raw control character": (b'["a\x00b"]', "is not JSON"),
    "not UTF-8": (b'"\xff"', "is not UTF-8"),
    "Latin-1": ('"é"'.encode("latin-1"), "is not UTF-8"),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), "is not UTF-8"),
    "a surrogate in UTF-8": (b'"\xed\xa0\x80"', "is not UTF-8"),
    "a byte order mark": (b"\xef\xbb\xbf{}", "is not JSON"),
}


@pytest.mark.parametrize(("body", "why"), REFUSED_JSON.values(), ids=REFUSED_JSON)
def test_json_that_cannot_be_kept_is_refused_with_the_reason(body: bytes, why: str) -> None:
    with pytest.raises(Invalid) as caught:
        wire.parse_json(body)
    assert why in caught.value.fields["body"]
    assert len(caught.value.message) < 200


ACCEPTED_JSON = {
    "the greatest integer": (b"9223372036854775807", 2**63 - 1),
    "the least integer": (b"-9223372036854775808", -(2**63)),
    "64 levels": (b"[" * 65 + b"]" * 65, json.loads("[" * 65 + "]" * 65)),
    "a whole surrogate pair": (b'"\\ud83d\\udd11"', "\U0001f511"),
    "a backslash before u0000": (b'"\\\\u0000"', "\\u0000"),
    "raw UTF-8": ('{"näme": "☃"}'.encode(), {"näme": "☃"}),
    "one name in two objects": (b'[{"a": 1}, {"a": 1}]', [{"a": 1}, {"a": 1}]),
    "null": (b"null", None),
}


@pytest.mark.parametrize(("body", "value"), ACCEPTED_JSON.values(), ids=ACCEPTED_JSON)
def test_json_is_read_to_the_letter(body: bytes, value: Any) -> None:
    assert wire.parse_json(body) == value


def test_many_names_are_read_in_one_pass() -> None:
    """To count each name among all would take minutes, and who is not signed in may send them."""
    names = [f'"{number}":0' for number in range(100_000)]
    body = "{" + ",".join([*names, names[-1]]) + "}"
    with pytest.raises(Invalid, match="'99999' occurs twice"):
        wire.parse_json(body.encode())


def environ(body: bytes = b"", **headers: str) -> dict[str, Any]:
    sent = {"CONTENT_LENGTH": str(len(body)), "CONTENT_TYPE": "application/json", **headers}
    return {"wsgi.input": io.BytesIO(body), **sent}


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "Application/JSON",
        "application/json;charset=utf-8",
        'application/json; charset="UTF-8"',
        "application/json;",
        "application/json; profile=x; charset=utf-8",
    ],
)
def test_json_in_utf_8_is_read(content_type: str) -> None:
    assert wire.read_json_body(environ(b"[1]", CONTENT_TYPE=content_type)) == [1]


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "text/plain",
        "text/json",
        "application/x-www-form-urlencoded",
        "application/jsonp",
        "application/json; charset=latin-1",
        "application/json; charset=utf-16",
        "application/json; profile=x; charset=utf-16",
        "application/json; charset=utf-8; charset=utf-16",
    ],
)
def test_any_other_type_is_refused(content_type: str) -> None:
    with pytest.raises(UnsupportedType):
        wire.read_json_body(environ(b"[1]", CONTENT_TYPE=content_type))


@pytest.mark.parametrize("body", [b"", b" \r\n"])
def test_no_body_is_an_empty_object_of_any_type(body: bytes) -> None:
    assert wire.read_json_body(environ(body, CONTENT_TYPE="text/plain")) == {}


def test_a_body_that_is_not_announced_is_not_waited_for() -> None:
    assert wire.read_json_body(environ(b"[1]", CONTENT_LENGTH="")) == {}


def test_a_chunked_body_is_read_to_its_end() -> None:
    chunked = {**environ(b"[1]", CONTENT_LENGTH=""), "wsgi.input_terminated": True}
    assert wire.read_json_body(chunked) == [1]


def test_a_body_may_have_a_mebibyte_and_no_more() -> None:
    fits = b'"' + b"x" * (wire.BODY_MAX_BYTES - 2) + b'"'
    assert len(wire.read_json_body(environ(fits))) == wire.BODY_MAX_BYTES - 2
    with pytest.raises(TooLarge):
        wire.read_json_body(environ(fits + b" "))
    with pytest.raises(TooLarge):
        chunked = {**environ(fits + b" ", CONTENT_LENGTH=""), "wsgi.input_terminated": True}
        wire.read_json_body(chunked)


def test_an_announced_length_beyond_it_is_refused_before_a_byte_is_read() -> None:
    for announced in (str(wire.BODY_MAX_BYTES + 1), "9" * 5_000):
        asked = environ(b"{}", CONTENT_LENGTH=announced)
        with pytest.raises(TooLarge):
            wire.read_json_body(asked)
        assert asked["wsgi.input"].tell() == 0


@pytest.mark.parametrize("announced", ["-1", "two", "²", "1.5", "0x10", " 2"])
def test_a_length_that_is_no_number_is_refused(announced: str) -> None:
    with pytest.raises(Invalid, match="Content-Length"):
        wire.read_json_body(environ(b"{}", CONTENT_LENGTH=announced))


# --- the credential -------------------------------------------------------------------------

PRESENTED = {
    "nothing": ({}, None),
    "Bearer": ({"HTTP_AUTHORIZATION": "Bearer abc"}, "abc"),
    "bearer in any case": ({"HTTP_AUTHORIZATION": "bEARER abc"}, "abc"),
    "Bearer with more spaces": ({"HTTP_AUTHORIZATION": "Bearer   abc  "}, "abc"),
    "Bearer and nothing": ({"HTTP_AUTHORIZATION": "Bearer"}, None),
    "Bearer and a space": ({"HTTP_AUTHORIZATION": "Bearer "}, None),
    "a scheme that begins alike": ({"HTTP_AUTHORIZATION": "Bearerabc"}, None),
    "Basic": ({"HTTP_AUTHORIZATION": "Basic abc"}, None),
    "X-API-Key": ({"HTTP_X_API_KEY": " abc "}, "abc"),
    "X-API-Key empty": ({"HTTP_X_API_KEY": ""}, None),
    "both, the same": ({"HTTP_AUTHORIZATION": "Bearer abc", "HTTP_X_API_KEY": "abc"}, "abc"),
    "X-API-Key beside Basic": (
        {"HTTP_AUTHORIZATION": "Basic abc", "HTTP_X_API_KEY": "key"},
        "key",
    ),
    "X-API-Key beside an empty Bearer": (
        {"HTTP_AUTHORIZATION": "Bearer ", "HTTP_X_API_KEY": "key"},
        "key",
    ),
    "the query string": ({"QUERY_STRING": "key=abc&api_key=abc&access_token=abc"}, None),
    "a cookie": ({"HTTP_COOKIE": "key=abc"}, None),
}


@pytest.mark.parametrize(("sent", "found"), PRESENTED.values(), ids=PRESENTED)
def test_a_credential_comes_from_two_headers_alone(sent: dict[str, str], found: str | None) -> None:
    assert wire.presented(sent) == found


def test_two_different_credentials_are_refused_without_repeating_them() -> None:
    with pytest.raises(Invalid) as caught:
        wire.presented({"HTTP_AUTHORIZATION": "Bearer one-1", "HTTP_X_API_KEY": "two-2"})
    assert list(caught.value.fields) == ["X-API-Key"]
    assert "one-1" not in str(vars(caught.value))
    assert "two-2" not in str(vars(caught.value))


# --- refusals -------------------------------------------------------------------------------


def problem(refused: Refused) -> tuple[int, dict[str, str], dict[str, Any]]:
    status, headers, body = wire.problem(refused, "req_1")
    assert len(dict(headers)) == len(headers)
    return status, dict(headers), json.loads(body)


def test_a_problem_has_the_members_of_rfc_9457() -> None:
    status, headers, content = problem(Invalid({"name": "is required"}))
    assert status == 400
    assert headers == {
        "Content-Type": "application/problem+json",
        "Cache-Control": "no-store",
        "X-Request-Id": "req_1",
    }
    assert content == {
        "type": "about:blank",
        "title": "Bad Request",
        "status": 400,
        "code": "INVALID",
        "detail": "name: is required",
        "request_id": "req_1",
        "errors": [{"field": "name", "message": "is required"}],
    }


def test_a_problem_is_one_line_of_ascii_whatever_it_says() -> None:
    _, _, body = wire.problem(Invalid({"né\r\nX-Evil: 1\x00": "☃\u2028\x7f"}), "req_1")
    text = body.decode("ascii")
    assert "\r" not in text
    assert "\n" not in text
    assert "\x00" not in text
    assert json.loads(text)["errors"] == [
        {"field": "né\r\nX-Evil: 1\x00", "message": "☃\u2028\x7f"}
    ]


def test_a_problem_tells_the_methods_that_are_allowed_and_when_to_come_back() -> None:
    _, headers, _ = problem(MethodNotAllowed("Use POST.", allow=("GET", "POST")))
    assert headers["Allow"] == "GET, POST"
    _, headers, _ = problem(Refused("later", retry_after_seconds=0))
    assert headers["Retry-After"] == "0"


CHALLENGES = {  # of RFC 6750 §3
    MISSING: 'Bearer realm="latchkey"',
    REVOKED_KEY: 'Bearer realm="latchkey", error="invalid_token", '
    'error_description="API_KEY_REVOKED"',
    PERMISSION_DENIED: 'Bearer realm="latchkey", error="insufficient_scope", '
    'scope="tasks:read tasks:write"',
    IP_NOT_ALLOWED: None,
    RATE_LIMITED: None,
    UNAVAILABLE: None,
}


@pytest.mark.parametrize(("code", "challenge"), CHALLENGES.items())
def test_a_refused_key_is_challenged(code: str, challenge: str | None) -> None:
    missing = ("tasks:read", "tasks:write") if code == PERMISSION_DENIED else ()
    verdict = Verdict(code=code, request_id="req_1", at=0, missing_permissions=missing)
    _, headers, content = problem(wire.Denied(verdict))
    assert headers.get("WWW-Authenticate") == challenge
    assert content["code"] == code
    assert content.get("missing_permissions") == (list(missing) or None)


def test_a_refusal_for_want_of_a_database_says_when_to_try_again() -> None:
    status, headers, _ = problem(wire.Denied(Verdict(code=UNAVAILABLE, request_id="req_1", at=0)))
    assert (status, headers["Retry-After"]) == (503, "1")


# --- limits ---------------------------------------------------------------------------------

MINUTE_WINDOW = Window(MINUTE, limit=100, remaining=99, reset_at=1_795_171_260_000)
HOUR_WINDOW = Window(HOUR, limit=1000, remaining=7, reset_at=1_795_174_800_000)
MONTH_WINDOW = Window(MONTH, limit=5, remaining=0, reset_at=1_796_083_200_000)
AT = 1_795_171_200_001


def rate(*windows: Window, refused: Window | None = None) -> dict[str, str]:
    return dict(wire.rate_headers(Allowance(windows, refused), AT))


def test_the_headers_of_a_limit_speak_of_the_hour() -> None:
    assert rate(MINUTE_WINDOW, HOUR_WINDOW) == {
        "X-RateLimit-Limit": "1000",
        "X-RateLimit-Remaining": "7",
        "X-RateLimit-Reset": "1795174800",
        "RateLimit-Policy": '"minute";q=100;w=60, "hour";q=1000;w=3600',
        "RateLimit": '"minute";r=99;t=60, "hour";r=7;t=3600',
    }


def test_the_headers_of_a_refusal_speak_of_the_window_that_refused() -> None:
    told = rate(MINUTE_WINDOW, HOUR_WINDOW, refused=MINUTE_WINDOW)
    assert (told["X-RateLimit-Limit"], told["X-RateLimit-Reset"]) == ("100", "1795171260")


def test_a_limit_per_minute_alone_is_told_of() -> None:
    assert rate(MINUTE_WINDOW)["RateLimit-Policy"] == '"minute";q=100;w=60'
    assert rate(MINUTE_WINDOW)["X-RateLimit-Limit"] == "100"


def test_the_monthly_quota_is_no_rate() -> None:
    assert rate(MONTH_WINDOW, refused=MONTH_WINDOW) == {}
    told = rate(HOUR_WINDOW, MONTH_WINDOW, refused=MONTH_WINDOW)
    assert told["X-RateLimit-Limit"] == "1000"
    assert "month" not in told["RateLimit"] + told["RateLimit-Policy"]


def test_a_key_without_limits_has_no_such_headers() -> None:
    assert rate() == {}


@pytest.mark.parametrize(
    ("code", "window"), [(RATE_LIMITED, MINUTE_WINDOW), (QUOTA_EXCEEDED, MONTH_WINDOW)]
)
def test_a_spent_limit_says_when_to_come_back_and_what_is_left(code: str, window: Window) -> None:
    allowance = Allowance((HOUR_WINDOW, window), refused=window)
    verdict = Verdict(code=code, request_id="req_1", at=AT, allowance=allowance)
    status, headers, _ = problem(wire.Denied(verdict))
    seconds = -(-(window.reset_at - AT) // 1000)
    assert (status, headers["Retry-After"]) == (429, str(seconds))
    assert headers["RateLimit"].startswith('"hour";r=7;t=3600')


def test_a_verdict_without_a_key_has_no_identity() -> None:
    assert wire.identity_headers(Verdict(code=VALID, request_id="req_1", at=0)) == []

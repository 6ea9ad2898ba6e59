"""The log: set up once, on stderr, as text or as JSON. Whatever a message holds, nobody forges a
line with it, and no secret is in it. What is worth a line, each module knows by itself."""

import json
import logging
import re
import sys
import threading
import traceback
from contextvars import ContextVar
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

from console.secret import masked

TEXT, JSON = "text", "json"
OURS = "console"
# One-time links, a calendar's address, access tokens: what our own addresses and headers carry.
TOKENS = re.compile(r"(\btoken=|calendar/|\beyJ)[^\s&\"'/?#]+")

# The id of the request that this thread answers. Checks name theirs where they log, by `of`: to set
# it would cost each of them more than the log costs all.
request_id: ContextVar[str] = ContextVar("request_id", default="")


_handler: logging.Handler = logging.NullHandler()


def set_up(form: str = TEXT, level: str = "warning") -> None:
    """Has what is logged go to stderr, from now on in this form and from this level on.

    Only our own modules log below warnings: others tell of addresses and queries there.
    """
    global _handler
    root, number = logging.getLogger(), logging.getLevelNamesMapping()[level.upper()]
    root.removeHandler(_handler)
    _handler = logging.StreamHandler(sys.stderr)
    _handler.setFormatter(_Json() if form == JSON else _Text())
    root.addHandler(_handler)
    root.setLevel(max(number, logging.WARNING))
    logging.getLogger(OURS).setLevel(number)


def hear_everything() -> None:
    """Logs, too, what Python would print as it likes: warnings, and what ends a thread."""
    logging.captureWarnings(True)
    sys.excepthook = _log_end
    threading.excepthook = _log_end_of_thread


def of(request: str, **facts: Any) -> dict[str, Any]:
    """What to give a logger as `extra`: the request's id where another thread than its own knows
    it, and facts that are members of their own in JSON."""
    return {"request_id": request, "facts": facts}


def kept(text: str) -> str:
    """The text without any secret of ours."""
    return TOKENS.sub(r"\1…", masked(text))


class _Text(logging.Formatter):
    """`<instant> <LEVEL> <logger> [<request>] <message>`, and below it the traceback, indented."""

    def format(self, record: logging.LogRecord) -> str:
        request = _request_of(record)
        words = [_at(record), record.levelname, record.name, f"[{request}]" if request else ""]
        line = " ".join((*filter(None, words), _visible(kept(record.getMessage()))))
        if not record.exc_info:
            return line
        below = kept(self.formatException(record.exc_info)).split("\n")
        return "\n".join((line, *(f"    {_visible(one)}" for one in below)))


class _Json(logging.Formatter):
    """An object on a line, its first four members always the same, in one order."""

    def format(self, record: logging.LogRecord) -> str:
        content = {
            "at": _at(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": kept(record.getMessage()),
            **getattr(record, "facts", {}),
        }
        request = _request_of(record)
        if request:
            content["request_id"] = request
        if record.exc_info and record.exc_info[1]:
            error = record.exc_info[1]
            content["exception"] = {
                "type": type(error).__name__,
                "message": kept(str(error)),
                "traceback": kept("".join(traceback.format_exception(error))),
            }
        return json.dumps(content, default=str).replace("\x7f", "\\u007f")


def _request_of(record: logging.LogRecord) -> str:
    return getattr(record, "request_id", "") or request_id.get()


def _at(record: logging.LogRecord) -> str:
    at = datetime.fromtimestamp(record.created, UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}Z"


def _visible(text: str) -> str:
    """The text on one line, in which nothing moves the cursor or turns the reading direction."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _log_end(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    logging.getLogger(OURS).critical("ended unexpectedly", exc_info=error)


def _log_end_of_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None:
        name = args.thread.name if args.thread else "?"
        logging.getLogger(OURS).critical("thread %s ended", name, exc_info=args.exc_value)

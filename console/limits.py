"""Rate limits and the monthly quota: plans, windows anchored to the clock, what is left.

Counted by a store that takes from all windows of a key or from none, in this process or in Redis,
which several processes share. The entries say what they spent, so that the database knows it, too:
from there both go on when they are started anew. Knows nothing of
why a check was made.
"""

import logging
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Protocol

from console import clock
from console.models import LIVE, Key, LimitCount

log = logging.getLogger(__name__)

UNLIMITED, FREE, PROFESSIONAL, ENTERPRISE = "unlimited", "free", "professional", "enterprise"
Figures = tuple[int | None, int | None]  # per minute, per hour
PLANS: Mapping[str, Figures] = {  # those that every project has, see plans.py for others
    UNLIMITED: (None, None),
    FREE: (100, 1_000),
    PROFESSIONAL: (500, 10_000),
    ENTERPRISE: (None, None),  # the key's own figures
}
PLAN_NAME = re.compile(r"[a-z][a-z0-9-]{0,29}")
MINUTE, HOUR, MONTH = "minute", "hour", "month"
WINDOW_SECONDS = {MINUTE: 60, HOUR: 3600}
REMEMBERED_MAX = 20_000
PAST_WINDOWS = 2
REDIS_SECONDS = 1.0  # for an answer, at most
SETTLE_SECONDS = 3.0  # by then what was let in before is in the database
RUN_ID = re.compile(rb"run_id:(\w+)")
REDIS_SLACK = clock.MINUTE  # by which a count outlives its window, and clocks may differ

Limits = tuple[tuple[str, int], ...]  # name and figure, shortest window first


class CountsUnavailable(Exception):
    """The store of the counts does not answer."""


@dataclass(frozen=True, slots=True)
class Window:
    """One limit as it stands: what is left of it, and when it starts anew (milliseconds)."""

    name: str
    limit: int
    remaining: int
    reset_at: int


@dataclass(frozen=True, slots=True)
class Allowance:
    """Every limit of a key after a check, and the one that refused it, if one did."""

    windows: tuple[Window, ...] = ()
    refused: Window | None = None

    @property
    def shown(self) -> Window | None:
        """The rate limit that headers speak of: the one that refused, else the longest."""
        if self.refused is not None and self.refused.name != MONTH:
            return self.refused
        rates = [window for window in self.windows if window.name != MONTH]
        return rates[-1] if rates else None


NONE = Allowance()


class Limited(Protocol):
    """What of a key says how it is limited."""

    plan: str
    environment: str
    limit_per_minute: int | None
    limit_per_hour: int | None
    monthly_quota: int | None

    @property
    def project_plans(self) -> Sequence[Mapping[str, Any]]:
        """The own plans of its project: `name`, `per_minute`, `per_hour`."""


def figures(key: Limited) -> Figures:
    """The key's limits per minute and per hour; None where there is none."""
    if key.plan == ENTERPRISE:
        return key.limit_per_minute, key.limit_per_hour
    if key.plan in PLANS:
        return PLANS[key.plan]
    return next(
        (one["per_minute"], one["per_hour"]) for one in key.project_plans if one["name"] == key.plan
    )


def limits_of(key: Limited) -> Limits:
    """The windows that bind this key, shortest first. Test keys have no quota."""
    per_minute, per_hour = figures(key)
    quota = key.monthly_quota if key.environment == LIVE else None
    named = ((MINUTE, per_minute), (HOUR, per_hour), (MONTH, quota))
    return tuple((name, limit) for name, limit in named if limit is not None)


def has_any() -> Any:
    """The condition of a query for the keys that any window may bind, by `limits_of`."""
    return (Key.plan != UNLIMITED) | Key.monthly_quota.is_null(False)


def spend(key_id: str, limits: Limits, cost: int, now: int) -> Allowance:
    """Takes `cost` from every limit of the key, or from none and says which refused.

    Raises CountsUnavailable.
    """
    if not limits:
        return NONE
    return _allowance(limits, _store.take(key_id, limits, now, cost), cost, now)


def look(key_id: str, limits: Limits, cost: int, now: int) -> Allowance:
    """What `spend` would answer, spending nothing."""
    if not limits:
        return NONE
    return _allowance(limits, _store.take(key_id, limits, now, 0), cost, now)


def give_back(key_id: str, limits: Limits, cost: int, now: int) -> None:
    """Undoes a `spend` whose check could not be answered."""
    if limits:
        _store.take(key_id, limits, now, -cost)


def _refusing(limits: Limits, spent: Sequence[int], cost: int) -> list[str]:
    """The windows that have too little left. One that was lowered may be overspent; what costs
    nothing passes it all the same."""
    if cost <= 0:
        return []
    pairs = zip(limits, spent, strict=True)
    return [name for (name, limit), before in pairs if before + cost > limit]


def _allowance(limits: Limits, spent: Sequence[int], cost: int, now: int) -> Allowance:
    """How the limits stand after a call, by what was spent before it."""
    refusing = _refusing(limits, spent, cost)
    taken = 0 if refusing else cost
    windows = {
        name: Window(
            name=name,
            limit=limit,
            remaining=max(0, limit - before - taken),
            reset_at=clock.end_of(name, now),
        )
        for (name, limit), before in zip(limits, spent, strict=True)
    }
    # Of several, the one that ends last: only then is it worth another try. A rate limit is
    # checked before the quota.
    rates = [name for name in refusing if name != MONTH]
    refused = windows[(rates or refusing)[-1]] if refusing else None
    return Allowance(tuple(windows.values()), refused)


# --- stores ---------------------------------------------------------------------------------

Counts = dict[tuple[str, int], int]  # what was spent, by window and its start


class Store(Protocol):
    def take(self, key_id: str, limits: Limits, now: int, cost: int) -> list[int]:
        """Takes `cost` from every window, or from none where one refuses. Returns what was spent
        of each before; a `cost` of 0 only reads."""


def _windows(limits: Limits, now: int) -> list[tuple[str, int]]:
    return [(name, clock.start_of(name, now)) for name, _ in limits]


class LocalStore:
    """Counts in this process; a key's counts are read from the database when they are first
    needed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, Counts] = {}
        self._idle: dict[str, Counts] = {}

    def take(self, key_id: str, limits: Limits, now: int, cost: int) -> list[int]:
        known = key_id in self._counts or key_id in self._idle
        recorded = None if known else _recorded(key_id)
        windows = _windows(limits, now)
        with self._lock:
            counts = self._counts_of(key_id, recorded)
            spent = [counts.get(window, 0) for window in windows]
            if cost and not _refusing(limits, spent, cost):
                for window in windows:
                    counts[window] = counts.get(window, 0) + cost
                _forget_past(counts, windows)
            return spent

    def _counts_of(self, key_id: str, recorded: Counts | None) -> Counts:
        """Those in memory, where another call has read them meanwhile: they have moved on."""
        counts = self._counts.get(key_id)
        if counts is None:
            counts = self._idle.pop(key_id, recorded)
            self._counts[key_id] = counts = _recorded(key_id) if counts is None else counts
        return counts

    def forget_idle(self) -> None:
        """Bounds the memory. To be called when all that was spent up to now is recorded: drops the
        keys that were not asked for since the last time that there were too many."""
        with self._lock:
            if len(self._counts) > REMEMBERED_MAX:
                self._idle, self._counts = self._counts, {}


def _recorded(key_id: str) -> Counts:
    rows = LimitCount.select().where(LimitCount.key_id == key_id)
    return {(row.window, row.start_at): row.spent for row in rows}


def _forget_past(counts: Counts, windows: Sequence[tuple[str, int]]) -> None:
    """Keeps the present windows and some before, in which a late call may still count."""
    if len(counts) <= len(windows):
        return
    for name, present in windows:
        others = sorted(start for one, start in counts if one == name and start != present)
        for start in others[:-PAST_WINDOWS]:
            del counts[name, start]


def connected(url: str, **options: Any) -> tuple[Any, type[Exception]]:
    """A client of this Redis that waits no longer than REDIS_SECONDS, and what it raises when Redis
    does not answer."""
    import redis  # here, for it takes a while and most installations do without

    client = redis.Redis.from_url(
        url, socket_timeout=REDIS_SECONDS, socket_connect_timeout=REDIS_SECONDS, **options
    )
    return client, redis.RedisError


class RedisStore:
    """Counts in Redis, for several processes: one script takes from all windows at once.

    A Redis that was started anew may know less than it did, or nothing, and so may one for which
    another stood in for a while: what was counted there before is not believed. A mark says which
    run of which Redis the counts are of, and since when: some seconds after it was first seen, for
    by then every process has stored the entries of what it let in before. Then a key's counts are
    read from the database when they are first needed. Until then limited keys are not answered.
    """

    MARK = "latchkey:counted-by"
    FINE, OTHER_MARK, TOO_EARLY, NOT_READ = 0, 1, 2, 3  # what the script answers first
    TAKE = """
        local mark = redis.call('GET', KEYS[1])
        if not mark or mark ~= ARGV[2] then return {1} end
        local time, began = redis.call('TIME'), tonumber(string.match(mark, ':(%d+)'))
        if time[1] * 1000 + time[2] / 1000 < began then return {2} end
        local cost, answer, refused = tonumber(ARGV[1]), {0}, false
        for i = 2, #KEYS do
            local limit, start = tonumber(ARGV[3 * i - 3]), tonumber(ARGV[3 * i - 1])
            local spent = redis.call('GET', KEYS[i])
            if not spent and start < began + tonumber(ARGV[#ARGV]) then return {3} end
            answer[i] = tonumber(spent or '0')
            refused = refused or (cost > 0 and answer[i] + cost > limit)
        end
        if cost ~= 0 and not refused then
            for i = 2, #KEYS do
                redis.call('INCRBY', KEYS[i], cost)
                redis.call('PEXPIRE', KEYS[i], ARGV[3 * i - 2])
            end
        end
        return answer
    """
    # The mark that is there, where it is of this run and no older than what is not to be believed.
    BEGIN = """
        local mark = redis.call('GET', KEYS[1]) or ''
        local run, since = string.match(mark, '(.*):(%d+)')
        if run == ARGV[1] and tonumber(since) >= tonumber(ARGV[3]) then return mark end
        local time = redis.call('TIME')
        local began = math.floor(time[1] * 1000 + time[2] / 1000 + tonumber(ARGV[2]))
        mark = ARGV[1] .. ':' .. string.format('%.0f', began)
        redis.call('SET', KEYS[1], mark)
        return mark
    """
    TRIES = 5

    def __init__(self, url: str, *, settle_seconds: float = SETTLE_SECONDS) -> None:
        self._redis, self._failures = connected(url, redis_connect_func=self._greet)
        self._settle = round(settle_seconds * clock.SECOND)
        self._try_again_at = 0.0
        self._run = ""  # which of Redis we talk to
        self._mark = ""  # by which it counts; empty: that is to be asked
        self._elsewhere_until = 0.0  # when we last talked to another, in milliseconds
        self._script = self._redis.register_script(self.TAKE)
        self._begin = self._redis.register_script(self.BEGIN)

    def begin(self) -> None:
        """Marks a Redis that is new at once, instead of when the first limited key is checked."""
        with suppress(CountsUnavailable), self._answering():
            self._redis.ping()
            self._read_mark()

    def _read_mark(self) -> None:
        arguments = self._run, self._settle, self._elsewhere_until
        self._mark = self._begin([self.MARK], arguments).decode()

    def _greet(self, connection: Any) -> None:
        """Asks on each new connection who is there: it may be another Redis by now."""
        connection.on_connect()
        run = self._run_of(connection)
        if run == self._run:
            return
        if self._run:
            self._elsewhere_until = time.time() * clock.SECOND
        self._run, self._mark = run, ""

    def _run_of(self, connection: Any) -> str:
        """The id of this run of Redis; one word for all where we are not allowed to ask."""
        from redis.exceptions import ResponseError

        connection.send_command("INFO", "server")
        try:
            found = RUN_ID.search(connection.read_response())
        except ResponseError as error:
            log.warning(
                "Redis does not let its user run INFO (%s): when it is started anew with older "
                "counts, that goes unnoticed; add +info to its rights",
                error,
            )
            return "unknown"
        return found[1].decode() if found else "unknown"

    def take(self, key_id: str, limits: Limits, now: int, cost: int) -> list[int]:
        self._refuse_while_failing()
        try:
            spent = self._take(key_id, limits, now, cost)
        except self._failures as error:
            self._try_again_at = time.monotonic() + REDIS_SECONDS
            raise CountsUnavailable(str(error)) from None
        self._try_again_at = 0.0
        return spent

    def _take(self, key_id: str, limits: Limits, now: int, cost: int) -> list[int]:
        windows = _windows(limits, now)
        for _ in range(self.TRIES):
            mark = self._mark
            keys = _redis_keys(mark, key_id, windows)
            answer, *spent = self._script([self.MARK, *keys], _arguments(limits, now, cost, mark))
            if mark != self._mark or answer == self.OTHER_MARK:
                self._read_mark()
            elif answer == self.TOO_EARLY:
                raise CountsUnavailable("Redis was started anew: what was counted is read again")
            elif answer == self.FINE:
                return list(spent)
            elif cost < 0:
                return [0] * len(limits)  # what is not counted there need not be taken back
            else:
                self._read(key_id, windows, keys, now)
        raise CountsUnavailable("Redis is started anew again and again")

    def _read(
        self, key_id: str, windows: Sequence[tuple[str, int]], keys: Sequence[str], now: int
    ) -> None:
        """Counts on from where the database stands. Of several who do so the first one counts."""
        recorded = _recorded(key_id)
        with self._redis.pipeline(transaction=False) as pipe:
            for key, window in zip(keys, windows, strict=True):
                left = _kept_for(window[0], now)
                pipe.set(key, recorded.get(window, 0), nx=True, px=left)
            pipe.execute()

    def _refuse_while_failing(self) -> None:
        """After a failure one call a second tries again; the others do not wait for it, for the
        threads that would are needed for what does without Redis."""
        now = time.monotonic()
        if self._try_again_at:
            if now < self._try_again_at:
                raise CountsUnavailable("Redis did not answer a moment ago")
            self._try_again_at = now + 2 * REDIS_SECONDS

    def ping(self) -> None:
        """Raises CountsUnavailable."""
        with self._answering():
            self._redis.ping()

    @contextmanager
    def _answering(self) -> Iterator[None]:
        try:
            yield
        except self._failures as error:
            raise CountsUnavailable(str(error)) from None


def _redis_keys(mark: str, key_id: str, windows: Sequence[tuple[str, int]]) -> list[str]:
    return [f"latchkey:{mark}:{key_id}:{name}:{start}" for name, start in windows]


def _arguments(limits: Limits, now: int, cost: int, mark: str) -> list[Any]:
    """As the script reads them: of each window its limit, how long it is kept, and its start."""
    of_windows = [
        (limit, _kept_for(name, now), clock.start_of(name, now)) for name, limit in limits
    ]
    return [cost, mark, *(value for window in of_windows for value in window), REDIS_SLACK]


def _kept_for(window: str, now: int) -> int:
    return clock.end_of(window, now) - now + REDIS_SLACK


_store: Store = LocalStore()


def use_store(store: Store) -> None:
    """Counts there from now on."""
    global _store
    _store = store


def use(redis_url: str) -> None:
    """Counts in this Redis from now on, without one in this process."""
    if redis_url:
        store = RedisStore(redis_url)
        store.begin()
        use_store(store)
    else:
        use_store(LocalStore())


def is_answering() -> bool | None:
    """Whether Redis answers, asked now, which takes REDIS_SECONDS at most; None without Redis."""
    if not isinstance(_store, RedisStore):
        return None
    try:
        _store.ping()
    except CountsUnavailable:
        return False
    return True


def forget(key_id: str) -> None:
    """Drops the recorded counts of a key that is being deleted; ids never come back."""
    LimitCount.delete().where(LimitCount.key_id == key_id).execute()


def forget_idle() -> None:
    """Bounds the memory; see LocalStore."""
    if isinstance(_store, LocalStore):
        _store.forget_idle()

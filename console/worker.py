"""One background thread: sends what is due to webhooks and people, and does the jobs, a step of one
at a time.

It alone talks to the database; a thread of its own sends each message. Several processes share the
work: each message and each job is one process's at a time, by a lease in the database.
"""

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from console import (
    audit,
    clock,
    db,
    guessing,
    jobs,
    letterbox,
    notices,
    outbound,
    outbox,
    proxy_calls,
    renewal,
    retention,
    watch,
    webhooks,
)
from console.jobs import Lost, Task
from console.models import Delivery, Letter
from console.outbound import Outcome

log = logging.getLogger(__name__)

AT_ONCE = 4
LETTERS_AT_ONCE = 2  # of each channel
GIVEN_UP_SECONDS = 300.0  # a letter's sending that has not ended by then holds up no others
POLL_SECONDS = 1.0
STEP_SECONDS = 0.01  # between two steps of a job, in which others write
LOOK_SECONDS = 60.0
STOP_SECONDS = 3.0
FAULT = "could not be sent: the fault is ours, and in the log"
TASKS: Sequence[Task] = (
    renewal.TASK, notices.ENDS, watch.TASK, notices.AGE, retention.TASK,
)  # fmt: skip


class Worker:
    """Sends what is due and does `tasks`. `timeout_seconds` is what a receiver has to answer in."""

    def __init__(
        self,
        timeout_seconds: float = outbound.TIMEOUT_SECONDS,
        tasks: Sequence[Task] = TASKS,
    ) -> None:
        self._timeout_seconds = timeout_seconds
        self._webhooks: set[str] = set()  # to which something is under way
        # The letters under way, and since when.
        self._letters: dict[str, dict[str, float]] = {letterbox.MAIL: {}, letterbox.APPRISE: {}}
        self._outcomes: deque[Callable[[], None]] = deque()
        self._stopped = threading.Event()
        self._has_webhooks, self._look_at = False, -math.inf
        self._ask_at = dict.fromkeys((task.name for task in tasks), 0)
        self._tasks = tasks
        self._running: deque[tuple[Task, Iterator[object]]] = deque()
        self._latest = 0  # instant
        self._attempts_at = -math.inf
        self._thread = threading.Thread(target=self._run, name="worker", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Begins nothing more, and waits a little for what is under way; what is not concluded by
        then is sent again when its lease has passed."""
        self._stopped.set()
        webhooks.news.set()
        self._thread.join(STOP_SECONDS)

    # --- messages -----------------------------------------------------------------------------

    def turn(self) -> int:
        """Concludes what was sent, and begins to send what is due. Returns how many are under way;
        `webhooks.news` is set when one of them is done. Raises PeeweeException."""
        self._conclude()
        if time.monotonic() >= self._look_at:
            self._has_webhooks = webhooks.any_yet()
            self._look_at = time.monotonic() + LOOK_SECONDS
        while (
            self._has_webhooks
            and len(self._webhooks) < AT_ONCE
            and (delivery := outbox.claim(self._webhooks))
        ):
            self._webhooks.add(delivery.webhook_id)
            self._begin(self._deliver, delivery)
        for channel, under_way in self._letters.items():
            self._post_due(channel, under_way)
        return len(self._webhooks) + sum(map(len, self._letters.values()))

    def _post_due(self, channel: str, under_way: dict[str, float]) -> None:
        now = time.monotonic()
        for letter_id in [
            one for one, since in under_way.items() if now - since > GIVEN_UP_SECONDS
        ]:
            del under_way[letter_id]
        while len(under_way) < LETTERS_AT_ONCE and (letter := letterbox.claim(channel, under_way)):
            under_way[letter.id] = now
            self._begin(self._post, letter)

    def _begin(self, send: Callable[..., None], what: Delivery | Letter) -> None:
        threading.Thread(target=send, args=[what], daemon=True).start()

    def _conclude(self) -> None:
        while self._outcomes:
            self._outcomes[0]()
            self._outcomes.popleft()

    def _deliver(self, delivery: Delivery) -> None:
        outcome = Outcome(None, FAULT)
        try:
            outcome = outbound.post(
                delivery.webhook.url,
                delivery.payload.encode(),
                webhooks.headers(delivery),
                timeout_seconds=self._timeout_seconds,
            )
        except webhooks.NotSigned as error:
            outcome = Outcome(None, str(error))
        except Exception:
            log.exception("delivery %s", delivery.id)
        finally:
            self._outcomes.append(partial(self._delivered, delivery, outcome))
            webhooks.news.set()

    def _delivered(self, delivery: Delivery, outcome: Outcome) -> None:
        webhooks.conclude(delivery, outcome)
        self._webhooks.discard(delivery.webhook_id)

    def _post(self, letter: Letter) -> None:
        error: str | None = FAULT
        try:
            error = letterbox.send(letter)
        except Exception:
            log.exception("letter %s", letter.id)
        finally:
            self._outcomes.append(partial(self._posted, letter, error))
            webhooks.news.set()

    def _posted(self, letter: Letter, error: str | None) -> None:
        letterbox.conclude(letter, error)
        self._letters[letter.channel].pop(letter.id, None)

    # --- jobs ---------------------------------------------------------------------------------

    def step(self) -> bool:
        """One step of one of the jobs under way, which take turns; whether there was any.

        Raises PeeweeException where not even the failure can be written down.
        """
        self._claim()
        if not self._running:
            return False
        task, steps = self._running.popleft()
        error: str | None = None
        try:
            next(steps)
            self._running.append((task, steps))
            return True
        except StopIteration:
            pass
        except Lost:
            log.warning("the job %s went to another process", task.name)
        except Exception as failure:
            log.exception("the job %s failed", task.name)
            error = str(failure) or type(failure).__name__
        self._ask_at[task.name] = 0
        jobs.finish(task, error=error)
        return True

    def _claim(self) -> None:
        """Begins every job that is due and nobody's."""
        now, running = clock.now(), {task.name for task, _ in self._running}
        for task in self._tasks:
            if task.name not in running and self._ask_at[task.name] <= now:
                turn, self._ask_at[task.name] = jobs.claim(task)
                if turn is not None:
                    self._running.append((task, task.run(turn)))

    def _mind_the_clock(self) -> None:
        """When the clock was set back, nothing waits for the time that it showed before."""
        now = clock.now()
        if now < self._latest - clock.SECOND or not self._latest:
            outbox.hurry()
            letterbox.hurry()
            self._ask_at = dict.fromkeys(self._ask_at, 0)
            self._latest = now
        self._latest = max(self._latest, now)

    def _mind_the_attempts(self) -> None:
        """What was counted in memory of keys that are not there is stored, and acted upon."""
        if time.monotonic() >= self._attempts_at:
            self._attempts_at = time.monotonic() + POLL_SECONDS
            audit.store_attempts()
            guessing.refresh()

    # --- the thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        failed = False
        while not self._stopped.is_set():
            is_busy = False
            try:
                self._mind_the_clock()
                self._mind_the_attempts()
                self.turn()
                is_busy = self.step()
                proxy_calls.share()
                failed = False
            except Exception:
                if not failed:
                    log.exception("the background work cannot go on; tried again each second")
                failed = True
            if webhooks.news.wait(STEP_SECONDS if is_busy else POLL_SECONDS):
                webhooks.news.clear()
                self._look_at = -math.inf
        self._finish()

    def _finish(self) -> None:
        until = time.monotonic() + STOP_SECONDS / 2
        try:
            for task, steps in self._running:
                steps.close()  # type: ignore[attr-defined]
                jobs.release(task)
            self._conclude()
            while (self._webhooks or any(self._letters.values())) and webhooks.news.wait(
                max(0, until - time.monotonic())
            ):
                webhooks.news.clear()
                self._conclude()
        except Exception:
            log.exception("what was sent last will be sent again")
        db.close()


_worker: Worker | None = None


def start() -> None:
    """Does the background work from now on."""
    global _worker
    stop()
    _worker = Worker()
    _worker.start()


def stop() -> None:
    global _worker
    if _worker is not None:
        stopped, _worker = _worker, None
        stopped.stop()

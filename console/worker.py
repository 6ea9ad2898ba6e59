"""One background thread that sends what is due to webhooks, four messages at a time.

It alone talks to the database; a thread of its own sends each message. While there is no webhook it
sleeps, and looks once in a minute whether another process has made one.
"""

import logging
import math
import threading
import time
from collections import deque

from console import db, outbound, outbox, webhooks
from console.models import Delivery
from console.outbound import Outcome

log = logging.getLogger(__name__)

AT_ONCE = 4
POLL_SECONDS = 1.0
LOOK_SECONDS = 60.0
PRUNE_SECONDS = 3_600.0
STOP_SECONDS = 3.0


class Worker:
    """Sends what is due. `timeout_seconds` is what a receiver has to answer in."""

    def __init__(self, timeout_seconds: float = outbound.TIMEOUT_SECONDS) -> None:
        self._timeout_seconds = timeout_seconds
        self._under_way = 0  # claimed and not concluded
        self._outcomes: deque[tuple[Delivery, Outcome]] = deque()
        self._stopped = threading.Event()
        self._prune_at = -math.inf
        self._thread = threading.Thread(target=self._run, name="webhooks", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Begins nothing more, and waits a little for what is under way; what is not concluded by
        then is sent again when its lease has passed."""
        self._stopped.set()
        webhooks.news.set()
        self._thread.join(STOP_SECONDS)

    def turn(self) -> int:
        """Concludes what was sent, and begins to send what is due. Returns how many are under way;
        `webhooks.news` is set when one of them is done. Raises PeeweeException."""
        self._conclude()
        while self._under_way < AT_ONCE and (delivery := outbox.claim()):
            self._under_way += 1
            threading.Thread(target=self._send, args=[delivery], daemon=True).start()
        return self._under_way

    def _conclude(self) -> None:
        while self._outcomes:
            webhooks.conclude(*self._outcomes[0])
            self._outcomes.popleft()
            self._under_way -= 1

    def _send(self, delivery: Delivery) -> None:
        outcome = Outcome(None, "could not be sent: the fault is ours, and in the log")
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
            self._outcomes.append((delivery, outcome))
            webhooks.news.set()

    def _run(self) -> None:
        has_webhooks, look_at, failed = False, -math.inf, False
        while not self._stopped.is_set():
            try:
                if time.monotonic() >= look_at:
                    has_webhooks = webhooks.any_yet()
                    look_at = time.monotonic() + LOOK_SECONDS
                if has_webhooks or self._under_way:
                    self.turn()
                    self._prune()
                failed = False
            except Exception:
                if not failed:
                    log.exception("webhooks cannot be served; tried again each second")
                failed = True
            if webhooks.news.wait(POLL_SECONDS if has_webhooks or failed else LOOK_SECONDS):
                webhooks.news.clear()
                look_at = -math.inf
        self._finish()

    def _prune(self) -> None:
        if time.monotonic() >= self._prune_at:
            self._prune_at = time.monotonic() + PRUNE_SECONDS
            outbox.prune()

    def _finish(self) -> None:
        until = time.monotonic() + STOP_SECONDS / 2
        try:
            self._conclude()
            while self._under_way and webhooks.news.wait(max(0, until - time.monotonic())):
                webhooks.news.clear()
                self._conclude()
        except Exception:
            log.exception("what was sent last will be sent again")
        db.close()


_worker: Worker | None = None


def start() -> None:
    """Serves webhooks from now on."""
    global _worker
    stop()
    _worker = Worker()
    _worker.start()


def stop() -> None:
    global _worker
    if _worker is not None:
        stopped, _worker = _worker, None
        stopped.stop()

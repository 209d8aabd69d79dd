"""Carries outboxes to their tracking servers, in the background and again until they arrive."""

import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

from echosyn.runtime.errors import EchosynError
from echosyn.runtime.files import read_json
from echosyn.tracking.outbox import Outbox, outboxes
from echosyn.tracking.store import (
    DamagedError,
    NeverError,
    NoAnswerError,
    RunGoneError,
    Store,
    move_aside,
    shown,
)

PAUSE = 0.5  # seconds between rounds
LONGEST_PAUSE = 30.0  # between attempts at a server that does not answer
STUCK = 20.0  # seconds without progress after which a stage ends with things unsent


class Sender:
    """Sends what lies under `root`. One operation at a time; other processes' outboxes as well.

    Nothing that a stage or a worker does waits for it, but for the first contact and the end.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.run_ids: dict[str, str] = {}  # of what was delivered by this process
        self._stores: dict[str, Store] = {}
        self._silent: dict[str, tuple[float, float]] = {}  # uri: (not before, last pause)
        self._used: set[str] = set()
        self._turn = threading.RLock()
        self._thread: threading.Thread | None = None

    def first_contact(self, outbox: Outbox) -> None:
        """Create the run now, so that a wrong address or login is said before the work starts.

        Raises:
            EchosynError: what the user must mend. A server that does not answer is none of it: the
                work goes on, with one warning.
        """
        with suppress(FileNotFoundError):  # another process has sent and removed it
            self._used.add(outbox.uri)
        with self._turn:
            self._attempt(outbox, raising=True)
        if self._thread is None:
            self._thread = threading.Thread(target=self._rounds, name="sender", daemon=True)
            self._thread.start()

    def deliver(self, outbox: Outbox) -> int:
        """Send an outbox that has ended, while its server answers; operations left over."""
        last, since = None, time.monotonic()
        while outbox.exists and (left := len(outbox.operations())):
            if left != last:
                last, since = left, time.monotonic()
            with self._turn:
                answered = self._attempt(outbox)
            if not answered or time.monotonic() - since > STUCK:
                break
            if outbox.exists and outbox.operations():
                time.sleep(0.1)  # another process is sending it
        return len(outbox.operations()) if outbox.exists else 0

    def deliver_family(self, outbox: Outbox) -> int:
        """Send what is left of the runs nested in a run, then its own; operations left over."""
        nested = []
        for other in outboxes(self.root):
            with suppress(FileNotFoundError):
                if other.facts.get("parent") == outbox.key:
                    nested.append(other)
        return sum(self.deliver(one) for one in [*nested, outbox])

    def round(self) -> None:
        """One attempt at every outbox whose server is not known to be silent."""
        for outbox in outboxes(self.root):
            with self._turn:
                self._attempt(outbox)
        with self._turn:
            self._prune()

    def _rounds(self) -> None:
        while True:
            time.sleep(PAUSE)
            try:
                self.round()
            except OSError as e:  # a folder that another process removed under our hands
                if self.root.exists():
                    _say(f"{self.root}: {e}")

    def _attempt(self, outbox: Outbox, raising: bool = False) -> bool:
        """Send what is there; False when the server did not answer."""
        from filelock import FileLock, Timeout

        try:
            uri = outbox.uri
        except FileNotFoundError:  # another process has sent and removed it
            return True
        if not raising and time.monotonic() < self._silent.get(uri, (0.0, 0.0))[0]:
            return False
        store = self._stores.setdefault(uri, Store(uri))
        try:
            with FileLock(outbox.folder.with_name(f".{outbox.key}.lock"), timeout=0):
                self._send(outbox, store)
        except Timeout:
            return True
        except (NoAnswerError, EchosynError) as e:
            if raising and isinstance(e, EchosynError):
                raise
            self._fell_silent(uri, e)
            return False
        if self._silent.pop(uri, None) and uri in self._used:
            _say(f"the tracking server {shown(uri)} answers again")
        return True

    def _send(self, outbox: Outbox, store: Store) -> None:
        if not outbox.exists:
            return
        facts = outbox.facts
        if not facts.get("run_id"):
            parent = self._run_of_parent(facts)
            if facts.get("parent") and not parent:
                return  # the parent's turn comes first
            run = store.create(facts, parent)
            if run is None:
                _say(f"{shown(outbox.uri)} has no run of {facts['name']}: nothing was added to it")
                outbox.remove()
                return
            run_id, start, status = run
            facts = outbox.learn(run_id=run_id, start_time=start)
            if facts.get("once") and status == "FINISHED":
                self.run_ids[outbox.key] = run_id
                outbox.remove()
                return
        self.run_ids[outbox.key] = facts["run_id"]
        for path in outbox.operations():
            operation = read_json(path)
            try:
                store.send(facts["run_id"], operation, outbox.folder, facts["start_time"])
            except RunGoneError:
                outbox.learn(run_id=None)
                return self._send(outbox, store)
            except NeverError as e:
                _say(f"refused and kept as {outbox.refuse(path)}: {e}")
                continue
            if operation["kind"] in ("end", "reopen"):
                outbox.learn(ended=operation.get("status"))
            outbox.done(path)

    def _run_of_parent(self, facts: dict) -> str | None:
        if not facts.get("parent"):
            return None
        parent = Outbox(self.root / facts["parent"])
        return parent.facts.get("run_id") if parent.exists else self.run_ids.get(facts["parent"])

    def _prune(self) -> None:
        """Remove what has arrived, but for what a killed stage needs to continue its run."""
        known = []
        for outbox in outboxes(self.root):
            with suppress(FileNotFoundError):  # another process has just removed it
                known.append((outbox, outbox.facts))
        waiting = {f["parent"] for o, f in known if f.get("parent") and o.operations()}
        for outbox, facts in known:
            if not facts.get("ended") or outbox.operations() or outbox.key in waiting:
                continue
            work = facts.get("resume_dir")
            resumable = (work and (self.root / work).is_dir()) or (
                facts["ended"] != "FINISHED"
                and facts.get("parent")
                and (self.root / facts["parent"]).is_dir()
            )
            if not resumable:
                outbox.remove()
                outbox.folder.with_name(f".{outbox.key}.lock").unlink(missing_ok=True)

    def _fell_silent(self, uri: str, why: Exception) -> None:
        before = self._silent.get(uri)
        pause = min(2 * before[1], LONGEST_PAUSE) if before else PAUSE
        self._silent[uri] = (time.monotonic() + pause, pause)
        if before is not None or uri not in self._used:
            return
        if isinstance(why, DamagedError):
            _say(
                f"{why}: work goes on, and its records wait in {self.root}. Move that file aside "
                f"({move_aside(why.file)}): `echosyn sync` then sends what waits"
            )
        else:
            _say(
                f"the tracking server {shown(uri)} does not answer; work goes on, and what it logs "
                f"is kept in {self.root} until it does ({why})"
            )


def _say(text: str) -> None:
    print(f"echosyn: {text}", file=sys.stderr, flush=True)

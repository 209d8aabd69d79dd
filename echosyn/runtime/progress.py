"""One progress bar for everything that takes more than a few seconds."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from tqdm import tqdm

T = TypeVar("T")


class _Bar(tqdm):
    """tqdm by a clock that is never set: by its own it stands still for as long as the time of day
    was set back."""

    monitor_interval = 0  # the monitor's thread looks at the time of day

    def __init__(self, **options: Any) -> None:
        super().__init__(miniters=1, **options)
        self._time = time.monotonic
        self.start_t = self.last_print_t = self._time()


class _Lines:
    """Standard error with a line per update: a log file has no cursor to move back."""

    def write(self, text: str) -> None:
        if text.strip():
            sys.stderr.write(text.strip("\r\n") + "\n")

    def flush(self) -> None:
        sys.stderr.flush()


def bar(total: int, desc: str, unit: str, initial: int = 0, show: bool = True) -> Any:
    """A bar with rate and ETA; on a log file it prints a line about every ten seconds."""
    live = sys.stderr.isatty()
    return _Bar(
        total=total,
        file=sys.stderr if live else _Lines(),
        initial=initial,
        desc=desc,
        unit=f" {unit}",
        mininterval=0.2 if live else 10.0,
        dynamic_ncols=live,
        ascii=not live,
        leave=True,
        disable=not show,
    )


def track(items: Iterable[T], desc: str, unit: str, total: int | None = None) -> Iterator[T]:
    """Iterate over `items` with a progress bar."""
    n = total if total is not None else len(items)  # type: ignore[arg-type]
    with bar(n, desc, unit) as progress:
        for item in items:
            yield item
            progress.update()

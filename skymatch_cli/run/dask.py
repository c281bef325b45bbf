"""Run tasks on a Dask cluster: tasks are references to files, results are small tables.

Tasks of a worker that dies go to another one (Dask gives up a task after three workers), and a file that a worker can't
read is tried on another worker. A task that still fails is reported like a file that can't be read on this machine.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from skymatch_cli.errors import SkymatchError, UsageError, missing_extra
from skymatch_cli.run.tasks import NO_PROGRESS, Found, Progress, Runner, Task, Tasks, in_window, usable_cores

_CONNECT_S = 20
_ASK_S = 5.0  # seconds between checks for workers
_NO_WORKER_S = 120.0
_AHEAD = 8  # submitted tasks per thread of the cluster


@contextmanager
def connected(scheduler: str, jobs: int = 0) -> Iterator[Runner]:
    """Connect to a Dask scheduler, by its address or ``local`` for ``jobs`` worker processes here; give a runner on it.

    UsageError if Dask is missing, or the scheduler can't be reached.
    """
    try:
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise missing_extra("--scheduler", error, "cluster") from None
    with ExitStack() as stack:
        try:
            address: Any = scheduler
            if scheduler == "local":
                quiet: dict[str, Any] = {"dashboard_address": None, "silence_logs": logging.CRITICAL}
                address = stack.enter_context(LocalCluster(jobs or usable_cores(), threads_per_worker=1, **quiet))
            client = stack.enter_context(Client(address, timeout=_CONNECT_S))
        except (OSError, ValueError, TimeoutError) as error:
            raise UsageError(f"--scheduler {scheduler} can't be reached: {error}", "give tcp://HOST:PORT") from None
        yield _ClusterRunner(client)


@dataclass(frozen=True, slots=True)
class _ClusterRunner:
    client: Any

    def __call__(self, tasks: Tasks[Found], *, progress: Progress = NO_PROGRESS) -> Iterator[Found]:
        """Yield the findings of the tasks, in their order."""
        submitted = ((task, self._submit(task)) for task in tasks)
        return in_window(submitted, lambda one: self._finding(*one), self._most, progress)

    def _most(self) -> int:
        return _AHEAD * max(2, sum(map(int, self.client.nthreads().values())))

    def _submit(self, task: Task[Found], workers: list[str] | None = None) -> Any:
        # Preferred, not required: a worker that dies comes back under another address, and the task would wait forever.
        return self.client.submit(_work, task, pure=False, workers=workers, allow_other_workers=workers is not None)

    def _finding(self, task: Task[Found], future: Any) -> Found:
        worker, finding = self._answer(task, future)
        if finding.problems:  # also after workers died: Dask blames tasks that were only waiting on them
            others = [address for address in self.client.nthreads() if address != worker]
            _, finding = self._answer(task, self._submit(task, others or None))
        return finding

    def _answer(self, task: Task[Found], future: Any) -> tuple[str, Found]:
        """Return the finding of a worker, and its address; "" if no worker survived the task."""
        from distributed import CancelledError, KilledWorker

        waiting_since = time.monotonic()
        while True:
            try:
                address, finding = future.result(timeout=_ASK_S)
                return str(address), finding
            except TimeoutError:
                if self.client.nthreads():
                    waiting_since = time.monotonic()
                elif time.monotonic() - waiting_since > _NO_WORKER_S:
                    raise SkymatchError(
                        f"the cluster has had no worker for {_NO_WORKER_S:.0f} s", "what was measured is kept"
                    ) from None
            except KilledWorker:
                return "", task.lost("the workers that read it died, one after the other")
            except (CancelledError, OSError) as error:
                raise SkymatchError(f"the scheduler was lost: {error}", "what was measured is kept") from None


def _work(task: Task[Found]) -> tuple[str, Found]:
    from distributed import get_worker

    return get_worker().address, task()

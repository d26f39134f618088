"""Many independent tasks over a few processes, of which any may be killed without a task being lost.

Each worker holds one task at a time and is spoken to over a pipe of its own, so that a worker which dies (out of
memory, `kill -9`) says by that which task it died of. That task is tried again alone in a fresh worker; one that ends
its worker `attempts` times is told as failed, and the others go on. A worker whose parent has gone reads the end of its
pipe and leaves. ProcessPoolExecutor does neither: a death loses all that is under way, and workers outlive a parent
that was killed.
"""

from __future__ import annotations

import multiprocessing
import os
import select
import signal
import sys
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Generic, TypeVar

from simnet.errors import SimnetError

Task = TypeVar("Task")
Value = TypeVar("Value")
ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class Done(Generic[Value]):
    """What a task returned."""

    name: str
    value: Value


@dataclass(frozen=True, slots=True)
class Failed:
    """Why a task has no value: `reason` for people, `trace` for a bug report (empty where no bug is to blame)."""

    name: str
    reason: str
    trace: str = ""


Perform = Callable[[Task, Callable[[int], None]], Value]


def run_all(
    tasks: Mapping[str, Task],
    perform: Perform[Task, Value],
    *,
    workers: int = 1,
    progress: Callable[[str, int], None] = lambda name, position: None,
    attempts: int = ATTEMPTS,
    preload: Sequence[str] = (),
) -> Generator[Done[Value] | Failed, None, None]:
    """Yield what becomes of each task as it happens; `Done` or `Failed` comes once for each, in no certain order.

    Parameters
    ----------
    tasks : name -> what `perform` is called with; both are pickled where there are workers
    perform : a function of a module, called as perform(task, tell); it may say by `tell(position)` how far it is
    workers : 1: everything happens in this process, one task after the other
    progress : called in this process as progress(name, position) with what `perform` told
    attempts : how often a task may kill its worker before it is given up
    preload : modules that the workers shall find imported

    Closing the iterator (or an exception where it is consumed, such as KeyboardInterrupt) kills the workers at once.
    """
    if workers <= 1:
        for name, task in tasks.items():
            yield _attempt(name, task, perform, partial(progress, name))
    elif tasks:
        pool = _Pool(perform, min(workers, len(tasks)), attempts, preload)
        try:
            yield from pool.run(tasks, progress)
        finally:
            pool.kill()


def _attempt(
    name: str, task: Task, perform: Perform[Task, Value], progress: Callable[[int], None]
) -> Done[Value] | Failed:
    try:
        return Done(name, perform(task, progress))
    except SimnetError as error:
        return Failed(name, str(error))
    except Exception as error:  # a bug, or the machine: no memory, no space left
        reason = "".join(traceback.format_exception_only(error)).strip()
        expected = isinstance(error, MemoryError | OSError)
        return Failed(name, reason, "" if expected else traceback.format_exc())


@dataclass(slots=True, eq=False)
class _Worker:
    process: BaseProcess
    pipe: Connection
    task: str | None = None


class _Pool:
    def __init__(self, perform: Perform[Any, Any], workers: int, attempts: int, preload: Sequence[str]) -> None:
        methods = multiprocessing.get_all_start_methods()
        self._context: Any = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
        if "forkserver" in methods:
            self._context.set_forkserver_preload([__name__, *preload])
            _start_server()
        self._perform, self._attempts = perform, attempts
        self._wanted = workers
        self._workers: list[_Worker] = []

    def run(self, tasks: Mapping[str, Any], progress: Callable[[str, int], None]) -> Iterator[Done[Any] | Failed]:
        waiting = deque(tasks)
        suspects: deque[str] = deque()  # each ended a worker; tried again alone, with all memory for itself
        deaths: dict[str, int] = {}
        open_tasks = len(waiting)
        while open_tasks:
            self._hand_out(tasks, waiting, suspects)
            for pipe in wait([worker.pipe for worker in self._workers if worker.task is not None]):
                worker = next(each for each in self._workers if each.pipe is pipe)
                name = worker.task
                assert name is not None
                message = self._message(worker)
                if isinstance(message, int):
                    progress(name, message)
                    continue
                worker.task = None
                if message is None:
                    death = self._bury(worker)
                    deaths[name] = deaths.get(name, 0) + 1
                    if deaths[name] < self._attempts:
                        suspects.append(name)
                        continue
                    message = Failed(name, f"its worker {death}, {deaths[name]} times out of {deaths[name]}")
                open_tasks -= 1
                yield message

    def _hand_out(self, tasks: Mapping[str, Any], waiting: deque[str], suspects: deque[str]) -> None:
        while waiting and (worker := self._idle_worker()) is not None:
            self._hand(worker, waiting.popleft(), tasks)
        if not waiting and suspects and all(worker.task is None for worker in self._workers):
            worker = self._idle_worker()
            assert worker is not None
            self._hand(worker, suspects.popleft(), tasks)

    def _idle_worker(self) -> _Worker | None:
        idle = next((worker for worker in self._workers if worker.task is None), None)
        if idle is None and len(self._workers) < self._wanted:
            pipe, its_end = self._context.Pipe()
            process = self._context.Process(target=_work, args=(its_end, self._perform), daemon=True)
            process.start()
            its_end.close()
            idle = _Worker(process, pipe)
            self._workers.append(idle)
        return idle

    def _hand(self, worker: _Worker, name: str, tasks: Mapping[str, Any]) -> None:
        worker.task = name
        with suppress(
            BrokenPipeError, ConnectionResetError
        ):  # it died while idle: `wait` sees the end of its pipe next
            worker.pipe.send(tasks[name])

    def _message(self, worker: _Worker) -> Done[Any] | Failed | int | None:
        """What a worker says; an int is how far it is, None its death."""
        try:
            message: Done[Any] | Failed | int = worker.pipe.recv()
            if not isinstance(message, int):
                return replace(message, name=worker.task or "")
            return message
        except (EOFError, OSError):
            return None

    def _bury(self, worker: _Worker) -> str:
        worker.pipe.close()
        worker.process.join()
        _wait_until_gone(worker.process.pid)
        self._workers.remove(worker)
        return _death(worker.process.exitcode)

    def kill(self) -> None:
        """Kill every worker and wait until it is gone."""
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.process.join()
            _wait_until_gone(worker.process.pid)
            worker.pipe.close()
        self._workers.clear()


def _wait_until_gone(pid: int | None) -> None:
    """Wait until a killed process has ended; its pipe is closed before, and `join` returns early if its parent died."""
    if pid is None or not hasattr(os, "pidfd_open"):
        return
    with suppress(OSError):  # no such process any more
        descriptor = os.pidfd_open(pid)
        try:
            select.select([descriptor], [], [], 5.0)
        finally:
            os.close(descriptor)


def _start_server() -> None:
    """Start what workers are forked from, deaf to Ctrl-C: a signal mask is inherited, a handler would come late."""
    from multiprocessing import forkserver, resource_tracker

    resource_tracker.ensure_running()  # it unblocks the signal, so it goes first
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _death(code: int | None) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        return f"was killed ({name}{': out of memory?' if name == 'SIGKILL' else ''})"
    return f"left with code {code}"


def _work(pipe: Connection, perform: Perform[Any, Any]) -> None:
    """A worker's life: tasks in, what became of them out, until the pipe ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole terminal; the parent decides
    parent = multiprocessing.parent_process()

    def tell(position: int) -> None:
        if parent is not None and not parent.is_alive():
            sys.exit(1)
        pipe.send(position)

    while True:
        try:
            task = pipe.recv()
        except (EOFError, OSError):
            return
        outcome = _attempt("", task, perform, tell)
        try:
            pipe.send(outcome)
        except (BrokenPipeError, ConnectionResetError):
            return

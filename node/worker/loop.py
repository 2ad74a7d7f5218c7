"""The worker's life: a thread hears the daemon, the main thread steps the models in turn."""

import os
import queue
import threading
import time
from collections.abc import Callable
from typing import NoReturn

import torch

from node.worker.engine.device import choose
from node.worker.engine.engine import ServedModel
from node.worker.engine.rows import RowStore
from node.worker.engine.serving import Machine, open_served
from node.worker.pipe import (
    Add,
    Cancel,
    Embed,
    Ended,
    Failed,
    Forget,
    Frames,
    FromWorker,
    Load,
    Loaded,
    LoadFailed,
    Measure,
    Measured,
    Open,
    Opened,
    PipeError,
    Ready,
    Start,
    ToWorker,
    frame,
    to_worker,
)
from protocol.errors import Code, LocalError
from protocol.ids import ModelId

READ_BYTES = 64 << 10


def read_messages(descriptor: int, take: Callable[[ToWorker], None]) -> None:
    """Hand on each message until the pipe ends. Raises PipeError for what is no message."""
    frames = Frames()
    while data := os.read(descriptor, READ_BYTES):
        for body in frames.feed(data):
            take(to_worker(body))


class Inbox:
    """Messages that the reader thread heard. When the daemon is gone the process ends at once,
    in the middle of a step if need be: nobody is left to hear the answer, and a signal at the
    parent's death would come when the *thread* that started us ends, which is no sign of it."""

    def __init__(self, descriptor: int) -> None:
        self._messages: queue.SimpleQueue[ToWorker] = queue.SimpleQueue()
        self._descriptor = descriptor
        threading.Thread(target=self._hear, name="pipe", daemon=True).start()

    def next(self, wait: bool) -> ToWorker | None:
        try:
            return self._messages.get(block=wait)
        except queue.Empty:
            return None

    def _hear(self) -> None:
        try:
            read_messages(self._descriptor, self._messages.put)
        except (OSError, PipeError):
            os._exit(1)
        os._exit(0)


class Worker:
    """Carries out what the daemon asks for, on one machine."""

    def __init__(
        self,
        machine: Machine,
        say: Callable[[FromWorker], None],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._machine = machine
        self._say = say
        self._now = now
        self._models: dict[ModelId, ServedModel] = {}
        self._of_task: dict[int, ServedModel] = {}
        self._to_measure: list[ModelId] = []
        self._rows = RowStore()

    @property
    def idle(self) -> bool:
        return not self._to_measure and self._all_idle

    @property
    def _all_idle(self) -> bool:
        return all(model.idle for model in self._models.values())

    def take(self, message: ToWorker) -> None:
        """Do what a message asks."""
        match message:
            case Load():
                self._load(message)
            case Measure(model):
                if model in self._models:
                    self._to_measure.append(model)
            case Add() | Embed():
                self._add(message)
            case Cancel(task):
                served = self._of_task.get(task)
                if served is not None:
                    served.cancel(task, self._tell)
            case Open(task, places):
                self._rows.expire(self._now())
                self._say(Opened(task, self._rows.open(task, places)))
            case Forget(task):
                self._rows.forget(task)
            case Start():
                raise PipeError("a second start")

    def step(self) -> None:
        """One step of each model that has something to do; a model that waits to be timed is,
        as soon as no task of any model runs beside it."""
        for served in self._models.values():
            if not served.idle:
                served.step(self._tell)
        if self._to_measure and self._all_idle:
            model = self._to_measure.pop(0)
            rates = self._models[model].measure()
            self._say(Measured(model, rates.prefill, rates.decode))

    def _load(self, load: Load) -> None:
        try:
            served = open_served(load, self._machine, self._rows)
        except LocalError as error:
            self._say(LoadFailed(load.model, error.code, error.sentence))
            return
        self._models[load.model] = served
        facts = served.facts
        self._say(
            Loaded(
                load.model,
                facts.mode,
                facts.context_tokens,
                load.slots,
                facts.vocabulary,
                facts.width,
                facts.kind,
                facts.engine,
                facts.note,
            )
        )

    def _add(self, task: Add | Embed) -> None:
        served = self._models.get(task.model)
        if served is None:
            self._say(Failed(task.task, Code.MODEL_NOT_SERVED, "This model is not loaded."))
            return
        self._of_task[task.task] = served
        try:
            served.add(task, self._tell)
        except LocalError as error:
            self._tell(Failed(task.task, error.code, error.sentence))

    def _tell(self, event: FromWorker) -> None:
        if isinstance(event, Ended | Failed):
            self._of_task.pop(event.task, None)
            self._rows.ended(event.task, self._now())
            self._rows.expire(self._now())
        self._say(event)


def write_message(descriptor: int, message: FromWorker) -> None:
    """Raises OSError when the daemon is gone."""
    data = memoryview(frame(message))
    while data:
        data = data[os.write(descriptor, data) :]


def run(start: Start, threads: int, inbox: Inbox, write: int, confined: list[str]) -> NoReturn:
    """Serve for ever: the reader thread ends the process. Raises OSError when the daemon is gone,
    LocalError BAD_CONFIG when the device that was asked for is not here."""
    device = choose(start.device, start.compute)
    write_message(write, Ready(device.name, device.compute, str(torch.__version__), confined))
    machine = Machine(device, start.engine, threads)
    worker = Worker(machine, lambda message: write_message(write, message))
    while True:
        message = inbox.next(wait=worker.idle)
        while message is not None:
            worker.take(message)
            message = inbox.next(wait=False)
        worker.step()

"""The worker's life: a thread hears the daemon, the main thread steps the models in turn."""

import os
import queue
import threading
from collections.abc import Callable
from typing import NoReturn

import torch

from node.worker.engine.device import Device, choose
from node.worker.engine.engine import Engine
from node.worker.pipe import (
    Add,
    Cancel,
    Ended,
    Failed,
    Frames,
    FromWorker,
    Load,
    Loaded,
    LoadFailed,
    Measure,
    Measured,
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
    """Carries out what the daemon asks for, on one device."""

    def __init__(self, device: Device, say: Callable[[FromWorker], None]) -> None:
        self._device = device
        self._say = say
        self._engines: dict[ModelId, Engine] = {}
        self._of_task: dict[int, Engine] = {}
        self._to_measure: list[ModelId] = []

    @property
    def idle(self) -> bool:
        return not self._to_measure and all(engine.idle for engine in self._engines.values())

    def take(self, message: ToWorker) -> None:
        """Do what a message asks."""
        match message:
            case Load():
                self._load(message)
            case Measure(model):
                if model in self._engines:
                    self._to_measure.append(model)
            case Add():
                self._add(message)
            case Cancel(task):
                engine = self._of_task.get(task)
                if engine is not None:
                    engine.cancel(task, self._tell)
            case Start():
                raise PipeError("a second start")

    def step(self) -> None:
        """One step of each model that has something to do; a model that waits to be timed is,
        as soon as no sequence of any model runs beside it."""
        for engine in self._engines.values():
            if not engine.idle:
                engine.step(self._tell)
        if self._to_measure and all(engine.idle for engine in self._engines.values()):
            model = self._to_measure.pop(0)
            rates = self._engines[model].measure()
            self._say(Measured(model, rates.prefill, rates.decode))

    def _load(self, load: Load) -> None:
        try:
            engine = Engine(load, self._device)
        except LocalError as error:
            self._say(LoadFailed(load.model, error.code, error.sentence))
            return
        self._engines[load.model] = engine
        self._say(
            Loaded(load.model, engine.mode, engine.context_tokens, load.slots, engine.vocabulary)
        )

    def _add(self, add: Add) -> None:
        engine = self._engines.get(add.model)
        if engine is None:
            self._say(Failed(add.task, Code.MODEL_NOT_SERVED, "This model is not loaded."))
            return
        self._of_task[add.task] = engine
        try:
            engine.add(add, self._tell)
        except LocalError as error:
            self._tell(Failed(add.task, error.code, error.sentence))

    def _tell(self, event: FromWorker) -> None:
        if isinstance(event, Ended | Failed):
            self._of_task.pop(event.task, None)
        self._say(event)


def write_message(descriptor: int, message: FromWorker) -> None:
    """Raises OSError when the daemon is gone."""
    data = memoryview(frame(message))
    while data:
        data = data[os.write(descriptor, data) :]


def run(start: Start, inbox: Inbox, write: int, confined: list[str]) -> NoReturn:
    """Serve for ever: the reader thread ends the process. Raises OSError when the daemon is gone,
    LocalError BAD_CONFIG when the device that was asked for is not here."""
    device = choose(start.device, start.compute)
    write_message(write, Ready(device.name, device.compute, str(torch.__version__), confined))
    worker = Worker(device, lambda message: write_message(write, message))
    while True:
        message = inbox.next(wait=worker.idle)
        while message is not None:
            worker.take(message)
            message = inbox.next(wait=False)
        worker.step()

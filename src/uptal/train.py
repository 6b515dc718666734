"""The one training loop, for pretext tasks and localizers alike: read it from the top.

A task says what the loss of a batch is; a data source says which batch comes next. Everything that changes the next
step is in the checkpoint, so a run that was killed goes on with the same losses, bit for bit, on the same machine.
"""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch

from uptal import checkpoint
from uptal.device import choose_device
from uptal.distributed import World, any_process, average, differing, gather, world
from uptal.errors import CheckpointError, ConfigError
from uptal.learner import Batch, DivergenceError, Learner, Task
from uptal.memory import keep_freed_memory
from uptal.optim import OptimConfig, Plateau, after_epoch, learning_rate, restore, sound_arithmetic
from uptal.progress import Progress
from uptal.run import RunFolder, versions
from uptal.stopping import stop_signal
from uptal.writing import Writer

__all__ = ["Batch", "DivergenceError", "OptimConfig", "Outcome", "Task", "choose_device", "fit", "learning_rate"]


@runtime_checkable
class Data(Protocol):
    """Where batches come from; the same (epoch, position) always gives the same batches."""

    @property
    def steps_per_epoch(self) -> int: ...
    def batches(self, epoch: int, position: int = 0) -> Iterator[Any]: ...
    def validation_batches(self) -> Iterator[Any]: ...


@dataclass(frozen=True)
class Outcome:
    """How training ended."""

    steps: int
    seconds: float
    """Time spent training, over all restarts."""
    finished: bool
    """False when a signal ended it early; the same command goes on from there."""
    new_steps: int
    """Steps of this call; 0 when the run was finished before."""
    waited: float = field(default=0.0, compare=False)
    """Share of this call's time in which the process that waited longest had no data."""


@dataclass
class _State:
    """Where the run is; everything here is saved."""

    step: int = 0
    epoch: int = 0
    """Epochs that are complete."""
    position: int = 0
    """Samples of the present epoch that are used up."""
    seconds: float = 0.0
    plateau: Plateau = field(default_factory=Plateau)
    line: dict[str, Any] = field(default_factory=dict)
    """What the log says (or would say) of the last step."""


def fit(
    task: Task,
    data: Data,
    cfg: OptimConfig,
    run: RunFolder,
    *,
    device: torch.device,
    world: World,
    look: Callable[[int], Mapping[str, float]] | None = None,
) -> Outcome:
    """Trains until `epochs` or `max_steps`, from the newest valid checkpoint of the run when there is one.

    `look` is called with the number of epochs after each of them, the last one even if it is cut short, on the first
    process; what it finds goes into the log. It must leave the task and the random numbers as they are.

    Raises:
        DivergenceError: A loss or gradient is not finite.
        CheckpointError: A checkpoint cannot be written, or those that are there cannot be read or are of another model.
        ConfigError: There are fewer videos than a step needs.
    """
    if device.type == "cpu":
        keep_freed_memory()
    learner = Learner(task, cfg, device)
    state = _resume(learner, run, main=world.rank == 0)
    _check_beginning(state, task, run, world)
    steps_per_epoch = _steps_per_epoch(data, cfg)
    last = cfg.epochs * steps_per_epoch if cfg.max_steps is None else min(cfg.epochs * steps_per_epoch, cfg.max_steps)
    first, main, alarm, clock = state.step, world.rank == 0, _CollapseAlarm(), _Clock()
    stopping = False  # agreed upon by all processes; a signal that comes meanwhile is for the next step to see
    task.train()

    bar = Progress(f"training {run.path.name}", last, first, enabled=main)
    with stop_signal() as stop, sound_arithmetic(learner.dtype, device), bar as progress, Writer() as writer:
        while state.step < last and state.epoch < cfg.epochs and not stopping:
            batches = data.batches(state.epoch, state.position)
            clock.restart()
            while parts := _take(batches, cfg.accumulate, clock):
                lr = learning_rate(cfg, state.step / steps_per_epoch, last / steps_per_epoch, state.plateau.reduction)
                values = learner.step(parts, lr, state.step + 1)
                state.step, state.position = state.step + 1, parts[-1].position
                clock.count(sum(len(part.names) for part in parts) * world.size)
                state.line = {"step": state.step, "epoch": state.epoch, **values, "lr": lr, **clock.rates()}
                state.seconds += clock.lap()
                if main:
                    alarm.look(values.get("spread"), state.step)
                progress.update(state.step, _note(values), state.line)
                if state.step % cfg.log_every == 0 or state.step in (1, last):
                    state.line["data_wait"] = round(_worst(state.line["data_wait"]), 4)
                    clock.reset()
                    if main:
                        run.log(state.line)
                writer.look()
                stopping = any_process(stop.asked)
                if state.step == last or stopping:
                    break
                if state.step % cfg.checkpoint_every == 0:
                    _save(writer, learner, state, run, main)
            else:
                if state.position == 0:
                    raise ConfigError(f"{run.path}: a whole epoch gave no step; too few videos could be read.")
                state.epoch, state.position = state.epoch + 1, 0
                measured = _validate(task, data, device)
                if measured:
                    state.plateau = after_epoch(state.plateau, measured["val_loss"], cfg)
                    _log_validation(run, state, measured, main)
                    _keep_best(task, cfg, state, run, measured, main)
                if look is not None and main:
                    _log_validation(run, state, look(state.epoch), main)
        if state.step > first or last == 0:
            _save(writer, learner, state, run, main)
            writer.finish()
        finished = state.step >= last or state.epoch >= cfg.epochs
        if state.step == last and state.position:  # the last epoch, of which the schedule has no more use
            due = _Closing.due(run, state, look is not None, main)
            finished = not stopping or not (due.validation or due.look)
            if due.validation and not stopping:
                measured = _validate(task, data, device)
                _keep_best(task, cfg, state, run, measured, main)  # before the line that says that it is done
                _log_validation(run, state, measured, main)
            if due.look and look is not None and main and not stopping:
                _log_validation(run, state, look(state.epoch + 1), main)
    return Outcome(state.step, state.seconds, finished, state.step - first, _worst(clock.share()))


def _steps_per_epoch(data: Data, cfg: OptimConfig) -> int:
    steps = data.steps_per_epoch // cfg.accumulate
    if steps < 1:
        raise ConfigError(
            f"The videos of an epoch make {data.steps_per_epoch} parts of a batch, a step needs {cfg.accumulate}. Use "
            "a smaller --optim.accumulate or --optim.batch, or more videos."
        )
    return steps


@torch.no_grad()
def _validate(task: Task, data: Data, device: torch.device) -> dict[str, float]:
    """Mean loss and accuracy over the fixed validation videos of all processes, in evaluation mode; empty if none."""
    sums = torch.zeros(3, dtype=torch.float64, device=device)
    task.train(False)
    for batch in data.validation_batches():
        values = task.loss(batch.to(device))
        accuracy = values.get("accuracy", sums.new_zeros(()))
        parts = (values["loss"], accuracy, sums.new_ones(()))
        sums += len(batch.names) * torch.stack([part.to(sums) for part in parts])
    task.train()
    average([sums])
    loss, accuracy, count = sums.tolist()
    return {"val_loss": loss / count, "val_accuracy": accuracy / count} if count else {}


@dataclass(frozen=True)
class _Closing:
    """What is to be measured after the last step. The checkpoint is written before, so a run that ended in between
    measures it when it is started again."""

    validation: bool
    look: bool

    @classmethod
    def due(cls, run: RunFolder, state: _State, looks: bool, main: bool) -> _Closing:
        """What the log of the first process lacks; the same on all."""
        lines = [line.keys() for line in run.read_log() if line["step"] == state.step] if main else []
        validated = any("val_loss" in line for line in lines)
        looked = any(line - state.line.keys() - {"val_loss", "val_accuracy"} for line in lines)
        return cls(any_process(main and not validated), any_process(main and looks and not looked))


def _log_validation(run: RunFolder, state: _State, measured: Mapping[str, float], main: bool) -> None:
    """The last step's line once more, with the validation beside it: every line of the log has the same keys."""
    if main and measured:
        run.log(state.line | {"epoch": state.epoch, **measured})


def _keep_best(
    task: Task, cfg: OptimConfig, state: _State, run: RunFolder, measured: Mapping[str, float], main: bool
) -> None:
    """The weights of the epoch with the highest validation accuracy so far, beside the checkpoints."""
    if main and measured and cfg.keep_best:
        epoch = state.epoch if state.position == 0 else state.epoch + 1
        checkpoint.save_best(run.best, measured["val_accuracy"], epoch, task.state_dict())


def _save(writer: Writer, learner: Learner, state: _State, run: RunFolder, main: bool) -> None:
    """Has a checkpoint written; every process takes part, since each has random numbers of its own."""
    mine = torch.get_rng_state()
    random = {
        "cpu": mine,
        "processes": gather(mine[None]),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }
    if not main:
        return
    train = {
        "optimiser": learner.optimiser.state_dict(),
        "scaler": learner.scaler.state_dict(),
        "state": asdict(state),
        "random": random,
    }
    meta = {"format": 1, "versions": versions()}
    writer.save(run.checkpoints, state.step, learner.task.state_dict(), train, meta, learner.cfg.keep)


def _resume(learner: Learner, run: RunFolder, main: bool) -> _State:
    found, passed_over = checkpoint.newest_valid(run.checkpoints)
    for line in passed_over if main else ():
        print(f"passing over {line}", file=sys.stderr)
    if found is None:
        if main:
            run.rewind_log(0, 0)
            run.best.unlink(missing_ok=True)
        return _State()
    try:
        learner.task.load_state_dict(found.weights)
        restore(learner.optimiser, found.train["optimiser"])
        learner.scaler.load_state_dict(found.train["scaler"])
        _restore_random(found.train["random"])
        if torch.cuda.is_available() and len(found.train["random"]["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(found.train["random"]["cuda"])
        stored = found.train["state"]
        state = _State(**{**stored, "plateau": Plateau(**stored["plateau"])})
    except (RuntimeError, KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split()[:40])
        raise CheckpointError(
            f"{run.checkpoints}: step {found.step} is of another model ({reason}). Use the settings that the run was "
            "started with, or another --run."
        ) from error
    if main:
        run.rewind_log(state.step, state.epoch)
    return state


def _check_beginning(state: _State, task: Task, run: RunFolder, world: World) -> None:
    """Processes that begin with other steps or weights would train several models as if they were one.

    Raises:
        CheckpointError: On every process, when they differ.
    """
    if world.size == 1:
        return
    total = hashlib.sha256()
    for name, value in task.named_parameters():  # statistics of batch norm may be each process's own
        total.update(name.encode())
        total.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    others = differing(f"{state.step} {state.epoch} {state.position} {total.hexdigest()}")
    steps = gather(torch.tensor([state.step])).tolist()
    if others:
        raise CheckpointError(
            f"{run.path}: the processes do not begin alike: number 0 at step {steps[0]}, "
            + ", ".join(f"number {rank} at step {steps[rank]}" for rank in others[:8])
            + (", with other weights" if len(set(steps)) == 1 else "")
            + ". All of them must see the same run folder; where it is on a network, wait a moment and start again."
        )


def _restore_random(stored: Mapping[str, Any]) -> None:
    """The random state of this process; a process that was not there before keeps the one that it began with."""
    states, place = stored.get("processes", stored["cpu"][None]), world()
    if place.rank < len(states):
        torch.set_rng_state(states[place.rank].clone())  # PyTorch reads a view of a row from a wrong place


def _take(batches: Iterator[Any], count: int, clock: _Clock) -> list[Any]:
    """The parts of a step, or nothing at the epoch's end, which comes for all processes as soon as it does for one."""
    with clock.waiting():
        parts = [batch for _, batch in zip(range(count), batches, strict=False)]
    return [] if any_process(len(parts) < count) else parts


def _worst(share: float) -> float:
    """The largest of all processes': a step takes as long as the last of them. No device is waited for."""
    return float(gather(torch.tensor([share], dtype=torch.float64)).max())


def _note(values: Mapping[str, Any]) -> str:
    accuracy = values["accuracy"]
    return f"loss {values['loss']:.3f}" + ("" if accuracy is None else f" acc {accuracy:.2f}")


class _CollapseAlarm:
    """Says once that all embeddings have become the same, which no loss need show."""

    def __init__(self) -> None:
        self._low, self._said = 0, False

    def look(self, spread: float | None, step: int) -> None:
        """Takes a step's spread: the standard deviation of unit vectors times the root of their width, 1 at most."""
        self._low = self._low + 1 if spread is not None and spread < 0.01 else 0
        if self._low == 100 and not self._said:
            self._said = True
            print(
                f"collapse: for 100 steps, up to step {step}, embeddings have differed by less than a hundredth of "
                "what they could (`spread` in the log). The encoder gives every clip the same feature; stop, and try a "
                "lower --optim.lr or --head.ft_last_relu false.",
                file=sys.stderr,
            )


class _Clock:
    """Time since the last line of the log, and over all steps: how many videos, how much of it waiting for data."""

    def __init__(self) -> None:
        self._spent_in_all = self._waited_in_all = 0.0
        self.restart()

    def restart(self) -> None:
        """Begins an epoch; what lies between two of them is not counted."""
        self._lap, self._waited_in_lap = time.perf_counter(), 0.0
        self.reset()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        spent = time.perf_counter() - begin
        self._waited, self._waited_in_lap = self._waited + spent, self._waited_in_lap + spent

    def count(self, videos: int) -> None:
        self._videos += videos

    def rates(self) -> dict[str, float]:
        spent = max(1e-9, time.perf_counter() - self._start)
        return {"videos_per_s": round(self._videos / spent, 2), "data_wait": round(self._waited / spent, 4)}

    def lap(self) -> float:
        """Seconds since the last lap."""
        now = time.perf_counter()
        spent, self._lap = now - self._lap, now
        self._spent_in_all, self._waited_in_all = self._spent_in_all + spent, self._waited_in_all + self._waited_in_lap
        self._waited_in_lap = 0.0
        return spent

    def share(self) -> float:
        """Of the time of all laps: how much was waiting."""
        return self._waited_in_all / max(1e-9, self._spent_in_all)

    def reset(self) -> None:
        self._start, self._waited, self._videos = time.perf_counter(), 0.0, 0

"""The one training loop, for pretext tasks and localizers alike: read it from the top.

A task says what the loss of a batch is; a data source says which batch comes next. Everything that changes the next step
is in the checkpoint, so a run that was killed goes on with the same losses, bit for bit, on the same machine.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from uptal import checkpoint
from uptal.distributed import World, any_process, average
from uptal.errors import CheckpointError, ConfigError, UptalError
from uptal.progress import Progress
from uptal.run import RunFolder


class DivergenceError(UptalError):
    """A loss or gradient that is not a number; raised before the update, so weights are those before the step."""


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """Optimiser, schedule and bookkeeping."""

    algorithm: Literal["adam", "adamw", "sgd"] = "adam"
    """Adam (Sec. 4.1.1); weight decay is L2 inside Adam, as `torch.optim.Adam` has it."""
    lr: float = 1e-4
    """Learning rate (Sec. 4.1.1) at `lr_batch` samples a step."""
    lr_batch: int = 512
    """Batch that `lr` is meant for (Sec. 4.1.1)."""
    lr_scaling: Literal["none", "sqrt", "linear"] = "none"
    """How the rate follows another batch size. The paper uses one batch size; `sqrt` suits Adam."""
    weight_decay: float = 1e-5
    """Weight decay (Sec. 4.1.1)."""
    batch: int = 512
    """Samples a step over all processes and accumulated parts (Sec. 4.1.1)."""
    accumulate: int = 1
    """Parts that a step's batch is computed in. Negatives and batch statistics are those of a part."""
    epochs: int = 200
    """Passes over the videos (Sec. 4.1.1; 100 for the ablations of Tables 3 to 6)."""
    max_steps: int | None = None
    """Stop after this many steps, whatever `epochs` says."""
    schedule: Literal["plateau", "multistep", "cosine", "constant"] = "plateau"
    """"Decreases by a factor of 10 when the validation loss saturates" (Sec. 4.1.1)."""
    warmup_epochs: float = 0.0
    """Linear warm-up. The paper has none."""
    milestones: tuple[int, ...] = (120, 160)
    """Epochs at which `multistep` divides the rate."""
    gamma: float = 0.1
    """Factor of `plateau` and `multistep` (Sec. 4.1.1)."""
    patience: int = 10
    """Epochs without improvement before `plateau` acts. The paper does not say."""
    threshold: float = 1e-3
    """Relative improvement that counts. The paper does not say."""
    min_lr: float = 1e-6
    """Lowest rate of `plateau`. The paper does not say."""
    clip_norm: float | None = None
    """Largest gradient norm; none in the paper."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Arithmetic of the encoder: `auto` is bf16 where the device has it, else fp32. Losses are always fp32."""
    log_every: int = 10
    """Steps from one log line to the next."""
    checkpoint_every: int = 500
    """Steps from one checkpoint to the next; one is also written at the end and on a signal."""
    keep: int = 3
    """Checkpoints to keep."""

    def __post_init__(self) -> None:
        if self.lr < 0 or self.batch < 1 or self.accumulate < 1 or self.epochs < 0 or self.keep < 1:
            raise ConfigError("optim needs lr >= 0, batch >= 1, accumulate >= 1, epochs >= 0 and keep >= 1.")
        if self.log_every < 1 or self.checkpoint_every < 1:
            raise ConfigError("optim.log_every and optim.checkpoint_every count steps and must be at least 1.")

    def part(self, world_size: int) -> int:
        """Samples of one forward pass on one process."""
        if self.batch % (self.accumulate * world_size):
            raise ConfigError(
                f"optim.batch {self.batch} cannot be divided into {self.accumulate} parts on {world_size} processes; "
                "choose numbers that divide."
            )
        return self.batch // self.accumulate // world_size


class Batch(Protocol):
    """What the loop knows of a batch."""

    @property
    def names(self) -> tuple[str, ...]: ...
    @property
    def position(self) -> int: ...
    def to(self, device: torch.device) -> Any: ...


class Data(Protocol):
    """Where batches come from; the same (epoch, position) always gives the same batches."""

    @property
    def steps_per_epoch(self) -> int: ...
    def batches(self, epoch: int, position: int = 0) -> Iterator[Any]: ...
    def validation_batches(self) -> Iterator[Any]: ...


class Task(Protocol):
    """A module that knows its loss. `after_step` runs once the optimiser has stepped."""

    def loss(self, batch: Any) -> dict[str, Tensor]: ...
    def after_step(self) -> None: ...
    def parameters(self) -> Iterator[nn.Parameter]: ...
    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any: ...
    def train(self, mode: bool = True) -> Any: ...


@dataclass(frozen=True)
class Outcome:
    """How training ended."""

    steps: int
    seconds: float
    """Time spent training, over all restarts."""
    finished: bool
    """False when a signal ended it early; the same command goes on from there."""


@dataclass
class _State:
    """Where the run is; everything here is saved."""

    step: int = 0
    epoch: int = 0
    position: int = 0
    seconds: float = 0.0
    lr_scale: float = 1.0
    best: float = math.inf
    stale_epochs: int = 0


def fit(task: Task, data: Data, cfg: OptimConfig, run: RunFolder, *, device: torch.device, world: World) -> Outcome:
    """Trains until `epochs` or `max_steps`, from the newest valid checkpoint of the run when there is one.

    Raises:
        DivergenceError: A loss or gradient is not finite. CheckpointError: A checkpoint cannot be written.
    """
    optimiser = _optimiser(task, cfg)
    scaler = torch.amp.GradScaler(device.type, enabled=_dtype(cfg, device) == torch.float16)
    state = _resume(task, optimiser, scaler, run)
    steps_per_epoch = max(1, data.steps_per_epoch // cfg.accumulate)
    last = min(cfg.epochs * steps_per_epoch, math.inf if cfg.max_steps is None else cfg.max_steps)
    progress = Progress(f"training {run.path.name}", total=int(last), start=state.step, enabled=world.rank == 0)
    task.train()

    with _stop_signal() as stop, progress:
        while state.epoch < cfg.epochs and state.step < last and not stop.asked:
            batches = data.batches(state.epoch, state.position)
            clock = _Clock()
            while state.step < last:
                parts = _take(batches, cfg.accumulate, clock)
                if len(parts) < cfg.accumulate:
                    break
                lr = learning_rate(cfg, state.step / steps_per_epoch, last / steps_per_epoch) * state.lr_scale
                for group in optimiser.param_groups:
                    group["lr"] = max(lr, min(cfg.min_lr, cfg.lr)) if cfg.schedule == "plateau" else lr
                values = _step(task, parts, optimiser, scaler, cfg, device, state.step)
                state.step, state.position = state.step + 1, parts[-1].position
                line = {"step": state.step, "epoch": state.epoch, **values, "lr": lr, **clock.rates(cfg.batch)}
                state.seconds += clock.lap()
                progress.update(state.step, f"loss {values['loss']:.3f} acc {values.get('accuracy', 0):.2f}", line)
                if world.rank == 0 and (state.step % cfg.log_every == 0 or state.step == last or state.step == 1):
                    run.log(line)
                stop.asked = any_process(stop.asked, device)
                if state.step % cfg.checkpoint_every == 0 and not stop.asked and state.step < last and world.rank == 0:
                    _save(task, optimiser, scaler, state, run, cfg)
                if stop.asked:
                    break
            else:
                break
            if not stop.asked:
                state.epoch, state.position = state.epoch + 1, 0
                _validate(task, data, cfg, state, run, device, world)
        if world.rank == 0 and (state.step > 0 or last == 0):
            _save(task, optimiser, scaler, state, run, cfg)
    finished = state.step >= last or state.epoch >= cfg.epochs
    return Outcome(state.step, state.seconds, finished)


def learning_rate(cfg: OptimConfig, epoch: float, epochs: float) -> float:
    """Rate at a (fractional) epoch of `epochs`, before the plateau rule's factor.

    >>> learning_rate(OptimConfig(lr=1.0, schedule="cosine", epochs=10), 5, 10)
    0.5
    """
    ratio = cfg.batch / cfg.lr_batch
    lr = cfg.lr * {"none": 1.0, "sqrt": math.sqrt(ratio), "linear": ratio}[cfg.lr_scaling]
    if epoch < cfg.warmup_epochs:
        return lr * (epoch + 1e-8) / cfg.warmup_epochs
    if cfg.schedule == "cosine":
        share = (epoch - cfg.warmup_epochs) / max(1e-8, epochs - cfg.warmup_epochs)
        return lr * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))
    if cfg.schedule == "multistep":
        return lr * cfg.gamma ** sum(epoch >= milestone for milestone in cfg.milestones)
    return lr


def choose_device(name: str) -> torch.device:
    """`auto`, `cpu`, `cuda` or `cuda:1` as a device that is there.

    Raises:
        ConfigError: A GPU was asked for and there is none.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"--device {name!r} is not a device. Use auto, cpu, cuda or cuda:0.") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            f"--device {name} asks for a GPU, and PyTorch {torch.__version__} finds none on this machine. Use --device cpu, "
            "or install a CUDA build of PyTorch and check the driver with nvidia-smi."
        )
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"--device {name}: this machine has {torch.cuda.device_count()} GPUs, counted from 0.")
    return device


def _step(task: Task, parts: list[Any], optimiser, scaler, cfg: OptimConfig, device: torch.device, step: int) -> dict[str, float]:
    """One update from the parts of one batch; the values that go to the log."""
    optimiser.zero_grad(set_to_none=True)
    total: dict[str, float] = {}
    dtype = _dtype(cfg, device)
    for part in parts:
        with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
            values = task.loss(part.to(device))
        _check(values["loss"], "loss", step, parts)
        scaler.scale(values["loss"] / len(parts)).backward()
        for name, value in values.items():
            total[name] = total.get(name, 0.0) + float(value.detach()) / len(parts)
    scaler.unscale_(optimiser)
    gradients = [p.grad for p in task.parameters() if p.grad is not None]
    average(gradients)
    norm = torch.nn.utils.get_total_norm(gradients) if gradients else torch.zeros(())
    if not scaler.is_enabled():
        _check(norm, "gradient norm", step, parts)
    if cfg.clip_norm is not None:
        torch._foreach_mul_(gradients, (cfg.clip_norm / (norm + 1e-6)).clamp(max=1.0))
    scaler.step(optimiser)
    scaler.update()
    task.after_step()
    return total


def _check(value: Tensor, what: str, step: int, parts: list[Any]) -> None:
    if not torch.isfinite(value):
        names = ", ".join(name for part in parts for name in part.names[:16])
        raise DivergenceError(
            f"The {what} of step {step + 1} is {float(value)}; the weights are still those before the step. Videos of "
            f"this step: {names}. Try a lower --optim.lr, --optim.clip_norm 1 or --optim.precision fp32."
        )


def _validate(task: Task, data: Data, cfg: OptimConfig, state: _State, run: RunFolder, device: torch.device, world: World) -> None:
    """Loss on the fixed validation videos, in evaluation mode; drives the plateau rule."""
    sums: dict[str, float] = {}
    count = 0
    task.train(False)
    with torch.no_grad():
        for batch in data.validation_batches():
            for name, value in task.loss(batch.to(device)).items():
                sums[name] = sums.get(name, 0.0) + float(value)
            count += 1
    task.train()
    if not count:
        return
    totals = [torch.tensor([sums[name] / count]) for name in ("loss", "accuracy") if name in sums]
    average(totals)
    values = [float(total) for total in totals]
    if values[0] < state.best * (1 - cfg.threshold):
        state.best, state.stale_epochs = values[0], 0
    else:
        state.stale_epochs += 1
    if cfg.schedule == "plateau" and state.stale_epochs > cfg.patience:
        state.lr_scale, state.stale_epochs = state.lr_scale * cfg.gamma, 0
    if world.rank == 0:
        line = {"step": state.step, "epoch": state.epoch, "val_loss": values[0]}
        run.log(line | ({"val_accuracy": values[1]} if len(values) > 1 else {}) | {"lr_scale": state.lr_scale})


def _optimiser(task: Task, cfg: OptimConfig) -> torch.optim.Optimizer:
    parameters = [p for p in task.parameters() if p.requires_grad]
    if cfg.algorithm == "sgd":
        return torch.optim.SGD(parameters, cfg.lr, momentum=0.9, weight_decay=cfg.weight_decay)
    kind = torch.optim.Adam if cfg.algorithm == "adam" else torch.optim.AdamW
    return kind(parameters, cfg.lr, weight_decay=cfg.weight_decay)


def _dtype(cfg: OptimConfig, device: torch.device) -> torch.dtype:
    if cfg.precision == "auto":
        return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float32
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[cfg.precision]


def _save(task: Task, optimiser, scaler, state: _State, run: RunFolder, cfg: OptimConfig) -> None:
    random = {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []}
    train = {"optimiser": optimiser.state_dict(), "scaler": scaler.state_dict(), "state": vars(state), "random": random}
    checkpoint.save(run.checkpoints, state.step, task.state_dict(), train, {"format": 1}, cfg.keep)


def _resume(task: Task, optimiser, scaler, run: RunFolder) -> _State:
    found, passed_over = checkpoint.newest_valid(run.checkpoints)
    for line in passed_over:
        print(f"passing over {line}")
    if found is None:
        return _State()
    try:
        task.load_state_dict(found.weights)
        optimiser.load_state_dict(found.train["optimiser"])
        scaler.load_state_dict(found.train["scaler"])
        torch.set_rng_state(found.train["random"]["cpu"])
        if torch.cuda.is_available() and found.train["random"]["cuda"]:
            torch.cuda.set_rng_state_all(found.train["random"]["cuda"])
        state = _State(**found.train["state"])
    except (RuntimeError, KeyError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(
            f"{run.checkpoints}: step {found.step} is of another model ({reason}). Use the settings that the run was "
            "started with, or another --run."
        ) from error
    run.rewind_log(state.step)
    return state


def _take(batches: Iterator[Any], count: int, clock: _Clock) -> list[Any]:
    with clock.waiting():
        return [batch for _, batch in zip(range(count), batches, strict=False)]


class _Clock:
    """How long a step took, and how much of that was waiting for data."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._waited = 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        self._waited += time.perf_counter() - begin

    def rates(self, samples: int) -> dict[str, float]:
        spent = time.perf_counter() - self._start
        return {"videos_per_s": round(samples / spent, 2), "data_wait": round(self._waited / spent, 4)}

    def lap(self) -> float:
        now = time.perf_counter()
        spent, self._start, self._waited = now - self._start, now, 0.0
        return spent


@dataclass
class _Stop:
    asked: bool = False


@contextmanager
def _stop_signal() -> Iterator[_Stop]:
    """SIGTERM, SIGUSR1 and Ctrl-C ask the loop to save and leave; a second Ctrl-C leaves at once."""
    stop, before = _Stop(), {}

    def ask(number, frame) -> None:
        if stop.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.asked = True

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        try:
            before[number] = signal.signal(number, ask)
        except ValueError:  # not the main thread: signals stay with whoever has them
            break
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

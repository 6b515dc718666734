"""Whether a run can go on or be used: settings, log, checkpoints, what it made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from uptal.commands.doctor.printing import show
from uptal.errors import CheckpointError, ConfigError, UptalError


def examine(parsed: Namespace) -> tuple[dict[str, Any], str]:
    """Every checkpoint read and compared with its digests; finished or not; encoder and localizer loaded."""
    if not parsed.path:
        raise ConfigError("doctor run needs the run folder: uptal doctor run RUN.")
    from uptal.commands.options import read_yaml
    from uptal.run import RunFolder

    path = Path(parsed.path)
    if not path.is_dir():
        raise ConfigError(f"{path}: there is no such run folder.")
    config, run, problems = read_yaml(path / "config.yaml"), RunFolder(path), []
    whole, damaged, state = _checkpoints(run.checkpoints)
    problems += damaged
    log = run.read_log()
    problems += _about_log(path / "log.jsonl", len(log))
    problems += _about_products(path)
    findings = {
        "kind": config.get("localizer") or config.get("method") or "unknown",
        "checkpoints": {"whole": whole, "damaged": len(damaged)},
        "step": state.get("step", 0),
        "epoch": state.get("epoch", 0),
        "finished": _finished(config.get("optim") or {}, state),
        "log": {"lines": len(log), "last": log[-1] if log else None},
        "products": [name for name in ("encoder.safetensors", "localizer.safetensors") if (path / name).exists()],
        "problems": problems,
    }
    return show(findings, str(parsed.path))


def _checkpoints(folder: Path) -> tuple[list[int], list[str], dict[str, Any]]:
    """Steps of the whole ones, complaints about the others, and where the newest whole one stands."""
    from uptal import checkpoint

    whole, damaged, state = [], [], {}
    for path in sorted(folder.glob("step_*")):
        try:
            found = checkpoint.load(path)
        except CheckpointError as error:
            damaged.append(str(error))
            continue
        whole.append(found.step)
        state = dict(found.train.get("state") or {"step": found.step})
    return whole, damaged, state


def _about_log(file: Path, readable: int) -> list[str]:
    if not file.exists():
        return []
    lines = len(file.read_text("utf-8", errors="replace").splitlines())
    if readable >= lines - 1:  # a kill may cut the last one
        return []
    return [f"{file}: line {readable + 1} of {lines} is damaged; what follows it is not read."]


def _about_products(path: Path) -> list[str]:
    from uptal.encoders import load_encoder
    from uptal.recipes.localizer_files import load_localizer

    problems = []
    for name, load in (("encoder.safetensors", load_encoder), ("localizer.safetensors", load_localizer)):
        if (path / name).exists():
            try:
                load(path)
            except UptalError as error:
                problems.append(str(error))
    return problems


def _finished(optim: dict[str, Any], state: dict[str, Any]) -> bool:
    steps, epochs = optim.get("max_steps"), optim.get("epochs")
    by_steps = steps is not None and state.get("step", 0) >= steps
    return by_steps or (epochs is not None and state.get("epoch", 0) >= epochs)

"""Shared test set-up: runtime shape checks, the folder of golden files, the folder of real videos."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from jaxtyping import install_import_hook

_HOOK = install_import_hook("uptal", "beartype.beartype")

torch.set_num_threads(1)  # tests are small; threads that wait for each other cost more than they give

GOLDEN = Path(os.environ.get("UPTAL_GOLDEN", Path(__file__).parents[2] / "shared" / "golden"))
DATA = Path(os.environ.get("UPTAL_DATA", Path(__file__).parents[2] / "shared" / "data"))

GOLDEN_STEMS = {
    "align1d": ".npz",
    "anet_det": ".json.gz",
    "anet_prop": ".json.gz",
    "thumos_gtad_eval": ".json.gz",
    "bb_coclr_s3d": ".npz",
    "bb_coclr_s3dg": ".npz",
    "bb_hara_r3d50": ".npz",
    "bb_i3d": ".npz",
    "bb_kylemin_s3d": ".npz",
    "bb_ptv_i3d_r50": ".npz",
    "bb_ptv_slow_r50": ".npz",
    "bb_rspnet_r2plus1d_1111": ".npz",
    "bb_rspnet_s3dg": ".npz",
    "bb_torchvision_r2plus1d_18": ".npz",
    "bb_torchvision_s3d": ".npz",
    "bb_tsm_resnet18": ".npz",
    "bb_tsm_resnet50": ".npz",
    "bb_tsp_r2plus1d_34": ".npz",
    "bb_vmz_r2plus1d_18": ".npz",
    "bmn_full": ".npz",
    "bmn_labels": ".npz",
    "bmn_pipeline": ".npz",
    "bmn_sample_mask": ".npz",
    "bmn_small": ".npz",
    "gtad_anet_full": ".npz",
    "gtad_anet_labels": ".npz",
    "gtad_anet_pipeline": ".npz",
    "gtad_anet_small": ".npz",
    "gtad_th_pipeline": ".npz",
    "gtad_thumos_full": ".npz",
    "gtad_thumos_small": ".npz",
    "gtad_thumos_windows_labels": ".npz",
    "lgi_full": ".npz",
    "lgi_tiny": ".npz",
    "softnms": ".npz",
    "vg_metrics": ".npz",
    "vg_segment_sampling": ".npz",
    "vg_text_pipeline": ".npz",
}
"""Kinds of golden files that the tests of this project compare with, and how their names end."""

GOLDEN_DATA = ("anet_sample_detection", "anet_val")
"""Golden files that serve other tests as ground truth or expectation."""

_compared: set[Path] = set()


def golden_files(stem: str) -> list[Path]:
    """All golden files of one kind: the stem followed by the end of the name or `_`."""
    suffix = GOLDEN_STEMS[stem]
    names = [path for path in sorted(GOLDEN.rglob(f"{stem}*{suffix}")) if "expected" not in path.name]
    return [path for path in names if path.name == stem + suffix or path.name.startswith(stem + "_")]


def unclaimed_files() -> list[Path]:
    """Golden files of a kind that nothing here knows; a misspelt name must not pass for a comparison."""
    known = {path for stem in GOLDEN_STEMS for path in golden_files(stem)}
    files = [path for path in sorted(GOLDEN.rglob("*")) if path.name.endswith((".npz", ".json.gz"))]
    others = [path for path in files if path not in known and "expected" not in path.name]
    return [path for path in others if not path.name.startswith(GOLDEN_DATA)]


def golden_params(stem: str):
    """Parameters for a golden test: one case a file, or one case that skips with a plain message."""
    files = golden_files(stem)
    if not files:
        reason = f"no golden file '{stem}*' in {GOLDEN} (set UPTAL_GOLDEN to the folder that holds them)"
        return [pytest.param(None, marks=pytest.mark.skip(reason=reason), id="absent")]
    return [pytest.param(path, id=path.name.split(".")[0]) for path in files]


@pytest.fixture
def compared():
    """Call with a golden file once its comparison is done; the run reports how many were compared."""
    return _compared.add


@pytest.fixture(scope="session")
def real_videos() -> Path:
    """The folder of real videos; skips when it is not at hand."""
    if not DATA.is_dir():
        pytest.skip(f"no real videos at {DATA} (set UPTAL_DATA to a folder that holds them)")
    return DATA


def pytest_sessionfinish(session, exitstatus) -> None:
    if hasattr(session.config, "workeroutput"):  # one of several processes: the first one counts for all
        session.config.workeroutput["compared"] = [str(path) for path in _compared]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error) -> None:
    _compared.update(map(Path, getattr(node, "workeroutput", {}).get("compared", ())))


def pytest_terminal_summary(terminalreporter) -> None:
    if _compared:
        terminalreporter.write_line(f"golden: {len(_compared)} files compared")
    if "UPTAL_GOLDEN" in os.environ and (unclaimed := unclaimed_files()):
        terminalreporter.write_line(f"golden: no test claims {', '.join(path.name for path in unclaimed)}")


@pytest.fixture
def one_thread():
    """Runs in one thread, as the experiments do, for equal sums."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)

"""Decoding on a GPU, with a stand-in for it where there is none: which frames, which pictures, and what is missing."""

from __future__ import annotations

import threading
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch.nn.functional import interpolate

from uptal import video
from uptal.cli import main
from uptal.clipspec import ClipSpec
from uptal.errors import ConfigError
from uptal.features.extraction import _decode_all
from uptal.features.grid import Sampling
from uptal.pretext.data import DataConfig
from uptal.video import with_nvdec
from workshop import paint


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    path = tmp_path_factory.mktemp("nvdec") / "film.mp4"
    paint(path, seed=1, frames=30)
    return path


class Fallback:
    """torchcodec's word for whether the CPU decodes."""

    def __init__(self, reason: str):
        self.reason = reason

    def __bool__(self) -> bool:
        return bool(self.reason)

    def __str__(self) -> str:
        return f"[CUDA] Fallback status: {self.reason}"


@pytest.fixture
def gpu(monkeypatch):
    """A decoder like torchcodec's, whose frames are PyAV's."""
    seen = SimpleNamespace(asked=[], reason="", error=None, late=0.0)

    class Decoder:
        def __init__(self, source, *, stream_index, device, seek_mode):
            assert (device, seek_mode) == ("cuda:2", "exact")
            if isinstance(seen.error, Exception):
                raise seen.error
            self.source, self.cpu_fallback = source, Fallback(seen.reason)

        def get_frames_at(self, indices):
            seen.asked.extend(indices)
            info = video.probe(self.source)
            times = torch.tensor(info.times[indices] + info.start) + seen.late
            return SimpleNamespace(data=video.read(self.source, indices), pts_seconds=times)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 2)
    monkeypatch.setattr(with_nvdec, "video_decoder", lambda: Decoder)
    return seen


WANTED = [0, 3, 4, 11, 12, 13, 20, 21, 22, 29]


def test_the_gpu_gives_the_wanted_frames(film, gpu):
    assert torch.equal(video.read(film, WANTED, backend="nvdec"), video.read(film, WANTED))
    assert gpu.asked == WANTED


def test_smaller_pictures_are_torchs_antialiased_ones_but_for_rounding(film, gpu):
    found = video.read(film, WANTED, (12, 20), backend="nvdec")
    expected = interpolate(
        video.read(film, WANTED), (12, 20), mode="bilinear", antialias=True
    )  # the CPU's 8-bit kernel
    assert (found.int() - expected.int()).abs().max() == 1 and gpu.asked == WANTED


@pytest.mark.parametrize(
    "change",
    [{"common_colours": False}, {"stamps": None}, {"flips": (False, True, False)}],
    ids=["colours", "stamps", "turned"],
)
def test_what_the_gpu_does_not_do_is_read_by_pyav(film, gpu, change):
    info = replace(video.probe(film), **change)
    assert torch.equal(video.read(film, WANTED, info=info, backend="nvdec"), video.read(film, WANTED, info=info))
    assert not gpu.asked


def test_a_video_that_nvdec_does_not_know_and_times_that_are_others_go_to_pyav(film, gpu):
    gpu.reason = "Video not supported"
    assert torch.equal(video.read(film, WANTED, backend="nvdec"), video.read(film, WANTED)) and not gpu.asked
    gpu.reason, gpu.late = "", 0.01
    assert torch.equal(video.read(film, WANTED, backend="nvdec"), video.read(film, WANTED)) and gpu.asked == WANTED[:8]


def test_what_is_missing_is_said(film, gpu, monkeypatch):
    gpu.reason = "Falling back due to: NVcuvid unavailable"
    with pytest.raises(ConfigError, match=r"no NVDEC on this machine.*NVcuvid.*'pyav'"):
        video.read(film, WANTED, backend="nvdec")
    gpu.error = RuntimeError("DeviceInterface.cpp:87, Unsupported device: cuda:2 (device type: cuda)")
    with pytest.raises(ConfigError, match=r"built for CUDA.*unsupported device: cuda:2 .*'pyav'"):
        video.read(film, WANTED, backend="nvdec")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"needs an NVIDIA GPU.*'pyav'"):
        video.read(film, WANTED, backend="nvdec")


def test_a_gpu_without_memory_is_not_passed_over(film, gpu):
    gpu.error = torch.OutOfMemoryError("CUDA out of memory")
    with pytest.raises(torch.OutOfMemoryError):
        video.read(film, WANTED, backend="nvdec")


def test_forked_loaders_and_extraction_on_a_cpu_are_refused(tmp_path, film, capsys):
    with pytest.raises(ConfigError, match=r"data\.workers is 2\. Add --data\.workers 0"):
        DataConfig(backend="nvdec")
    assert DataConfig(backend="nvdec", workers=0).backend == "nvdec"
    words = ["--videos", str(film.parent), "--out", str(tmp_path), "--backend", "nvdec", "--device", "cpu"]
    assert main(["extract", *words]) == 1
    assert "--backend nvdec decodes on the GPU, and --device cpu is the CPU here" in capsys.readouterr().err


def test_threads_that_decode_for_an_encoder_take_its_gpu(film, monkeypatch):
    taken = []
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: taken.append((device, threading.get_ident())))
    spec, gpu = ClipSpec(frames=4, stride=1, size=12, resize=16), torch.device("cuda", 1)
    clips = [piece.clip for piece in _decode_all([film], spec, Sampling(interval=8), 2, gpu) if piece.clip is not None]
    assert len(clips) == 4 and [device for device, _ in taken] == [gpu] and taken[0][1] != threading.get_ident()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is here")
def test_a_gpus_pictures_are_pyavs_but_for_rounding_of_colours(film):
    pytest.importorskip("torchcodec", reason="torchcodec is not installed", exc_type=Exception)
    found, expected = (video.read(film, WANTED, backend=backend).int() for backend in ("nvdec", "pyav"))
    assert (found - expected).abs().float().mean() < 3  # of 255: the GPU interpolates chroma in its own way

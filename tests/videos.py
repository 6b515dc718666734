"""Makes the odd and the damaged videos that the tests need, small and with PyAV alone.

Every picture carries its own number in its upper quarter, in blocks of black and white that survive any coding, so a
test can tell which frame it got without trusting a decoder's order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from av.video.reformatter import Interpolation, VideoReformatter

WIDTH, HEIGHT, FRAMES, RATE = 96, 64, 60, 30
BITS = 8


def paint(number: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """An RGB picture (height, width, 3): a moving colour gradient, and `number` in binary along the upper edge."""
    y, x = np.mgrid[0:height, 0:width]
    moving = 127 + 100 * np.sin(2 * np.pi * (x + y + 3 * number) / width)
    picture = np.stack([40 + 150 * x / width, 40 + 150 * y / height, moving], axis=-1).astype(np.uint8)
    for bit in range(BITS):
        picture[: height // 4, bit * width // BITS : (bit + 1) * width // BITS] = 255 * (number >> bit & 1)
    return picture


def number_in(picture: torch.Tensor) -> int:
    """The number that `paint` wrote into a picture (C, H, W)."""
    grey = picture.float().mean(0)
    height, width = grey.shape
    blocks = [grey[2 : height // 4 - 2, b * width // BITS + 2 : (b + 1) * width // BITS - 2] for b in range(BITS)]
    return sum(1 << bit for bit, block in enumerate(blocks) if block.mean() > 127)


def numbers_in(pictures: torch.Tensor) -> list[int]:
    return [number_in(picture) for picture in pictures]


def plainly_decoded(path: Path) -> torch.Tensor:
    """Every frame in decoder order as (F, C, H, W), not turned: the simplest reader there can be, as an oracle."""
    converter, pictures = VideoReformatter(), []
    with av.open(str(path)) as container:
        for frame in container.decode(container.streams.best("video")):
            rgb = converter.reformat(frame, format="rgb24", interpolation=Interpolation.BICUBIC, threads=1)
            pictures.append(torch.from_numpy(rgb.to_ndarray().copy()))
    return torch.stack(pictures).permute(0, 3, 1, 2)


def write(
    path: Path,
    frames: int = FRAMES,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    size: tuple[int, int] = (WIDTH, HEIGHT),
    options: dict[str, str] | None = None,
    container: dict[str, str] | None = None,
    stamps: Sequence[int] | None = None,
    clock: int = RATE,
    keyframe_every: int = 12,
    turn: tuple[float, bool, bool] | None = None,
    full_range: bool = False,
    sound_seconds: float = 0.0,
    **settings,
) -> None:
    """Encodes `frames` painted pictures; `stamps` are their times in ticks of `clock` (default: one tick a frame)."""
    with av.open(str(path), "w", options=container or {}) as file:
        stream = file.add_stream(codec, rate=RATE, options=_repeatable(codec, options or {}))
        stream.width, stream.height, stream.pix_fmt = *size, pixels
        stream.codec_context.gop_size = keyframe_every
        stream.codec_context.time_base = Fraction(1, clock)
        for name, value in settings.items():
            setattr(stream.codec_context, name, value)
        if turn is not None:
            stream.set_display_rotation(turn[0], hflip=turn[1], vflip=turn[2])
        sound = file.add_stream("aac", rate=16_000) if sound_seconds else None
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(paint(number, *size), "rgb24")
            if full_range:
                frame = frame.reformat(format=pixels, dst_color_range="JPEG")
            frame.pts, frame.time_base = (stamps[number] if stamps else number), Fraction(1, clock)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
        if sound is not None:
            _add_silence(file, sound, sound_seconds)


def _repeatable(codec: str, options: dict[str, str]) -> dict[str, str]:
    """x264's macroblock tree gives other bytes from run to run on pictures as small as these."""
    if codec != "libx264":
        return options
    return {**options, "x264-params": ":".join(filter(None, ["mbtree=0", options.get("x264-params")]))}


def _add_silence(file, stream, seconds: float) -> None:
    for start in range(0, int(16_000 * seconds), 1024):
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate, frame.pts = 16_000, start
        file.mux(stream.encode(frame))
    file.mux(stream.encode(None))


def repack(source: Path, path: Path, change: Callable[[int, av.Packet], av.Packet | None]) -> None:
    """Copies the video packets without decoding them, each one (number in the file, packet) changed or left out."""
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for number, packet in enumerate(old.demux(old.streams.video[0])):
            changed = change(number, packet) if packet.size else None
            if changed is not None:
                changed.stream = stream
                new.mux(changed)


def copy_of(packet: av.Packet, data: bytes) -> av.Packet:
    """A packet with the same times and other contents."""
    changed = av.Packet(data)
    changed.pts, changed.dts, changed.duration = packet.pts, packet.dts, packet.duration
    changed.time_base, changed.is_keyframe = packet.time_base, packet.is_keyframe
    return changed


def jittered_stamps(frames: int = FRAMES, clock: int = 9000) -> list[int]:
    """Times of a variable-rate video: gaps of 11 to 122 ms."""
    gaps = np.random.default_rng(0).integers(1, 12, frames) * clock // 90
    return (np.cumsum(gaps) - gaps[0]).tolist()


def _shifted(path: Path, by_frames: int) -> None:
    """An edit list: the first frames are in the file but not in the presentation."""
    plain = path.with_name("unshifted.mp4")
    write(plain)

    def earlier(_: int, packet: av.Packet) -> av.Packet:
        ticks = round(by_frames / RATE / packet.time_base)
        packet.pts, packet.dts = packet.pts - ticks, packet.dts - ticks
        return packet

    repack(plain, path, earlier)
    plain.unlink()


def _with_hidden_frame(path: Path) -> None:
    """VP8 with one picture that is only a reference: the last packet before a keyframe loses its "show" bit."""
    plain = path.with_name("all_shown.webm")
    write(plain, codec="libvpx", options={"deadline": "realtime", "cpu-used": "8"})

    def hide(number: int, packet: av.Packet) -> av.Packet:
        data = bytearray(bytes(packet))
        if number == 11:
            data[0] &= ~0x10
        return copy_of(packet, bytes(data))

    repack(plain, path, hide)
    plain.unlink()


def _with_unchanged_frames(path: Path) -> None:
    """MPEG-4 as old encoders write it: frames 3, 8, 13, ... are only a note that nothing has changed."""
    plain = path.with_name("all_coded.avi")
    write(plain, codec="mpeg4", keyframe_every=1)

    def not_coded(number: int, packet: av.Packet) -> av.Packet:
        return copy_of(packet, _not_coded(bytes(packet))) if number % 5 == 3 else packet

    repack(plain, path, not_coded)
    plain.unlink()


def _not_coded(picture: bytes) -> bytes:
    """Makes a P-picture with `vop_coded` 0 of an MPEG-4 picture (ISO 14496-2, 6.2.5); at 30 Hz, time takes 5 bits."""
    start = picture.index(b"\x00\x00\x01\xb6") + 4
    bits = "01" + "".join(f"{byte:08b}" for byte in picture[start : start + 8])[2:]
    clock = 2 + bits[2:].index("0") + 1  # coding type, modulo time base
    header = bits[: clock + 1 + 5 + 1] + "0"  # marker, time increment, marker, vop_coded
    header += "0" + "1" * ((-len(header) - 1) % 8)  # stuffing
    return b"\x00\x00\x01\xb6" + int(header, 2).to_bytes(len(header) // 8)


_QUICK_VP9 = {"deadline": "realtime", "cpu-used": "8"}
_QUIET_X265 = {"preset": "ultrafast", "x265-params": "log-level=none"}

HEALTHY: dict[str, Callable[[Path], None]] = {
    "plain.mp4": write,
    "index_first.mp4": lambda path: write(path, container={"movflags": "faststart"}),
    "fragmented.mp4": lambda path: write(path, container={"movflags": "frag_keyframe+empty_moov"}),
    "sound.mp4": lambda path: write(path, sound_seconds=2.5),
    "sound_longer.mkv": lambda path: write(path, sound_seconds=4.0),
    "variable.mp4": lambda path: write(path, stamps=jittered_stamps(), clock=9000),
    "variable.mkv": lambda path: write(path, stamps=jittered_stamps(), clock=9000),
    "edited.mp4": lambda path: _shifted(path, 20),
    "open_gop.mp4": lambda path: write(path, options={"x264-params": "open-gop=1:bframes=3:scenecut=0"}),
    "intra_refresh.mp4": lambda path: write(path, options={"x264-params": "intra-refresh=1"}),
    "one_frame.mp4": lambda path: write(path, frames=1),
    "five_frames.mp4": lambda path: write(path, frames=5),
    "odd_size.mp4": lambda path: write(path, size=(97, 63), pixels="yuv444p"),
    "odd_size.webm": lambda path: write(path, size=(97, 63), codec="libvpx-vp9", options=_QUICK_VP9),
    "hidden.webm": _with_hidden_frame,
    "turned_90.mp4": lambda path: write(path, turn=(90, False, False)),
    "turned_180.mp4": lambda path: write(path, turn=(180, False, False)),
    "turned_270.mp4": lambda path: write(path, turn=(-90, False, False)),
    "mirrored.mp4": lambda path: write(path, turn=(0, True, False)),
    "mirrored_turned.mp4": lambda path: write(path, turn=(90, True, False)),
    "ten_bit.mp4": lambda path: write(path, pixels="yuv420p10le"),
    "hevc.mp4": lambda path: write(path, codec="libx265", options=_QUIET_X265),
    "hevc_ten_bit.mp4": lambda path: write(path, codec="libx265", pixels="yuv420p10le", options=_QUIET_X265),
    "bt709.mp4": lambda path: write(path, colorspace=1, color_primaries=1, color_trc=1),
    "full_range.mp4": lambda path: write(path, pixels="yuvj420p", color_range=2),
    "full_range.webm": lambda path: write(path, codec="libvpx-vp9", full_range=True, color_range=2, options=_QUICK_VP9),
    "odd_matrix.mkv": lambda path: write(path, frames=10, colorspace=8),
    "half_chroma.mp4": lambda path: write(path, pixels="yuv422p"),
    "grey.mkv": lambda path: write(path, codec="ffv1", pixels="gray"),
    "alpha.mkv": lambda path: write(path, codec="ffv1", pixels="bgra"),
    "alpha.mov": lambda path: write(path, frames=10, codec="qtrle", pixels="argb"),
    "palette.gif": lambda path: write(path, frames=10, codec="gif", pixels="rgb8", clock=100, stamps=range(0, 40, 4)),
    "b_frames.avi": lambda path: write(path, codec="mpeg4", max_b_frames=2),
    "h264.avi": write,
    "gaps.avi": lambda path: write(path, codec="mpeg4", stamps=[n + n // 7 * 3 for n in range(FRAMES)]),
    "unchanged.avi": _with_unchanged_frames,
    "motion_jpeg.avi": lambda path: write(path, codec="mjpeg", pixels="yuvj420p"),
    "prores.mov": lambda path: write(path, frames=10, codec="prores_ks", pixels="yuv422p10le"),
    "broadcast.ts": write,
    "program.mpg": lambda path: write(path, codec="mpeg2video"),
    "flash.flv": write,
    "bare.h264": write,
}
"""Usable videos by file name: how each of them is written."""


def make_healthy(folder: Path) -> dict[str, Path]:
    """Writes all of them that this build of FFmpeg has encoders for."""
    made = {}
    for name, maker in HEALTHY.items():
        if name.startswith("hevc") and "libx265" not in av.codecs_available:
            continue
        maker(folder / name)
        made[name] = folder / name
    return made


def _half(source: Path, path: Path) -> None:
    data = source.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def _cut(path: Path, **settings) -> None:
    """Writes a video and throws the second half of the file away."""
    whole = path.with_name("whole" + path.suffix)
    write(whole, frames=120, **settings)
    _half(whole, path)
    whole.unlink()


def _with_hole(path: Path) -> None:
    """Zeroes a fifth of the pictures' bytes in the middle of a healthy file."""
    write(path, frames=120)
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + len(data) // 4
    data[start : start + len(data) // 5] = bytes(len(data) // 5)
    path.write_bytes(data)


def _with_lying_header(path: Path, box: bytes, offset: int, value: int, **settings) -> None:
    """Overwrites four bytes of a header box, `offset` bytes after its name."""
    write(path, frames=10, container={"movflags": "faststart"}, **settings)
    data = bytearray(path.read_bytes())
    at = data.index(box) + len(box) + offset
    data[at : at + 4] = value.to_bytes(4, "big")
    path.write_bytes(data)


def _sound_only(path: Path) -> None:
    with av.open(str(path), "w") as file:
        _add_silence(file, file.add_stream("aac", rate=16_000), seconds=1.0)


def _no_frames(path: Path) -> None:
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        file.start_encoding()


def with_spoilt_frames(path: Path, frames: int, spoilt: Sequence[int]) -> None:
    """Motion JPEG, where each frame stands for itself, with some frames turned into noise."""
    plain = path.with_name("unspoilt.avi")
    write(plain, frames=frames, codec="mjpeg", pixels="yuvj420p", size=(64, 32))

    def spoil(number: int, packet: av.Packet) -> av.Packet:
        return copy_of(packet, b"\xff" * 40) if number in spoilt else packet

    repack(plain, path, spoil)
    plain.unlink()


DAMAGED: dict[str, tuple[Callable[[Path], object], str]] = {
    "index_first_cut.mp4": (
        lambda path: _cut(path, container={"movflags": "faststart"}),
        "cut off.* of the 120 frames",
    ),
    "index_last_cut.mp4": (_cut, "index is missing"),
    "cut.mkv": (_cut, "cut off.* ends at .* of 4.00 s"),
    "cut.webm": (lambda path: _cut(path, codec="libvpx-vp9", options=_QUICK_VP9), "cut off.* of 4.00 s"),
    "cut.avi": (lambda path: _cut(path, codec="mpeg4"), "cut off.* of 4.00 s"),
    "cut.flv": (_cut, "cut off"),
    "empty.mp4": (lambda path: path.write_bytes(b""), r"empty \(0 bytes\)"),
    "noise.mp4": (lambda path: path.write_bytes(np.random.default_rng(0).bytes(20_000)), "not a video"),
    "page.mp4": (lambda path: path.write_text("<!DOCTYPE html><html><body>404</body></html>"), "web page"),
    "text.mp4": (lambda path: path.write_text("frame,label\n1,walking\n" * 99), "text file"),
    "playlist.mp4": (lambda path: path.write_text("#EXTM3U\n#EXTINF:2,\nplain.mp4\n#EXT-X-ENDLIST\n"), "text file"),
    "sound.mp4": (_sound_only, "sound but no pictures"),
    "no_frames.mp4": (_no_frames, "no pictures|none of its pictures|index is missing"),
    "folder.mp4": (lambda path: path.mkdir(), "it is a folder"),
    "missing.mp4": (lambda path: None, "does not exist"),
    "hole.mp4": (_with_hole, "damaged"),
    "vast.mov": (
        lambda path: _with_lying_header(path, b"rle ", 24, 12_000 << 16 | 12_000, codec="qtrle", pixels="argb"),
        "claims pictures of 12000 x 12000",
    ),
    "endless.mp4": (lambda path: _with_lying_header(path, b"stsz", 8, 2_000_000_000), "cut off|damaged|index"),
}
"""Unusable files by name: how each of them is made, and a pattern of the reason that a user should read."""


def make_damaged(folder: Path) -> dict[str, Path]:
    """Writes all of them."""
    for name, (maker, _) in DAMAGED.items():
        maker(folder / name)
    return {name: folder / name for name in DAMAGED}

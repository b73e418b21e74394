"""Video files with sound, and what of them can be heard."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

RATE = 16000


def picture(value: int, height: int = 96, width: int = 128) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def with_sound(path: Path, codec: str, seconds: float = 2.0, video_from: float = 0.0) -> Path:
    """A video, grey, whose sound is silence but for the second half of its first second."""
    with av.open(str(path), "w") as file:
        video = file.add_stream("mpeg4", rate=10)
        video.width, video.height, video.pix_fmt = 128, 96, "yuv420p"
        video.codec_context.time_base = Fraction(1, 1000)
        sound = file.add_stream(codec, rate=RATE, layout="mono")
        for i in range(round(10 * seconds)):
            frame = av.VideoFrame.from_ndarray(picture(90), format="bgr24")
            frame.pts, frame.time_base = round(1000 * (video_from + i / 10)), Fraction(1, 1000)
            file.mux(video.encode(frame))
        file.mux(video.encode())
        wave = 0.5 * np.sin(np.arange(round(RATE * (seconds + video_from))) * 2 * np.pi * 440 / RATE)
        moments = np.arange(len(wave)) / RATE - video_from
        wave[(moments < 0.5) | (moments >= 1.0)] = 0
        whole = np.int16(32767 * wave)[None] if codec.startswith("pcm") else np.float32(wave)[None]
        heard = av.AudioFrame.from_ndarray(whole, format="s16" if codec.startswith("pcm") else "fltp", layout="mono")
        heard.sample_rate, heard.pts, heard.time_base = RATE, 0, Fraction(1, RATE)
        file.mux(sound.encode(heard))
        file.mux(sound.encode())
    return path


def times(path: Path) -> list[float]:
    with av.open(str(path)) as file:
        return [float(frame.pts * frame.time_base) for frame in file.decode(video=0)]


def loud(path: Path) -> tuple[float, float, float]:
    """When the sound of a file begins to be loud, ceases to be, and ends, in seconds."""
    with av.open(str(path)) as file:
        parts = [(float(f.pts * f.time_base), f.to_ndarray().astype(float)[0]) for f in file.decode(audio=0)]
    rate = RATE
    start = parts[0][0]
    wave = np.concatenate([samples for _, samples in parts])
    heard = np.flatnonzero(np.abs(wave) > 0.25 * np.abs(wave).max())
    return start + heard[0] / rate, start + heard[-1] / rate, start + len(wave) / rate

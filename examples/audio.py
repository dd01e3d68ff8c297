"""Which part of a sound tells a rising call from a falling one?

The network hears a spectrogram, and we ask about the waveform: gradients pass the short-time Fourier
transform like any other layer. Every sound is noise, the hum of the mains, and a call of a fifth of
a second somewhere in it. From recordings of the background alone to the sound, the map should lie
on the call; and explained at the spectrogram itself, it should follow the call's pitch.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

import integrand as ig

RATE, SAMPLES = 8000, 6144
CALL = 1600  # samples
LOW, HIGH = 900.0, 2700.0  # Hz
WINDOW, HOP = 256, 64


class Spectrogram(nn.Module):
    """Sounds (N, samples) → loudness at every frequency and moment (N, 1, 129, frames)."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(WINDOW))

    def forward(self, sound: Tensor) -> Tensor:
        bins = torch.stft(sound, WINDOW, HOP, window=self.window, return_complex=True)
        return bins.abs().log1p()[:, None]


def sounds(count: int, seed: int, loud: float = 0.5) -> tuple[Tensor, Tensor, Tensor]:
    """Sounds (N, samples), whether the call rises (N,), and when it is heard (N, samples)."""
    stream = torch.Generator().manual_seed(seed)
    time = torch.arange(SAMPLES) / RATE
    rises = torch.rand(count, generator=stream) < 0.5
    start = torch.randint(SAMPLES - CALL, (count,), generator=stream)
    phase = 2 * math.pi * torch.rand(count, 1, generator=stream)
    sound = 0.15 * torch.randn(count, SAMPLES, generator=stream)
    sound += 0.4 * torch.sin(2 * math.pi * 100 * time + phase)
    part = torch.arange(CALL) / CALL
    up = LOW * part + (HIGH - LOW) * part**2 / 2  # the integral of the pitch
    down = HIGH * part - (HIGH - LOW) * part**2 / 2
    loudness = loud * torch.sin(math.pi * part)
    heard = torch.zeros(count, SAMPLES, dtype=torch.bool)
    for i in range(count):
        turns = (up if rises[i] else down) * CALL / RATE
        place = slice(int(start[i]), int(start[i]) + CALL)
        sound[i, place] += loudness * torch.sin(2 * math.pi * turns)
        heard[i, place] = True
    return sound, rises.long(), heard


def main(out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    model = trained(*sounds(600, seed=0)[:2])
    new, rises, heard = sounds(60, seed=1)
    with torch.no_grad():
        accuracy = (model(new).argmax(1) == rises).double().mean()

    background = [*sounds(8, seed=2, loud=0.0)[0]]
    asked = {"target": "predicted", "baseline": background, "rule": ig.rules.GaussLegendre(8)}
    wave = ig.explain(model, new, **asked)
    picture = ig.explain(model, new, method="layer", site="0", **asked)

    on_call = ig.metrics.relevance_mass(wave, heard, pool="absolute").mean()
    track = pitches(rises, heard)
    on_track = ig.metrics.relevance_mass(picture.values[:, 0], track, pool="absolute").mean()
    print(f"accuracy on {len(new)} new sounds: {float(accuracy):.0%}")
    print(f"on the call: {float(on_call):.0%} of the waveform's map, {float(heard.double().mean()):.0%} of its time")  # fmt: skip
    print(f"on its pitch: {float(on_track):.0%} of the spectrogram's map, {float(track.double().mean()):.1%} of its area")  # fmt: skip
    print(f"median gap to the change of the logit: {float(wave.gap.median()):.1%} and {float(picture.gap.median()):.1%}")  # fmt: skip
    draw(new[0], wave.values[0], picture.values[0, 0], model[0](new[:1])[0, 0]).savefig(
        out / "audio.webp", dpi=110
    )


def trained(x: Tensor, y: Tensor) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(
        Spectrogram(),
        nn.Conv2d(1, 8, 5, stride=2, padding=2), nn.ReLU(),
        nn.Conv2d(8, 16, 5, stride=2, padding=2), nn.ReLU(),
        nn.Conv2d(16, 16, 5, stride=2, padding=2), nn.ReLU(),
        nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(16, 2),
    )  # fmt: skip
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(6):
        for rows in torch.randperm(len(x)).split(32):
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
            optimiser.step()
    return model.eval()


def pitches(rises: Tensor, heard: Tensor) -> Tensor:
    """Where the call is in the spectrogram, two bins to either side of its pitch."""
    frames = torch.arange(SAMPLES // HOP + 1) * HOP
    part = (frames - heard.int().argmax(1, keepdim=True)) / CALL  # (N, frames)
    pitch = torch.where(rises[:, None] == 1, LOW + (HIGH - LOW) * part, HIGH - (HIGH - LOW) * part)
    bins = torch.arange(WINDOW // 2 + 1)[:, None] * RATE / WINDOW
    near = (bins - pitch[:, None]).abs() <= 2.5 * RATE / WINDOW
    return near & ((part >= 0) & (part <= 1))[:, None]


def draw(sound: Tensor, wave: Tensor, picture: Tensor, loudness: Tensor) -> Figure:
    """The sound with its map, the spectrogram, and the spectrogram's map."""
    figure = Figure(figsize=(10.2, 2.9), layout="constrained")
    seconds = SAMPLES / RATE
    first, second, third = figure.subplots(1, 3)
    behind = first.twinx()
    behind.plot(torch.arange(SAMPLES).numpy() / RATE, sound.numpy(), color="#d5d8dc", linewidth=0.4)
    behind.set(ylim=(-2, 2), yticks=[])
    first.set_zorder(behind.get_zorder() + 1)
    first.patch.set_visible(False)
    parts = wave.reshape(-1, 128).sum(1).numpy()  # of 16 ms
    colours = ["#d9622b" if part > 0 else "#3b6fb6" for part in parts]
    middles = (torch.arange(len(parts)).numpy() + 0.5) * 128 / RATE
    first.bar(middles, parts, 0.8 * 128 / RATE, color=colours)
    most = 1.15 * float(abs(parts).max())
    first.set(title="map of the waveform", xlabel="seconds", xlim=(0, seconds), ylim=(-most, most))
    first.set_ylabel("contribution of 16 ms to the logit")
    place = {"origin": "lower", "aspect": "auto", "extent": (0, seconds, 0, RATE / 2000)}
    second.imshow(loudness.detach().numpy(), cmap="Greys", **place)
    second.set(title="spectrogram", xlabel="seconds", ylabel="kHz")
    limit = float(picture.abs().quantile(0.998))
    third.imshow(picture.numpy(), cmap="RdBu_r", vmin=-limit, vmax=limit, **place)
    third.set(title="map of the spectrogram", xlabel="seconds", yticks=[])
    return figure


if __name__ == "__main__":
    main(Path(*sys.argv[1:]))  # the folder for the picture; here unless given

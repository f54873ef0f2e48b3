"""How near predicted frames come to the true ones, frame by frame and as sets of clips.

Pixels: PSNR and SSIM (Wang et al. 2004, IEEE TIP 13(4)). Features: a distance in the style of LPIPS (Zhang et al. 2018,
arXiv 1801.03924) and a Frechet distance in the style of FVD (Unterthiner et al. 2018, arXiv 1812.01717), both over one
of our own encoders, which is at hand without a network. LPIPS is defined by AlexNet or VGG with weights that were fit
to human judgements, FVD by I3D trained on Kinetics: **the values here are comparable with each other under one feature
network, and with no published LPIPS or FVD.** None of these ranks models by what a planner makes of them.

Legend: B clips, T frames, H W pixels, N tokens, L layers, D width, F numbers of a clip.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional

from embodied.bench.inspection.features import device_of
from embodied.core.errors import UsageError, UserError
from embodied.encoders.artifact import fingerprint
from embodied.encoders.layers import LayersEncoder
from embodied.encoders.load import load_encoder

Frames = UInt8[np.ndarray, "B T H W 3"]
PerFrame = Float[np.ndarray, "B T"]

DEFAULT_NETWORK = "default@2+4+6"  # a third, two thirds and all of the depth of the encoder that comes with the package
ROUNDING = 1 / 12  # variance in grey levels^2 of rounding to whole ones: no smaller error means anything
_BATCH = 64  # frames that go through a network at once
_WINDOW, _SIGMA = 11, 1.5  # pixels, of SSIM
_K1, _K2, _RANGE = 0.01, 0.03, 255.0


def psnr(truth: Frames, predicted: Frames) -> PerFrame:
    """Peak signal-to-noise ratio of every frame in dB, float64 [B, T]; higher is better.

    Departure: frames that are equal to the last bit, whose ratio is infinite, count as wrong by rounding: 58.9 dB.

    Raises:
        UsageError: the shapes are not one shape [B, T, H, W, 3].
    """
    check_clips(truth, predicted)
    error = np.square(truth.astype(np.float32) - predicted).mean(axis=(2, 3, 4), dtype=np.float64)
    return 10 * np.log10(_RANGE**2 / np.maximum(error, ROUNDING))


def ssim(truth: Frames, predicted: Frames) -> PerFrame:
    """Structural similarity of every frame, float64 [B, T] in [-1, 1]; higher is better.

    As Wang et al. have it: a Gaussian window of 11 x 11 pixels with a deviation of 1.5, per colour channel, without the
    border where the window would leave the picture. (A box of 7 x 7, which some libraries default to, gives others.)

    Raises:
        UsageError: see `psnr`; or a side is shorter than the window.
    """
    check_clips(truth, predicted)
    if min(truth.shape[2:4]) < _WINDOW:
        raise UsageError(f"ssim needs frames of at least {_WINDOW} x {_WINDOW} pixels, got {truth.shape[2:4]}")
    found = [_ssim_of(a, b) for a, b in zip(truth, predicted, strict=True)]
    return np.stack(found)


def _ssim_of(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Of one clip [T, H, W, 3]: [T]."""
    x, y = (torch.from_numpy(part).permute(0, 3, 1, 2).double() for part in (truth, predicted))
    mean_x, mean_y = _blur(x), _blur(y)
    var_x, var_y = _blur(x * x) - mean_x**2, _blur(y * y) - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    c1, c2 = (_K1 * _RANGE) ** 2, (_K2 * _RANGE) ** 2
    above = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)  # Eq. (13)
    below = (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)
    return (above / below).mean(dim=(1, 2, 3)).numpy()


def _blur(images: Tensor) -> Tensor:
    """[T, 3, H, W] under SSIM's window, which has to fit: [T, 3, H - 10, W - 10]."""
    place = torch.arange(_WINDOW, dtype=images.dtype) - _WINDOW // 2
    bell = torch.exp(-(place**2) / (2 * _SIGMA**2))
    bell = (bell / bell.sum()).expand(3, 1, -1)
    along_rows = functional.conv2d(images, bell[:, :, None, :], groups=3)
    return functional.conv2d(along_rows, bell[:, :, :, None], groups=3)


@dataclass(frozen=True)
class FeatureNetwork:
    """What sees frames for the distances between features: a frozen image encoder.

    Args:
        spec: as `load_encoder` takes it; `@2+4+6` chooses layers.
        encoder: loaded.
        fingerprint: of the encoder; values under two of them are not to be compared.
    """

    spec: str
    encoder: nn.Module = field(repr=False)
    fingerprint: str

    @classmethod
    def load(cls, spec: str = DEFAULT_NETWORK, *, device: torch.device | None = None) -> FeatureNetwork:
        """The network of that name.

        Raises:
            UsageError: it is no image encoder.
        """
        encoder = load_encoder(spec, state_dim=1)
        if getattr(encoder, "modality", "") != "image":
            raise UsageError(f"features={spec} reads no pictures: choose {DEFAULT_NETWORK}, hf:<folder>, ...")
        return cls(spec, encoder.to(device or torch.device("cpu")), fingerprint(encoder))

    @property
    def layers(self) -> int:
        """L: how many layers lie side by side in its tokens."""
        return len(self.encoder.layers) if isinstance(self.encoder, LayersEncoder) else 1

    @torch.no_grad()
    def tokens(self, frames: UInt8[np.ndarray, "F H W 3"]) -> Tensor:
        """float32 [F, N, L, D], on the CPU."""
        found = []
        for first in range(0, len(frames), _BATCH):
            part = torch.from_numpy(np.ascontiguousarray(frames[first : first + _BATCH])).to(device_of(self.encoder))
            tokens, _ = self.encoder(self.encoder.preprocess(part))  # type: ignore[operator]
            found.append(tokens.float().cpu().unflatten(2, (self.layers, -1)))
        return torch.cat(found)


def perceptual_distance(truth: Frames, predicted: Frames, network: FeatureNetwork) -> PerFrame:
    """Distance of every frame's patch features, float64 [B, T], in [0, 4]; lower is better, 0 for equal frames.

    Per layer tokens are scaled to unit length, and their squared distance is averaged over positions and layers. In the
    style of LPIPS; departures: another network (see the module), and no weights per channel learned from judgements.
    """
    check_clips(truth, predicted)
    found = [_unlike(network, a, b) for a, b in zip(truth, predicted, strict=True)]
    return np.stack(found)


def _unlike(network: FeatureNetwork, truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    x, y = (functional.normalize(network.tokens(part), dim=-1) for part in (truth, predicted))  # (T, N, L, D)
    return (x - y).square().sum(dim=-1).mean(dim=(1, 2)).double().numpy()


def clip_features(clips: Frames, network: FeatureNetwork) -> Float[np.ndarray, "B F"]:
    """What stands for a clip in the distances between sets, float64 [B, 2 L D].

    The mean over frames of the mean token, and the mean over steps of how much it changes, |f[t+1] - f[t]|: what is
    seen, and how it moves. Departure from FVD, whose I3D sees 16 frames at once: motion enters by differences only, so
    two clips with the same frames and as large steps in another order are the same here.
    """
    check_clips(clips, clips)
    if clips.shape[1] < 2:
        raise UsageError(f"a clip needs at least 2 frames to move, got {clips.shape[1]}")
    found = []
    for clip in clips:
        seen = network.tokens(clip).mean(dim=1).flatten(1).double()  # (T, L * D)
        found.append(torch.cat([seen.mean(dim=0), seen.diff(dim=0).abs().mean(dim=0)]))
    return torch.stack(found).numpy()


def frechet_distance(first: Float[np.ndarray, "n F"], second: Float[np.ndarray, "m F"]) -> float:
    """Frechet distance of two Gaussians fit to rows of features; 0 for equal sets.

    |mean difference|^2 + Tr(S1 + S2 - 2 (S1 S2)^(1/2)). The last trace is computed without a matrix root: with centred
    rows S1 = X'X and S2 = Y'Y, the roots of the eigenvalues of S1 S2 are the singular values of X Y', an n x m matrix.
    So it is real and exact where there are fewer clips than features and the covariances have no inverse, where
    `sqrtm` gives complex numbers or none.

    Biased: with n clips two samples of one distribution are a positive distance apart that falls as 1/n (Chong and
    Forsyth 2020, arXiv 1911.07023). Compare values of as many clips only, and look at `kernel_distance` as well.

    Raises:
        UserError: fewer than two rows, or numbers that are none.
    """
    x, y = _centred(first), _centred(second)
    shift = first.mean(axis=0, dtype=np.float64) - second.mean(axis=0, dtype=np.float64)
    cross = np.linalg.svd(x @ y.T, compute_uv=False).sum()
    return max(0.0, float(shift @ shift + np.square(x).sum() + np.square(y).sum() - 2 * cross))


def _centred(rows: np.ndarray) -> np.ndarray:
    """X with X'X the covariance of the rows."""
    if rows.ndim != 2 or len(rows) < 2:
        raise UserError(f"a distance between sets of clips needs at least 2 of each, got features {list(rows.shape)}")
    if not np.isfinite(rows).all():
        raise UserError("the features of clips hold numbers that are not finite")
    centred = rows.astype(np.float64) - rows.mean(axis=0, dtype=np.float64)
    return np.asarray(centred / np.sqrt(len(rows) - 1))


def kernel_distance(first: Float[np.ndarray, "n F"], second: Float[np.ndarray, "m F"]) -> float:
    """Squared maximum mean discrepancy under the kernel (x.y / F + 1)^3, unbiased; may fall below 0 by chance.

    Of Binkowski et al. 2018 (arXiv 1801.01401, Eq. 4 with the cubic kernel). Equal distributions have a mean of 0
    whatever the number of clips, which the Frechet distance has not.

    Raises:
        UserError: see `frechet_distance`.
    """
    _centred(first), _centred(second)  # refuses what is none
    x, y = first.astype(np.float64), second.astype(np.float64)
    n, m = len(x), len(y)
    xx, yy, xy = _cubic(x, x), _cubic(y, y), _cubic(x, y)
    within = (xx.sum() - np.trace(xx)) / (n * (n - 1)) + (yy.sum() - np.trace(yy)) / (m * (m - 1))
    return float(within - 2 * xy.mean())


def _cubic(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.asarray((x @ y.T / x.shape[1] + 1) ** 3)


def bootstrap_mean(
    values: Float[np.ndarray, " B"], *, seed: int = 0, resamples: int = 2000, confidence: float = 0.95
) -> tuple[float, float, float]:
    """Mean over clips with the percentile interval of whole clips drawn again: (mean, low, high)."""
    random = np.random.default_rng(seed)
    drawn = values[random.integers(len(values), size=(resamples, len(values)))].mean(axis=1)
    low, high = np.quantile(drawn, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return float(values.mean()), float(low), float(high)


def bootstrap_distance(
    distance: Callable[[np.ndarray, np.ndarray], float],
    truth: Float[np.ndarray, "B F"],
    predicted: Float[np.ndarray, "B F"],
    *,
    seed: int = 0,
    resamples: int = 200,
    confidence: float = 0.95,
) -> tuple[float, float, float]:
    """A distance between paired sets of clips with an interval: (distance, low, high).

    Pairs are drawn together. A sample with repetitions is less varied than its source, which shifts these distances;
    what is taken of the draws is their spread around their own mean, put around the distance of all clips. So the
    interval says how much the clips at hand decide, and nothing of the bias by their number.
    """
    random = np.random.default_rng(seed)
    value = distance(truth, predicted)
    rows = random.integers(len(truth), size=(resamples, len(truth)))
    drawn = np.array([distance(truth[each], predicted[each]) for each in rows])
    low, high = np.quantile(drawn - drawn.mean(), [0.5 - confidence / 2, 0.5 + confidence / 2])
    return value, float(value + low), float(value + high)


def check_clips(truth: np.ndarray, predicted: np.ndarray) -> None:
    """Refuse what is not twice uint8 [B, T, H, W, 3] of one shape.

    Raises:
        UsageError: says what is expected and what is there.
    """
    for name, clips in (("truth", truth), ("predicted", predicted)):
        if clips.dtype != np.uint8 or clips.ndim != 5 or clips.shape[-1] != 3 or not clips.size:
            raise UsageError(f"{name}: expected uint8 [B, T, H, W, 3], got {clips.dtype} {list(clips.shape)}")
    if truth.shape != predicted.shape:
        raise UsageError(
            f"predicted: expected the shape of the truth, {list(truth.shape)}, got {list(predicted.shape)}"
        )

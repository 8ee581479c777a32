"""The noise schedule, the noise, and how the loss is measured and weighed."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from library.data.keys import key
from library.diffusion.loss import LossSpec, elementwise, huber_threshold, mean_over_elements, sample_distance
from library.diffusion.noise import NoiseSpec, adaptive_strength, draw_noise, draw_timestep, offset_noise
from library.diffusion.schedule import add_noise, alphas_cumprod, signal_to_noise, velocity
from library.diffusion.weights import WeightSpec, timestep_weights
from tests.golden_table.comparison import Comparison

STABLE_DIFFUSION = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
REAL_SNR = "the SNR is that of the rescaled betas; sd-scripts takes the table from before they are rescaled"
SCALE_EVERYWHERE = "huber_scale also scales the threshold of the snr schedule, where sd-scripts ignores it"
EMPTY_RANGE = "min_timestep must be below max_timestep; sd-scripts goes on with max_timestep alone"


def schedule(zero_terminal_snr: bool) -> dict[str, Any]:
    return STABLE_DIFFUSION | {"rescale_betas_zero_snr": zero_terminal_snr}


def noise_schedule(data: dict[str, Any]) -> Iterator[Comparison]:
    table = Comparison("alpha-bar, and the SNR from it", relative=1e-4, absolute=1e-7)
    for name, zero in (("default", False), ("zero_terminal_snr", True)):
        alpha_bar = alphas_cumprod(schedule(zero))
        snr = signal_to_noise(alpha_bar)
        golden_snr = data[name]["snr_from_current_alphas_cumprod"]
        for i, t in enumerate(data["timesteps"]):
            table.add(f"{name} alpha-bar at {t}", float(alpha_bar[t]), data[name]["alphas_cumprod"][i])
            table.add(f"{name} SNR at {t}", float(snr[t]), golden_snr[i])
    yield table

    used = Comparison("the SNR that weighs the loss", relative=1e-4)
    for name, zero in (("default", False), ("zero_terminal_snr", True)):
        snr = signal_to_noise(alphas_cumprod(schedule(zero)))
        for t, theirs in zip(data["timesteps"], data[name]["all_snr_used_for_weights"], strict=True):
            moved = zero and abs(float(snr[t]) - theirs) > 1e-4 * theirs
            used.add(f"{name} at {t}", float(snr[t]), theirs, REAL_SNR if moved else None)
    yield used

    noised = Comparison("noised latents and velocities", relative=2e-5, absolute=2e-6)
    for row in data["add_noise_and_velocity"]:
        alpha_bar = alphas_cumprod(schedule(row["zero_terminal_snr"]))[row["t"]].reshape(1)
        latents, noise = (torch.tensor(row[name]).reshape(1, 4, 1, 1) for name in ("latents", "noise"))
        noised.add(f"x_t at {row['t']}", add_noise(latents, noise, alpha_bar).flatten().tolist(), row["noisy"])
        noised.add(f"v at {row['t']}", velocity(latents, noise, alpha_bar).flatten().tolist(), row["velocity"])
    yield noised


def drawn(data: dict[str, Any]) -> Iterator[Comparison]:
    offset = Comparison("noise offset, its normal draws given", relative=2e-6, absolute=1e-6)
    for row in data["noise_offset"]["rows"]:
        latents, noise = (torch.tensor(row[name]).reshape(row["shape"]) for name in ("latents", "noise"))
        shift = torch.tensor(row["random_normal_b_c_1_1"]).reshape(*row["shape"][:2], 1, 1)
        strength = torch.tensor(row["noise_offset"])
        if row["adaptive_noise_scale"]:
            strength = adaptive_strength(strength, row["adaptive_noise_scale"], latents)
        offset.add(str(row["noise_offset"]), offset_noise(noise, strength, shift).flatten().tolist(), row["out"])
    yield offset

    statistics = Comparison("multires noise: deviation, share of the white noise, correlation of neighbours", 0, 0.1)
    for row in data["multires_noise_statistics"]["rows"]:
        spec = NoiseSpec(multires_noise_iterations=row["iterations"], multires_noise_discount=row["discount"])
        samples = [
            _statistics(spec, torch.zeros(row["shape"][1:]), f"{row['iterations']}/{i}") for i in range(row["shape"][0])
        ]
        ours = torch.tensor(samples).mean(dim=0).tolist()
        theirs = [row["std_out"], row["corr_with_input"], row["lag1_autocorr_w"]]
        statistics.add(f"{row['iterations']} layers, discount {row['discount']}", ours, theirs)
    yield statistics

    ranges = Comparison("lowest and highest timestep drawn", absolute=3)
    for row in data["timestep_ranges"]["rows"]:
        low, high = row["min_timestep"], row["max_timestep"]
        theirs = [row["seen_min"], row["seen_max"]]
        if (low or 0) >= (high or 1000):
            ranges.add(f"{low} to {high}", "refused", theirs, EMPTY_RANGE)
            continue
        spec = NoiseSpec(min_timestep=low, max_timestep=high)
        drawn = [int(draw_timestep(spec, 1000, partial(key, 0, 1, str(i)))) for i in range(1500)]
        ranges.add(f"{low} to {high}", [float(min(drawn)), float(max(drawn))], theirs)
    yield ranges


def _statistics(spec: NoiseSpec, latents: torch.Tensor, name: str) -> list[float]:
    """Standard deviation, correlation with the white noise, and correlation of horizontal neighbours."""
    draws = partial(key, 0, 1, name)
    white, out = draw_noise(NoiseSpec(), latents, draws), draw_noise(spec, latents, draws)
    correlation = torch.corrcoef(torch.stack([white.flatten(), out.flatten()]))[0, 1]
    neighbours = torch.corrcoef(torch.stack([out[..., :-1].flatten(), out[..., 1:].flatten()]))[0, 1]
    return [float(out.std()), float(correlation), float(neighbours)]


def weights(data: dict[str, Any]) -> Iterator[Comparison]:
    weighed = Comparison("weight of a timestep", relative=1e-4)
    for row in data["weights_on_loss_1"]:
        kind, value = row["kind"], row.get("gamma", row.get("value", True))
        velocity_like = kind.startswith("scale_v") or row.get("v_parameterization", False)
        ours = _weights(WeightSpec(**{kind: value}), velocity_like, zero=False)[data["timesteps"]]
        # Recorded with zero_terminal_snr, the figures are still those of the old betas.
        if not row["zero_terminal_snr"]:
            weighed.add(f"{kind}={value}", ours.tolist(), row["out"])
        elif velocity_like or kind == "min_snr_gamma":
            ours = _weights(WeightSpec(**{kind: value}), velocity_like, zero=True)[data["timesteps"]]
            weighed.add(f"{kind}={value}, zero terminal SNR", ours.tolist(), row["out"], REAL_SNR)
        else:
            weighed.add(f"{kind}={value}, zero terminal SNR", "refused", row["out"], REAL_SNR)
    yield weighed

    combined = Comparison("weightings together, on given losses", relative=1e-4)
    losses = torch.tensor(data["combinations"]["loss_in"])
    for row in data["combinations"]["rows"]:
        options, values = row["options"], {}
        for name in ("min_snr_gamma", "v_pred_like_loss"):
            if f"--{name}" in options:
                values[name] = float(options[options.index(f"--{name}") + 1])
        for name in ("debiased_estimation_loss", "scale_v_pred_loss_like_noise_pred"):
            values[name] = f"--{name}" in options
        zero = "--zero_terminal_snr" in options
        factor = _weights(WeightSpec(**values), "--v_parameterization" in options, zero)
        ours = (losses * factor[data["combinations"]["timesteps"]]).tolist()
        combined.add(" ".join(options), ours, row["out"], REAL_SNR if zero else None)
    yield combined


def _weights(spec: WeightSpec, predicts_velocity: bool, zero: bool) -> torch.Tensor:
    snr = signal_to_noise(alphas_cumprod(schedule(zero)))
    factors = timestep_weights(spec, snr, "v_prediction" if predicts_velocity else "epsilon")
    return torch.ones_like(snr) if factors is None else factors


def distances(data: dict[str, Any]) -> Iterator[Comparison]:
    given = data["conditional_loss"]
    prediction, target = (torch.tensor(given[name]).reshape(given["shape"]) for name in ("pred", "target"))
    alpha_bar = alphas_cumprod(STABLE_DIFFUSION)
    measured = Comparison("distance and threshold of l2, l1, huber, smooth_l1", relative=1e-4, absolute=1e-6)
    for row in given["rows"]:
        options = {n: row[n] for n in ("huber_schedule", "huber_c", "huber_scale") if row[n] is not None}
        spec = LossSpec(row["loss_type"], **options)
        thresholds = huber_threshold(spec, alpha_bar)
        threshold = None if thresholds is None else thresholds[given["timesteps"]]
        because = SCALE_EVERYWHERE if spec.huber_schedule == "snr" and spec.huber_scale != 1 else None
        name = f"{row['loss_type']} {options}"
        if threshold is not None:
            measured.add(f"{name} threshold", threshold.tolist(), row["threshold"], because)
        ours = sample_distance(spec.loss_type, prediction, target, threshold)
        measured.add(f"{name} of each sample", ours.tolist(), row["per_sample_mean"], because)
        measured.add(f"{name} of the batch", float(ours.mean()), row["batch_mean"], because)
        elements = elementwise(spec.loss_type, prediction, target, threshold)[0].flatten().tolist()
        measured.add(f"{name} of each element", elements, row["first_sample_elements"], because)
    yield measured

    masked = Comparison("loss under a mask", relative=1e-5, absolute=1e-7)
    for row in data["masked_loss"]["rows"]:
        loss = torch.tensor(row["loss"]).reshape(row["loss_shape"])
        mask = _mask(row)
        ours = mean_over_elements(loss if mask is None else loss * mask)
        root = loss.sqrt()
        through = sample_distance("l2", root, torch.zeros_like(root), None, mask)
        masked.add(f"mask from {row['mask_source']}", ours.tolist(), row["per_sample_mean"])
        masked.add(f"mask from {row['mask_source']}, as it is applied", through.tolist(), row["per_sample_mean"])
    yield masked


def _mask(row: dict[str, Any]) -> torch.Tensor | None:
    """The mask that a source gives, already averaged over the 8x8 pixels of a latent: (batch, 1, 4, 4)."""
    batch, _, height, width = row["loss_shape"]
    image, alpha = row["conditioning_red_channel_8x8_block_means_in_minus1_1"], row["alpha_8x8_block_means"]
    if image is not None:
        return (torch.tensor(image).reshape(batch, 1, height, width) + 1) / 2
    return None if alpha is None else torch.tensor(alpha).reshape(batch, 1, height, width)

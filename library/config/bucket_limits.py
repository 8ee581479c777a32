"""The limits of a bucket's sides, and why some cannot work."""

from __future__ import annotations


def adjusted_limits(smallest: int, largest: int, step: int) -> tuple[int, int]:
    """The limits of a bucket's side, the lower one rounded down and the upper one rounded up to whole steps."""
    return smallest // step * step, -(-largest // step) * step


def why_limits_cannot_work(
    resolution: tuple[int, int], smallest: int, largest: int, step: int
) -> tuple[str, str] | None:
    """Where limits do not enclose the resolution (width, height): the key that is wrong, and why and what to do."""
    low, high = adjusted_limits(smallest, largest, step)
    message = f"the resolution {resolution[0]}x{resolution[1]}; set it to"
    if low > min(resolution):
        return "min_bucket_reso", f"is {smallest}, above {message} {min(resolution)} or less"
    if high < max(resolution):
        return "max_bucket_reso", f"is {largest}, below {message} {max(resolution)} or more"
    return None

"""All checks of a dataset, one after the other."""

from __future__ import annotations

from collections.abc import Sequence

from library.config.dataset_specs import DatasetSpec
from library.data.dataset import gather
from library.data.preflight.findings import Finding, Report, in_order
from library.data.preflight.header_checks import as_findings, buckets_of, found_at_hand
from library.data.preflight.lengths import CHUNK, Count, about_lengths
from library.data.preflight.pixel_checks import found_inside


def inspect(
    plan: Sequence[DatasetSpec],
    *,
    max_token_length: int | None = None,
    count: Count | None = None,
    workers: int = 1,
    already: Sequence[Finding] = (),
) -> Report:
    """Look at every image, mask and caption of a plan.

    `count` counts the tokens of captions (else they are estimated), `workers` are the processes that decode images,
    `already` is what was found on the way to the plan.
    """
    dataset, problems = gather(plan)
    limit = max_token_length or CHUNK
    inside = found_inside(dataset, workers)
    damaged = {finding.file for finding in inside if finding.kind == "damaged"}
    refused = [finding for finding in as_findings(problems) if finding.file not in damaged]
    lengths = about_lengths(dataset, limit, count)
    held_out = dataset.validation.pictures if dataset.validation else []
    return Report(
        images=len({seen.path for seen in dataset.images}),
        held_out=len({picture.path for picture in held_out}),
        visits=len(dataset.samples),
        buckets=buckets_of(dataset),
        findings=in_order([*already, *refused, *found_at_hand(dataset), *inside, *lengths]),
        unchecked=[] if count else ["no tokenizer is at hand: only captions that are surely too long are named"],
    )

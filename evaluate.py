"""Measure generated pictures: evaluate.py --generated out --reference training_set --prompts p.jsonl

Prints a table and writes all values as JSON. What cannot be measured says why, and what would change that. Networks are
read from paths or the local Hugging Face cache (`--list` shows which); nothing is downloaded. Without any, what pixels
tell is measured: copies, duplicates, sharpness, colours. Exit code 2: wrong input; 3: a metric of `--require` could not
be measured, or nothing at all could.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

from library.command import run_command
from library.config.options.evaluate import ALL_EVALUATE
from library.config.parse import parse
from library.console import show
from library.errors import UserError
from library.metrics.request import read_request
from library.metrics.weights import list_networks, read_weights

logger = logging.getLogger(__name__)


class RequiredMissing(UserError):
    """A metric that was required, or every one that was asked for, could not be measured."""

    exit_code = 3


def evaluate(argv: Sequence[str]) -> None:
    settings = parse(argv, *ALL_EVALUATE, prog="evaluate.py", description=str(__doc__))
    if settings["list"]:
        show(list_networks(read_weights(settings["weights"])))
        return
    request = read_request(settings)
    for line in [*settings.notes(), *request.notes]:
        logger.info(line)

    # torch is imported here and nowhere above: a mistake in the options must not wait for it.
    from library.files import write_json
    from library.metrics.against import compare, read_evaluation, refuse_unlike
    from library.metrics.copying import look_for_copies
    from library.metrics.evaluation import Evaluation
    from library.metrics.evidence import Evidence, chosen_device
    from library.metrics.features import FeatureStore
    from library.metrics.measure import measure
    from library.metrics.pixels import look_at_pixels
    from library.metrics.scores import read_scores

    other = read_evaluation(settings["against"]) if settings["against"] else None
    scores = read_scores(settings["scores"], request.generated) if settings["scores"] else []
    store = FeatureStore(settings["batch_size"], settings["cache"])
    evidence = Evidence(request, store, chosen_device(settings["device"]), settings["resize"])
    if other is not None:
        refuse_unlike(evidence, other, settings["against"])
    figures = [*measure(evidence), *scores]
    by_pixels = settings["metrics"] is None and (request.references or len(request.generated) > 1)
    if not by_pixels and all(figure.value is None for figure in figures):
        raise RequiredMissing(f"nothing could be measured: {figures[0].line} (`--list` shows which networks are here)")
    pixels = look_at_pixels([asked.path for asked in request.generated], request.references) if by_pixels else None
    result = Evaluation(request, figures, look_for_copies(evidence, figures), pixels, against=settings["against"])
    if other is not None:
        result.differences = compare(figures, request.generated, other)
    write_json(settings["output"], result.as_json())
    show(f"{result.as_text()}\n\nwritten: {settings['output']}")
    if missing := [f.line for f in figures if f.value is None and f.metric.name in (settings["require"] or ())]:
        raise RequiredMissing("required, but " + "; ".join(missing))


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(evaluate, argv)


if __name__ == "__main__":
    sys.exit(main())

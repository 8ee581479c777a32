"""What a page costs at its limits: `python -m tests.benchmarks.report_cost`

A log of 100,000 steps, 722 modules over 10 RESTARTs, 40 training pictures, 10 prompts at 20 steps (512 px): bytes of
the page, seconds on one core, and the most memory of the process. The limits are 8 MB, 10 s and 500 MB.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.library.report.a_run import findings_line, make_run, picture

STEPS, MODULES, RESTARTS, IMAGES, PROMPTS, MOMENTS = 100_000, 722, 10, 40, 10, 20
MEASURE = """
import resource, sys, time
from pathlib import Path
from library.report.run_page import write_run_page
began = time.process_time()
page = write_run_page(Path(sys.argv[1]))
print(page.stat().st_size, time.process_time() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        moments = tuple(round(i * STEPS / (MOMENTS - 1)) for i in range(MOMENTS))
        log = make_run(
            Path(folder),
            steps=STEPS,
            prompts=tuple(f"prompt {i}, a picture of something that takes a line to say" for i in range(PROMPTS)),
            samples_at=moments,
            images=IMAGES,
            more=(findings_line(STEPS, MODULES, RESTARTS),),
            ended=False,
        )
        for number, file in enumerate([*Path(folder).glob("sample/*.png"), *Path(folder).glob("data/*.png")]):
            picture(file, number, side=512, prompt=f"prompt {number % PROMPTS}", seed="7")
        began = time.monotonic()
        told = subprocess.run([sys.executable, "-c", MEASURE, log], capture_output=True, text=True, check=True).stdout
        size, seconds, memory = map(float, told.split())
        print(f"{size / 1e6:.1f} MB, {seconds:.1f} s of one core, {memory / 1e6:.0f} MB of memory", end="")
        print(f" ({time.monotonic() - began:.1f} s by the clock, from a log of {log.stat().st_size / 1e6:.0f} MB)")


if __name__ == "__main__":
    main()

"""Looking at a run before it is made."""

from library.config.option import NOTHING, Group, Option

# fmt: off
PLAN = Group("Plan", (
    Option("plan",                       bool, False,
           "print what would be trained, the files and the memory it takes, and stop; loads no weights, writes nothing",
           known_as=("dry_run",), of_sd_scripts=False, of_batch="it trains nothing"),
), decides=NOTHING)

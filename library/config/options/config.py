"""Where options come from. Every command that reads TOML has this group."""

from pathlib import Path

from library.config.option import NOTHING, Group, Option

SPOKEN = "it belongs on the command line"

# fmt: off
CONFIG = Group("Configuration", (
    Option("config_file",                Path, None,  "TOML file with options; the ending may be left out",
           known_as=("config",),
           differs="also JSON that the kohya_ss GUI saved; values are read into their types, unknown keys are reported",
           of_batch=SPOKEN),
    Option("output_config",              bool, False, "write the options of the command line to config_file and stop",
           differs="secrets are not written", of_batch=SPOKEN),
    Option("explain",                    bool, False,
           "print every value with where it comes from, and what has no effect, and stop; loads no model",
           of_sd_scripts=False, of_batch=SPOKEN),
    Option("strict_config",              bool, False, "treat unknown keys of the config file as errors",
           known_as=("strict",), of_sd_scripts=False, of_batch=SPOKEN),
), decides=NOTHING)

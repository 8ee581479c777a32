"""Where options come from. Every command that reads TOML has this group."""

from pathlib import Path

from library.config.option import NOTHING, Group, Option

# fmt: off
CONFIG = Group("Configuration", (
    Option("config_file",                Path, None,  "TOML file with options; the ending may be left out",
           known_as=("config",),
           differs="also JSON that the kohya_ss GUI saved; values are read into their types, unknown keys are said"),
    Option("output_config",              bool, False, "write the options of the command line to config_file and stop",
           differs="secrets are not written"),
    Option("explain",                    bool, False,
           "print every value with where it comes from, and what has no effect, and stop; loads no model",
           of_sd_scripts=False),
    Option("strict_config",              bool, False, "treat unknown keys of the config file as errors",
           known_as=("strict",), of_sd_scripts=False),
), decides=NOTHING)

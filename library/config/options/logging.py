"""Logs and trackers."""

from pathlib import Path

from library.config.option import NOTHING, Group, Option

# fmt: off
LOGGING = Group("Logging", (
    Option("logging_dir",                Path, None,  "folder of TensorBoard logs", known_as=("log_dir", "logs_dir")),
    Option("log_with",                   str,  None,  "trackers to tell", choices=("tensorboard", "wandb", "all")),
    Option("log_prefix",                 str,  None,  "beginning of the log folder's name"),
    Option("log_tracker_name",           str,  None,  "name of the tracker's project"),
    Option("log_tracker_config",         Path, None,  "TOML file of arguments for the tracker", names_a_file=True),
    Option("wandb_run_name",             str,  None,  "name of the run for wandb"),
    Option("wandb_api_key",              str,  None,  "key for wandb; better left to `wandb login`", secret=True,
           differs="never written to a file"),
    Option("log_config",                 bool, False, "tell trackers all options, without secrets"),
    Option("report",                     bool, True,  "write the run's page, {output_name}-report.html",
           of_sd_scripts=False),
    Option("console_log_level",          str,  None,  "how much to say; DEBUG shows every step",
           choices=("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")),
    Option("console_log_file",           Path, None,  "say it into a file instead",
           differs="errors that end a command are on the console all the same"),
    Option("console_log_simple",         bool, False, "say it without colours",
           inert="the console has no colours anyway"),
), decides=NOTHING)

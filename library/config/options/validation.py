"""Held-out images and when the loss on them is measured."""

from library.config.option import JOB, THROUGH, Group, Needs, Option
from library.config.values import count_or_none, period

# fmt: off
VALIDATION = Group("Validation", (
    Option("validation_split",           float,  0.0,  "share of each subset that is held out", minimum=0, maximum=1,
           decides=THROUGH, in_metadata=True,
           differs="chosen by file name, so that new pictures move few others; never a regularization picture",
           levels="GD"),
    Option("validation_seed",            int,    None, "seed of that choice", minimum=0,
           decides=THROUGH, in_metadata=True, differs="left out, training and validation do not overlap either",
           levels="GD", needs_key=("validation_split",)),
    Option("validate_every_n_steps",     period, None, "measure after each nth step", minimum=1,
           in_metadata=True, needs_key=("validation_split",)),
    Option("validate_every_n_epochs",    period, None, "measure after each nth epoch", minimum=1,
           in_metadata=True, needs_key=("validation_split",)),
    Option("max_validation_steps",       count_or_none, None, "batches to measure on, at most", minimum=1,
           in_metadata=True, needs_key=("validation_split",)),
    Option("early_stop",                 bool,   False, "end the run when the held-out loss no longer comes down",
           implies=(("save_best", True),), known_as=("early_stopping",), of_sd_scripts=False),
    Option("early_stop_patience",        int,    5,    "measurements to wait for a new lowest loss", minimum=1,
           needs=Needs("early_stop"), known_as=("patience", "early_stopping_patience"), of_sd_scripts=False),
    Option("save_best",                  bool,   False, "also save the weights that the held-out loss was lowest with",
           known_as=("save_best_model",), of_sd_scripts=False),
), decides=JOB)

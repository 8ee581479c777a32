"""The optimizer and the learning rate over the run."""

from library.config.option import JOB, Group, Needs, Option
from library.config.values import count_or_none, key_value, one_or_more, steps_or_ratio

SCHEDULERS = (
    *("constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts", "polynomial"),
    *("inverse_sqrt", "cosine_with_min_lr", "warmup_stable_decay", "piecewise_constant", "adafactor"),
    *("rex", "cosine_annealing_warm_restarts"),
)
RESTARTING = ("rex", "cosine_annealing_warm_restarts")
"""Schedules of this project: cycles with a warm-up each, whose peaks may fall."""
CYCLIC = Needs("lr_scheduler", ("cosine_with_restarts", "cosine_with_min_lr", "warmup_stable_decay", *RESTARTING))
WITH_MINIMUM = Needs("lr_scheduler", ("cosine_with_min_lr", "warmup_stable_decay", *RESTARTING))


# fmt: off
OPTIMIZER = Group("Optimizer and learning rate", (
    Option("optimizer_type",             str,       "",    "AdamW (the default), AdamW8bit, Prodigy, ..., or a class",
           known_as=("optimizer", "optim"), shapes_tensors=True),
    Option("optimizer_args",             key_value, None,  "further arguments, e.g. weight_decay=0.1", nargs="*",
           known_as=("optimizer_arguments", "optimizer_extra_args")),
    Option("use_8bit_adam",              bool,      False, "old for optimizer_type = AdamW8bit",
           implies=(("optimizer_type", "AdamW8bit"),), decides=JOB,
           differs="together with another `optimizer_type` it is refused"),
    Option("use_lion_optimizer",         bool,      False, "old for optimizer_type = Lion",
           implies=(("optimizer_type", "Lion"),), decides=JOB,
           differs="together with another `optimizer_type` it is refused"),
    Option("learning_rate",              float,     2e-6,  "learning rate of what has none of its own",
           minimum=0, known_as=("lr",), in_metadata=True, is_rate=True, open_to_initializers=True),
    Option("max_grad_norm",              float,     1.0,   "gradients are clipped to this norm; 0 is off", minimum=0,
           in_metadata=True, open_to_initializers=True),
    Option("lr_scheduler",               str,       "constant", "how the learning rate changes", choices=SCHEDULERS,
           known_as=("scheduler",), in_metadata=True,
           differs="rates follow optimizer steps, whatever the number of processes; also rex (`lr_scheduler_args` d, "
                   "gamma, min_lr) and cosine_annealing_warm_restarts", open_to_initializers=True),
    Option("lr_scheduler_type",          str,       "",    "class of a scheduler, in place of lr_scheduler"),
    Option("lr_scheduler_args",          key_value, None,  "its arguments", nargs="*"),
    Option("lr_warmup_steps",            steps_or_ratio, 0, "steps in which the rate rises, or their share (10%)",
           known_as=("lr_warmup", "warmup_steps", "warmup", "lr_warmup_ratio", "warmup_ratio"), in_metadata=True,
           differs="1 or more is a number of steps also as a float; a percentage may be in TOML"),
    Option("lr_decay_steps",             steps_or_ratio, 0, "steps in which it falls (warmup_stable_decay)",
           needs=Needs("lr_scheduler", ("warmup_stable_decay",))),
    Option("lr_scheduler_num_cycles",    one_or_more, 1,   "cycles of a schedule that restarts",
           minimum=1, needs=CYCLIC,
           known_as=("lr_restart_cycles", "lr_num_cycles", "num_cycles")),
    Option("lr_scheduler_power",         float,     1.0,   "power of polynomial", known_as=("lr_power",),
           needs=Needs("lr_scheduler", ("polynomial",))),
    Option("lr_scheduler_timescale",     count_or_none, None,  "time scale of inverse_sqrt", minimum=1,
           needs=Needs("lr_scheduler", ("inverse_sqrt",))),
    Option("lr_scheduler_min_lr_ratio",  float,     None,  "lowest rate, as a share of the highest",
           minimum=0, maximum=1, needs=WITH_MINIMUM),
    Option("fused_backward_pass",        bool,      False, "step while gradients are computed",
           inert="as in sd-scripts, it works in none of the network trainers"),
))

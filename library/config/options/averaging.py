"""An average of the weights over the steps (EMA), beside the weights themselves."""

from library.config.option import NOTHING, Group, Needs, Option

AVERAGING = Needs("ema_decay")

# fmt: off
AVERAGES = Group("Averaged weights", (
    Option("ema_decay",                  float,  None, "also keep an average of the weights, of which this much "
           "stays in a step: 0.99 to 0.9999", minimum=0, maximum=1, known_as=("ema", "use_ema", "ema_rate"),
           in_metadata=True),
    Option("ema_update_every",           int,    None, "steps between two updates of the average (else 1)", minimum=1,
           known_as=("ema_update_interval", "ema_update_step_interval"), needs=AVERAGING, in_metadata=True),
    Option("ema_device",                 str,    "accelerator", "where the average is kept",
           choices=("accelerator", "cpu"), other_words=(("gpu", "accelerator"), ("cuda", "accelerator")),
           needs=AVERAGING, decides=NOTHING),
    Option("ema_validate",               bool,   False, "measure and draw with the average; the best step is its",
           needs=AVERAGING),
), of_sd_scripts=False)

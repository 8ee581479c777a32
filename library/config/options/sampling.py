"""Sample images while the run goes on."""

from pathlib import Path

from library.config.option import Group, Needs, Option
from library.config.values import period

# Those with "k_" are the same samplers as those without.
SAMPLERS = (
    *("ddim", "pndm", "lms", "euler", "euler_a", "heun", "dpm_2", "dpm_2_a", "dpmsolver", "dpmsolver++", "dpmsingle"),
    *("k_lms", "k_euler", "k_euler_a", "k_dpm_2", "k_dpm_2_a"),
)

# fmt: off
SAMPLING = Group("Samples", (
    Option("sample_prompts",             Path,   None,   "file of prompts: .txt, .toml or .json",
           known_as=("sample_prompt", "prompts", "prompt_file"),
           needs=Needs("sample_every_n_epochs", others=("sample_every_n_steps", "sample_at_first"))),
    Option("sample_every_n_epochs",      period, None,   "make samples after each nth epoch; goes before steps",
           minimum=1),
    Option("sample_every_n_steps",       period, None,   "make samples after each nth step", minimum=1),
    Option("sample_at_first",            bool,   False,  "make samples before training"),
    Option("sample_sampler",             str,    "ddim", "how they are made", choices=SAMPLERS, known_as=("sampler",),
           needs=Needs("sample_prompts")),
))

"""Sample images while the run goes on."""

from library.config.option import JOB, Group, Needs, Option
from library.config.values import period, prompts_or_file

# Those with "k_" are the same samplers as those without.
SAMPLERS = (
    *("ddim", "pndm", "lms", "euler", "euler_a", "heun", "dpm_2", "dpm_2_a", "dpmsolver", "dpmsolver++", "dpmsingle"),
    *("k_lms", "k_euler", "k_euler_a", "k_dpm_2", "k_dpm_2_a"),
)

FLOW_SAMPLERS = ("ddim", "euler", "heun", "dpmsolver++")
"""Those that follow straight paths; on them a step of DDIM is one of Euler's."""

ELSEWHERE = (
    *(("dpmpp_2m", "dpmsolver++"), ("dpm++_2m", "dpmsolver++"), ("dpm++ 2m", "dpmsolver++")),
    *(("dpm++_2m_karras", "dpmsolver++"), ("dpm++ 2m karras", "dpmsolver++"), ("dpmpp_2m_karras", "dpmsolver++")),
    *(("euler_ancestral", "euler_a"), ("euler a", "euler_a"), ("k_euler_ancestral", "euler_a")),
)
"""What web interfaces call samplers; sd-scripts takes ddim for every name in a TOML file that it does not know."""
PROMPTS = Needs("sample_prompts")

# fmt: off
SAMPLING = Group("Samples", (
    Option("sample_prompts",             prompts_or_file, None, "file of prompts (.txt, .toml, .json), or prompts",
           known_as=("sample_prompt", "prompts", "prompt_file"),
           needs=Needs("sample_every_n_epochs", others=("sample_every_n_steps", "sample_at_first")),
           differs="also the prompts themselves; checked at the start; the size is the model's own if left out",
           names_a_file=True),
    Option("sample_every_n_epochs",      period, None,   "make samples after each nth epoch; goes before steps",
           minimum=1, needs=PROMPTS, differs="without prompts it has no effect and says so"),
    Option("sample_every_n_steps",       period, None,   "make samples after each nth step", minimum=1,
           needs=PROMPTS, differs="without prompts it has no effect and says so"),
    Option("sample_at_first",            bool,   False,  "make samples before training", needs=PROMPTS,
           differs="the first and the last pictures are also set side by side"),
    Option("sample_sampler",             str,    "ddim", "how they are made", choices=SAMPLERS, known_as=("sampler",),
           other_words=ELSEWHERE, needs=PROMPTS),
), decides=JOB)

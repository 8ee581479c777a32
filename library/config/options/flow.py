"""Rectified-flow models: Stable Diffusion that was trained on to predict velocity on straight paths."""

from library.config.option import Group, Needs, Option

FLOW_MODEL = Needs("flow_model")

# fmt: off
FLOW = Group("Rectified flow", (
    Option("flow_model",                 bool,  False, "the model is one of rectified flow: straight paths, velocity",
           known_as=("rectified_flow", "flow_matching"), in_metadata=True),
    Option("flow_timestep_distribution", str,   None,  "how sigma is drawn (else logit_normal)",
           choices=("logit_normal", "uniform"), needs=FLOW_MODEL, in_metadata=True),
    Option("flow_logit_mean",            float, None,  "sigma = sigmoid(N(mean, std)): the mean (else 0)",
           needs=FLOW_MODEL, in_metadata=True),
    Option("flow_logit_std",             float, None,  "the standard deviation (else 1)", needs=FLOW_MODEL,
           in_metadata=True, positive=True),
    Option("flow_uniform_static_ratio",  float, None,  "shift sigma by this ratio, for example 2.5; wins over the next",
           needs=FLOW_MODEL, in_metadata=True, positive=True),
    Option("flow_uniform_shift",         bool,  False, "shift sigma by sqrt(pixels of the picture / base pixels)",
           needs=FLOW_MODEL, in_metadata=True),
    Option("flow_uniform_base_pixels",   int,   None,  "pixels without a shift (else 1048576)", minimum=1,
           needs=Needs("flow_uniform_shift"), in_metadata=True),
    Option("flow_use_ot",                bool,  False, "pair noise and latents of a batch so that paths cross less",
           needs=FLOW_MODEL, in_metadata=True),
    Option("contrastive_flow_matching",  bool,  False, "also move away from the target of another sample",
           needs=FLOW_MODEL, in_metadata=True),
    Option("cfm_lambda",                 float, None,  "by this factor (else 0.05)", minimum=0,
           needs=Needs("contrastive_flow_matching"), in_metadata=True),
), of_sd_scripts=False)

"""Noise, timesteps and how the loss is weighed."""

from library.config.option import Group, Models, Needs, Option

HUBER = Needs("loss_type", ("huber", "smooth_l1"))
VELOCITY = Models(
    "is meant for models of v-prediction, and this one predicts noise: at the last timestep, pure noise, it has "
    "nothing to learn, and at the others it meets less signal than it was trained on; leave it out",
    prediction="v_prediction",
)

# fmt: off
LOSS = Group("Loss and noise", (
    Option("loss_type",                  str,   "l2",  "distance between prediction and target",
           choices=("l1", "l2", "huber", "smooth_l1"), in_metadata=True),
    Option("huber_schedule",             str,   "snr", "how huber's threshold follows the timestep",
           choices=("constant", "exponential", "snr"), needs=HUBER, in_metadata=True),
    Option("huber_c",                    float, 0.1,   "huber's threshold where it is lowest", needs=HUBER,
           in_metadata=True),
    Option("huber_scale",                float, 1.0,   "factor of that threshold", needs=HUBER, in_metadata=True,
           differs="also scales the `snr` schedule"),
    Option("min_snr_gamma",              float, None,  "min-SNR weighting; 5 is usual, 0 is off", minimum=0,
           idle_with="flow_model", in_metadata=True),
    Option("scale_v_pred_loss_like_noise_pred", bool, False, "scale v-prediction's loss as that of noise prediction",
           idle_with="flow_model"),
    Option("v_pred_like_loss",           float, None,  "add a loss like v-prediction's, by this factor",
           idle_with="flow_model"),
    Option("debiased_estimation_loss",   bool,  False, "weigh by 1 / sqrt(SNR)", idle_with="flow_model"),
    Option("noise_offset",               float, None,  "shift each channel's noise, for darker and brighter images",
           idle_with="flow_model", in_metadata=True),
    Option("noise_offset_random_strength", bool, False, "by a random share of it", needs=Needs("noise_offset"),
           idle_with="flow_model", in_metadata=True),
    Option("adaptive_noise_scale",       float, None,  "add to noise_offset by the mean of the latents",
           needs=Needs("noise_offset"), idle_with="flow_model", in_metadata=True),
    Option("multires_noise_iterations",  int,   None,  "layers of coarser noise", minimum=0, idle_with="flow_model",
           in_metadata=True),
    Option("multires_noise_discount",    float, 0.3,   "weight of each coarser layer",
           needs=Needs("multires_noise_iterations"), idle_with="flow_model", in_metadata=True),
    Option("immiscible_noise",           int,   None,  "of so many draws of noise take the nearest to the latents",
           minimum=0, of_sd_scripts=False, in_metadata=True),
    Option("ip_noise_gamma",             float, None,  "perturb the input by this much noise", idle_with="flow_model",
           in_metadata=True),
    Option("ip_noise_gamma_random_strength", bool, False, "by a random share of it", needs=Needs("ip_noise_gamma"),
           idle_with="flow_model", in_metadata=True),
    Option("zero_terminal_snr",          bool,  False, "rescale the noise schedule to end in pure noise",
           models=VELOCITY, idle_with="flow_model", in_metadata=True,
           differs="loss weights follow the rescaled schedule"),
    Option("min_timestep",               int,   None,  "lowest timestep", minimum=0, maximum=999,
           differs="must be below `max_timestep`"),
    Option("max_timestep",               int,   None,  "timesteps stay below this", minimum=1, maximum=1000),
))

"""Length, precision and memory of the run."""

from pathlib import Path

from library.config.option import JOB, NOTHING, THROUGH, Group, Option
from library.config.options.dataset import ONE_BATCH
from library.config.values import count_or_none, one_or_more

DEEPSPEED = "DeepSpeed is not supported: networks are too small to need it"
COMPILING = "what compiling would save has not been measured on a GPU here"
DEVICES = ("cpu", "nvme")
DYNAMO_BACKENDS = ("no", "eager", "aot_eager", "inductor", "aot_ts_nvfuser", "nvprims_nvfuser", "cudagraphs", "ofi",
                   "fx2trt", "onnxrt", "tensort", "ipex", "tvm")  # fmt: skip

# fmt: off
TRAINING = Group("Training", (
    Option("max_train_steps",            int,   1600,  "optimizer steps, unless max_train_epochs is given", minimum=1,
           known_as=("steps", "train_steps", "num_train_steps"), decides=JOB, in_metadata=True,
           open_to_initializers=True),
    Option("max_train_epochs",           count_or_none, None,  "passes over all images with their repeats", minimum=1,
           known_as=("epoch", "epochs", "num_epochs", "num_train_epochs", "max_epochs"), decides=JOB,
           differs="an epoch is one pass over every picture times its repeats"),
    Option("seed",                       int,   None,  "makes the run repeatable; left out, one is drawn", minimum=0,
           in_metadata=True, differs="left out, one is drawn, written down, and used again when the run is resumed",
           of_batch="`seeds` is in [batch]"),
    Option("mixed_precision",            str,   "no",  "precision of the computation", choices=("no", "fp16", "bf16"),
           in_metadata=True),
    Option("full_fp16",                  bool,  False, "weights and gradients in float16 too", shapes_tensors=True,
           in_metadata=True),
    Option("full_bf16",                  bool,  False, "weights and gradients in bfloat16 too", shapes_tensors=True),
    Option("fp8_base",                   bool,  False, "keep the model in 8-bit floats", in_metadata=True,
           differs="with a scale for each channel; can run on a CPU"),
    Option("fp8_base_unet",              bool,  False, "keep the U-Net in 8-bit floats", in_metadata=True,
           differs="with a scale for each channel; can run on a CPU"),
    Option("gradient_checkpointing",     bool,  False, "compute activations twice: less memory, slower",
           decides=NOTHING, in_metadata=True),
    Option("cpu_offload_checkpointing",  bool,  False, "keep checkpointed activations in the computer's memory",
           inert="it does not work for Stable Diffusion in sd-scripts either"),
    Option("gradient_accumulation_steps", one_or_more, 1,     "batches that make one optimizer step", minimum=1,
           known_as=("gradient_accumulation", "grad_accumulation_steps", "accumulation_steps"),
           decides=THROUGH, in_metadata=True, differs=ONE_BATCH),
    Option("max_data_loader_n_workers",  int,   8,     "threads that prepare batches", minimum=0,
           known_as=("num_workers", "max_data_loader_workers", "dataloader_num_workers"), decides=NOTHING,
           differs="threads, whose number does not change what is trained"),
    Option("persistent_data_loader_workers", bool, False, "keep what prepares the batches",
           inert="threads prepare the batches here, and they stay"),
    Option("xformers",                   bool,  False, "attention by xformers, where it can run",
           known_as=("use_xformers",), decides=NOTHING,
           differs="where it cannot run, PyTorch's attention is used, with a note"),
    Option("sdpa",                       bool,  False, "attention by PyTorch",
           inert="PyTorch's own attention is what is used anyway"),
    Option("mem_eff_attn",               bool,  False, "attention in less memory", decides=NOTHING,
           differs="PyTorch's attention is used, which needs less"),
    Option("torch_compile",              bool,  False, "compile the model", inert=COMPILING),
    Option("dynamo_backend",             str,   "inductor", "what compiles it",
           choices=DYNAMO_BACKENDS, inert=COMPILING),
    Option("highvram",                   bool,  False, "keep memory instead of giving it back early", decides=NOTHING),
    Option("ddp_timeout",                count_or_none, None,  "minutes that processes wait for each other", minimum=1,
           decides=NOTHING),
    Option("ddp_gradient_as_bucket_view", bool, False, "an option of DistributedDataParallel",
           inert="networks are not wrapped in DistributedDataParallel"),
    Option("ddp_static_graph",           bool,  False, "an option of DistributedDataParallel",
           inert="networks are not wrapped in DistributedDataParallel"),
    Option("deepspeed",                  bool,  False, "train with DeepSpeed", inert=DEEPSPEED),
    Option("zero_stage",                 int,   2,     "DeepSpeed's ZeRO stage", choices=(0, 1, 2, 3), inert=DEEPSPEED),
    Option("offload_optimizer_device",   str,   None,  "where DeepSpeed puts the optimizer",
           choices=DEVICES, inert=DEEPSPEED),
    Option("offload_optimizer_nvme_path", Path, None,  "folder for it", inert=DEEPSPEED),
    Option("offload_param_device",       str,   None,  "where DeepSpeed puts the weights",
           choices=DEVICES, inert=DEEPSPEED),
    Option("offload_param_nvme_path",    Path,  None,  "folder for them", inert=DEEPSPEED),
    Option("zero3_init_flag",            bool,  False, "DeepSpeed: build the model in parts", inert=DEEPSPEED),
    Option("zero3_save_16bit_model",     bool,  False, "DeepSpeed: save 16-bit weights", inert=DEEPSPEED),
    Option("fp16_master_weights_and_gradients", bool, False, "DeepSpeed: weights and gradients in float16",
           inert=DEEPSPEED),
))

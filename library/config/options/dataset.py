"""The images, their sizes, and what is cached of them."""

from pathlib import Path

from library.config.option import NOTHING, PICTURES, THROUGH, Group, Option
from library.config.values import bucket_step, one_or_more, resolution, two_numbers

CACHE_INFO = "image sizes are always remembered, and captions read anew"
INTERPOLATIONS = ("lanczos", "nearest", "bilinear", "linear", "bicubic", "cubic", "area")
ONE_BATCH = "with several processes or accumulation, a step is one batch of one bucket, cut into parts"

ONCE = "each draw belongs to its picture and epoch: workers, processes and resuming do not change it"
# fmt: off
DATASET = Group("Images", (
    Option("dataset_config",             Path,  None,  "dataset description (TOML or JSON); goes before train_data_dir",
           known_as=("dataset_config_file", "dataset_file"), decides=PICTURES,
           differs="ranges are checked, and a wrong file in its place is recognised"),
    Option("train_data_dir",             Path,  None,  "folder of folders named REPEATS_CLASS, e.g. 10_person",
           known_as=("data_dir", "dataset_dir", "image_dir", "dataset", "instance_data_dir"), decides=PICTURES,
           differs="on the command line it goes before a config's datasets"),
    Option("reg_data_dir",               Path,  None,  "the same for regularization images",
           known_as=("class_data_dir",), decides=PICTURES, differs="folders in the order of their names"),
    Option("prior_loss_weight",          float, 1.0,   "weight of the loss on regularization images", minimum=0,
           in_metadata=True),
    Option("in_json",                    Path,  None,  "metadata file with the captions of train_data_dir",
           decides=PICTURES),
    Option("dataset_repeats",            int,   1,     "repeats of a subset that names none", minimum=0,
           known_as=("num_repeats", "repeats"), decides=THROUGH),
    Option("dataset_class",              str,   None,  "a Python class instead of the datasets", recorded_late=True,
           differs="refused: such a class feeds sd-scripts' own loop; a `dataset_config` describes any pictures"),
    Option("resolution",                 resolution, None, "training size: 512, or width,height",
           known_as=("max_resolution", "train_resolution", "size", "image_size"), decides=THROUGH,
           differs="also a plain number, a list and 512x768"),
    Option("train_batch_size",           int,   1,     "images per step on one device",
           minimum=1, known_as=("batch_size",), decides=THROUGH, differs=ONE_BATCH),
    Option("enable_bucket",              bool,  False, "train each image in a bucket near its own aspect ratio",
           known_as=("enable_buckets", "enable_bucketing"), decides=THROUGH,
           differs="SDXL is told where its pixels were cut"),
    Option("min_bucket_reso",            int,   256,   "shortest side of a bucket",
           minimum=1, known_as=("min_bucket_resolution",), decides=THROUGH),
    Option("max_bucket_reso",            int,   1024,  "longest side of a bucket",
           minimum=1, known_as=("max_bucket_resolution",), decides=THROUGH),
    Option("bucket_reso_steps",          bucket_step, 64, "sides of buckets are multiples of this", minimum=8,
           known_as=("bucket_resolution_steps",), decides=THROUGH, differs="any multiple of 8"),
    Option("bucket_no_upscale",          bool,  False, "never enlarge an image to fill its bucket", decides=THROUGH),
    Option("resize_interpolation",       str,   None,  "how images are resized (else area down, lanczos up)",
           choices=INTERPOLATIONS, decides=THROUGH, in_metadata=True),
    Option("cache_latents",              bool,  False, "encode each image once and keep the result in memory",
           decides=NOTHING, in_metadata=True,
           differs="keeps the VAE's mean and deviation and draws anew at each visit; sd-scripts keeps one draw"),
    Option("cache_latents_to_disk",      bool,  False, "the same, kept on disk for the next run",
           implies=(("cache_latents", True),), decides=NOTHING,
           differs="files know picture, size and VAE, so none is stale; kohya's .npz are left alone"),
    Option("vae_batch_size",             one_or_more, 1,     "images that the VAE encodes at a time", minimum=1,
           decides=NOTHING),
    Option("skip_cache_check",           bool,  False, "trust caches without a look",
           inert="a look costs nothing here: names say what files were made of, and none is opened"),
    Option("cache_info",                 bool,  False, "keep captions and image sizes in a file", inert=CACHE_INFO),
    Option("cache_text_encoder_outputs", bool,  False, "encode each caption once and keep the result in memory",
           known_as=("sdxl_cache_text_encoder_outputs",),
           inert="captions of a text encoder that is not trained are always encoded once and kept", decides=NOTHING),
    Option("cache_text_encoder_outputs_to_disk", bool, False, "the same, kept on disk for the next run",
           implies=(("cache_text_encoder_outputs", True),), decides=NOTHING,
           differs="for all models; works with caption dropout; files know the text encoder"),
    Option("flip_aug",                   bool,  False, "mirror half of the images",
           known_as=("flip", "horizontal_flip"), decides=THROUGH, differs=ONCE),
    Option("color_aug",                  bool,  False, "change colours a little", decides=THROUGH, differs=ONCE),
    Option("random_crop",                bool,  False, "crop anywhere instead of in the middle", decides=THROUGH,
           differs=ONCE),
    Option("face_crop_aug_range",        two_numbers, None, "crop around the face: smallest and largest factor",
           decides=THROUGH, in_metadata=True, differs=ONCE),
    Option("alpha_mask",                 bool,  False, "weigh the loss by the image's alpha channel", decides=THROUGH),
    Option("masked_loss",                bool,  False, "weigh the loss by a mask image", recorded_late=True,
           differs="a run in which no picture has a mask says so"),
    Option("conditioning_data_dir",      Path,  None,  "mask images",
           inert="as in sd-scripts, masks belong into the dataset description", decides=PICTURES),
    Option("debug_dataset",              bool,  False, "show batches instead of training", decides=NOTHING,
           differs="writes a sheet of pictures and prints captions; needs no screen"),
))

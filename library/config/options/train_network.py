"""All options of train_network.py, in the order in which `--help` shows them."""

from library.config.options.averaging import AVERAGES
from library.config.options.captions import CAPTIONS
from library.config.options.config import CONFIG
from library.config.options.dataset import DATASET
from library.config.options.embeddings import EMBEDDINGS
from library.config.options.flow import FLOW
from library.config.options.logging import LOGGING
from library.config.options.loss import LOSS
from library.config.options.metadata import METADATA
from library.config.options.model import MODEL
from library.config.options.network import NETWORK
from library.config.options.optimizer import OPTIMIZER
from library.config.options.plan import PLAN
from library.config.options.sampling import SAMPLING
from library.config.options.saving import SAVING
from library.config.options.training import TRAINING
from library.config.options.validation import VALIDATION

ALL_TRAIN_NETWORK = (
    CONFIG,
    PLAN,
    MODEL,
    NETWORK,
    EMBEDDINGS,
    DATASET,
    CAPTIONS,
    TRAINING,
    OPTIMIZER,
    AVERAGES,
    LOSS,
    FLOW,
    SAVING,
    SAMPLING,
    LOGGING,
    METADATA,
    VALIDATION,
)

"""A terminal that shows what a person needs, and none of the remarks of libraries on their own workings."""

import logging
import os
import warnings


def quieten() -> None:
    """Keep tips and remarks on Lightning's own workings off the terminal."""
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for text in (
        *("LeafSpec.* is deprecated", "in eval mode", "does not have many workers"),
        *("not supported by the model summary", "no pre-optimization state was saved"),
    ):
        warnings.filterwarnings("ignore", message=f".*{text}")
    os.environ.setdefault("WANDB_SILENT", "true")

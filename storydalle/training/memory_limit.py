"""Check the memory of a device before a training starts."""

import numpy as np
import torch

from storydalle.files.process_memory import told_bytes
from storydalle.mistakes import UserError
from storydalle.models.backbones.backbone import Backbone
from storydalle.models.story_dalle.drawing_bytes import free_on
from storydalle.stories.story import Stories
from storydalle.tokens.cache import StoryCodes
from storydalle.training.memory import training_memory
from storydalle.training.story_dalle_training import StoryDALLETraining
from storydalle.training.train_settings import TrainSettings


def check_memory(system: object, data: object, stories: Stories, settings: TrainSettings, device: torch.device) -> None:
    """Print the memory that a StoryDALL-E's training needs; refuse if it is more than the limit, or than is free.

    ``data`` is the data module, whose captions count if they are encoded already.
    """
    num_frames = settings.num_targets
    if not isinstance(system, StoryDALLETraining):
        return
    columns = longest_captions(data, system.model.backbone)
    needed = training_memory(
        system,
        settings.batch_size,
        int(stories.story_lengths().max()) if num_frames is None else num_frames,
        settings.precision,
        on_cpu=device.type == "cpu",
        has_average=settings.ema_decay is not None,
        text_columns=columns,
    )
    most = system.model.backbone.text_length
    known = f"all {most}, since none is encoded yet" if columns is None else f"{columns} of {most}, as the longest has"
    told = f"needs about {needed} (tokens of a caption: {known})"
    limit, free = settings.memory_limit_gb, free_on(device)
    if limit is not None and needed.total > limit * 1e9:
        raise UserError(f"{told}; memory_limit_gb={limit}: {less_memory(system, settings)}")
    held = needed.weights if device.type == "cpu" else 0  # a GPU gets them later
    if needed.total - held > free:
        raise UserError(f"{told}; {told_bytes(free)} are free: {less_memory(system, settings)}")
    print(told)


def longest_captions(data: object, backbone: Backbone) -> int | None:
    """Columns that a step computes at most, with the longest captions; None where captions are not encoded yet."""
    if not isinstance(data, StoryCodes):
        return None
    try:
        captions = data.cached("train").arrays["captions"]
    except (OSError, ValueError):
        return None
    pad_id = data.caption_tokenizer.pad_id
    filled = np.where((captions != pad_id).any(0), pad_id + 1, pad_id)  # t
    return len(backbone.used_columns(torch.from_numpy(filled[None])))


def less_memory(system: StoryDALLETraining, settings: TrainSettings) -> str:
    """Name the changes of settings that would save memory; the cheapest comes first."""
    changes = {
        "system.activation_checkpointing=true": not system.model.backbone.activation_checkpointing,
        "data_module.batch_size=1 with trainer.accumulate_grad_batches": settings.batch_size > 1,
        "ema_decay=null": settings.ema_decay is not None,
        "system.optimizer=adamw8bit": system.optimizer != "adamw8bit",
        "retrofit=released": len(system.model.source_attention) > system.model.backbone.depth // 3,
        "system.tuning=prompt or retrofit": system.tuning == "full",
    }
    possible = [change for change, helps in changes.items() if helps]
    return f"try {', '.join(possible)}" if possible else "choose a trainer= for a larger device"

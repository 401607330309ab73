"""Check the memory of a device before a training starts."""

from storydalle.mistakes import UserError
from storydalle.stories.story import Stories
from storydalle.training.memory import training_memory
from storydalle.training.story_dalle_training import StoryDALLETraining
from storydalle.training.train_settings import TrainSettings


def check_memory(system: object, stories: Stories, settings: TrainSettings, on_cpu: bool) -> None:
    """Print the memory that a StoryDALL-E's training needs if the trainer sets a limit; refuse if it is more."""
    limit, num_frames = settings.memory_limit_gb, settings.num_targets
    if limit is None or not isinstance(system, StoryDALLETraining):
        return
    needed = training_memory(
        system,
        settings.batch_size,
        int(stories.story_lengths().max()) if num_frames is None else num_frames,
        settings.precision,
        on_cpu,
        has_average=settings.ema_decay is not None,
    )
    if needed.total > limit * 1e9:
        raise UserError(f"needs about {needed}; memory_limit_gb={limit}: {less_memory(system, settings)}")
    print(f"needs about {needed}")


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

"""The figures of ``docs/machines.md``: how a million stories are divided among devices, and the memory of each."""

from storydalle.bench.data_split import Division, ManyDevices, split_of_cache, split_of_shards
from storydalle.evaluation.toon_table import markdown
from storydalle.files.weights import WithoutNumbers
from storydalle.models.backbones.dalle import DALLE
from storydalle.models.backbones.mega import MegaDALLE
from storydalle.models.story_dalle.model import StoryDALLE
from storydalle.models.story_dalle.retrofit import retrofit
from storydalle.tokens.caption_tokenizer import CaptionTokenizer
from storydalle.tokens.vqgan import VQGAN
from storydalle.training.memory import TrainingMemory, training_memory
from storydalle.training.story_dalle_training import StoryDALLETraining

NUM_FRAMES, NUM_NAMES = 4, 9  # of PororoSV
WORDS = {"minDALL-E": 16384, "DALL-E Mega": 50265}
DEVICES = 8  # of one machine, among which fsdp divides a model
STORIES = (1, 4)  # a step of each process
GB = 1e9


class OnlyWords(CaptionTokenizer):
    """A caption tokenizer of which the sizes alone are real."""

    def __init__(self, num_words: int) -> None:
        self.text_length, self.pad_id, self.added_names, self.num_words = 64, 1, (), num_words

    @property
    def vocab_size(self) -> int:
        return self.num_words


# ------------------------------------------------------------------------------------------------ data


def split_table(devices: ManyDevices) -> str:
    """A line for a cache and for shards of two sizes."""
    large = devices._replace(stories_per_shard=5 * devices.stories_per_shard)
    rows = [
        ("cache of one machine", split_of_cache(devices)),
        *((f"shards of {each.stories_per_shard:,} stories", split_of_shards(each)) for each in (devices, large)),
    ]
    header = ["data", "read once", "more than once", "not at all", "stories a process", "resumed elsewhere"]
    told = (
        f"{devices.num_stories:,} stories in {devices.epochs} epochs of {devices.num_ranks} processes with "
        f"{devices.num_workers} workers each and {devices.batch_size} stories a step; the counts are those of the "
        "worst epoch. Every process was resumed in the middle of the second: the last column counts those that did "
        "not read on where they were."
    )
    return f"{told}\n\n{markdown(header, [split_row(name, split) for name, split in rows])}"


def split_row(name: str, split: Division) -> list[str]:
    counts = [f"{number:,}" for number in (split.once, split.repeated, split.left_out)]
    of_process = f"{split.fewest:,}" if split.fewest == split.most else f"{split.fewest:,} to {split.most:,}"
    return [name, *counts, of_process, f"{split.differing} of {split.resumed}"]


# ------------------------------------------------------------------------------------------------ memory


def full_size(backbone: str) -> StoryDALLE:
    """A released backbone with the paper's retrofit and added names, in shapes alone."""
    words = WORDS[backbone] + NUM_NAMES
    with WithoutNumbers():
        images = VQGAN(256, 128, (1, 1, 2, 2, 4), 2, (16,), 256, embed_dim=256, codebook_size=16384)
        transformer = DALLE(words) if backbone == "minDALL-E" else MegaDALLE(words)
        return StoryDALLE(images, OnlyWords(words), retrofit(transformer))


def memory_of(backbone: str, num_stories: int) -> TrainingMemory:
    """Of a device that trains all weights by AdamW, with products in bf16 and activation checkpointing."""
    model = full_size(backbone)
    text_weight = 1.0 if model.model.backbone.predicts_text else 0.0
    with WithoutNumbers():
        system = StoryDALLETraining(model, text_weight=text_weight, bag_weight=0.0, activation_checkpointing=True)
    return training_memory(system, num_stories, NUM_FRAMES, "bf16-mixed", on_cpu=False)


def memory_table() -> str:
    """A line for each backbone and number of stories: with a copy of the model on each device, and divided."""
    rows = []
    for backbone in WORDS:
        for num_stories in STORIES:
            memory = memory_of(backbone, num_stories)
            divided = (memory.weights + memory.gradients + memory.optimizer) / DEVICES + memory.activations
            parts = (memory.weights, memory.gradients, memory.optimizer, memory.activations, memory.total, divided)
            rows.append([backbone, str(num_stories), *(f"{part / GB:.1f}" for part in parts)])
    header = ["backbone", "stories", "weights", "gradients", "optimizer", "activations", "ddp", f"fsdp, {DEVICES} GPUs"]
    told = (
        f"GB of each GPU, for stories of {NUM_FRAMES} frames, all weights trained by AdamW, products in bf16, with "
        "activation checkpointing; `stories` is `data_module.batch_size`. `fsdp` divides the first three parts by the "
        "number of GPUs; the block that is gathered at a time comes on top."
    )
    return f"{told}\n\n{markdown(header, rows)}"

"""Settings that would spoil a training in silence: refused, told or put right before it starts."""

from typing import Any

from storydalle.mistakes import UserError, check_number
from storydalle.training.loggers import check_loggers

STAGES = (
    "warmup_steps",
    "story_warmup_steps",
    "steps_without_quantization",
    "adversarial_start",
)  # from the first step


# Options of Lightning's trainer that a run sets itself, and how they are chosen here.
SET_BY_RUNS = {
    "callbacks": "choose them with callbacks=[NAME,...], or add one with +callbacks.NAME._target_=",
    "logger": "choose them with logger=[NAME,...], or add one with +logger.NAME._target_=",
    "plugins": "a run's checkpoints are safetensors",
    "default_root_dir": "a run's folder is runs= with experiment= and name=",
}


def check_settings(settings: dict[str, Any]) -> list[str]:
    """Refuse counts that train or save nothing, and what would have no effect; say what else is worth a look.

    Validation comes at the end at the latest: an interval beyond it would be none.
    """
    trainer, system = settings["trainer"], settings["system"]
    for name in SET_BY_RUNS:
        if name in trainer:
            raise UserError(f"trainer.{name}={trainer[name]} is set by each run itself: {SET_BY_RUNS[name]}")
    check_loggers(settings.get("logger") or {})
    batches = trainer.get("accumulate_grad_batches", 1)
    for name, value in {
        "trainer.max_steps": trainer["max_steps"],
        "save_every": settings["save_every"],
        "data_module.batch_size": settings["data_module"]["batch_size"],
        "trainer.accumulate_grad_batches": batches,
    }.items():
        check_number(name, value, 1, None, whole=True)
    if settings["ema_decay"] is not None:
        check_number("ema_decay", settings["ema_decay"], 0, 1)
    for name in ("clip", "gradient_clip"):
        if system.get(name) is not None and not system[name] > 0:
            raise UserError(f"system.{name}={system[name]} takes every gradient away: use a number above 0")
    asked = settings["pretrained"]
    if asked is not None and asked not in settings["network"].values():
        raise UserError(f"pretrained={asked}: this system begins from nothing and builds on no model; leave it out")
    interval, last = trainer.get("val_check_interval"), trainer["max_steps"] * batches
    if isinstance(interval, int) and interval > last:
        trainer["val_check_interval"] = last
    return [
        f"note: system.{name}={system[name]} is not over when trainer.max_steps={trainer['max_steps']} is: what comes "
        "after it is not trained"
        for name in STAGES
        if isinstance(system.get(name), int) and system[name] >= trainer["max_steps"]
    ]

"""LightningModules, optimisation, callbacks, checkpoints and memory."""

"""LightningModules, optimisation, callbacks, a run's whole state and its memory."""

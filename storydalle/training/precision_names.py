"""Names of Lightning's precisions, for those who need no torch."""

AUTO, HALF, SINGLE = "auto", "bf16-mixed", "32-true"

"""Names of the rows that every evaluation has beside the systems: upper limits and simple baselines."""

REAL, RECONSTRUCTION, COPY, TEXT_TO_IMAGE = (
    *("real frames", "tokenizer reconstruction", "copy the source", "text-to-image alone"),
)
CEILINGS = (REAL, RECONSTRUCTION, COPY, TEXT_TO_IMAGE)

"""Stories: their form, and the sets that they come from."""

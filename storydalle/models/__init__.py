"""The models that draw: what they share, how they are opened, and a folder for each."""

"""StoryDALL-E: the model, the retrofit around its backbone, and sampling."""

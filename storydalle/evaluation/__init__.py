"""What is scored, on which stories, by which judges."""

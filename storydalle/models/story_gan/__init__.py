"""StoryGANc: a recurrent GAN for story continuation, following the description in the StoryDALL-E paper."""

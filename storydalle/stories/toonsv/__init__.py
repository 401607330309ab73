"""ToonSV 2: stories in which each character has its own action, thing and hat, and facts outlive many frames."""

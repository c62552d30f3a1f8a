"""Each family's losses; an objective yields them, the loop steps."""

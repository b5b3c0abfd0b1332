"""How many workers a model should have, from what the broker says of its queue. Pure: the clock is an argument."""

"""One state, one jitted step, one loop: train, save, resume."""

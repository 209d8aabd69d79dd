"""One training loop for every model, and the tasks that plug into it."""

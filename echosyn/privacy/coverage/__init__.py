"""How much of the training set the generator learned."""

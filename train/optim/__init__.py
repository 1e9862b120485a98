"""How a step changes the weights: optimizer, learning rate, gradient, precision."""

"""How a step moves the weights: optimizer, learning rate, gradient, number format."""

"""How well a policy acts: on held-out episodes, and in closed loop."""

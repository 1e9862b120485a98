"""The ranks of a run: how they meet, agree, end together, and share gradients."""

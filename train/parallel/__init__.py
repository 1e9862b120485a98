"""The ranks of a run: how the ranks connect, agree, end together, and reduce gradients."""

"""The base's blocks with a forward and a backward pass of their own: the fast way to the same gradients."""

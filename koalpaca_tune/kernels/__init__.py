"""The products and sums of a training step, as functions of tensors: a plain and a fused version of each."""

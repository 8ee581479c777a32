"""Network files: what their tensors are called, and what their headers say."""

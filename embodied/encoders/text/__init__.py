"""Text encoders: instructions as vectors, frozen."""

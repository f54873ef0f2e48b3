"""Pre-training objectives: one method, one file."""

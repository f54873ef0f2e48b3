"""Methods that learn from what robots saw, felt and did."""

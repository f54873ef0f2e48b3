"""Contracts and small shared parts: everything may import this, it imports nothing of ours."""

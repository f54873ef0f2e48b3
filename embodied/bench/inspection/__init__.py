"""Judging an encoder by what it does with frames: pictures, health, probes."""

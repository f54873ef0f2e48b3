"""Comparing encoders: statistics and reports."""

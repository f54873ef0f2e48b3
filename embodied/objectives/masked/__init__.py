"""Objectives that hide part of an image and predict it."""

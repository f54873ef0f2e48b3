"""Objectives whose target is what an average of the network itself says of another view."""

"""Encoders: load, freeze, save, fingerprint, convert."""

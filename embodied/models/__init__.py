"""Networks only: no losses, no files, no configuration."""

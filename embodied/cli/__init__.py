"""The command line: the only place that knows argv, Hydra and the terminal."""

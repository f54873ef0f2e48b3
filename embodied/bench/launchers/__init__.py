"""Who does the work of a benchmark: processes here, a Ray cluster, or Slurm jobs, all from the same list."""

"""Statistics of benchmarks: intervals, aggregates over tasks, comparisons. Pure functions of numbers."""

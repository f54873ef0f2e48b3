"""What models of sequences are built from: stems, layouts, times, rules of attention, trunk, readouts."""

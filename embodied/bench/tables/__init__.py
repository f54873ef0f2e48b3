"""Tables of benchmark results: what may stand in one, what it says, and how it looks on a page and on a terminal."""

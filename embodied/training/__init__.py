"""The loops: pre-train, imitate, evaluate. They know no method by name."""

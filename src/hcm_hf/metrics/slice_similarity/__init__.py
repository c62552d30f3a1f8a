"""The paper's three metrics as a module of the `evaluate` library: `evaluate.load` of this folder."""

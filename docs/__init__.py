"""Documentation. `docs.reference` writes a part of it from the code."""

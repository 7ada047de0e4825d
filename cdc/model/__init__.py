"""The uniform model: positions, schemas, changes, segments, and the fold of changes to their net effect."""

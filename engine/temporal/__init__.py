"""The engine's connection to Temporal: it reads endpoint memos and sends metrics as signals."""

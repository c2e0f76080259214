"""The REST door: parses, calls the engine, serialises. It decides nothing."""

"""The tests, one folder a room; `house` tests the house itself."""

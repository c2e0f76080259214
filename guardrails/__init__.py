"""What may be done: pure functions of spec, context and request. No I/O, no clock, no chance."""

"""What training and service agree on: spec, encoding, bundle, step, draw, adaptation."""

"""Tests of what training and service agree on."""

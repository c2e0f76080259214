"""Tests of the measurements beside peers."""

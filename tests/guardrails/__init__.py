"""Tests of what may be done."""

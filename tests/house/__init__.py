"""Tests of the house: its walls, its papers, its containers and the servers it is tested on."""

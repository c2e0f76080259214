"""Tests of training: tasks, algorithms, networks, evaluation."""

"""`python -m service`: what `acclimate serve` runs."""

from service.cli import app

app()

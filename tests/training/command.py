"""The command line as a module, for launchers that start modules."""

from acclimate import main

main(prog_name="acclimate")

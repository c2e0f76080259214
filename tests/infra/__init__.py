"""What operations run beside the service, checked by the tools it is for."""

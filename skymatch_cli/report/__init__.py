"""What an extra installs: the report, plots, regions. Nothing in the core imports it."""

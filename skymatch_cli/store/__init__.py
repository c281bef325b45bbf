"""Files between the steps: plans, findings and measurements, kept and used again."""

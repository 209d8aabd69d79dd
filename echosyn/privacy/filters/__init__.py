"""What is refused as too near a training patient: thresholds, hearts, finished videos."""

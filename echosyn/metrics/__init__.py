"""What is measured: distances between sets, EF agreement, image fidelity, separability."""

"""The networks: VAE, heart and video denoisers, re-identification encoder, EF regressor."""

"""Videos through the VAE: latents to keep, frames back."""

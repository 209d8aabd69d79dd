"""How near two hearts or videos are: embeddings of re-identification, and pixels."""

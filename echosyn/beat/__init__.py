"""The beat of a video: heart rate, and the phase of every frame from end-diastole."""

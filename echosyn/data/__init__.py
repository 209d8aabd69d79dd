"""Reading and writing echocardiogram datasets."""

"""The ground: errors, files, devices, names of the Hub, pictures; knows nothing of hearts or models."""

"""Models, datasets and Spaces on the Hugging Face Hub."""

"""What a user calls: every trained generator is a diffusers pipeline."""

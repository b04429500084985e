"""How DQAR gets into a diffusers transformer."""

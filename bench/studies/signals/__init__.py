"""What entropy, SNR and the latent's norm know of a layer's error when its output is held or forecast."""

"""Parts of policies: encoders of images, series and instructions into tokens, and the transformer over the tokens."""

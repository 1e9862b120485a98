"""Parts that policies are built of: tokens of images, series and instructions, and the transformer over them."""

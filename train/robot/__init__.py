"""A trained policy on a robot: an observation in, an action out; over HTTP too, and as a file of torch or ONNX."""

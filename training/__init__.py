"""The recipe that turns a decoder into an encoder."""

"""Networks of autoencoders: encoders and decoders, each module with both."""

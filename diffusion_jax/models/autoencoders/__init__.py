"""Networks of autoencoders: each has the methods `encode` and `decode`, and runs both when it is called."""

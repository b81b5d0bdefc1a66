"""Operations that networks are made of, as fast as XLA lets them be."""

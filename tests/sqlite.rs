//! The sink `sqlite:PATH`, as its users see it.

"""nearer: fine-tunes the retrieval models of a Korean RAG, proves it on held-out data, and ships them."""

__version__ = "0.1.0"

"""Exceptions that both sides know: Python by this class, Rust by this module and name."""


class OutOfStock(Exception):
    """What a shop says."""

    def __init__(self, article, left):
        super().__init__(article, left)
        self.article = article
        self.left = left

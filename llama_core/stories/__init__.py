"""The embedded model: its files, the generator of its text, the rules of its text, its training and measurements."""

"""Parts of the pass `blind`: which immediates there are, and the two forms of hiding them."""
